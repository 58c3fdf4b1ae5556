"""What holds after all decisions so far: a fold over the lines of the journal."""

from collections.abc import Iterable, Sequence
from typing import Any

from canal.review.values import Decision, Group, GroupState


class ReviewState:
    """Groups and what was said of them; the same lines give the same state.

    Parameters
    ----------
    groups
        Those that the review began with.
    names
        Names of the cells of the file, (cells,), for the lists of cells in decisions.
    """

    def __init__(self, groups: Sequence[Group], names: Any) -> None:
        raise NotImplementedError

    def add(self, decisions: Iterable[Decision]) -> None:
        """Take in further lines."""
        raise NotImplementedError

    def check(self, decision: Decision) -> None:
        """Refuse a decision that is not possible now.

        Raises
        ------
        DataError
            If the action, the group, the name or the cells are not possible.
        """
        raise NotImplementedError

    def group(self, group_id: str) -> GroupState:
        """Return a group, also one that was split or merged.

        Raises
        ------
        DataError
            If there is none of that id.
        """
        raise NotImplementedError

    @property
    def live(self) -> list[GroupState]:
        """The groups that are to be decided on, novel ones first; see `Review.queue`."""
        raise NotImplementedError
