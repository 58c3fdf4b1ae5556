"""A review of a file: queue, map, evidence and decisions, with a real workspace."""

import json
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest

import canal
from canal.errors import CanalError, DataError, StageError
from canal.model.reliability import Reliability
from canal.review.evidence import EvidenceReader
from canal.review.groups import digest_of
from canal.review.opening import reviewed_answers
from canal.review.review import Review, open_review
from canal.review.values import DecisionRequest
from canal.workspace import Workspace
from tests.unit.review.conftest import MADE_AS, quick


def truth(review: Review) -> np.ndarray:
    """Return the type that each toy cell was made as."""
    return np.array(MADE_AS, dtype=object)[np.arange(review.cells) % len(MADE_AS)]


def test_the_queue_shows_what_is_worth_a_look(review: Review) -> None:
    """The left-out type is a group of its own and comes first; cells with another label are a group, too."""
    queue = review.queue()
    first = queue.groups[0].group
    made_as = truth(review)
    assert (first.id, first.kind) == ("novel-1", "novel")
    assert (made_as[first.rows] == "DC").mean() > 0.9
    assert np.isin(np.flatnonzero(made_as == "DC"), first.rows).mean() > 0.9
    labels = [told.group for told in queue.groups if told.group.kind == "label"]
    assert [(group.facts["given"], group.facts["predicted"]) for group in labels] == [("NK", "B")]
    assert first.digest == digest_of(ad.read_h5ad(review.path).obs_names.to_numpy()[first.rows])
    assert queue.counts == {"open": len(queue.groups), "decided": 0, "conflict": 0, "approved": 0}
    json.dumps(queue.to_dict())  # plain values
    # No cell is in two groups.
    rows = np.concatenate([told.group.rows for told in queue.groups])
    assert len(np.unique(rows)) == len(rows) == queue.cells


def test_the_queue_is_searched_and_its_progress_told(review: Review) -> None:
    """Words of titles, names, people and comments; progress counts all groups whatever is searched."""
    review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    review.decide("ben", DecisionRequest("comment", group="novel-1", text="CLEC9A, <b>surely</b>"))
    assert [told.group.id for told in review.queue("clec9a ANNA").groups] == ["novel-1"]
    assert review.queue("no such word").groups == ()
    assert {told.group.kind for told in review.queue(kind="label").groups} == {"label"}
    queue = review.queue(status="decided")
    assert [told.group.id for told in queue.groups] == ["novel-1"]
    assert queue.counts["decided"] == 1
    assert queue.cells_decided == queue.groups[0].group.cells < queue.cells


def test_a_file_is_annotated_once(lab: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was computed is read again; the reviewed file itself is never changed."""
    before = (lab / "query.h5ad").read_bytes()
    open_review(workspace, lab / "query.h5ad").close()

    def refuse(*_args: object, **_options: object) -> None:
        message = "annotated again"
        raise AssertionError(message)

    monkeypatch.setattr(Workspace, "annotate", refuse)
    monkeypatch.setattr("canal.novel.find.group_novel", refuse)
    open_review(workspace, lab / "query.h5ad").close()
    assert (lab / "query.h5ad").read_bytes() == before


def test_an_annotated_file_is_taken_at_its_word(
    lab: Path, workspace: Workspace, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own columns are reviewed, and the groups are those of the same cells without."""
    workspace.annotate(lab / "query.h5ad", out=lab / "annotated.h5ad")
    monkeypatch.setattr(Workspace, "annotate", None)
    opened = open_review(workspace, lab / "annotated.h5ad")
    own = [(told.group.id, told.group.digest) for told in opened.queue().groups]
    assert own == [(told.group.id, told.group.digest) for told in review.queue().groups]
    opened.close()


def test_a_file_by_a_stage_that_is_gone_is_refused(lab: Path, workspace: Workspace) -> None:
    """The stage and the stages that there are stand in the message; nothing is written beside the file."""
    workspace.annotate(lab / "query.h5ad", out=lab / "annotated.h5ad")
    with h5py.File(lab / "annotated.h5ad", "r+") as file:
        file["uns/canal/stage"][...] = 7
    with pytest.raises(StageError, match=r"by stage 7 of model .* its stages: 1 \(first\), 2 \(second\)"):
        open_review(workspace, lab / "annotated.h5ad")
    assert not (lab / "annotated.h5ad.review.jsonl").exists()
    # Another workspace's stage of the same number is another stage.
    with h5py.File(lab / "annotated.h5ad", "r+") as file:
        file["uns/canal/stage"][...] = 2
        file["uns/canal/model_digest"][()] = "sha256:" + "0" * 64
    with pytest.raises(StageError, match="by stage 2 of model"):
        open_review(workspace, lab / "annotated.h5ad")


def test_a_result_of_novel_find_is_reviewed(lab: Path, workspace: Workspace, review: Review) -> None:
    """Its clusters are the groups; decisions stand in the folder, which is not overwritten by another finding."""
    workspace.find_novel(lab / "query.h5ad", lab / "found")
    opened = open_review(workspace, lab / "found")
    first = opened.queue().groups[0].group
    assert (first.id, first.digest) == ("novel-1", review.group("novel-1").group.digest)
    opened.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    opened.close()
    assert (lab / "found" / "review.jsonl").is_file()
    with pytest.raises(CanalError, match="no earlier result"):
        workspace.find_novel(lab / "query.h5ad", lab / "found")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.h5ad", "There is no file"),
        ("table.csv", "is no .h5ad file"),
        ("folder", "is no result of canal novel find"),
        ("broken.h5ad", "no HDF5 file"),
    ],
)
def test_what_is_no_file_to_review_is_refused(lab: Path, workspace: Workspace, name: str, message: str) -> None:
    """What was found and what is expected is said."""
    (lab / "table.csv").write_text("a,b\n")
    (lab / "broken.h5ad").write_text("text")
    (lab / "folder").mkdir()
    with pytest.raises(DataError, match=message):
        open_review(workspace, lab / name)


