"""Groups and decisions without a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from canal.review.groups import digest_of
from canal.review.state import ReviewState
from canal.review.values import Decision, Group

NAMES = np.array([f"cell{number}" for number in range(30)], dtype=object)
TYPES = ("B cell", "NK")


def group(id_: str, rows: Sequence[int], kind: Any = "novel", rank: int = 0) -> Group:
    """Return a group of some of the 30 cells."""
    places = np.array(rows, dtype=np.int64)
    return Group(id=id_, kind=kind, title=f"title of {id_}", rows=places, digest=digest_of(NAMES[places]), rank=rank)


def state() -> ReviewState:
    """Return a state with three groups: of ten cells, six and four."""
    groups = [
        group("novel-1", range(10)),
        group("uncertain-1", range(10, 16), "uncertain"),
        group("label-1", range(16, 20), "label"),
    ]
    return ReviewState(groups, NAMES, TYPES)


class Desk:
    """People who decide on the groups of `state`; every decision is checked before it is taken in."""

    def __init__(self) -> None:
        self.state = state()

    def __call__(self, user: str, action: str, group_id: str = "", **payload: Any) -> str:
        """Decide; return the id of the decision."""
        made = self.made(user, action, group_id, **payload)
        self.state.check(made)
        self.state.add([made])
        return made.id

    def made(self, user: str, action: str, group_id: str = "", **payload: Any) -> Decision:
        """Return the decision that `Review.decide` would write."""
        key = f"d{len(self.state.lines)}"
        digest = ""
        if action == "split":
            rows = sorted(payload.pop("rows"))
            payload = {
                "cells": NAMES[rows].tolist(),
                "from": [group_id] if group_id else payload.pop("sources"),
            } | payload
            digest, group_id = digest_of(NAMES[rows]), ""
        elif action == "merge":
            parts = [self.state.group(name).group.rows for name in payload["groups"]]
            digest = digest_of(NAMES[np.concatenate(parts)]) if parts else ""
        elif group_id:
            digest = self.state.group(group_id).group.digest
        return Decision(
            id=key, user=user, time=f"t{key}", action=action, group=group_id, digest=digest, payload=payload
        )
