"""The file of decisions: JSON lines that are only ever appended, and that no crash and no second writer can lose.

The first line says what is reviewed; each further line is one `Decision`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canal.review.values import Decision

FORMAT = 1
KIND = "canal review"


@dataclass(frozen=True, kw_only=True)
class Torn:
    """What a writer that was killed left behind the last whole line: where it was put, and how many bytes."""

    path: Path
    bytes: int


class Journal:
    """The decisions of one review, in their file; several processes and threads may append at once.

    Parameters
    ----------
    path
        The file; `create` makes it.
    """

    def __init__(self, path: Path) -> None:
        raise NotImplementedError

    @property
    def exists(self) -> bool:
        """Whether the file is there and has its first line."""
        raise NotImplementedError

    def create(self, head: dict[str, Any]) -> None:
        """Write the first line, where there is none yet."""
        raise NotImplementedError

    def head(self) -> dict[str, Any]:
        """Return the first line.

        Raises
        ------
        DataError
            If the file is no file of decisions, or a newer canal wrote it.
        """
        raise NotImplementedError

    def read_new(self) -> list[Decision]:
        """Return the whole lines that were not returned before, in order."""
        raise NotImplementedError

    def append(self, make: Callable[[list[Decision]], Decision]) -> Decision:
        """Append one decision, alone: nobody else writes meanwhile; it is on disk when this returns.

        Parameters
        ----------
        make
            Given the lines that others appended since the last reading; returns the decision to write, or raises.

        Raises
        ------
        DataError
            If it cannot be written; nothing of it is in the file then.
        """
        raise NotImplementedError