def test_a_folder_without_right_to_write_is_said(lab: Path, workspace: Workspace) -> None:
    """The place of the decisions is tried before anything is computed."""
    (lab / "query.h5ad.review").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written: .*ask for the right to write in that folder"):
        open_review(workspace, lab / "query.h5ad")


def test_decisions_on_other_cells_are_not_taken_over(lab: Path, workspace: Workspace) -> None:
    """A file whose cells were replaced under its decisions is refused."""
    open_review(workspace, lab / "query.h5ad").close()
    cells = ad.read_h5ad(lab / "query.h5ad")[:170].copy()
    cells.write_h5ad(lab / "query.h5ad")
    with pytest.raises(DataError, match=r"is about other cells than those of .*: 180 then, 170 now"):
        open_review(workspace, lab / "query.h5ad")


def test_a_review_begins_anew_where_it_is_asked_to(lab: Path, workspace: Workspace) -> None:
    """The decisions so far are put aside, not deleted; until then they go on."""
    first = open_review(workspace, lab / "query.h5ad")
    first.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    first.close()
    again = open_review(workspace, lab / "query.h5ad")
    assert again.group("novel-1").name == "DC"
    again.close()
    before = first.decisions_path.read_bytes()
    opened = open_review(workspace, lab / "query.h5ad", fresh=True)
    assert opened.history() == []
    assert (lab / "query.h5ad.review.1.jsonl").read_bytes() == before
    assert any("query.h5ad.review.1.jsonl" in note for note in opened.notes)
    opened.close()


def test_the_map_is_that_of_the_file_where_it_has_one(lab: Path, workspace: Workspace) -> None:
    """X_umap by itself, another by name; none that is not there."""
    cells = ad.read_h5ad(lab / "query.h5ad")
    rng = np.random.default_rng(0)
    cells.obsm["X_umap"], cells.obsm["X_tsne"] = rng.normal(size=(180, 2)), rng.normal(size=(180, 3))
    cells.write_h5ad(lab / "query.h5ad")
    opened = open_review(workspace, lab / "query.h5ad")
    assert opened.bases() == ["X_tsne", "X_umap"]
    assert opened.map().basis == "X_umap"
    assert "first two" in opened.map("X_tsne").note
    points = opened.map().coordinates
    assert (points.dtype, points.shape, float(np.abs(points).max())) == (np.float32, (180, 2), 1.0)
    distances = np.linalg.norm(points[0] - points[1]) / np.linalg.norm(points[2] - points[3])
    stored = cells.obsm["X_umap"]
    expected = np.linalg.norm(stored[0] - stored[1]) / np.linalg.norm(stored[2] - stored[3])
    assert distances == pytest.approx(expected, rel=1e-4)
    opened.close()
    with pytest.raises(DataError, match=r"no obsm.'X_other'"):
        open_review(workspace, lab / "query.h5ad", basis="X_other")


