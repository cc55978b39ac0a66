"""A fit as a service: ``python -m inference.serve RUN``.

The run is opened once and stays open. Lists, similar items, new users, new items and reasons are asked for by HTTP, or
on one small page (:mod:`inference.serving`; docs/service.md).
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inference.commands import parse
from inference.options.checking import check, check_least
from inference.printing import show
from inference.serving import check_installed
from pyro_cvae.errors import InputError, MachineError, run_command
from pyro_cvae.runs import check_runs

if TYPE_CHECKING:
    from fastapi import FastAPI

LEAST_TOKEN = 16
"""Characters of a token."""
MOST_CONNECTIONS = 256
"""Connections at once; who comes then is answered 503."""
GRACE = 30
"""Seconds that requests under way have when the service is told to stop."""


@dataclass(frozen=True)
class ServeOptions:
    """What is served of a fitted model, and to whom.

    Parameters:
        run: The run folder of a fit.
        host: The address to listen at; other machines reach it only under another than 127.0.0.1.
        port: The port; 0 takes one that is free.
        token_file: A file with the token that requests must bear; without it everybody who reaches the port may ask.
        threads: Threads of torch; 0 leaves the number to it.
        watch: Look every so many seconds whether the run folder was replaced, and serve the new one; 0 does not look.
        trust: Class paths outside of the package that the run may import; see docs/security.md.
    """

    run: str
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: str | None = None
    threads: int = 0
    watch: float = 0.0
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(bool(self.host.strip()), "host", self.host, "a name or an address")
        check(0 <= self.port < 2**16, "port", self.port, "from 0 to 65535")
        check(0 <= self.watch <= 86_400, "watch", self.watch, "a number of seconds up to a day")
        check_least(self, {"threads": 0})


def main(argv: Sequence[str] | None = None) -> None:
    """The command ``python -m inference.serve``."""
    (options,) = parse(
        "python -m inference.serve",
        "Serve the recommendations of a fitted model by HTTP, with a page at / and the endpoints at /openapi.json.\n"
        "It answers this machine alone, unless --host is given. Ctrl-C or SIGTERM ends it.",
        (ServeOptions,),
        argv,
        positionals=("run",),
        examples=(
            ("python -m inference.serve RUN", "at http://127.0.0.1:8000"),
            ("python -m inference.serve RUN --watch 10", "a new run in its place is served within ten seconds"),
            ("python -m inference.serve RUN --host 0.0.0.0 --token-file token.txt", "for other machines"),
        ),
    )
    check_runs([options.run])
    check_installed()
    token = None if options.token_file is None else read_token(options.token_file)
    with listening(options.host, options.port) as port:
        _serve(options, token, port)


def read_token(path: str) -> str:
    """The token in a file; InputError where it is short, or is not one word of ASCII."""
    if not Path(path).is_file():
        raise InputError("there is no such file of a token", "check the path", path=path)
    try:
        with open(path, "rb") as file:
            token = file.read(4096).decode("ascii").strip()
    except UnicodeDecodeError:
        raise InputError("the token is not plain ASCII", "make one: openssl rand -hex 32", path=path) from None
    except OSError as error:
        raise InputError(f"the token cannot be read: {error.strerror}", "check the path", path=path) from None
    if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
        problem = f"the token is not one word of {LEAST_TOKEN} characters or more"
        raise InputError(problem, "make one: openssl rand -hex 32", path=path)
    return token


def listening(host: str, port: int) -> socket.socket:
    """A socket at that address; MachineError where it is taken, InputError where there is no such address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host is {host!r}, which is no address", "for instance 127.0.0.1") from None
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        problem = f"cannot listen at {host}, port {port}: {error.strerror}"
        raise MachineError(problem, "take another --port, or 0 for a free one") from None
    return found


def _serve(options: ServeOptions, token: str | None, found: socket.socket) -> None:
    """Open the run and answer until it is told to stop."""
    from inference.fitting import load
    from inference.serving import create_app
    from inference.serving.guard import is_loopback
    from inference.serving.warm import Warm, Watch
    from inference.threads import torch_threads

    run = Path(options.run)
    here = is_loopback(options.host)
    with torch_threads(options.threads or None):
        warm = Warm(load(run, trust=options.trust), lambda: load(run, trust=options.trust))
        own = ("localhost", "127.0.0.1", "::1", options.host.lower()) if here and token is None else None
        app = create_app(warm, token=token, hosts=own)
        if not here and token is None:
            told = f"warning: whoever reaches {options.host} may ask, since there is no --token-file"
            print(f"{told}; the answers are personal data if users are persons", file=sys.stderr)
        name = f"[{options.host}]" if ":" in options.host else options.host
        fit = f"{warm.fit.dataset.name}, {warm.fit.posterior.kind}"
        show(f"serving {options.run} ({fit}) at http://{name}:{found.getsockname()[1]}")
        sys.stdout.flush()
        watch = Watch(warm, run, options.watch) if options.watch else None
        if watch is not None:
            watch.start()
        try:
            _answer(app, found)
        finally:
            if watch is not None:
                watch.stop()


def _answer(app: FastAPI, found: socket.socket) -> None:
    """Run uvicorn on a socket; SIGTERM ends it when the requests under way are answered, and is no failure."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    signal.signal(signal.SIGTERM, lambda signum, frame: None)  # uvicorn sends it again when it has stopped
    uvicorn.Server(config).run(sockets=[found])


if __name__ == "__main__":
    raise SystemExit(run_command(main))
