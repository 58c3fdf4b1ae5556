"""`canal pretrain`: weights from unlabelled cells, whole, resumed, and used by a stage."""

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import RegistryError
from canal.pretrain import cells as blocks_module
from canal.pretrain import masked
from canal.pretrain import training as pretraining
from canal.pretrain.cells import CellFiles, TokenBlocks, variable_panel
from canal.pretrain.run import PretrainRequest, pretrain
from canal.progress import Silent
from canal.registry.health import working_folder
from canal.seeds import numpy_generator
from canal.stages.layout import Layout
from canal.workspace import Workspace
from tests.make import make_adata

BLOCK = 64  # cells read at a time, in place of 512
QUICK = (
    "model.dim=16", "model.heads=2", "model.dim_head=8", "genes.per_file=40", "training.genes_per_batch=30",
    "training.held_out_share=0.1", "training.epochs=2",
)  # fmt: skip


def leveled(n: int, prefix: str, genes: int = 40, seed: int = 0) -> ad.AnnData:
    """Return cells whose genes have levels of their own: the gene tells the bin, the cell alone does not."""
    rng = np.random.default_rng(seed)
    level = np.geomspace(1, 30, genes)[np.random.default_rng(5).permutation(genes)]
    counts = rng.poisson(level, size=(n, genes)) * (rng.random((n, genes)) < 0.7)
    rest = 10_000 - counts.sum(axis=1, keepdims=True)
    names = [*(f"GENE{i}" for i in range(genes)), "REST"]
    obs = pd.DataFrame(index=[f"{prefix}{i}" for i in range(n)])
    return ad.AnnData(X=np.hstack([counts, rest]).astype(np.float32), obs=obs, var=pd.DataFrame(index=names))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files have several blocks and groups, too."""
    monkeypatch.setattr(blocks_module, "BLOCK", BLOCK)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files that are no multiple of a block, and vectors of genes."""
    folder = tmp_path_factory.mktemp("pretrain")
    leveled(BLOCK * 5 + 17, "a").write_h5ad(folder / "a.h5ad")
    leveled(BLOCK * 4 + 100, "b", genes=30, seed=1).write_h5ad(folder / "b.h5ad")
    vectors = np.random.default_rng(0).normal(size=(43, 16))
    np.save(folder / "vectors.npy", vectors)
    names = [f"GENE{i}" for i in range(40)] + ["OTHER1", "OTHER2", "OTHER3"]
    (folder / "names.txt").write_text("\n".join(names))
    lines = [f"{n} {' '.join(map(str, v))}" for n, v in zip(names, vectors, strict=True)]
    (folder / "vectors.txt").write_text("\n".join(["43 16", *lines]))
    return folder


def run(files: Path, *words: Any, code: int = 0, sets: tuple[str, ...] = QUICK) -> dict[str, Any]:
    flags = [word for value in sets for word in ("--set", value)] if words[0] == "pretrain" else []
    done = CliRunner().invoke(app, ["-C", str(files / "w"), *map(str, words), *flags, "--json"])
    assert done.exit_code == code, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_every_training_cell_passes_once_an_epoch(files: Path) -> None:
    """Whatever the order, the groups hold each wanted cell of each file once; a group mixes files."""
    with CellFiles([files / "a.h5ad", files / "b.h5ad"]) as opened:
        surveys = opened.survey(lambda _n: None)
        panel = variable_panel(surveys, 0)
        blocks = TokenBlocks(opened, panel, bins=5)
        taken = [np.random.default_rng(k).random(s.cells) < 0.9 for k, s in enumerate(surveys)]
        whole = np.concatenate([b.tokens for b in blocks.all(taken)])
        groups = [blocks.group(k, numpy_generator(0, "epoch 1"), taken) for k in range(blocks.groups)]
        found = np.concatenate([g.tokens for g in groups])
        mixed = [len(np.unique(g.measured, axis=0)) for g in groups]

    assert len(groups) == 2
    assert max(mixed) == 2
    assert len(whole) == sum(t.sum() for t in taken)
    np.testing.assert_array_equal(np.sort(found.view("V41").ravel()), np.sort(whole.view("V41").ravel()))


