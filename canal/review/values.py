"""What a review shows and is told, as plain values: groups, decisions, maps, evidence, the outcome of teaching.

Everything with a `to_dict` goes to a page or to ``--json`` as it is; the names of its fields are the keys.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np

from canal.report.groups import MarkerGene, NearestType

Kind = Literal["novel", "uncertain", "label", "part", "merged", "selection"]
Status = Literal["open", "decided", "conflict", "approved"]

# What a person can do. The first four are verdicts on a group: of each person the last one counts.
VERDICTS = ("name", "reject", "doublet", "low_quality")
CHANGES = ("split", "merge")  # make new groups of the cells of others
OTHERS = ("comment", "approve", "undo")
STAGES = ("teach", "promote", "discard")  # written down by the review itself, when somebody does so
ACTIONS = (*VERDICTS, *CHANGES, *OTHERS, *STAGES)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A set of cells to decide on; it never changes: what changes its cells makes other groups.

    Attributes
    ----------
    id
        Such as ``"novel-1"``, ``"uncertain-2"``, ``"label-3"``; of a split ``"<decision>-a"`` (the chosen cells) and
        ``"<decision>-b"`` (the rest); of a merge ``"<decision>"``.
    kind
        ``"novel"``: a cluster of novel cells; ``"uncertain"``: uncertain cells of one predicted type; ``"label"``:
        cells whose given label disagrees with the model; ``"part"``, ``"merged"`` and ``"selection"``: made by people.
    title
        One line, such as the suggested name.
    rows
        Positions of its cells in the file, ascending int64 (cells,).
    digest
        ``"sha256:..."`` of the sorted names of its cells.
    rank
        Its place by worth among those of its kind.
    facts
        Further plain values: ``predicted``, ``given``, ``suggested``, ``apart``, ``reason``.
    """

    id: str
    kind: Kind
    title: str
    rows: np.ndarray
    digest: str
    rank: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        """Its size."""
        return len(self.rows)


@dataclass(frozen=True)
class DecisionRequest:
    """What somebody wants to be written down.

    ::

        name         group, name             reject, doublet, low_quality   group
        split        cells (and group: they leave this one; else whichever they are in), name where known
        merge        groups (two or more), name where known
        comment      group or none, text     approve  group (in a conflict also the decision that is right)
        undo         decision (one's own)

    Attributes
    ----------
    action
        One of `ACTIONS` but those of stages.
    group, groups
        Ids, as above.
    cells
        Positions in the file, (cells,).
    name, text, decision
        As above; spaces around name and text do not count.
    """

    action: str
    group: str = ""
    groups: Sequence[str] = ()
    cells: Sequence[int] | np.ndarray = ()
    name: str = ""
    text: str = ""
    decision: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One line of the file of decisions.

    Attributes
    ----------
    id
        Unique; the page may choose it, so that an action that is sent twice is written once.
    user
        Who decided.
    time
        UTC, ISO 8601 with microseconds.
    action
        One of `ACTIONS`.
    group
        The group it is about, ``""`` where it is about none or several.
    digest
        Of the cells that it is about.
    payload
        What else belongs to the action: ``name``; ``text``; ``groups``; ``cells`` (their names) and ``from`` (the
        groups they leave); ``decision``.
    """

    id: str
    user: str
    time: str
    action: str
    group: str = ""
    digest: str = ""
    payload: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> tuple[str, str]:
        """What it says of the group: the action and, of a name, the name; a split or merge can name what it makes."""
        name = str(self.payload.get("name", ""))
        return ("name" if self.action in CHANGES else self.action), name

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, in the order in which they are written."""
        return asdict(self)


