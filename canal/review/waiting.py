"""How far a long piece of work is, for a page that asks while it goes on."""

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Wait:
    """What is being done: the step, the share that is done, and the seconds left, ``None`` while nobody can tell."""

    step: str
    share: float
    seconds_left: float | None

    def __str__(self) -> str:
        """Return one sentence for a person."""
        left = "" if self.seconds_left is None else f", about {max(self.seconds_left, 1):.0f} s left"
        return f"{self.step}: {self.share:.0%}{left}."


class Waiting:
    """An observer of work that another thread asks; see `canal.progress.Progress`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._step = ""
        self._done = self._total = 0
        self._started = self._advanced = 0.0

    def start(self, total_steps: int, description: str) -> None:
        """Begin a piece of work of this many steps."""
        with self._lock:
            self._step, self._done, self._total = description, 0, total_steps
            self._started = self._advanced = time.monotonic()

    def advance(self, steps: int, note: str = "") -> None:  # noqa: ARG002
        """Tell that this many more steps are done."""
        with self._lock:
            self._done += steps
            self._advanced = time.monotonic()

    def close(self) -> None:
        """End the piece of work."""
        with self._lock:
            self._step = ""

    def told(self) -> Wait | None:
        """Return how far it is, ``None`` where nothing is being done."""
        with self._lock:
            if not self._step:
                return None
            share = min(self._done / max(self._total, 1), 1.0)
            left = None
            if self._done:
                # If the rest goes as fast as what is done; the step that goes on has taken some of it already.
                rate = (self._advanced - self._started) / self._done
                left = rate * (self._total - self._done) - (time.monotonic() - self._advanced)
            return Wait(step=self._step, share=share, seconds_left=left)
