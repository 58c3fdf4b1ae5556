"""What people do: decisions, selections, teaching, stages. Every address here takes POST alone."""

import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from canal.errors import DataError
from canal.review.review import Review
from canal.review.values import DecisionRequest
from canal.review.web.evidence import evidence
from canal.review.web.requests import Form, Rows, TheSite, User
from canal.review.web.security import ENTRANCE
from canal.review.web.site import SELECTION, decision_text

router = APIRouter()


@router.post("/decide")
def decide(site: TheSite, user: User, form: Form) -> Response:
    """Write a decision down, and show the group it leaves."""
    review = site.review
    action, group = form.get("action", ""), form.get("group", "")
    # A merge is about several groups and makes a new one, of the decision's name.
    merges = action == "merge"
    request = DecisionRequest(
        action,
        group="" if merges else group,
        groups=(group, form.get("into", "")) if merges else (),
        name=form.get("name", ""),
        text=form.get("text", ""),
        decision=form.get("decision", ""),
    )
    done = review.decide(user, request, key=form.get("key", ""))
    shown = done.id if merges else group
    # After an undo the group may be no more.
    try:
        state = review.group(shown)
    except DataError:
        state = None
    if state is None or not state.live:
        live = review.queue().groups
        shown = live[0].group.id if live else shown
    triggers = {"changed": True, "told": {"value": f"Kept: {decision_text(done)[:200]}"}}
    # After the swap: the group that was open may be no more, and is asked about no longer.
    return HTMLResponse(evidence(site, user, shown), headers={"HX-Trigger-After-Swap": json.dumps(triggers)})


@router.post("/select")
def select(site: TheSite, user: User, rows: Rows, action: str, into: str = "") -> dict[str, Any]:
    """Look at selected cells, split them off as a group of their own, or give them a name."""
    cells = f"{len(rows):,} cells"
    if action == "look":
        site.keep_selection(user, rows)
        return {"group": SELECTION, "told": ""}
    if action == "split":
        done = site.review.decide(user, DecisionRequest("split", cells=rows))
        return {"group": f"{done.id}-a", "told": f"Kept: {cells} are a group of their own."}
    if action == "assign":
        name = into.strip()
        if not name:
            message = "The selected cells were given no name. Write one."
            raise DataError(message)
        done = site.review.decide(user, DecisionRequest("split", cells=rows, name=name))
        return {"group": f"{done.id}-a", "told": f"Kept: {cells} are {name[:200]}."}
    message = f"{action!r} is nothing that can be done with cells; expected look, split or assign."
    raise DataError(message)


@router.post("/invite", response_class=HTMLResponse)
def invite(site: TheSite, user: User, form: Form) -> str:
    """Make a link that lets another browser of this machine in, once, as another person."""
    guest = form.get("user", "").strip()
    if not guest:
        message = "Nobody was named. Write the name of the person who is to be let in."
        raise DataError(message)
    link = f"{site.address}{ENTRANCE}?token={site.visitors.invite(guest)}"
    lines = [f"Lets one browser of this machine in, once, as {guest}:", link]
    return site.page("answer", user, lines=lines, warnings=[], rows=[], good=False)


@router.post("/write", response_class=HTMLResponse)
def write(site: TheSite, user: User, form: Form) -> str:
    """Write the reviewed file beside the file of decisions."""
    out, overwrite = _beside(site.review, "reviewed", form)
    written = site.review.write_reviewed(out, overwrite=overwrite, approved=bool(form.get("approved")))
    rows = [(name or "not decided", f"{cells:,} cells") for name, cells in _counts(written)]
    return site.page("answer", user, lines=[f"Written: {out}"], warnings=[], rows=rows, good=True)


def _beside(review: Review, kind: str, form: dict[str, str]) -> tuple[Path, bool]:
    """Return the file of a kind beside the file of decisions, and whether an earlier one may be replaced.

    Raises
    ------
    DataError
        If it is there and may not; it is said in the words of the page.
    """
    path = review.decisions_path
    stem = path.name.removesuffix(".review.jsonl").removesuffix(".jsonl").removesuffix(".h5ad")
    out = path.with_name(f"{stem}.{kind}.h5ad")
    overwrite = bool(form.get("overwrite"))
    if out.exists() and not overwrite:
        message = f'{out} is there already. Tick "replace an earlier one", or move that file away.'
        raise DataError(message)
    return out, overwrite


def _counts(written: dict[str, Any]) -> list[tuple[str, int]]:
    return [(str(name), cells) for name, cells in written.items() if isinstance(cells, int)]


# Teaching.


@router.post("/teach", response_class=HTMLResponse)
def teach(site: TheSite, user: User, form: Form) -> str:
    """Begin to teach what was named."""
    return site.page("teaching", user, teaching=site.review.teach(user, approved=bool(form.get("approved"))))


@router.post("/teach/promote", response_class=HTMLResponse)
def promote(site: TheSite, user: User) -> str:
    """Use what was taught."""
    return site.page("teaching", user, teaching=site.review.promote(user))


@router.post("/teach/discard", response_class=HTMLResponse)
def discard(site: TheSite, user: User) -> str:
    """Do not use what was taught."""
    return site.page("teaching", user, teaching=site.review.discard(user))


@router.post("/annotate", response_class=HTMLResponse)
def annotate(site: TheSite, user: User, form: Form) -> str:
    """Annotate the cells of the review with the stage in use, beside the file of decisions."""
    review = site.review
    out, overwrite = _beside(review, "annotated", form)
    annotation = review.workspace.annotate(source_of(review), out=out, overwrite=overwrite)
    counts = annotation.to_frame()["cell_type"].value_counts()
    rows = [(str(name), f"{int(cells):,} cells") for name, cells in counts.items()]
    return site.page("answer", user, lines=[f"Written: {out}"], warnings=[], rows=rows, good=True)


def source_of(review: Review) -> str:
    """Return the file whose cells are reviewed.

    Raises
    ------
    DataError
        If it is a folder of novel cells, of which the whole file is elsewhere.
    """
    if review.path.is_dir():
        message = f"{review.path} holds the novel cells of another file. Annotate that one: canal annotate --data FILE"
        raise DataError(message)
    return str(review.path)


# Stages.


@router.post("/stages/promote")
def promote_stage(site: TheSite, user: User, form: Form) -> Response:
    """Bring a stage into use."""
    number = form.get("number", "")
    if not number.isdecimal():
        message = f"Stage {number!r} is no number."
        raise DataError(message)
    site.review.promote_stage(int(number), user)
    return Response(status_code=204, headers={"HX-Refresh": "true"})


@router.post("/stages/rollback")
def roll_back(site: TheSite, user: User) -> Response:
    """Bring the stage into use again that the one in use was learned from."""
    site.review.roll_back(user)
    return Response(status_code=204, headers={"HX-Refresh": "true"})