def _without_cells(decision: Decision) -> dict[str, Any]:
    """Return a decision as plain values, without the names of cells, which can be very many."""
    table = decision.to_dict()
    table["payload"] = {key: value for key, value in decision.payload.items() if key != "cells"}
    return table


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """A group and what was said of it.

    Attributes
    ----------
    group
        The cells.
    status
        ``"open"``: no verdict; ``"decided"``: all verdicts are the same; ``"conflict"``: two people differ;
        ``"approved"``: a second person agrees.
    votes
        Last verdict of each person, by user.
    verdict
        ``(action, name)`` that holds, ``None`` where the group is open or in conflict.
    author, approver, approved_at
        Who gave that verdict first, the second person, and when they agreed (UTC); ``""`` where there is none.
    comments
        In order.
    live
        Whether it is to be decided on still: not split and not merged.
    """

    group: Group
    status: Status = "open"
    votes: dict[str, Decision] = field(default_factory=dict)
    verdict: tuple[str, str] | None = None
    author: str = ""
    approver: str = ""
    approved_at: str = ""
    comments: tuple[Decision, ...] = ()
    live: bool = True

    @property
    def name(self) -> str:
        """The name that holds, ``""`` where there is none."""
        return self.verdict[1] if self.verdict is not None and self.verdict[0] == "name" else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the positions of the cells."""
        group = self.group
        return {
            "id": group.id,
            "kind": group.kind,
            "title": group.title,
            "cells": group.cells,
            "digest": group.digest,
            "facts": group.facts,
            "status": self.status,
            "name": self.name,
            "verdict": list(self.verdict) if self.verdict is not None else None,
            "author": self.author,
            "approver": self.approver,
            "approved_at": self.approved_at,
            "votes": [_without_cells(vote) for vote in self.votes.values()],
            "comments": [_without_cells(comment) for comment in self.comments],
            "live": self.live,
        }


@dataclass(frozen=True, kw_only=True)
class Queue:
    """The groups that are to be decided on, those most worth a look first, and how far the review is.

    Attributes
    ----------
    groups
        Those that were asked for: novel ones by worth, uncertain ones by size, disagreements by size.
    counts
        Live groups by status, of all kinds, whatever was asked for.
    cells, cells_decided
        Cells in live groups, and those of them whose group is decided or approved.
    """

    groups: tuple[GroupState, ...]
    counts: dict[str, int]
    cells: int
    cells_decided: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "groups": [state.to_dict() for state in self.groups],
            "counts": self.counts,
            "cells": self.cells,
            "cells_decided": self.cells_decided,
        }


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of ``obs`` that a map can be coloured by: ``kind`` is ``"category"`` or ``"number"``."""

    name: str
    kind: Literal["category", "number"]
    categories: int = 0


