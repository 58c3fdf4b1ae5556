"""What holds after all decisions so far: a fold over the lines of the journal.

A group never changes. A split takes cells out of groups and a merge joins groups; both retire the groups they take
cells from and make new ones. Of each person the last verdict on a group counts; two people who differ are a conflict;
who agrees with another person approves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from canal.data.labels import NO_LABEL, names_no_type, similar_names
from canal.errors import DataError
from canal.review.groups import digest_of
from canal.review.values import ACTIONS, CHANGES, STAGES, VERDICTS, Decision, Group, GroupState, Kind

LONGEST_NAME = 500  # letters of a name or a user; of a comment ten times as many
LONGEST_TITLE = 120  # letters of a group that people made
KINDS: tuple[Kind, ...] = ("novel", "selection", "part", "merged", "uncertain", "label")  # in the order of the queue


def check_name(name: str, known: Sequence[str]) -> str:
    """Return the name of a type as it is written down, without spaces around it.

    The rules are those of `canal novel name` and of labels of `canal stage add`.

    Parameters
    ----------
    name
        As somebody typed it.
    known
        Types of the model and names given before: a name that differs from one of them in spelling alone is refused.

    Raises
    ------
    DataError
        If it is empty, says that the type is not known or that the cells are of none, or is spelt like another.
    """
    name = name.strip()
    if not name:
        message = "The name is empty. Write the name of the type, or choose reject, doublet or low quality."
    elif len(name) > LONGEST_NAME:
        message = f"The name has {len(name)} letters; expected {LONGEST_NAME} at most. Put the rest into a comment."
    elif any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        message = f"{name!r} holds a line break or a control character. Write the name on one line."
    elif name.lower() in NO_LABEL:
        message = f"{name!r} means that a type is not known. Leave the group open, or write a name."
    elif names_no_type(name):
        message = f"{name!r} names no cell type. Choose doublet, low quality or reject for such cells."
    elif name not in known and (alike := similar_names([name], known)):
        message = f"{name!r} is spelt like {alike[0].known!r}. Choose that name, or one that differs in a word."
    else:
        return name
    raise DataError(message)


@dataclass
class _Told:
    """What was said of one group."""

    group: Group
    votes: dict[str, Decision] = field(default_factory=dict)  # last verdict by user, the latest last
    approval: tuple[Decision, Decision] | None = None  # who approved, and the verdict
    comments: list[Decision] = field(default_factory=list)
    retired: Decision | None = None  # the change that took its cells

    def state(self) -> GroupState:
        """Return it as others see it."""
        state = GroupState(
            group=self.group, votes=dict(self.votes), comments=tuple(self.comments), live=self.retired is None
        )
        if not self.votes:
            return state
        if self.approval is not None:
            approver, verdict = self.approval
            agreed = replace(state, status="approved", verdict=verdict.verdict, author=verdict.user)
            return replace(agreed, approver=approver.user, approved_at=approver.time)
        if len({vote.verdict for vote in self.votes.values()}) > 1:
            return replace(state, status="conflict")
        # All agree: the first is the author, and a second person has approved by saying the same.
        first, *others = self.votes.values()
        agreed = replace(state, status="decided", verdict=first.verdict, author=first.user)
        if not others:
            return agreed
        return replace(agreed, status="approved", approver=others[0].user, approved_at=others[0].time)


class ReviewState:
    """Groups and what was said of them; the same lines give the same state.

    Parameters
    ----------
    groups
        Those that the review began with, in the order of the queue.
    names
        Names of the cells of the file, text (cells,), for the lists of cells in decisions.
    types
        Types that the model knows.

    Attributes
    ----------
    lines
        All decisions in order.
    undone
        Ids of those that were undone.
    notes
        Lines that count for nothing, a sentence each.
    """

    def __init__(self, groups: Sequence[Group], names: np.ndarray, types: Sequence[str] = ()) -> None:
        self.lines: list[Decision] = []
        self.undone: set[str] = set()
        self.notes: list[str] = []
        self._base, self._names, self._types = tuple(groups), names, tuple(types)
        self._places: dict[str, int] | None = None  # position of each cell by name, made when a list of cells comes
        self._rows: dict[str, np.ndarray] = {}  # positions of the cells that a split names, by their digest
        self._by_id: dict[str, Decision] = {}
        self._told: dict[str, _Told] = {}
        self._fold()

    # Lines become a state.

    def add(self, decisions: Iterable[Decision]) -> None:
        """Take in further lines."""
        again = False
        for decision in decisions:
            if decision.id in self._by_id:
                continue
            self.lines.append(decision)
            self._by_id[decision.id] = decision
            if decision.action == "undo":
                self.undone.add(str(decision.payload.get("decision", "")))
                again = True
            elif not again:
                self._apply(decision)
        # What was undone never happened: all other lines are taken in anew.
        if again:
            self._fold()

    def _fold(self) -> None:
        self._told = {group.id: _Told(group) for group in self._base}
        self.notes = []
        for decision in self.lines:
            if decision.id not in self.undone:
                self._apply(decision)

    def _apply(self, decision: Decision) -> None:
        """Take in one line that was not undone; one that does not fit is set aside with a note."""
        action = decision.action
        if action in {"undo", *STAGES} or (action == "comment" and not decision.group):
            return
        if action in CHANGES:
            self._change(decision)
            return
        told = self._told.get(decision.group)
        if told is None or told.group.digest != decision.digest:
            self._set_aside(decision, "it is about a group or cells that this review does not have")
        elif action in VERDICTS:
            _vote(told, decision)
        elif action == "comment":
            told.comments.append(decision)
        elif action == "approve":
            verdict = self._by_id.get(str(decision.payload.get("decision", "")))
            if verdict is not None and verdict.id not in self.undone:
                told.approval = (decision, verdict)
        else:
            self._set_aside(decision, f"this version of canal does not know what {action!r} means")

    def _set_aside(self, decision: Decision, reason: str) -> None:
        self.notes.append(f"The decision {decision.id} of {decision.user} counts for nothing: {reason}.")

    def _change(self, decision: Decision) -> None:
        """Split or merge: retire the groups whose cells are taken, and make the new ones."""
        split = decision.action == "split"
        ids = [str(name) for name in decision.payload.get("from" if split else "groups", ())]
        sources = [self._told[name] for name in ids if name in self._told]
        rows = self._cells_of(decision) if split else None
        if len(sources) < len(ids) or any(told.retired is not None for told in sources):
            self._set_aside(decision, "it takes cells of a group that is gone")
            return
        if rows is None:
            rows = np.sort(np.concatenate([told.group.rows for told in sources])) if sources else np.zeros(0, np.int64)
        if not len(rows) or digest_of(self._names[rows]) != decision.digest:
            self._set_aside(decision, "it names cells that this review does not have")
            return
        for told in sources:
            told.retired = decision
        for group in _new_groups(decision, rows, [told.group for told in sources], self._names):
            self._told[group.id] = _Told(group)
        # A name that was given along with the change is a verdict on the new group.
        if decision.payload.get("name"):
            _vote(self._told[made_id(decision)], decision)

    def _cells_of(self, decision: Decision) -> np.ndarray:
        """Return the positions of the cells that a decision names, ascending; none where one is not in the file."""
        if decision.digest not in self._rows:
            if self._places is None:
                self._places = {str(name): row for row, name in enumerate(self._names.tolist())}
            rows: list[int] = []
            for name in decision.payload.get("cells", ()):
                row = self._places.get(str(name))
                if row is None:
                    rows = []
                    break
                rows.append(row)
            self._rows[decision.digest] = np.unique(np.array(rows, dtype=np.int64))
        return self._rows[decision.digest]

    def know_cells(self, digest: str, rows: np.ndarray) -> None:
        """Say which cells a digest is of, so that their names need not be looked up."""
        self._rows[digest] = rows

    # What holds.

    def decision(self, key: str) -> Decision | None:
        """Return the decision of an id, ``None`` where there is none."""
        return self._by_id.get(key)

    def group(self, group_id: str) -> GroupState:
        """Return a group, also one that was split or merged.

        Raises
        ------
        DataError
            If there is none of that id.
        """
        return self._of(group_id).state()

    def _of(self, group_id: str) -> _Told:
        if group_id not in self._told:
            message = f"There is no group {group_id!r} in this review. Reload the queue: it shows the groups there are."
            raise DataError(message)
        return self._told[group_id]

    @property
    def live(self) -> list[GroupState]:
        """The groups that are to be decided on: novel ones by worth, uncertain ones and disagreements by size."""
        states = [told.state() for told in self._told.values() if told.retired is None]

        def place(state: GroupState) -> tuple[int, int, int, str]:
            group = state.group
            by_worth = group.rank if group.kind == "novel" else 0
            return KINDS.index(group.kind), by_worth, -group.cells, group.id

        return sorted(states, key=place)

    @property
    def names_given(self) -> list[str]:
        """The names that groups have, each once, in the order of the groups."""
        names: dict[str, None] = {}
        for told in self._told.values():
            for vote in told.votes.values():
                if vote.verdict[0] == "name" and told.retired is None:
                    names[vote.verdict[1]] = None
        return list(names)

    # What may be said next.

    def check(self, decision: Decision) -> None:
        """Refuse a decision that is not possible now.

        Raises
        ------
        DataError
            If the action, the group, the name or the cells are not possible.
        """
        action = decision.action
        if action not in ACTIONS:
            message = f"There is no action {action!r}; expected one of {', '.join(ACTIONS)}."
            raise DataError(message)
        check_person(decision.user)
        if action in STAGES:
            return
        if decision.payload.get("name"):
            known = (*self._types, *self.names_given)
            check_name(str(decision.payload["name"]), known)
        if action in CHANGES and made_id(decision) in self._told:
            message = f"There is a group {made_id(decision)!r} already. Choose another id."
            raise DataError(message)
        if action == "undo":
            self._check_undo(decision)
        elif action == "split":
            self._check_split(decision)
        elif action == "merge":
            self._check_merge(decision)
        elif action == "comment":
            _check_text(str(decision.payload.get("text", "")), "comment", 10 * LONGEST_NAME)
            if decision.group:
                self._of(decision.group)
        else:
            told = self._require_live(decision.group)
            if action == "name":
                check_name(str(decision.payload.get("name", "")), (*self._types, *self.names_given))
            if action == "approve":
                self._check_approval(decision, told)

    def _require_live(self, group_id: str) -> _Told:
        """Return a group that is still to be decided on."""
        told = self._of(group_id)
        if told.retired is not None:
            change = told.retired
            message = (
                f"Group {group_id!r} is gone: {change.user} took its cells with a {change.action} at {change.time}. "
                "Reload the queue, and decide on the groups that it became."
            )
            raise DataError(message)
        return told

    def _check_undo(self, decision: Decision) -> None:
        target = self._by_id.get(str(decision.payload.get("decision", "")))
        if target is None:
            message = "There is no such decision to undo. Reload the history: it shows what there is."
        elif target.id in self.undone:
            message = f"That {target.action} is undone already."
        elif target.action in {"undo", *STAGES}:
            message = f"A decision of the kind {target.action!r} cannot be undone; decide anew instead."
        elif target.user != decision.user:
            message = (
                f"That {target.action} is of {target.user}; a person undoes their own decisions alone. Say something "
                "else of the group: both are kept, and the conflict is shown."
            )
        elif target.action in CHANGES and (later := self._decided_since(target)):
            message = f"The groups that this {target.action} made were decided on since ({later}). Undo that first."
        else:
            return
        raise DataError(message)

    def _decided_since(self, change: Decision) -> str:
        """Return who decided what on the groups that a change made; empty where nobody did."""
        for told in self._told.values():
            if not (told.group.id == made_id(change) or told.group.id.startswith(f"{change.id}-")):
                continue
            later = [vote for vote in told.votes.values() if vote.id != change.id]
            later += [] if told.approval is None else [told.approval[0]]
            later += [] if told.retired is None else [told.retired]
            if later:
                return f"{later[0].action} by {later[0].user}"
        return ""

    def _check_split(self, decision: Decision) -> None:
        rows = self._cells_of(decision)
        sources = [self._require_live(str(name)) for name in decision.payload.get("from", ())]
        if not len(rows):
            message = "No cell is selected. Select the cells that are to be a group of their own."
        elif len(sources) == 1 and len(rows) == sources[0].group.cells and np.isin(rows, sources[0].group.rows).all():
            message = f"All {len(rows)} cells of the group are selected: nothing is split off. Select some of them."
        else:
            return
        raise DataError(message)

    def _check_merge(self, decision: Decision) -> None:
        ids = [str(name) for name in decision.payload.get("groups", ())]
        if len(set(ids)) < 2:
            message = f"{len(set(ids))} group is named; a merge needs two groups or more."
            raise DataError(message)
        for name in ids:
            self._require_live(name)

    def _check_approval(self, decision: Decision, told: _Told) -> None:
        state = told.state()
        target = self._by_id.get(str(decision.payload.get("decision", "")))
        if state.status == "open":
            message = f"Nobody has decided on group {told.group.id!r} yet: there is nothing to approve."
        elif state.status == "approved":
            message = f"Group {told.group.id!r} is approved already, by {state.approver}."
        elif target is None or target.id not in {vote.id for vote in told.votes.values()}:
            message = (
                f"People differ on group {told.group.id!r}: {_differences(told)}. Say which decision is approved, or "
                "talk it over."
            )
        elif target.user == decision.user:
            message = f"{decision.user} decided this; a second person has to approve it."
        else:
            return
        raise DataError(message)


def made_id(change: Decision) -> str:
    """Return the id of the group that a change makes of the cells that it is about."""
    return f"{change.id}-a" if change.action == "split" else change.id


def _vote(told: _Told, decision: Decision) -> None:
    """Let a verdict of a person take the place of their last one."""
    told.votes.pop(decision.user, None)
    told.votes[decision.user] = decision
    # Somebody sees it otherwise after all: the approval does not hold any more.
    if told.approval is not None and told.approval[1].verdict != decision.verdict:
        told.approval = None


def _new_groups(decision: Decision, rows: np.ndarray, sources: Sequence[Group], names: np.ndarray) -> list[Group]:
    """Return the groups that a change makes: the chosen cells first, then what is left of each source."""
    titles = " and ".join(group.title for group in sources)
    titles = titles if len(titles) <= LONGEST_TITLE else f"{titles[: LONGEST_TITLE - 1]}…"
    if decision.action == "merge":
        return [Group(id=made_id(decision), kind="merged", title=titles, rows=rows, digest=decision.digest)]
    kind: Kind = "part" if len(sources) == 1 else "selection"
    title = f"part of {titles}" if sources else f"{len(rows)} selected cells"
    groups = [Group(id=made_id(decision), kind=kind, title=title, rows=rows, digest=decision.digest)]
    for number, source in enumerate(sources, start=1):
        left = source.rows[~np.isin(source.rows, rows)]
        if len(left):
            suffix = "b" if number == 1 else f"b{number}"
            rest = replace(source, id=f"{decision.id}-{suffix}", rows=left, digest=digest_of(names[left]))
            groups.append(rest)
    return groups


def _differences(told: _Told) -> str:
    parts = []
    for user, vote in told.votes.items():
        action, name = vote.verdict
        parts.append(f"{user} says {name if action == 'name' else action}")
    return ", ".join(parts)


def check_person(user: str) -> None:
    """Refuse a person without a name."""
    _check_text(user, "name of the person", LONGEST_NAME)


def _check_text(text: str, what: str, most: int) -> None:
    """Refuse a text that is empty or too long."""
    if not text.strip():
        message = f"The {what} is empty. Write it."
    elif len(text) > most:
        message = f"The {what} has {len(text)} letters; expected {most} at most. Write a shorter one."
    else:
        return
    raise DataError(message)
