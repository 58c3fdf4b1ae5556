"""What all requests share: the open review, who was let in, and which cells each person selected last."""

import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from canal.errors import DataError
from canal.report.plots import render_page
from canal.review.review import Review
from canal.review.values import Decision
from canal.review.web.security import Visitors

SELECTION = "selection"  # in place of the id of a group: the cells that the person selected
FOLDER = "review/web/pages"  # of the templates
KINDS = {
    "novel": "novel group",
    "uncertain": "uncertain cells",
    "label": "label and model disagree",
    "part": "part of a group",
    "merged": "merged groups",
    "selection": "selected cells",
}
STATUSES = {"open": "open", "decided": "decided", "conflict": "conflict", "approved": "approved"}
VERDICTS = {"reject": "no type of its own", "doublet": "doublets", "low_quality": "low quality"}


@dataclass
class Site:
    """The review that is shown, and to whom.

    Attributes
    ----------
    review
        The open review.
    visitors
        Who was let in.
    address
        Of the server, such as ``http://127.0.0.1:8899``.
    """

    review: Review
    visitors: Visitors
    address: str
    _selections: dict[str, np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep_selection(self, user: str, rows: np.ndarray) -> None:
        """Note the cells that a person selected."""
        with self._lock:
            self._selections[user] = rows

    def cells(self, group: str, user: str) -> str | np.ndarray:
        """Return what the review calls the cells: the id of a group, or the positions that the person selected.

        Raises
        ------
        DataError
            If the person selected none.
        """
        if group != SELECTION:
            return group
        with self._lock:
            rows = self._selections.get(user)
        if rows is None:
            message = "No cells are selected. Draw around some on the map, or press a name of its legend."
            raise DataError(message)
        return rows

    def news(self) -> int:
        """Return a number that is another one as soon as somebody decided anything."""
        return len(self.review.history())

    def page(self, name: str, user: str, **values: Any) -> str:
        """Return a page, or a part of one, as HTML.

        Parameters
        ----------
        name
            Of the template, without its folder and ending.
        user
            Who looks at it.
        values
            What it shows.
        """
        frame = {"title": self.review.title, "path": str(self.review.path), "user": user}
        return render_page(
            f"{FOLDER}/{name}.html.jinja",
            site=frame,
            me=user,
            kinds=KINDS,
            statuses=STATUSES,
            verdict_text=verdict_text,
            decision_text=decision_text,
            key=new_key,
            **values,
        )


def new_key() -> str:
    """Return an id for a decision: a form that is sent twice writes it once."""
    return uuid.uuid4().hex


def verdict_text(decision: Decision) -> str:
    """Return a verdict in words."""
    action, name = decision.verdict
    return name if action == "name" else VERDICTS.get(action, action)


def decision_text(decision: Decision) -> str:
    """Return a decision in words."""
    payload = decision.payload
    name = str(payload.get("name", ""))
    if decision.action == "name":
        return f"name: {name}"
    if decision.action in VERDICTS:
        return VERDICTS[decision.action]
    if decision.action == "comment":
        return f"comment: {payload.get('text', '')}"
    if decision.action == "split":
        cells = len(payload.get("cells", ()))
        return f"split: {cells:,} cells" + (f" as {name}" if name else "")
    if decision.action == "merge":
        groups = ", ".join(str(group) for group in payload.get("groups", ()))
        return f"merge: {groups}" + (f" as {name}" if name else "")
    return decision.action
