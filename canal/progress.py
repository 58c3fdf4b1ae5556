"""What a long work tells whoever watches it."""

from typing import Protocol


class Progress(Protocol):
    """A watcher of steps: the command line shows a bar with time left, a script nothing."""

    def start(self, total_steps: int, description: str) -> None:
        """Begin a piece of work of so many steps."""

    def advance(self, steps: int, note: str = "") -> None:
        """Tell that so many steps more are done."""

    def close(self) -> None:
        """End the piece of work, whether or not every step was needed."""


class Silent:
    """A watcher that shows nothing."""

    def start(self, total_steps: int, description: str) -> None:
        """Do nothing."""

    def advance(self, steps: int, note: str = "") -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
