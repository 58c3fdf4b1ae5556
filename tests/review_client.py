"""A server of `canal review` in this process, and a browser without a screen: cookies, forms, and nothing else."""

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import uvicorn

from canal.review.web.security import ENTRANCE
from canal.review.web.serve import listening

LONGEST = 30  # seconds to wait for a server


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass
class Client:
    """Sends requests to a server as one browser would."""

    address: str
    cookies: dict[str, str] = field(default_factory=dict)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request with our cookies, and keep the cookies of the answer."""
        sent = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **(headers or {})}
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=LONGEST)
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            if "set-cookie" in found:
                name, _, value = found["set-cookie"].partition(";")[0].partition("=")
                self.cookies[name] = value
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **fields: Any) -> Answer:
        """Ask for a page."""
        return self.request("GET", f"{path}?{urlencode(fields)}" if fields else path)

    def post(self, path: str, body: bytes | None = None, **fields: Any) -> Answer:
        """Send a form, or bytes, as our page does."""
        content = urlencode(fields).encode() if body is None else body
        kind = "application/x-www-form-urlencoded" if body is None else "application/octet-stream"
        return self.request("POST", path, content, {"Origin": self.address, "Content-Type": kind})

    def enter(self, token: str) -> Answer:
        """Go in with a token."""
        return self.get(ENTRANCE, token=token)


@contextmanager
def served(make: Any) -> Iterator[str]:
    """Serve an application from a thread, and return its address.

    Parameters
    ----------
    make
        Given the port, returns the application.
    """
    listener = listening(None)
    port = listener.getsockname()[1]
    config = uvicorn.Config(make(port), log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(LONGEST)
        listener.close()