@dataclass(frozen=True, kw_only=True)
class MapPoints:
    """Where the cells lie on the map.

    Attributes
    ----------
    coordinates
        Float32 C-contiguous (cells, 2), in the order of the file; each axis within -1 ... 1.
    basis
        ``"X_umap"`` or another name of ``obsm``; ``"umap"`` or ``"pca"`` where they were computed.
    note
        A sentence on where they come from.
    """

    coordinates: np.ndarray
    basis: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Colour:
    """One value for each cell, to colour the map by.

    Attributes
    ----------
    kind
        ``"category"``: ``values`` are uint16 positions in ``names``; ``"number"``: float32, NaN where there is none.
    values
        C-contiguous (cells,), in the order of the file.
    names
        Of the categories, in order; the last one is ``""`` where cells have none.
    low, high
        Smallest and largest finite number.
    title
        What is shown.
    """

    kind: Literal["category", "number"]
    values: np.ndarray
    title: str
    names: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without ``values``, which travel as bytes; ``dtype`` says how to read them."""
        return {
            "kind": self.kind,
            "title": self.title,
            "names": list(self.names),
            "low": self.low,
            "high": self.high,
            "dtype": self.values.dtype.name,
            "cells": len(self.values),
        }


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What speaks for one type or another, of the cells of a group or a selection.

    Attributes
    ----------
    cells
        How many there are; ``looked_at`` of them stand for all where genes are read.
    near
        Known types, nearest first.
    confidence
        ``mean`` and ``median`` of the confidence, ``measured``: the accuracy that held-out cells of that confidence
        had, ``None`` where the stage kept no calibration or too few cells say it.
    status
        Cells by verdict of the model: ``known``, ``uncertain``, ``novel``.
    markers
        Against the known cells of the file; ``markers_others`` against all other cells that were looked at.
    composition
        Cells by value, most first, of each column that names batches, donors or the like.
    given
        Cells by given label, where the file has a column of labels.
    suggestions
        Names to choose from, best first, as of `Review.suggest_names`.
    notes
        What to mind.
    """

    cells: int
    looked_at: int
    near: tuple[NearestType, ...]
    confidence: dict[str, float | None]
    status: dict[str, int]
    markers: tuple[MarkerGene, ...]
    markers_others: tuple[MarkerGene, ...]
    composition: dict[str, dict[str, int]]
    given: dict[str, int]
    suggestions: "tuple[NameSuggestion, ...]"
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Genes by which the model takes cells for a type, and those that speak against it, with their scores."""

    type: str
    cells: int
    genes_for: tuple[tuple[str, float], ...]
    genes_against: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class ReferenceCells:
    """Taught cells that the cells lie nearest to: their type and stage, how many, and the mean distance."""

    type: str
    cells: int
    distance: float


@dataclass(frozen=True, kw_only=True)
class StageAnswer:
    """What one taught stage would have said of the cells: cells by type, most first, mean confidence, share novel."""

    stage: int
    name: str
    in_use: bool
    types: dict[str, int]
    confidence: float
    novel: float | None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class DotPlot:
    """Mean expression and share of cells that express, of genes in groups.

    Attributes
    ----------
    groups
        Ids of groups, names of known types, or ``"selection"``; ``titles`` are what to show, ``cells`` their sizes.
    genes
        The columns.
    mean
        Mean log-normalised expression, (groups, genes).
    share
        Share of cells with any, (groups, genes).
    """

    groups: tuple[str, ...]
    titles: tuple[str, ...]
    cells: tuple[int, ...]
    genes: tuple[str, ...]
    mean: np.ndarray
    share: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the figures as lists of rows."""
        return {
            "groups": list(self.groups),
            "titles": list(self.titles),
            "cells": list(self.cells),
            "genes": list(self.genes),
            "mean": self.mean.tolist(),
            "share": self.share.tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class NameSuggestion:
    """A name to choose.

    Attributes
    ----------
    name
        The name.
    source
        ``"known"``: a type of the model; ``"review"``: given to another group already; ``"label"``: the given label of
        the cells; ``"ontology"``: a term.
    term
        Id of the Cell Ontology, ``""`` where there is none.
    note
        Why it is suggested, for people.
    """

    name: str
    source: Literal["known", "review", "label", "ontology"]
    term: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """How far a teaching is, and what it came to.

    Attributes
    ----------
    id
        Number of the teaching in this review, from 1.
    user, started
        Who began it, and when (UTC).
    state
        ``"running"``; ``"done"``: the candidate is there to look at; ``"failed"``; ``"promoted"`` or ``"discarded"``.
    step, done, total
        What is being done, and how much of it.
    error
        Why it failed.
    types
        Cells that were taught, by name; ``known`` those of known types that went along.
    result
        Once it is done, else ``None``.
    """

    id: int
    user: str
    started: str
    state: Literal["running", "done", "failed", "promoted", "discarded"]
    step: str = ""
    done: int = 0
    total: int = 0
    error: str = ""
    types: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    result: "TeachingResult | None" = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TeachingResult:
    """What a candidate would change.

    Attributes
    ----------
    stage, name
        The candidate.
    parent
        The stage it was learned from, which is in use.
    new_types
        Types it knows and the parent does not.
    held_back
        Why the promotion rule would not bring it into use; ``""`` where it would.
    stages, sets
        Rows and columns of the matrix: ``[number, name]``.
    accuracy
        (stages, sets), ``None`` where nothing was measured.
    forgetting
        Of each stage of the rows, ``None`` where it cannot be said.
    held_out
        On the held-out cells of each stage: ``stage``, ``name``, ``before``, ``after``, ``cells``, and further figures
        as `canal stage add` reports them under ``tested``.
    file
        Of this file: ``cells``, ``changed``, ``changes`` (``from``, ``to``, ``cells``; most first), ``types_before``,
        ``types_after``, ``status_before``, ``status_after``.
    recall
        Of each taught name: ``cells`` that people named so, and how many of them the candidate ``answers`` so.
    warnings
        As `canal stage add` gives them.
    seconds
        Of the whole teaching.
    """

    stage: int
    name: str
    parent: int | None
    new_types: tuple[str, ...]
    held_back: str
    stages: tuple[tuple[int, str], ...]
    sets: tuple[tuple[int, str], ...]
    accuracy: tuple[tuple[float | None, ...], ...]
    forgetting: tuple[float | None, ...]
    held_out: tuple[dict[str, Any], ...]
    file: dict[str, Any]
    recall: dict[str, dict[str, int]]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> "TeachingResult":
        """Return the result that JSON holds, whose lists are tuples here; fields of a newer canal are left out."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in table.items() if key in known}
        for key in ("new_types", "forgetting", "held_out", "warnings"):
            values[key] = tuple(values[key])
        for key in ("stages", "sets", "accuracy"):
            values[key] = tuple(tuple(row) for row in values[key])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class StagesView:
    """The stages of the workspace: which annotates and why, and whether the registry is well.

    Attributes
    ----------
    in_use
        Number of the stage in use.
    why
        A sentence: how it came into use.
    stages
        One table a stage: ``number``, ``name``, ``parent``, ``created``, ``in_use``, ``candidate``, ``held_back``,
        ``types``, ``new_types``, ``cells``, ``average``, ``forgetting``, ``removed``.
    compare
        The report of `canal compare` as plain values.
    rollback_to
        Stage that a roll back would bring into use, ``None`` where there is none.
    """

    in_use: int | None
    why: str
    stages: tuple[dict[str, Any], ...]
    compare: dict[str, Any]
    rollback_to: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)
