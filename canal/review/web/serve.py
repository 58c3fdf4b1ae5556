"""The server of `canal review`: a port of 127.0.0.1, and the link that lets the first browser in."""

import os
import socket
import tempfile
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from canal.errors import ConfigError
from canal.files import write_whole

if TYPE_CHECKING:
    from canal.review.web.security import App

ADDRESS = "127.0.0.1"  # and no other: nothing of this leaves the machine


def listening(port: int | None) -> socket.socket:
    """Return a socket that listens on a port of this machine; without a port, on any that is free.

    Raises
    ------
    ConfigError
        If the port is taken, or may not be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # A server that was ended leaves its port behind for a minute; the next one may have it at once.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port or 0))
        listener.listen(128)
    except OSError as error:
        listener.close()
        message = (
            f"Port {port} of {ADDRESS} cannot be used: {error.strerror or error}. Another canal review may be open: "
            "end it, name another port with --port, or leave --port out and a free one is taken."
        )
        raise ConfigError(message) from error
    return listener


def serve(app: "App", listener: socket.socket) -> None:
    """Answer requests until the process is ended with Ctrl-C."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # addresses of requests hold the token
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=2,  # seconds; a page that asks for progress must not keep the server up
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


class BrowserDoor:
    """Opens the browser at a link that nobody else on this machine gets to see.

    The command line of a browser can be read by every user of the machine. So it is told a file of ours that only we
    may read, and which leads to the link.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def open(self, link: str) -> bool:
        """Open a browser; return whether there is one."""
        self._folder = tempfile.TemporaryDirectory(prefix="canal-review-")  # of mode 700
        page = Path(self._folder.name) / "open.html"
        text = f'<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={link}">'
        write_whole(page, text.encode())
        with suppress(webbrowser.Error, OSError):
            return webbrowser.open(page.as_uri())
        return False

    def close(self) -> None:
        """Remove the file."""
        if self._folder is not None:
            self._folder.cleanup()


def has_screen() -> bool:
    """Return whether a browser could be shown here; on a server reached by a terminal, a text browser would open."""
    return (
        os.name == "nt"
        or os.uname().sysname == "Darwin"
        or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    )