def test_a_map_is_computed_where_there_is_none(review: Review) -> None:
    """Types lie apart on it, it is the same at the next opening, and it is said that it was computed."""
    told = review.map()
    assert told.basis == "umap"
    assert "has no X_umap" in told.note
    made_as = truth(review)
    centre = {name: told.coordinates[made_as == name].mean(axis=0) for name in MADE_AS}
    spread = max(told.coordinates[made_as == name].std() for name in centre)
    assert min(np.linalg.norm(centre["B"] - centre["DC"]), np.linalg.norm(centre["B"] - centre["NK"])) > spread / 2
    np.testing.assert_array_equal(quick(review, review.decisions_path).map().coordinates, told.coordinates)


def test_the_map_is_coloured_by_anything(review: Review) -> None:
    """Columns, genes, answers and what people said; one value a cell."""
    assert {column.name for column in review.columns()} == {"cell_type", "batch", "donor"}
    review.decide("anna", DecisionRequest("name", group="novel-1", name='<script>alert("1")</script>'))
    rows = review.group("novel-1").group.rows
    for by, name, kind in (
        ("obs", "batch", "category"),
        ("gene", "GENE3", "number"),
        ("type", "", "category"),
        ("status", "", "category"),
        ("confidence", "", "number"),
        ("group", "", "category"),
        ("review", "", "category"),
    ):
        told = review.colour(by, name)
        assert (told.kind, len(told.values)) == (kind, 180)
        json.dumps(told.to_dict())
    named = review.colour("review")
    assert {named.names[code] for code in named.values[rows]} == {'<script>alert("1")</script>'}
    for by, name, message in (("obs", "other", "no column"), ("gene", "other", "no gene"), ("mood", "", "no colour")):
        with pytest.raises(DataError, match=message):
            review.colour(by, name)


def test_the_evidence_tells_the_left_out_type(review: Review) -> None:
    """Its markers are those that were made for it; what it is near, where it comes from and its labels are told."""
    told = review.evidence("novel-1")
    first = review.group("novel-1").group
    assert told.cells == first.cells
    # Genes 40 to 47 belong to the sixth type of the toys.
    assert {marker.gene for marker in told.markers[:4]} <= {f"GENE{number}" for number in range(40, 48)}
    assert sum(nearest.share for nearest in told.near) == pytest.approx(1.0)
    assert all(nearest.distance is not None and nearest.distance > 0 for nearest in told.near)
    assert set(told.composition) == {"batch", "donor"}
    assert sum(told.composition["batch"].values()) == first.cells
    assert sum(told.status.values()) == sum(told.given.values()) == first.cells
    assert told.given["DC"] > 0.8 * first.cells
    assert "DC" in {suggestion.name for suggestion in told.suggestions}
    json.dumps(told.to_dict())
    chosen = review.evidence(first.rows[:5])
    assert (chosen.cells, chosen.looked_at) == (5, 5)
    alone = review.evidence(first.rows[:1])
    assert alone.markers == ()
    assert "single cell" in alone.notes[0]


