"""What weights are worth to a stage of few cells: the same cells for every start, and each start is what it says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import pytest
import torch

from benchmarks.few_cells import Question, as_drawn, measure, run, table
from canal.pretrain.run import PretrainRequest, pretrain
from canal.stages.layout import Layout
from canal.training.start import load_pretrained
from canal.workspace import Workspace
from tests.make import make_adata

SIZES = ("model.dim=16", "model.heads=2", "model.dim_head=8", "model.depth=2", "training.epochs=1")
COMPACT = ("training.epochs=20", "training.min_steps=0", "bank.size=9", "analytic.pseudo_cells=0")
QUICK = ("genes.per_stage=20", "training.epochs=2", "bank.size=9")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Question:
    """Two files of cells and weights of a moment's pre-training."""
    folder = tmp_path_factory.mktemp("few")
    paths = {}
    for name, n in (("train", 120), ("test", 60)):
        paths[name] = folder / f"{name}.h5ad"
        make_adata(n, 60, types=("B", "NK", "HSC"), seed=n).write_h5ad(paths[name])
    weights = pretrain(Layout(folder / "w"), PretrainRequest(data=[paths["train"]], overrides=SIZES))
    return Question(
        train=str(paths["train"]), test=str(paths["test"]), weights=str(folder / "w/weights" / weights.name),
        preset="performer", overrides=QUICK, start="pre-trained", cells=8, draw=0,
    )  # fmt: skip


def test_all_starts_learn_the_same_cells(asked: Question, tmp_path: Path) -> None:
    """Another draw has others; a run that was stopped goes on; the table has mean and spread."""
    seen: list[tuple[str, set[str]]] = []

    def note(question: Question, cells: ad.AnnData, test: ad.AnnData) -> dict[str, float]:
        assert test.n_obs == 60
        assert set(cells.obs["cell_type"].value_counts()) == {8}
        seen.append((question.start, set(cells.obs_names)))
        return {"accuracy": question.draw / 10, "macro_f1": 0.5, "seconds": 2.0}

    questions = [replace(asked, start=start, draw=draw) for draw in (0, 2) for start in ("pre-trained", "as drawn")]
    run(questions[:3], tmp_path / "out.jsonl", note)
    lines = run(questions, tmp_path / "out.jsonl", note)

    assert [start for start, _ in seen] == ["pre-trained", "as drawn"] * 2
    assert seen[0][1] == seen[1][1]
    assert seen[2][1] == seen[3][1]
    assert seen[0][1] != seen[2][1]
    assert "| 8 | as drawn | 2 | 0.100 ± 0.141 | 0.500 ± 0.000 | 2 |" in table(lines)


def test_weights_as_drawn_have_the_genes_and_sizes_of_the_others(asked: Question, tmp_path: Path) -> None:
    """And nothing of what was learned; the seed decides them."""
    trained = load_pretrained(Path(asked.weights))
    fresh = []
    for number, seed in enumerate((0, 0, 1)):
        fresh.append(load_pretrained(as_drawn(Path(asked.weights), tmp_path / f"w{number}", seed)))

    assert fresh[0].genes == trained.genes
    assert fresh[0].sizes == trained.sizes
    assert fresh[0].digest == fresh[1].digest != fresh[2].digest
    name = "performer.net.layers.1.1.fn.fn.w1.weight"
    assert not torch.allclose(fresh[0].tensors[name], trained.tensors[name])


@pytest.mark.parametrize(
    ("start", "preset", "weights"),
    [
        ("pre-trained", "performer", "pretrained"),
        ("as drawn", "performer", "drawn"),
        ("compact", "compact", None),
        ("logistic regression", None, None),
    ],
)
def test_each_start_is_measured(
    asked: Question, start: str, preset: str | None, weights: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage starts from the weights that the start names, on the preset it names."""
    taken: list[dict[str, Any]] = []
    add = Workspace.add_stage

    def noted(self: Workspace, data: ad.AnnData, **given: Any) -> Any:
        taken.append(given)
        return add(self, data, **given | ({} if given["preset"] == "performer" else {"overrides": COMPACT}))

    monkeypatch.setattr(Workspace, "add_stage", noted)
    cells, test = (make_adata(n, 60, types=("B", "NK", "HSC"), seed=n) for n in (60, 30))

    found = measure(replace(asked, start=start), cells, test)

    if preset is None:
        assert taken == []
    else:
        assert taken[0]["preset"] == preset
        assert (taken[0]["weights"] and Path(taken[0]["weights"]).name) == weights
    assert found["seconds"] > 0
    assert found["accuracy"] > (0.8 if weights is None else 0.0)
