"""Stages from files to a committed registry, as a lab runs them."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import canal
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.errors import DataError, StageError
from canal.registry.registry import Registry
from canal.stages.evaluate import joint_logistic_regression
from tests.labs import add, everything, write
from tests.make import make_adata


def test_a_stage_tells_what_it_learned(lab: Path) -> None:
    """Records hold types, counts, bank, figures, configuration and digests."""
    first, second = canal.open_workspace(lab / "ws").stages()

    assert (first.number, first.name, first.parent, first.version) == (1, "first", None, 1)
    assert (second.number, second.name, second.parent, second.version) == (2, "more", 1, 2)
    assert (first.types, first.new_types) == (("B", "NK"), ("B", "NK"))
    assert (second.types, second.new_types) == (("B", "NK", "CD4 T"), ("CD4 T",))
    assert second.bank["size"] == 24
    assert second.bank["per_type"] == {"B": 8, "NK": 8, "CD4 T": 8}
    assert 0.5 < second.metrics["validation_accuracy"] <= 1
    assert second.preset["training"]["epochs"] == 3
    assert second.data[0]["digest"].startswith("sha256:")
    assert {"weights.safetensors", "bank.safetensors", "memory.safetensors", "genes.json", "types.json",
            "calibration.json", "config.toml"} <= set(second.artifacts)  # fmt: skip


def test_the_declaration_is_readable(lab: Path) -> None:
    """`stages/` holds a TOML file a stage."""
    assert sorted(p.name for p in (lab / "ws" / "stages").glob("*.toml")) == ["001-first.toml", "002-more.toml"]
    assert "second.h5ad" in (lab / "ws" / "stages" / "002-more.toml").read_text()


def test_nothing_of_old_data_stays_but_the_bank(lab: Path) -> None:
    """No cell name of stage 1 outside its bank is anywhere in the registry after stage 2."""
    workspace = canal.open_workspace(lab / "ws")
    registry = Registry.open(workspace.layout.registry, workspace.layout.settings.name)
    banks = [(registry.artifacts(r) / "bank.safetensors").read_bytes() for r in workspace.stages()]
    kept = b"".join(banks)
    gone = [f"first{i}".encode() for i in range(80) if f'"first{i}"'.encode() not in kept]
    assert gone

    files = everything(lab / "ws")

    assert not [name for name, content in files.items() for cell in gone if b'"' + cell + b'"' in content]


def test_both_stages_types_are_annotated(lab: Path, tmp_path: Path) -> None:
    """After two stages the cells of both are named; the file keeps what it had."""
    query = write(tmp_path, "query", ("B", "NK", "CD4 T"), 90, seed=7)
    before = ad.read_h5ad(query)

    annotation = canal.open_workspace(lab / "ws").annotate(query, out=tmp_path / "out.h5ad")
    after = ad.read_h5ad(tmp_path / "out.h5ad")

    assert (annotation.cell_type == before.obs["cell_type"].astype(str).to_numpy()).mean() > 0.9
    assert after.obs["canal_cell_type"].astype(str).tolist() == annotation.cell_type.tolist()
    assert after.obsm["X_canal"].shape == (90, 64)
    np.testing.assert_array_equal(after.X.toarray(), before.X.toarray())
    assert set(before.obs) <= set(after.obs)
    assert ((annotation.confidence > 0) & (annotation.confidence <= 1)).all()


def test_an_earlier_stage_still_annotates(lab: Path, tmp_path: Path) -> None:
    """Stage 1 knows its two types only."""
    query = write(tmp_path, "query", ("B", "CD4 T"), 40, seed=7)

    annotation = canal.open_workspace(lab / "ws").annotate(query, stage=1)

    assert set(annotation.cell_type) <= {"B", "NK"}


def test_the_answer_can_be_restricted_and_smoothed(lab: Path) -> None:
    """`types` leaves no other; voting gives every cell of a cluster one type."""
    workspace = canal.open_workspace(lab / "ws")
    query = make_adata(90, types=("B", "NK", "CD4 T"), seed=7)
    query.obs["cluster"] = query.obs["cell_type"].astype(str)

    restricted = workspace.annotate(query, types=["NK", "CD4 T"])
    voted = workspace.annotate(query, over_clustering="cluster")

    assert set(restricted.cell_type) <= {"NK", "CD4 T"}
    assert [len(set(voted.cell_type[query.obs["cluster"] == c])) for c in ("B", "NK", "CD4 T")] == [1, 1, 1]
    with pytest.raises(StageError, match="does not know the types 'HSC'"):
        workspace.annotate(query, types=["HSC"])
    with pytest.raises(DataError, match="no column"):
        workspace.annotate(query, over_clustering="louvain")


def test_evaluation_counts_types_the_model_does_not_know(lab: Path) -> None:
    """Accuracy over labelled cells, macro-F1 over types present, an unknown type named."""
    query = make_adata(90, types=("B", "HSC"), seed=7)

    found = canal.open_workspace(lab / "ws").evaluate(query, labels="cell_type").to_dict()

    assert found["unknown_types"] == ("HSC",)
    assert found["per_type"]["HSC"]["recall"] == 0
    assert found["accuracy"] <= 0.5
    assert found["macro_f1"] == pytest.approx(np.mean([v["f1"] for v in found["per_type"].values()]))


def test_a_label_that_looks_known_is_reported(lab: Path, tmp_path: Path) -> None:
    """A new name like a known one is a warning with evidence, and refused under strict labels, with nothing written."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    add(workspace, write(tmp_path, "first", n=120))
    adata = make_adata(120, types=("B", "NK"), prefix="x", seed=3)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace({"B": "b-cells", "NK": "Killer"})
    before = everything(tmp_path / "ws")

    with pytest.raises(StageError, match="b-cells"):
        add(workspace, adata, strict_labels=True)
    assert everything(tmp_path / "ws") == before

    result = add(workspace, adata)
    reasons = {(w["new"], w["known"], w["reason"]) for w in result.label_warnings}
    assert ("b-cells", "B", "name") in reasons
    assert ("Killer", "NK", "cells") in reasons