def test_the_result_beats_the_majority_and_a_stage_starts_from_it(files: Path) -> None:
    """Where the gene tells the bin, the model learns it; name and digest of the weights stand in the stage."""
    facts = run(files, "pretrain", "--data", files / "a.h5ad", files / "b.h5ad", "--name", "levels",
                sets=(*QUICK, "training.epochs=16", "training.learning_rate=1e-2"))  # fmt: skip
    assert facts["accuracy"] > facts["cell_majority"] + 0.15
    assert facts["held_out_cells"] == 70
    assert [d["cells"] for d in facts["data"]] == [BLOCK * 5 + 17, BLOCK * 4 + 100]
    assert len(facts["history"]) == 16

    make_adata(60, 40, types=2).write_h5ad(files / "stage.h5ad")
    quick = ("training.epochs=1", "bank.size=20", "genes.per_stage=20")
    flags = [word for value in quick for word in ("--set", value)]
    run(files, "stage", "add", "--data", files / "stage.h5ad", "--preset", "canal", "--weights", "levels", *flags)
    record = canal.open_workspace(files / "w").stages()[0]
    assert record.notes["weights"]["digest"] == facts["digest"]
    assert record.notes["weights"]["genes"] == 20


class Stop(Silent):
    """Kills the run after so many cells."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, total_steps: int, description: str) -> None:  # noqa: ARG002
        self.counts = description == "pre-training"

    def advance(self, steps: int, note: str = "") -> None:  # noqa: ARG002
        self.left -= steps if self.counts else 0
        if self.left < 0:
            raise KeyboardInterrupt


class Told(Silent):
    """Notes how much there is to do, and how much is done."""

    def __init__(self) -> None:
        self.totals, self.steps = list[int](), list[int]()

    def start(self, total_steps: int, description: str) -> None:  # noqa: ARG002
        self.totals.append(total_steps)
        self.steps.append(0)

    def advance(self, steps: int, note: str = "") -> None:  # noqa: ARG002
        self.steps[-1] += steps


@pytest.mark.parametrize("after", [100, 550, 900])
def test_a_stopped_run_goes_on_to_the_same_weights(
    files: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the first group, after it, or in the second epoch: bit for bit what an unstopped run gives."""
    monkeypatch.setattr(pretraining, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    request = {"data": [files / "a.h5ad", files / "b.h5ad"], "overrides": QUICK, "seed": 3}
    first = Told()
    whole = pretrain(Layout(tmp_path / "whole"), PretrainRequest(**request), first)
    layout = Layout(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        pretrain(layout, PretrainRequest(**request), Stop(after))
    assert not (layout.weights / "pretrained").exists()

    told = Told()
    resumed = pretrain(layout, PretrainRequest(**request, resume=True), told)

    assert resumed.facts["resumed"] == (after > 500)
    # What is left is told of alone, so that the time left is right; groups of cells differ by a fifth here.
    left, done = told.totals[-1], told.steps[-1]
    assert done <= left <= 1.2 * done
    assert (left < first.totals[-1]) == (after > 500)
    assert resumed.digest == whole.digest
    assert resumed.facts["history"] == whole.facts["history"]
    assert not [p for p in (layout.weights / ".drafts").iterdir() if p.is_dir()]


def test_vectors_learn_at_a_rate_of_their_own(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of genes and bins at ten times the others' at every step; the others are all there."""
    steps: list[list[tuple[float, int]]] = []
    take_step = pretraining.Pretraining._step

    def noted(self: pretraining.Pretraining, done: float) -> None:
        take_step(self, done)
        groups = self.optimizer.param_groups
        steps.append([(group["lr"], sum(weight.numel() for weight in group["params"])) for group in groups])
        assert sum(n for _, n in steps[-1]) == sum(weight.numel() for weight in self.model.parameters())
        assert steps[-1][0][1] == self.model.gene_emb.weight.numel() + self.model.token_emb.weight.numel()

    monkeypatch.setattr(pretraining.Pretraining, "_step", noted)
    pretrain(Layout(tmp_path), PretrainRequest(data=[files / "a.h5ad"], overrides=(*QUICK, "training.epochs=1")))
    assert len(steps) > 5
    assert all(vectors[0] == pytest.approx(10 * others[0]) for vectors, others in steps)


@pytest.mark.parametrize("zeros", [0.0, 1.0])
def test_training_asks_for_genes_that_are_not_expressed(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zeros: float
) -> None:
    """As many as the preset says of each batch's expressed ones; without them the output never tells bin 0."""
    targets: list[torch.Tensor] = []
    take_loss = torch.nn.functional.cross_entropy

    def noted(logits: torch.Tensor, truth: torch.Tensor, **given: Any) -> torch.Tensor:
        if logits.requires_grad:
            targets.append(truth)
        return take_loss(logits, truth, **given)

    monkeypatch.setattr(pretraining.F, "cross_entropy", noted)
    overrides = (*QUICK, "training.epochs=1", f"masking.zeros={zeros}")
    pretrain(Layout(tmp_path), PretrainRequest(data=[files / "a.h5ad"], overrides=overrides))
    asked_for = torch.cat(targets)
    assert len(asked_for) > 500
    assert float((asked_for == 0).sum() / (asked_for > 0).sum()) == pytest.approx(zeros, abs=0.02)


@pytest.mark.parametrize("alone", [True, False])
def test_the_number_of_cores_does_not_change_the_weights(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """Slices of a batch are computed by as many threads as there are, and added in their own order; or by one."""
    monkeypatch.setattr(masked, "FEWEST_VALUES", 0 if alone else 10**9)
    digests, allowed = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            request = PretrainRequest(data=[files / "a.h5ad"], overrides=(*QUICK, "training.epochs=1"))
            digests.append(pretrain(Layout(tmp_path / str(threads)), request).digest)
    finally:
        torch.set_num_threads(allowed)
    assert digests[0] == digests[1]


def test_what_a_stopped_run_left_is_deleted_but_not_under_a_run(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`registry gc` takes the checkpoint of a run that has ended, nothing of one that is going on; two do not meet."""
    monkeypatch.setattr(pretraining, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    layout, request = Layout(tmp_path / "w"), PretrainRequest(data=[files / "a.h5ad"], overrides=QUICK)
    with pytest.raises(KeyboardInterrupt):
        pretrain(layout, request, Stop(300))
    (left,) = (p for p in (layout.weights / ".drafts").iterdir() if p.is_dir())

    assert Workspace(layout).gc(keep_drafts=True) == []
    with working_folder(layout.weights, left.name, resume=True):
        assert Workspace(layout).gc() == []
        with pytest.raises(RegistryError, match="in use by process"):
            pretrain(layout, request)
    pretrain(layout, PretrainRequest(data=[files / "b.h5ad"], overrides=QUICK, name="other"))
    with pytest.raises(KeyboardInterrupt):
        pretrain(layout, request, Stop(300))
    assert [(o.kind, o.name) for o in Workspace(layout).gc()] == [("draft", f"weights/{left.name}")]
    assert not left.exists()


@pytest.mark.parametrize("form", ["npy", "text"])
def test_vectors_of_a_file_are_kept_as_they_are(files: Path, tmp_path: Path, form: str) -> None:
    """Genes without a vector are left out of the table; the others' vectors do not move."""
    given = {"npy": {"gene2vec": files / "vectors.npy", "genes": files / "names.txt"},
             "text": {"gene2vec": files / "vectors.txt"}}[form]  # fmt: skip
    overrides = (*QUICK, "genes.vectors=gene2vec", "genes.per_file=0", "training.epochs=1")
    found = pretrain(Layout(tmp_path), PretrainRequest(data=[files / "b.h5ad"], overrides=overrides, **given))

    assert "REST" not in found.genes
    table = load_file(tmp_path / "weights/pretrained/weights.safetensors")["pos_emb.emb.weight"]
    at = [int(g.removeprefix("GENE")) for g in found.genes]
    np.testing.assert_allclose(table[:-1].numpy(), np.load(files / "vectors.npy")[at], rtol=1e-6)
    assert table.dtype == torch.float64


BAD = {
    "no vectors": (["--set", "genes.vectors=gene2vec"], "name it with --gene2vec"),
    "vectors of a learning preset": (["--gene2vec", "vectors.npy"], "learns the vectors"),
    "no names": (["--set", "genes.vectors=gene2vec", "--gene2vec", "vectors.npy"], "has no names of genes"),
    "another length": (
        ["--set", "genes.vectors=gene2vec", "--gene2vec", "vectors.npy", "--genes", "short.txt"],
        "vectors of 43 genes; the gene list has 5",
    ),
    "another size": (
        ["--set", "genes.vectors=gene2vec", "--set", "model.dim=12", "--gene2vec", "vectors.txt"],
        "vectors of 16 numbers, the model of 12",
    ),
    "twice": (["a.h5ad"], "named more than once"),
    "unknown key": (["--set", "training.speed=2"], "unknown key 'training.speed'"),
    "no preset": (["--preset", "none"], "Known: performer, scbert, small"),
    "no file": (["none.h5ad"], "There is no file none.h5ad"),
    "few cells": (["--set", "training.held_out_share=0.0001"], "too few"),
    "a name": (["--name", "../up"], "is no name for weights"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_message(files: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, and no workspace is made."""
    monkeypatch.chdir(files)
    (files / "short.txt").write_text("\n".join(f"GENE{i}" for i in range(5)))
    words, says = BAD[kind]
    flags = [word for value in QUICK for word in ("--set", value)]
    done = CliRunner().invoke(app, ["-C", "bad", "pretrain", "--data", "a.h5ad", *flags, *words, "--json"])
    assert done.exit_code == 2, done.output
    assert says in json.loads(done.stdout)["error"]
    assert not (files / "bad").exists()
