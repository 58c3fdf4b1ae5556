"""Progress of long work, told to an observer: the command line shows a bar, a script nothing."""

from typing import Protocol


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
