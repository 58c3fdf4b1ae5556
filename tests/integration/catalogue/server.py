"""A real HTTP server on this machine that serves a folder, and misbehaves as it is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Served:
    """What a server serves, how it misbehaves, and what it was asked for.

    Attributes
    ----------
    folder
        Its files.
    cut
        Bytes after which each connection for a ``.canal`` file is cut; the whole file by default.
    ranges
        Whether it goes on from the middle of a file.
    redirects
        Where it sends whoever asks for a path.
    instead
        Content in place of a file's.
    refuse
        Paths that it answers with an error.
    asked
        Path and first byte of each request.
    """

    folder: Path
    cut: int | None = None
    ranges: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    instead: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self) -> None:
        """Answer, or misbehave."""
        served, name = self.served, self.path.lstrip("/")
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        served.asked.append((name, start))
        if name in served.redirects:
            self.send_response(302)
            self.send_header("Location", served.redirects[name])
            self.end_headers()
            return
        path = served.folder / name
        if name in served.refuse or not (name in served.instead or path.is_file()):
            self.send_error(served.refuse.get(name, 404))
            return
        content = served.instead.get(name) or path.read_bytes()
        start = start if served.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = len(content) if served.cut is None or name.endswith(".json") else start + served.cut
        self.wfile.write(content[start:stop])
        self.close_connection = True

    def log_message(self, *_args: Any) -> None:
        """Print nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve a folder until the context ends."""
    served = Served(folder)
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
