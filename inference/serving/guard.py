"""What stands before every endpoint: the size of a body, the token, whose page is asking, and the count of it all."""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from inference.serving.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("pyro_cvae")

MOST_BYTES = 2**20
"""Of the body of a request."""
OPEN = frozenset({"/", "/health"})
"""Paths that say nothing of users or items, and need no token."""


class Guard:
    """An ASGI application around another, which refuses requests before they are read.

    Parameters: ``token`` must come as ``Authorization: Bearer TOKEN``, but for the paths of ``OPEN``; ``hosts`` are the
    names under which the service may be asked, all if ``None``. Without a token a request of another site's page is
    refused by its header ``Origin``.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, token: str | None = None, hosts: Collection[str] | None = None
    ) -> None:
        self._app, self._metrics = app, metrics
        self._token = None if token is None else token.encode()
        self._hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, counted)
        finally:
            self._metrics.count(scope["path"], status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer of the application, if nothing is wrong with the request."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        if refusal := self._refusal(scope["path"], headers):
            await _say(send, *refusal)
            return
        body = await _body(headers, receive)
        if body is None:
            await _say(send, 413, f"the body is larger than {MOST_BYTES:,} bytes", {"connection": "close"})
            return
        given = False

        async def replayed() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replayed, send)

    def _refusal(self, path: str, headers: Mapping[bytes, bytes]) -> tuple[int, str, dict[str, str]] | None:
        """Status, line and headers where a request is refused by what it says of itself."""
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and _name(host) not in self._hosts:
            return 400, "the service is not asked under its own name", {}
        if self._token is None:
            origin = headers.get(b"origin")
            if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
                return 403, "the request is of another site's page", {}
            return None
        if path in OPEN:
            return None
        given = headers.get(b"authorization", b"")
        right = hmac.compare_digest(given[7:].strip(), self._token)
        if given[:7].lower() != b"bearer " or not right:
            return 401, "the token is missing or wrong", {"www-authenticate": "Bearer"}
        return None


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The name in a header ``Host``, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes | None:
    """The whole body, ``None`` where it is too large; no more than the most is ever held."""
    told = headers.get(b"content-length", b"0")
    if not told.isdigit() or len(told) > 18 or int(told) > MOST_BYTES:
        return None
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        part = message.get("body", b"")
        size += len(part)
        if size > MOST_BYTES:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


async def _say(send: Send, status: int, line: str, headers: Mapping[str, str]) -> None:
    """One line as an answer."""
    body = json.dumps({"error": line}).encode()
    named = {"content-type": "application/json", "content-length": str(len(body))} | dict(headers)
    told = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})