def test_confidence_is_told_beside_what_was_measured_of_it(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accuracy of held-out cells of as much confidence; none where there were few or none, or nothing was kept."""
    rows = review.group("novel-1").group.rows
    mean = float(review._prepared.annotation.confidence[rows].mean())
    for confidence, cells, measured in ((mean, 12, 0.75), (mean, 4, None), (0.05, 12, None)):
        kept = Reliability.of(np.full(cells, confidence), np.tile([1.0, 1.0, 1.0, 0.0], cells // 4), 1.0)
        monkeypatch.setattr(Workspace, "reliability", lambda _self, _number, kept=kept: kept)
        told = EvidenceReader(review.workspace, review._record, review._prepared).evidence(rows, ()).confidence
        assert told["mean"] == pytest.approx(mean)
        assert told["measured"] == measured


def test_a_review_can_be_warmed_up(review: Review) -> None:
    """The evidence of the first group is there then, without a decision."""
    review.warm_up()
    assert [what for what, _ in review._kept] == ["evidence"]
    assert review.history() == []


def test_models_say_why_and_what_else(review: Review) -> None:
    """Genes for the answer, taught cells that lie nearest, and each stage's answer, judged cell by cell."""
    reason = review.reasons("novel-1", top=3)[0]
    assert reason.type in MADE_AS[:3]
    assert len(reason.genes_for) == 3
    reference = review.reference_cells("novel-1")
    assert {told.type for told in reference} <= set(MADE_AS[:3])
    assert sum(told.cells for told in reference) == 5 * review.group("novel-1").group.cells
    first, second = review.stage_answers("novel-1")
    assert (first.stage, first.name, first.in_use, first.error) == (1, "first", False, "")
    assert set(first.types) <= {"B", "NK"}
    assert (second.stage, second.in_use) == (2, True)
    assert second.novel is not None
    assert second.novel > 0.7


def test_dots_are_means_and_shares(review: Review) -> None:
    """As computed from the cells themselves; of groups, known types and a selection."""
    told = review.dot_plot(["novel-1", "B"], ["GENE40", "GENE1"], cells=[0, 3, 6])
    assert told.groups == ("selection", "novel-1", "B")
    values = review.colour("gene", "GENE40").values
    rows = review.group("novel-1").group.rows
    assert told.mean[1, 0] == pytest.approx(values[rows].mean(), rel=1e-5)
    assert told.share[0, 0] == pytest.approx((values[[0, 3, 6]] > 0).mean())
    assert told.mean[1, 0] > told.mean[2, 0]
    with pytest.raises(DataError, match="no group 'other'"):
        review.dot_plot(["other"], ["GENE1"])


def test_names_are_suggested_while_somebody_types(review: Review) -> None:
    """What was given here, then known types, then terms; each once."""
    review.decide("anna", DecisionRequest("name", group="novel-1", name="dendritic, conventional"))
    told = review.suggest_names("dendritic")
    assert (told[0].name, told[0].source) == ("dendritic, conventional", "review")
    assert any(suggestion.term == "CL:0000451" for suggestion in told)
    assert review.suggest_names("n")[0].name == "NK"
    assert len({suggestion.name for suggestion in told}) == len(told) <= 12


def test_two_reviews_of_one_file_see_each_other(review: Review) -> None:
    """Two processes have a review each: what one writes the other shows and checks against."""
    other = quick(review, review.decisions_path)
    review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    assert other.group("novel-1").name == "DC"
    other.decide("ben", DecisionRequest("approve", group="novel-1"))
    assert review.group("novel-1").status == "approved"
    split = other.decide("ben", DecisionRequest("split", group="novel-1", cells=review.group("novel-1").group.rows[:4]))
    with pytest.raises(DataError, match="is gone: ben took its cells"):
        review.decide("anna", DecisionRequest("name", group="novel-1", name="MK"))
    review.decide("anna", DecisionRequest("name", group=f"{split.id}-a", name="MK"))
    assert [line.action for line in other.history("novel-1")] == ["name", "approve", "split"]


def test_an_action_that_is_sent_twice_is_written_once(review: Review) -> None:
    """A page that lost the answer sends the same id again."""
    first = review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"), key="abc-1")
    assert review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"), key="abc-1") == first
    assert len(review.history()) == 1
    with pytest.raises(DataError, match="cannot be the id"):
        review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"), key="a b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "paint"}, "no action 'paint'"),
        ({"action": "teach"}, "no decision on cells"),
        ({"action": "name", "group": "novel-1"}, "name is empty"),
        ({"action": "name", "group": "other", "name": "DC"}, "no group 'other'"),
        ({"action": "split", "group": "novel-1", "cells": [-1]}, "positions of cells from 0 to 179"),
        ({"action": "split", "group": "novel-1", "cells": [0, 1, 2, 3]}, "selected cells are not in group"),
        ({"action": "split"}, "No cell is selected"),
        ({"action": "approve", "group": "novel-1"}, "Nobody has decided"),
    ],
)
def test_what_is_not_possible_leaves_no_line(review: Review, options: dict, message: str) -> None:
    """Each refusal is a message, and the file of decisions stays as it was."""
    before = review.decisions_path.read_bytes()
    with pytest.raises(DataError, match=message):
        review.decide("anna", DecisionRequest(**options))
    assert review.decisions_path.read_bytes() == before


def test_the_export_holds_every_decision_and_what_holds(review: Review) -> None:
    """As plain values; cells are listed of what was decided on."""
    review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    undone = review.decide("anna", DecisionRequest("reject", group="label-1"))
    review.decide("anna", DecisionRequest("undo", decision=undone.id))
    told = json.loads(json.dumps(review.to_dict()))
    assert [(line["action"], line["undone"]) for line in told["decisions"]] == [
        ("name", False),
        ("reject", True),
        ("undo", False),
    ]
    groups = {group["id"]: group for group in told["groups"]}
    assert len(groups["novel-1"]["cell_names"]) == groups["novel-1"]["cells"]
    assert groups["label-1"]["cell_names"] == []
    assert told["reviewed"]["cells"] == 180


