"""Who may talk to the server: this machine's browser that was given the link, on our own page, and nobody else.

The server listens on 127.0.0.1. That alone keeps no one out: every program and every page of another site that is
open in the browser can send requests there. So each request needs the cookie that only the link hands out, names this
server as its host (a name of another site that points here is refused), and whatever changes something comes from a
page of this server. What the pages may load and run is said in the Content-Security-Policy: files of this server.
"""

import secrets
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ENTRANCE = "/enter"  # the one address that needs no cookie: a token is given for one there
STATIC = "/static/"  # files of the package, the same for everybody; they need no cookie
TOKEN_BYTES = 32
LARGEST_BODY = 64 * 1024 * 1024  # bytes; the numbers of ten million cells have room

# Files of this server, no code and no style in the text of a page, no other site in either direction.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
FOREIGN = "This request comes from another page. Use the page of canal review itself."
NOT_IN = (
    "This browser was not let in, or the server was started anew. Open the link that canal review printed last; a link "
    "lets one browser in, once. Who is in already makes another on the page of decisions."
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass
class Visitors:
    """Tokens that were not used yet, and the cookies of who came in; both are lost with the process.

    Attributes
    ----------
    cookie_name
        Holds the port: cookies of 127.0.0.1 are shared by all its servers.
    """

    cookie_name: str
    _tokens: dict[str, str] = field(default_factory=dict)
    _cookies: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def invite(self, user: str) -> str:
        """Return a new token that lets one browser in, as this user."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with self._lock:
            self._tokens[token] = user
        return token

    def admit(self, token: str) -> str | None:
        """Return a cookie for a token, which is used up by that; ``None`` for any other text."""
        with self._lock:
            for one in list(self._tokens):
                # The time that this takes says nothing of the token.
                if secrets.compare_digest(one.encode(), token.encode()):
                    cookie = secrets.token_urlsafe(TOKEN_BYTES)
                    self._cookies[cookie] = self._tokens.pop(one)
                    return cookie
        return None

    def user(self, cookie: str | None) -> str | None:
        """Return whose cookie this is."""
        with self._lock:
            return self._cookies.get(cookie or "")


class Doorkeeper:
    """Refuses what may not come in, and says in every answer what the page may load.

    Parameters
    ----------
    app
        What answers the rest.
    visitors
        Who was let in. Their name stands in ``scope["state"]["user"]``.
    port
        That the server listens on.
    """

    def __init__(self, app: App, visitors: Visitors, port: int) -> None:
        self._app = app
        self._visitors = visitors
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # the server's start and end; there are no websockets
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason if a request may not come in; note the user if it may."""
        headers = {}
        for name, value in scope["headers"]:
            headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        foreign = self._foreign(scope, headers)
        if foreign is not None:
            return foreign
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY or "transfer-encoding" in headers:
            return 413, "This request is too large."
        # Who was let in has a cookie.
        if scope["path"] == ENTRANCE or scope["path"].startswith(STATIC):
            return None
        user = self._visitors.user(_cookie(headers.get("cookie", ""), self._visitors.cookie_name))
        if user is None:
            return 401, NOT_IN
        scope.setdefault("state", {})["user"] = user
        return None

    def _foreign(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return status and reason if a request comes from elsewhere, or was meant for another server."""
        # A page of another site whose name was made to point to this machine gives that name here.
        if headers.get("host", "") not in self._hosts:
            return 421, "This server answers to 127.0.0.1 alone. Open the link that canal review printed."
        # A page of another site may send a form or a script's request; its address stands in Origin.
        origin = headers.get("origin")
        own = {f"http://{name}" for name in self._hosts}
        changes = scope["method"] not in {"GET", "HEAD"}
        if (origin is not None and origin not in own) or (changes and origin is None):
            return 403, FOREIGN
        # Browsers say so, too, where there is no Origin, as of pictures. The link may be opened from anywhere.
        if headers.get("sec-fetch-site") in {"cross-site", "same-site"} and scope["path"] != ENTRANCE:
            return 403, FOREIGN
        return None


def _cookie(header: str, name: str) -> str | None:
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return None


def _with_headers(send: Send) -> Send:
    """Return what sends an answer with our headers beside its own."""

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            names = {name for name, _ in own}
            kept = [(name, value) for name, value in message["headers"] if name.lower() not in names]
            message = {**message, "headers": kept + own}
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    answer = _with_headers(send)
    await answer({"type": "http.response.start", "status": status, "headers": headers})
    await answer({"type": "http.response.body", "body": body})