def test_a_truly_new_type_is_not_refused_under_strict_labels(lab: Path, tmp_path: Path) -> None:
    """Its cells look novel, so that the known type nearest to them says nothing of the name."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    add(workspace, write(tmp_path, "first", n=240))
    adata = make_adata(240, types=("B", "HSC"), prefix="x", seed=3)

    result = add(workspace, adata, strict_labels=True)

    assert result.new_types == ("HSC",)
    assert result.label_warnings == ()


def test_a_new_file_is_scored_before_it_is_learned(lab: Path, tmp_path: Path) -> None:
    """The figures are those of the stage before on exactly these cells, of its types only; they stay in the record."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    first = add(workspace, write(tmp_path, "first", n=120))
    adata = make_adata(120, types=("B", "NK", "HSC"), prefix="x", seed=3)
    known = adata.obs["cell_type"].isin(["B", "NK"]).to_numpy()
    annotation = workspace.annotate(adata, alpha=0.05)
    right = annotation.cell_type[known] == adata.obs["cell_type"].to_numpy()[known]

    result = add(workspace, adata)

    assert first.incoming is None
    assert result.incoming["cells"] == known.sum()
    assert result.incoming["accuracy"] == pytest.approx(right.mean())
    novel = annotation.columns["status"][known] == "novel"
    assert result.incoming["false_alarms"] == pytest.approx(novel.mean())
    metrics = workspace.stage(2).metrics
    assert metrics["incoming_accuracy"] == pytest.approx(right.mean())
    assert {f"incoming_{name}" for name in result.incoming} <= set(metrics)
    (row,) = [stage for stage in workspace.compare().stages if stage.incoming]
    assert row.incoming == result.incoming


def test_the_same_stages_twice_have_the_same_weights(lab: Path, tmp_path: Path) -> None:
    """Files, seeds and configuration decide every byte of the weights."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    add(workspace, lab / "first.h5ad")
    add(workspace, lab / "second.h5ad")

    ours, theirs = workspace.stage(2), canal.open_workspace(lab / "ws").stage(2)

    for name in ("weights.safetensors", "bank.safetensors", "memory.safetensors"):
        assert ours.artifacts[name] == theirs.artifacts[name]


@pytest.mark.slow
@pytest.mark.shared_data
def test_two_real_stages_come_near_joint_logistic_regression(streams: Path, tmp_path: Path) -> None:
    """Two technologies of blood: within 0.02 of joint logistic regression, which saw both at once."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    names = ("3_pbmc_3tech", "4_kang_ifn")
    for name in names:
        workspace.add_stage(streams / "immune" / f"{name}.train.h5ad", labels="cell_type")
    tests = [streams / "immune" / f"{name}.test.h5ad" for name in names]
    got = [workspace.evaluate(path, labels="cell_type").accuracy for path in tests]

    joint = joint_logistic_regression(
        [read_cells(streams / "immune" / f"{name}.train.h5ad", labels="cell_type") for name in names],
        [read_cells(path, labels=LabelOptions(column="cell_type", keep_rare=True)) for path in tests],
    )
    naive = canal.open_workspace(tmp_path / "naive", create=True)
    off = ["bank.size=0", "training.distillation=0", "analytic.enabled=false", "promotion.max_fall=1"]
    for name in names:
        naive.add_stage(streams / "immune" / f"{name}.train.h5ad", labels="cell_type", overrides=off)
    naive_first = naive.evaluate(tests[0], labels="cell_type").accuracy

    assert np.mean(got) > np.mean([a for a, _ in joint]) - 0.02
    assert got[0] > naive_first
