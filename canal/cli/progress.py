"""A bar with the time left on a terminal, a line now and then elsewhere, nothing beside JSON."""

import sys
import time
from typing import TYPE_CHECKING

from canal.cli.answer import Session

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from canal.progress import Progress


SECONDS_BETWEEN_LINES = 15.0


class Bar:
    """A bar with the time left, on stderr."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def start(self, total_steps: int, description: str) -> None:
        """Show the bar of a new piece of work."""
        from rich import progress
        from rich.console import Console

        self.close()
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(description, total=total_steps, note="")

    def advance(self, steps: int, note: str = "") -> None:
        """Move the bar."""
        if self._bar is None or self._task is None:
            return
        self._bar.update(self._task, advance=steps)
        if note:
            self._bar.update(self._task, note=note)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines:
    """A line at the start and at most every quarter of a minute, on stderr: for logs."""

    def __init__(self) -> None:
        self._total = self._done = 0
        self._description = ""
        self._started = self._last = 0.0

    def start(self, total_steps: int, description: str) -> None:
        """Say what begins."""
        self._total, self._done, self._description = total_steps, 0, description
        self._started = self._last = time.monotonic()
        sys.stderr.write(f"{description}\n")

    def advance(self, steps: int, note: str = "") -> None:
        """Say how far it is, if it was long ago."""
        self._done += steps
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES or not self._done:
            return
        self._last = now
        left = (now - self._started) * max(self._total - self._done, 0) / self._done
        share = min(self._done / max(self._total, 1), 1.0)
        text = f"{self._description}: {share:.0%}, {left:.0f} s left {note}"
        sys.stderr.write(text.rstrip() + "\n")

    def close(self) -> None:
        """Say nothing."""


def watcher(session: Session) -> "Progress":
    """Return the watcher that suits where stderr goes."""
    if session.as_json:
        from canal.progress import Silent

        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()
