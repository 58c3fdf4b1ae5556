"""What leaves a review: the decisions as plain values, and the reviewed file of cells."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import canal
from canal.report.annotation import KEY, Annotation
from canal.review.journal import FORMAT, KIND
from canal.review.values import Decision, GroupState

# What stands in ``obs["canal_reviewed"]`` for cells of no type; names that canal never takes for a type when it learns.
WORDS = {"doublet": "doublet", "low_quality": "low quality"}


def export_of(
    head: dict[str, Any],
    states: Sequence[GroupState],
    lines: Sequence[Decision],
    undone: frozenset[str],
    names: np.ndarray,
) -> dict[str, Any]:
    """Return all decisions and what holds, as plain values.

    Parameters
    ----------
    head
        First line of the file of decisions.
    states
        The live groups.
    lines, undone
        All decisions, and the ids of those that were undone.
    names
        Names of the cells, (cells,).
    """
    groups = []
    for state in states:
        decided = state.verdict is not None
        # Only what was decided on lists its cells: all others can be computed anew.
        listed = names[state.group.rows].tolist() if decided else []
        groups.append(state.to_dict() | {"cell_names": [str(name) for name in listed]})
    return {
        "format": FORMAT,
        "kind": KIND,
        "canal_version": canal.__version__,
        "reviewed": {key: value for key, value in head.items() if key not in {"format", "kind", "groups"}},
        "groups": groups,
        "decisions": [line.to_dict() | {"undone": line.id in undone} for line in lines],
    }


def reviewed_columns(
    states: Sequence[GroupState], annotation: Annotation, *, approved: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return what people say each cell is, and who they are, both text (cells,); ``""`` where nobody decided.

    A named group has its name, doublets and cells of low quality are called so, and of a rejected group the model's
    answer stands.

    Parameters
    ----------
    states
        The live groups.
    annotation
        What the model says of all cells.
    approved
        Only what a second person approved.
    """
    reviewed = np.full(len(annotation), "", dtype=object)
    reviewer = np.full(len(annotation), "", dtype=object)
    for state in states:
        if state.verdict is None or (approved and state.status != "approved"):
            continue
        action, name = state.verdict
        rows = state.group.rows
        if action == "name":
            reviewed[rows] = name
        elif action == "reject":
            reviewed[rows] = annotation.cell_type[rows]
        else:
            reviewed[rows] = WORDS[action]
        reviewer[rows] = "; ".join(person for person in (state.author, state.approver) if person)
    return reviewed, reviewer


def reviewed_annotation(annotation: Annotation, reviewed: np.ndarray, reviewer: np.ndarray) -> Annotation:
    """Return an annotation with what people decided as two more columns."""
    columns = {**annotation.columns, "reviewed": reviewed, "reviewer": reviewer}
    return replace(annotation, columns=columns)


def counts_of(reviewed: np.ndarray) -> dict[str, int]:
    """Return the cells by what people say they are, most first, without those nobody decided on."""
    counted = Counter(str(name) for name in reviewed.tolist() if name)
    return dict(counted.most_common())


def reviewed_document(
    document: dict[str, Any], states: Sequence[GroupState], names: np.ndarray, *, approved: bool
) -> dict[str, Any]:
    """Return a document of the Cell Annotation Schema with what people decided as a set of labels of its own.

    Each of its annotations has ``reviews``: who agrees with the label or not, when, and what they said.

    Parameters
    ----------
    document
        Of the model's annotation; see `canal.report.cas`.
    states
        The live groups.
    names
        Names of the cells, (cells,).
    approved
        Only what a second person approved.
    """
    labelset = f"{KEY}_reviewed"
    annotations = []
    for state in states:
        if state.verdict is None or (approved and state.status != "approved") or state.verdict[0] == "reject":
            continue
        action, name = state.verdict
        annotations.append(
            {
                "labelset": labelset,
                "cell_label": name if action == "name" else WORDS[action],
                "rationale": f"Decided by {state.author} in a review with canal: {state.group.title}.",
                "author_annotation_fields": {"cells": str(state.group.cells), "group": state.group.id},
                "reviews": _reviews(state),
                "cell_ids": [str(cell) for cell in names[state.group.rows]],
            }
        )
    told = {"name": labelset, "description": "What people decided in a review", "annotation_method": "manual"}
    return document | {
        "labelsets": [*document["labelsets"], told],
        "annotations": [*document["annotations"], *annotations],
    }


def _reviews(state: GroupState) -> list[dict[str, str]]:
    """Return who agrees with the verdict on a group, and who does not."""
    reviews = []
    for vote in state.votes.values():
        action, name = vote.verdict
        agrees = "Agree" if vote.verdict == state.verdict else "Disagree"
        reviews.append(_review(vote.time, vote.user, agrees, name or WORDS.get(action, action)))
    if state.approver and state.approver not in state.votes:
        reviews.append(_review(state.approved_at, state.approver, "Agree", "approved"))
    return reviews


def _review(time: str, user: str, review: str, explanation: str) -> dict[str, str]:
    return {"datestamp": time, "reviewer": user, "review": review, "explanation": explanation}
