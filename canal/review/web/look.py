"""Pages that are only looked at: the review, the queue, decisions, teaching, stages."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from canal.errors import DataError
from canal.review.web.requests import TheSite, User

router = APIRouter()


@router.get("/", response_class=HTMLResponse)
def review_page(site: TheSite, user: User) -> str:
    """Show queue, map and evidence."""
    review = site.review
    return site.page(
        "review", user, here="/", heading=review.title, notes=review.notes, columns=review.columns(), news=site.news()
    )


@router.get("/queue", response_class=HTMLResponse)
def queue(site: TheSite, user: User, q: str = "", show: str = "") -> str:
    """Return the groups that fit a search."""
    return site.page("queue", user, queue=site.review.queue(q, status=show or None))


@router.get("/news")
def news(site: TheSite, since: int) -> Response:
    """Tell the page when somebody decided anything."""
    now = site.news()
    if now == since:
        return Response(status_code=204)
    again = f'<div hx-get="/news?since={now}" hx-trigger="every 3s" hx-swap="outerHTML"></div>'
    return HTMLResponse(again, headers={"HX-Trigger": "changed"})


MOST_SHOWN = 500  # decisions on their page


@router.get("/decisions", response_class=HTMLResponse)
def decisions_page(site: TheSite, user: User) -> str:
    """Show who said what."""
    review = site.review
    every = review.history()
    return site.page(
        "decisions",
        user,
        here="/decisions",
        heading="Decisions",
        decisions=every[::-1][:MOST_SHOWN],
        more=max(len(every) - MOST_SHOWN, 0),
        undone=review.undone(),
        conflicts=review.queue(status="conflict").groups,
        kept=str(review.decisions_path),
    )


@router.get("/export.json")
def export(site: TheSite) -> dict[str, Any]:
    """Return all decisions and what holds."""
    return site.review.to_dict()


@router.get("/teach", response_class=HTMLResponse)
def teach_page(site: TheSite, user: User) -> str:
    """Show what was named, and the last teaching."""
    by_name: dict[str, dict[str, Any]] = {}
    for state in site.review.queue().groups:
        if state.name:
            row = by_name.setdefault(state.name, {"name": state.name, "groups": 0, "cells": 0, "approved": 0})
            row["groups"] += 1
            row["cells"] += state.group.cells
            row["approved"] += state.status == "approved"
    return site.page(
        "teach", user, here="/teach", heading="Teach", names=list(by_name.values()), teaching=site.review.teaching()
    )


@router.get("/teach/status", response_class=HTMLResponse)
def teach_status(site: TheSite, user: User) -> str:
    """Show how far the last teaching is."""
    return site.page("teaching", user, teaching=site.review.teaching())


@router.get("/stages", response_class=HTMLResponse)
def stages_page(site: TheSite, user: User) -> str:
    """Show the stages of the workspace."""
    return site.page("stages", user, here="/stages", heading="Stages", view=site.review.stages())


@router.get("/stages/diff", response_class=HTMLResponse)
def stages_diff(site: TheSite, user: User, a: int, b: int, file: str = "") -> str:
    """Show what differs between two stages."""
    if a == b:
        message = f"Both are stage {a}. Choose two stages."
        raise DataError(message)
    found = site.review.stage_diff(a, b, file=bool(file))
    # Lists and tables in words.
    shown = []
    for key in ("types_added", "types_removed", "genes_added", "genes_removed"):
        if found.get(key):
            shown.append((key.replace("_", " "), _listed(found[key])))
    for key in ("metrics", "config"):
        for name, (before, after) in found.get(key, {}).items():
            shown.append((name, f"{_text(before)} -> {_text(after)}"))
    data = found.get("data")
    if data:
        shown.append(("cells of this file", f"{data['changed']:,} of {data['cells']:,} change"))
        for change in data["changes"][:15]:
            shown.append((f"{change['cells']:,} cells", f"{change['from']} -> {change['to']}"))
    lines = [f"Stage {b} as compared with stage {a}:"] if shown else [f"Stages {a} and {b} do not differ."]
    return site.page("answer", user, lines=lines, warnings=[], rows=shown, good=False)


@router.get("/stages/health", response_class=HTMLResponse)
def health(site: TheSite, user: User) -> str:
    """Show whether every file of every stage is whole."""
    problems = site.review.registry_health()
    lines = [] if problems else ["Every file of every stage is there and as it was written."]
    return site.page("answer", user, lines=lines, warnings=problems, rows=[], good=True)


MOST_LISTED = 12


def _listed(names: Any) -> str:
    shown = ", ".join(str(name) for name in names[:MOST_LISTED])
    return shown if len(names) <= MOST_LISTED else f"{shown} and {len(names) - MOST_LISTED} more"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