def test_the_reviewed_file_has_names_and_people(lab: Path, review: Review) -> None:
    """The cells with two more columns beside the annotation; the document of the schema has the reviews."""
    review.decide("anna", DecisionRequest("name", group="novel-1", name="DC"))
    review.decide("ben", DecisionRequest("approve", group="novel-1"))
    review.decide("anna", DecisionRequest("reject", group="label-1"))
    rows, rejected = review.group("novel-1").group.rows, review.group("label-1").group.rows
    counts = review.write_reviewed(lab / "out.h5ad", cas=lab / "out.json")
    cells = ad.read_h5ad(lab / "out.h5ad")
    assert set(cells.obs["canal_reviewed"].iloc[rows]) == {"DC"}
    assert set(cells.obs["canal_reviewer"].iloc[rows]) == {"anna; ben"}
    assert set(cells.obs["canal_reviewed"].iloc[rejected]) == {"B"}
    assert (cells.obs["canal_reviewed"] == "").sum() == 180 - len(rows) - len(rejected)
    assert counts == {"DC": len(rows), "B": len(rejected)}
    assert {"canal_cell_type", "canal_status"} <= set(cells.obs)
    document = json.loads((lab / "out.json").read_text())
    entry = next(entry for entry in document["annotations"] if entry["labelset"] == "canal_reviewed")
    assert (entry["cell_label"], len(entry["cell_ids"])) == ("DC", len(rows))
    assert [(told["reviewer"], told["review"]) for told in entry["reviews"]] == [("anna", "Agree"), ("ben", "Agree")]
    # Nothing is replaced unasked; with approved alone, one person's word does not count.
    with pytest.raises(DataError, match="is there already"):
        review.write_reviewed(lab / "out.h5ad")
    counts = review.write_reviewed(lab / "out.h5ad", overwrite=True, approved=True)
    assert counts == {"DC": len(rows)}
    # What was written can be reviewed and written again.
    again = open_review(review.workspace, lab / "out.h5ad")
    again.write_reviewed(lab / "again.h5ad")
    again.close()


def test_a_model_that_cannot_tell_novel_cells_is_said(lab: Path, workspace: Workspace) -> None:
    """Without verdicts there are disagreements alone, and a note."""
    workspace.annotate(lab / "query.h5ad", out=lab / "plain.h5ad")
    with h5py.File(lab / "plain.h5ad", "r+") as file:
        order = [name for name in file["obs"].attrs["column-order"] if name not in {"canal_status", "canal_p_value"}]
        del file["obs/canal_status"], file["obs/canal_p_value"]
        file["obs"].attrs["column-order"] = order
    opened = open_review(workspace, lab / "plain.h5ad")
    assert {told.group.kind for told in opened.queue().groups} == {"label"}
    assert any("cannot tell novel cells" in note for note in opened.notes)
    opened.close()


def test_answers_of_another_stage_are_kept_apart(review: Review) -> None:
    """Asked twice, a stage answers from what was kept."""
    record = review.workspace.stage(2)
    told = reviewed_answers(review.workspace, review._places, record, None, canal.progress.Silent())
    np.testing.assert_array_equal(told.cell_type, review._prepared.annotation.cell_type)


def test_too_many_novel_cells_are_grouped_by_the_nearest_type(
    lab: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters would take hours: the largest group first, and it is said."""
    monkeypatch.setattr("canal.review.opening.MOST_CLUSTERED", 10)
    opened = open_review(workspace, lab / "query.h5ad")
    groups = [told.group for told in opened.queue(kind="novel").groups]
    novel = np.flatnonzero(opened._prepared.annotation.columns["status"] == "novel")
    np.testing.assert_array_equal(np.sort(np.concatenate([group.rows for group in groups])), novel)
    nearest = opened._prepared.annotation.columns["best_known"]
    assert [set(nearest[group.rows]) for group in groups] == [{group.facts["predicted"]} for group in groups]
    assert [group.cells for group in groups] == sorted((group.cells for group in groups), reverse=True)
    assert any("more than the 10 that are clustered" in note for note in opened.notes)
    opened.close()


def test_a_column_of_labels_that_is_not_there_is_refused(lab: Path, workspace: Workspace) -> None:
    """The columns that there are are named; without labels nothing disagrees."""
    with pytest.raises(DataError, match=r"has no column obs\['author_type'\]\. It has cell_type, batch, donor"):
        open_review(workspace, lab / "query.h5ad", labels="author_type")
    opened = open_review(workspace, lab / "query.h5ad", labels="")
    assert {told.group.kind for told in opened.queue().groups} <= {"novel", "uncertain"}
    opened.close()
