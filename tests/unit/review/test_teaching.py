"""Teaching: named groups become a candidate, which is looked at before it is used."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import canal
from canal.errors import DataError, StageError
from canal.review import learner
from canal.review.review import Review, open_review
from canal.review.teaching import Teachings, lesson_of
from canal.review.values import DecisionRequest, Teaching
from canal.workspace import Workspace
from tests.unit.review.conftest import MADE_AS

# As the two stages of the archive were learned, with a bank that has room for four types.
TINY = (
    "training.epochs=3",
    "training.min_steps=20",
    "bank.size=24",
    "analytic.pseudo_cells=10",
    "encoder.hidden=8",
    "encoder.dim=8",
)


@pytest.fixture
def own(lab: Path, workspace: Workspace) -> Iterator[Review]:
    """Return a review of a copy of the file, whose workspace can be taught."""
    opened = open_review(workspace, lab / "query.h5ad")
    yield opened
    opened.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teach in this process, which has everything imported; `teach` returns when it is done."""
    monkeypatch.setattr(Teachings, "_start", lambda _self, folder: learner.teach(folder))


def lesson(review: Review, *, approved: bool = False) -> dict[str, int]:
    """Return the cells that would be taught, by name."""
    told = lesson_of(review.queue().groups, review._prepared.annotation, 0, approved=approved, taught=set())
    return told.types


@pytest.mark.usefixtures("at_once")
def test_a_left_out_type_is_named_taught_and_known(lab: Path, own: Review) -> None:
    """Find, name, teach, look, promote, annotate: recall of the type is .9 at least; nothing is in use before.

    Along with it a label of a known type is corrected. Then all of it is taken back.
    """
    labels = [told.group for told in own.queue().groups if told.group.kind == "label"]
    own.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    own.decide("anna", DecisionRequest("name", group=labels[0].id, name="B"))
    taught = own.teach("anna", overrides=TINY)
    # 1. A candidate, and what it would change.
    assert (taught.state, taught.error) == ("done", "")
    assert taught.types == {"DC": own.group("novel-1").group.cells, "B": 7}
    assert set(taught.known) == {"NK", "CD4 T"}  # the taught names are not among the known ones
    result = taught.result
    assert result is not None
    assert (result.stage, result.parent, result.new_types) == (3, 2, ("DC",))
    assert own.workspace.champion() == 2
    assert len(result.accuracy) == len(result.stages) == len(result.forgetting) == 3
    assert [entry["stage"] for entry in result.held_out] == [1, 2]
    assert result.recall["DC"]["answers"] >= 0.9 * result.recall["DC"]["cells"]
    assert result.file["cells"] == 180
    assert sum(change["cells"] for change in result.file["changes"]) == result.file["changed"] > 40
    assert result.file["types_after"]["DC"] > 40
    assert "DC" not in result.file["types_before"]
    json.dumps(taught.to_dict())
    cells = ad.read_h5ad(own._places.taught / "001" / "cells.h5ad")
    assert dict(cells.obs["cell_type"].value_counts()) == taught.types | taught.known
    assert set(cells.obs["cell_type_given"].iloc[np.flatnonzero(cells.obs["cell_type"] == "B")]) == {"NK"}
    # 2. One at a time.
    with pytest.raises(StageError, match="waits for promote or discard"):
        own.teach("ben")
    assert own.stages().in_use == 2
    assert [row["number"] for row in own.stages().stages if row["candidate"]] == [3]
    # 3. It comes into use, and answers.
    assert own.promote("ben").state == "promoted"
    assert own.workspace.champion() == 3
    answers = own.workspace.annotate(own.path).cell_type
    made_as = np.array(MADE_AS, dtype=object)[np.arange(180) % len(MADE_AS)]
    assert (answers[made_as == "DC"] == "DC").mean() >= 0.9
    assert "which it was learned from" in own.stages().why
    assert own.stages().rollback_to == 2
    assert own.registry_health() == []
    assert own.stage_diff(2, 3, file=True)["data"]["changed"] == result.file["changed"]
    with pytest.raises(StageError, match="taught already"):
        own.teach("anna")
    # 4. The decisions say who did it; another process says the same of the teaching.
    again = open_review(canal.open_workspace(lab / "ws"), own.path)
    told = again.teaching()
    assert told is not None
    assert (told.state, told.user) == ("promoted", "anna")
    assert any("stage 3 is in use" in note for note in again.notes)
    again.close()
    # 5. It is taken back.
    assert own.discard("anna").state == "discarded"
    assert own.workspace.champion() == 2
    assert [(line.action, line.user) for line in own.history()[2:]] == [
        ("teach", "anna"),
        ("promote", "ben"),
        ("discard", "anna"),
    ]
    own.promote_stage(3, "cleo")
    assert own.roll_back("cleo")["champion"] == 2
    # 6. A review that begins anew has nothing taught yet, whatever was taught before.
    own.close()
    anew = open_review(own.workspace, own.path, fresh=True)
    assert anew.teaching() is None
    assert anew._teachings.next_number() == 2
    anew.close()


