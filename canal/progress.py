"""Progress of long work, told to an observer: a bar in a notebook or on a terminal, lines in a log, or nothing."""

import sys
import time
import warnings
from typing import Any, Protocol

from canal.text import shown

SECONDS_BETWEEN_LINES = 15.0  # of the progress in a log
SECONDS_BEFORE_SHOWN = 3.0  # of work that is mostly short


class Progress(Protocol):
    """An observer of work that is done in steps."""

    def start(self, total_steps: int, description: str) -> None:
        """Begin a piece of work of this many steps."""

    def advance(self, steps: int, note: str = "") -> None:
        """Tell that this many more steps are done, with a short note to show."""

    def close(self) -> None:
        """End the piece of work, whether or not every step was needed."""


class Silent:
    """An observer that shows nothing."""

    def start(self, total_steps: int, description: str) -> None:
        """Do nothing."""

    def advance(self, steps: int, note: str = "") -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Late(Progress):
    """An observer that tells another one of a piece of work once it has lasted some seconds: short work shows nothing.

    Parameters
    ----------
    observer
        Who is told.
    seconds
        How long work may last before.
    """

    def __init__(self, observer: Progress, seconds: float = SECONDS_BEFORE_SHOWN) -> None:
        self._observer, self._seconds = observer, seconds
        self._total = self._unsaid = 0
        self._description, self._started, self._shown = "", 0.0, False

    def start(self, total_steps: int, description: str) -> None:
        """Note what begins."""
        self._total, self._description = total_steps, description
        self._unsaid, self._started, self._shown = 0, time.monotonic(), False

    def advance(self, steps: int, note: str = "") -> None:
        """Pass on what has been done, if it is time."""
        self._unsaid += steps
        if not self._shown and time.monotonic() - self._started < self._seconds:
            return
        if not self._shown:
            self._observer.start(self._total, self._description)
            self._shown = True
        self._observer.advance(self._unsaid, note)
        self._unsaid = 0

    def close(self) -> None:
        """End the piece of work, if it was told of."""
        if self._shown:
            self._observer.close()
        self._shown = False


class Lines:
    """A line at the start and at most every quarter of a minute, on stderr, for logs."""

    def __init__(self) -> None:
        self._total = self._done = 0
        self._description = ""
        self._started = self._last = 0.0

    def start(self, total_steps: int, description: str) -> None:
        """Print what begins."""
        self._total, self._done, self._description = total_steps, 0, description
        self._started = self._last = time.monotonic()
        sys.stderr.write(f"{shown(description)}\n")

    def advance(self, steps: int, note: str = "") -> None:
        """Print how far the work is, unless the last line is too recent."""
        self._done += steps
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES or not self._done:
            return
        self._last = now
        # The time left, if the rest goes as fast as what is done.
        left = (now - self._started) * max(self._total - self._done, 0) / self._done
        share = min(self._done / max(self._total, 1), 1.0)
        text = f"{self._description}: {share:.0%}, {left:.0f} s left {note}"
        sys.stderr.write(shown(text).rstrip() + "\n")

    def close(self) -> None:
        """Print nothing: the answer follows."""


class NotebookBar:
    """A bar of tqdm: of widgets in a notebook that has them, else of text on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, total_steps: int, description: str) -> None:
        """Show the bar of a new piece of work."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tqdm's advice to install ipywidgets
            from tqdm.auto import tqdm

            self.close()
            self._bar = tqdm(total=total_steps, desc=description, leave=False)

    def advance(self, steps: int, note: str = "") -> None:
        """Move the bar."""
        if self._bar is None:
            return
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(steps)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def watching(progress: "Progress | bool | None") -> Progress:
    """Return who is told of a work's progress.

    Parameters
    ----------
    progress
        Whoever is to be told; ``True`` for a bar, or lines where stderr is a log; ``False`` for nobody; ``None`` for a
        bar in a notebook and nobody elsewhere.
    """
    if progress is None:
        progress = in_notebook()
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return Silent()
    return NotebookBar() if in_notebook() or sys.stderr.isatty() else Lines()
