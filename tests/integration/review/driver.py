"""A real server of `canal review` in a process of its own, and Debian's chromium driven by Playwright."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.review_client import Client

LONGEST = 180  # seconds to wait for a server, for a page, or for a teaching, on a machine that does much else
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
# Nothing but the page: no service of the browser's maker, no look-up of names, drawing by the processor.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
LOADED = ["canal.review.review", "canal.review.web.app", "canal.review.web.serve", "uvicorn"]


def _serve(workspace: str, path: str, users: tuple[str, ...], links: Any) -> None:
    """Serve a review, as the command does; the first thing that is sent are the links of the users."""
    import canal
    from canal.review.review import open_review
    from canal.review.web.app import make_app
    from canal.review.web.security import Visitors
    from canal.review.web.serve import listening, serve

    # A server of its own session: who kills it kills what it started, too.
    os.setsid()
    review = open_review(canal.open_workspace(workspace), path)
    listener = listening(None)
    port = listener.getsockname()[1]
    visitors = Visitors(cookie_name=f"canal_review_{port}")
    links.send([f"http://127.0.0.1:{port}/enter?token={visitors.invite(user)}" for user in users])
    serve(make_app(review, visitors, port), listener)


@dataclass
class Server:
    """A running server.

    Attributes
    ----------
    links
        One for each user, each lets one browser in.
    pid
        Of its process.
    """

    links: list[str]
    pid: int

    @property
    def address(self) -> str:
        """Where it listens."""
        place = urlsplit(self.links[0])
        return f"{place.scheme}://{place.netloc}"

    def client(self, user: int = 0) -> Client:
        """Return a client that was let in with the link of a user."""
        client = Client(self.address)
        answer = client.enter(parse_qs(urlsplit(self.links[user]).query)["token"][0])
        assert answer.status == 200, answer.text
        return client

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        os.killpg(self.pid, signal.SIGKILL)


@contextmanager
def serving(workspace: Path, path: Path, users: tuple[str, ...] = ("ann",)) -> Iterator[Server]:
    """Serve a review from a process that has its libraries already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(str(workspace), str(path), users, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(LONGEST), "the server did not start"
        yield Server(ours.recv(), process.pid or 0)
    finally:
        process.kill()
        process.join(LONGEST)


@contextmanager
def commanded(workspace: Path, path: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Run the command itself and return what it prints."""
    line = [sys.executable, "-W", "ignore", "-m", "canal.cli.main", "-C", str(workspace), "review", str(path)]
    process = subprocess.Popen(
        [*line, "--no-browser", "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        text = ""
        for part in process.stdout:
            text += part
            if part.startswith("}"):
                break
        yield json.loads(text)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONGEST)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; skip where it is not here."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A page that is visited: every request it sends, every error it reports, every action of its user.

    Parameters
    ----------
    browser
        Of `chromium`.
    link
        Of a server, where the user comes in.
    """

    def __init__(self, browser: Any, link: str, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1366, "height": 768}, **options)
        self.context.set_default_timeout(LONGEST * 1000)
        self.page = self.context.new_page()
        self.address = "{0.scheme}://{0.netloc}".format(urlsplit(link))
        self.actions = 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", self._asked)
        self.page.goto(link)
        self.page.wait_for_selector("#map[data-ready=yes]")

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _asked(self, dialog: Any) -> None:
        # Our own questions name a stage; any other dialog is somebody's script.
        if "annotates from now on" not in dialog.message:
            self.errors.append(f"dialog: {dialog.message}")
        dialog.accept()

    def click(self, place: str) -> None:
        """Click, as the user does."""
        self.actions += 1
        self.page.click(place)

    def fill(self, place: str, text: str) -> None:
        """Write a text, as the user does."""
        self.actions += 1
        self.page.fill(place, text)

    def wait(self, place: str) -> Any:
        """Wait until something is there."""
        return self.page.wait_for_selector(place)

    def until(self, expression: str, expected: Any) -> None:
        """Wait until an expression of the page has a value; the page itself may run no texts as code."""
        end = time.monotonic() + LONGEST
        while self.page.evaluate(expression) != expected:
            assert time.monotonic() < end, f"{expression} is no {expected!r}: {self.page.evaluate(expression)!r}"
            self.page.wait_for_timeout(50)

    @property
    def group(self) -> str:
        """Id of the group that is looked at."""
        return str(self.page.get_attribute("#evidence [data-group]", "data-group"))

    @property
    def elsewhere(self) -> list[str]:
        """Requests to any other address."""
        return [url for url in self.requests if not url.startswith((self.address + "/", "data:"))]

    def close(self) -> None:
        """Leave."""
        self.context.close()