def ended(review: Review) -> Teaching:
    """Wait until the process of a teaching has ended; return what is said of it."""
    for _ in range(200):
        teaching = review.teaching()
        assert teaching is not None
        if teaching.state != "running":
            return teaching
        time.sleep(0.05)
    message = "the process goes on"
    raise AssertionError(message)


def test_a_process_that_is_killed_is_said_and_teaching_begins_anew(own: Review) -> None:
    """It runs apart from this process; killed, it is failed, and neither stage nor decision is lost."""
    own.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    assert own.teach("anna").state == "running"
    with pytest.raises(StageError, match="is still running"):
        own.teach("ben")
    process = int((own._places.taught / "001" / "lock").read_text())
    assert process != os.getpid()
    os.kill(process, signal.SIGKILL)
    told = ended(own)
    with pytest.raises(DataError, match="name of the person is empty"):
        own.teach(" ")
    assert told.state == "failed"
    assert "was ended before it was done" in told.error
    # Another one is stopped by whoever discards it.
    assert own.teach("ben").id == 2
    assert own.discard("ben").state == "discarded"
    for _ in range(200):
        if not own._teachings.runs(2):
            break
        time.sleep(0.05)
    assert not own._teachings.runs(2)
    assert own.workspace.champion() == 2
    assert [line.action for line in own.history()] == ["name", "teach", "teach", "discard"]


@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_learned_is_said(own: Review) -> None:
    """The message of the stage stands in the teaching, and another can begin."""
    own.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    told = own.teach("anna", overrides=("training.nonsense=3",))
    assert told.state == "failed"
    assert "nonsense" in told.error
    assert own.workspace.champion() == 2
    with pytest.raises(StageError, match="No teaching is done"):
        own.promote("anna")


def test_only_names_that_hold_are_taught(review: Review) -> None:
    """Neither conflicts nor doublets; with approved alone, only what a second person agreed to."""
    with pytest.raises(StageError, match="No group has a name that holds"):
        lesson(review)
    review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    review.decide("anna", DecisionRequest("doublet", group="label-1"))
    cells = review.group("novel-1").group.cells
    assert lesson(review) == {"DC": cells}
    with pytest.raises(StageError, match="approved by a second person"):
        lesson(review, approved=True)
    review.decide("ben", DecisionRequest("approve", group="novel-1"))
    assert lesson(review, approved=True) == {"DC": cells}
    review.decide("ben", DecisionRequest("name", group="novel-1", name="HSC"))
    with pytest.raises(StageError, match="1 groups are in conflict"):
        lesson(review)


def test_a_type_of_one_cell_is_refused(review: Review) -> None:
    """One is held out, and none is left to learn from."""
    review.decide(
        "anna", DecisionRequest("split", group="novel-1", cells=review.group("novel-1").group.rows[:1], name="DC")
    )
    with pytest.raises(StageError, match=r"DC \(1\): a type needs 2 cells"):
        lesson(review)


def test_cells_of_known_types_go_along(review: Review) -> None:
    """Sure ones from outside all groups, as with `canal novel name`; none of the names that are taught."""
    review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    annotation = review._prepared.annotation
    told = lesson_of(review.queue().groups, annotation, 0, approved=False, taught=set())
    grouped = np.concatenate([state.group.rows for state in review.queue().groups])
    along = told.rows[told.names != "DC"]
    assert not np.isin(along, grouped).any()
    assert (annotation.columns["status"][along] == "known").all()
    assert (annotation.confidence[along] >= 0.9).all()
    assert (told.names[told.names != "DC"] == annotation.cell_type[along]).all()
    assert set(told.known) == set(MADE_AS[:3])
