// Search from files: browsers start no worker from file://. There, a worker is a hidden frame that runs its script.
// The search of the theme asks for no more than this: postMessage, importScripts, onmessage, terminate.
"use strict";
(() => {
  if (location.protocol !== "file:") return;

  function inside(url) {
    // Runs in the frame: what a worker's global scope would have.
    window.postMessage = (data) => parent.postMessage(data, "*");
    window.importScripts = (...urls) =>
      urls.reduce(
        (before, one) =>
          before.then(
            () =>
              new Promise((done) => {
                const script = document.createElement("script");
                script.src = new URL(one, url).href;
                script.onload = done;
                document.body.appendChild(script);
              }),
          ),
        Promise.resolve(),
      );
  }

  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const page = this.frame.contentWindow.document;
      const address = new URL(url, document.baseURI).href;
      this.ready = new Promise((done) => (this.frame.onload = done));
      page.open();
      page.write(
        `<html><body><script>(${inside})(${JSON.stringify(address)})<\/script>` +
          `<script src="${address}"><\/script></body></html>`,
      );
      page.close();
      this.listen = (event) => {
        if (event.source !== this.frame.contentWindow) return;
        const told = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(told);
        if (this.onmessage) this.onmessage(told);
      };
      addEventListener("message", this.listen);
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      removeEventListener("message", this.listen);
      this.frame.remove();
    }
  };
})();
