"""Evidence of one group, or of selected cells; each part is an address of its own, since some take a while."""

import json
from typing import Any

import numpy as np
from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from canal.errors import DataError
from canal.review.review import Review
from canal.review.values import STAGES, Decision, DotPlot
from canal.review.web.requests import TheSite, User
from canal.review.web.site import SELECTION, Site

router = APIRouter()
MOST_GENES = 8  # of a dot plot
MOST_TYPES = 4  # known types beside the group in it


def last_own(review: Review, user: str) -> Decision | None:
    """Return the last decision of a person that can be undone and was not."""
    undone = review.undone()
    for decision in reversed(review.history()):
        if decision.user == user and decision.id not in undone and decision.action not in {"undo", *STAGES}:
            return decision
    return None


@router.get("/evidence", response_class=HTMLResponse)
def evidence(site: TheSite, user: User, group: str) -> str:
    """Show one group: what was decided and can be; the rest fetches itself."""
    if group == SELECTION:
        return site.page("selected", user, cells=len(site.cells(group, user)))
    state = site.review.group(group)
    others = [other for other in site.review.queue().groups if other.group.id != group]
    return site.page("evidence", user, state=state, group=state.group, others=others, last=last_own(site.review, user))


@router.get("/evidence/standing", response_class=HTMLResponse)
def standing(site: TheSite, user: User, group: str, *, live: bool) -> Response:
    """Show what is decided by now on the group that is open: the page asks when somebody decided anything.

    Texts that are being written and the evidence stay as they are. Only where the page has it (``live``) that the
    group can be decided on and it no longer can, or the other way round, all of it is shown anew.
    """
    try:
        state = site.review.group(group)
    except DataError:
        return _gone(site, user, group)
    if live != state.live:
        return HTMLResponse(evidence(site, user, group), headers={"HX-Retarget": "#evidence"})
    return HTMLResponse(site.page("news", user, state=state, group=state.group, last=last_own(site.review, user)))


def _gone(site: Site, user: str, group: str) -> Response:
    """Show the first group of the queue in place of one whose split or merge was undone."""
    groups = site.review.queue().groups
    page = evidence(site, user, groups[0].group.id) if groups else site.page("nothing", user)
    message = f"Group {group} is no more: what made it was undone."
    return HTMLResponse(
        page, headers={"HX-Retarget": "#evidence", "HX-Trigger": json.dumps({"told": {"value": message}})}
    )


@router.get("/evidence/facts", response_class=HTMLResponse)
def facts(site: TheSite, user: User, group: str) -> str:
    """Return what speaks for one type or another."""
    found = site.review.evidence(site.cells(group, user))
    return site.page("facts", user, evidence=found, group=group, dots=bool(found.markers or found.markers_others))


@router.get("/evidence/dots", response_class=HTMLResponse)
def dots(site: TheSite, user: User, group: str) -> str:
    """Return the dot plot of the markers of a group, beside the types it comes nearest to."""
    review = site.review
    cells = site.cells(group, user)
    found = review.evidence(cells)
    genes = [marker.gene for marker in (found.markers or found.markers_others)[:MOST_GENES]]
    # A type without known cells in the file has no row: its distance cannot be told either.
    types = [near.name for near in found.near if near.distance is not None][:MOST_TYPES]
    rows = ([cells], None) if isinstance(cells, str) else ([], cells)  # a group, or a selection
    plot = review.dot_plot([*rows[0], *types], genes, rows[1])
    return site.page("parts", user, part="dots", plot=drawn(plot))


@router.get("/evidence/reasons", response_class=HTMLResponse)
def reasons(site: TheSite, user: User, group: str) -> str:
    """Return the genes by which the model answers as it does."""
    found = site.review.reasons(site.cells(group, user), top=8)
    return site.page("parts", user, part="reasons", reasons=found)


@router.get("/evidence/references", response_class=HTMLResponse)
def references(site: TheSite, user: User, group: str) -> str:
    """Return the taught cells that lie nearest."""
    return site.page("parts", user, part="references", references=site.review.reference_cells(site.cells(group, user)))


@router.get("/evidence/answers", response_class=HTMLResponse)
def answers(site: TheSite, user: User, group: str) -> str:
    """Return what each stage would have said."""
    return site.page("parts", user, part="answers", answers=site.review.stage_answers(site.cells(group, user)))


COLUMN_WIDTH, ROW_HEIGHT, LARGEST_DOT = 26.0, 22.0, 8.5  # pixels


def drawn(plot: DotPlot) -> dict[str, Any]:
    """Return where everything of a dot plot stands in its picture."""
    left, top = 172.0, 70.0
    # Each gene is compared with its own largest mean: a gene of little expression is a marker, too.
    largest = np.maximum(plot.mean.max(axis=0, initial=0.0), 1e-9)
    rows = []
    for i, title in enumerate(plot.titles):
        y = top + ROW_HEIGHT * (i + 0.5)
        row_dots = []
        for j, gene in enumerate(plot.genes):
            share, mean = float(plot.share[i, j]), float(plot.mean[i, j])
            row_dots.append(
                {
                    "x": left + COLUMN_WIDTH * (j + 0.5),
                    "r": round(LARGEST_DOT * share**0.5, 2),  # its area stands for the share
                    "opacity": round(0.12 + 0.88 * mean / float(largest[j]), 3),
                    "title": f"{gene} in {title}: {share:.0%} of the cells, mean {mean:.2f}",
                }
            )
        rows.append({"title": title, "cells": plot.cells[i], "y": y, "dots": row_dots})
    genes = [{"name": gene, "x": left + COLUMN_WIDTH * (j + 0.5)} for j, gene in enumerate(plot.genes)]
    width = left + COLUMN_WIDTH * len(plot.genes) + 50
    return {
        "left": left,
        "top": top,
        "width": width,
        "height": top + ROW_HEIGHT * len(rows) + 6,
        "genes": genes,
        "rows": rows,
    }
