"""`canal weights` and a stage that starts from them, through the command line."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import canal
from tests.commands import run
from tests.make import make_adata
from tests.published import gene_names, published_model, published_state

GENES = 40
SMALL = (
    "encoder.hidden=8", "encoder.representation=4", "training.epochs=1", "genes.per_stage=20", "bank.size=20",
    "training.batch_size=32",
)  # fmt: skip


class RunsCode:
    """Unpickling it would write a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A checkpoint, its genes and its vectors."""
    state = published_state(published_model(genes=GENES))
    torch.save({"epoch": 1, "model_state_dict": state, "losses": 0.5}, tmp_path / "panglao.pth")
    (tmp_path / "genes.txt").write_text("\n".join(gene_names(GENES)))
    np.save(tmp_path / "gene2vec.npy", state["pos_emb.emb.weight"][:-1].numpy())
    return tmp_path


def test_round_trip_is_bit_equal(files: Path) -> None:
    """Imported and exported, as PyTorch's file and as safetensors: every tensor and every gene as before."""
    facts = run(
        files, "weights", "import", files / "panglao.pth", "--genes", files / "genes.txt",
        "--gene2vec", files / "gene2vec.npy",
    )  # fmt: skip
    # What a stage from them costs is said: operations of a pass, and what is kept of a cell.
    assert [costs["genes"] for costs in facts["expected"]] == [GENES, GENES]
    assert facts["expected"][0]["kept_mb"] == round(4 * (GENES + 1) * facts["sizes"]["dim"] / 1e6, 2)
    for name in ("out.pth", "out.safetensors"):
        run(files, "weights", "export", "panglao", files / name)

    original = torch.load(files / "panglao.pth", weights_only=True)["model_state_dict"]
    first = torch.load(files / "out.pth", weights_only=True)["model_state_dict"]
    second = load_file(files / "out.safetensors")
    assert set(original) == set(first) == set(second)
    for key, tensor in original.items():
        assert tensor.dtype == first[key].dtype == second[key].dtype
        assert torch.equal(tensor, first[key])
        assert torch.equal(tensor, second[key])
    assert (files / "out.genes.txt").read_text().split() == gene_names(GENES)
    again = run(
        files, "weights", "import", files / "out.safetensors", "--genes", files / "out.genes.txt", "--name", "again"
    )
    assert again["digest"] == facts["digest"]
    assert [w["name"] for w in run(files, "weights", "list")["weights"]] == ["again", "panglao"]
    assert run(files, "weights", "show", "again")["sizes"]["genes"] == GENES
    assert not [p for p in (files / "w").rglob("*") if p.suffix in {".pth", ".pt", ".pkl"}]


def spoil(files: Path, kind: str) -> tuple[list[str], str]:
    """Make one input bad; return the options of the import and what the message must say."""
    checkpoint, genes = files / "bad.pth", str(files / "genes.txt")
    state = torch.load(files / "panglao.pth", weights_only=True)["model_state_dict"]
    options, says = [str(checkpoint), "--genes", genes], kind
    if kind == "shape":
        state["norm.weight"] = torch.zeros(7)
        says = "norm.weight has shape 7, expected 20"
    elif kind == "missing":
        del state["performer.net.layers.1.0.fn.to_k.weight"]
        says = "layers.1.0.fn.to_k.weight"
    elif kind == "extra":
        state["classifier.weight"] = torch.zeros(2, 2)
        says = "classifier.weight"
    elif kind == "fine-tuned":
        state["to_out.conv1.weight"] = torch.zeros(1, 1, 1, 20)
        says = "fine-tuned"
    elif kind == "nan":
        state["norm.weight"][3] = torch.nan
        says = "NaN or infinite values are in norm.weight"
    elif kind == "no list":
        options[-1] = str(files / "none.txt")
        says = "There is no gene list"
    elif kind == "short list":
        options[-1] = str(files / "short.txt")
        (files / "short.txt").write_text("\n".join(gene_names(GENES - 1)))
        says = f"table of {GENES} genes .* the gene list names {GENES - 1}"
    elif kind == "twice":
        options[-1] = str(files / "twice.txt")
        (files / "twice.txt").write_text("\n".join(["GENE0", *gene_names(GENES)]))
        says = "GENE0 more than once"
    elif kind == "vectors":
        np.save(files / "short.npy", np.zeros((GENES + 3, 20)))
        options += ["--gene2vec", str(files / "short.npy")]
        says = f"vectors of {GENES + 3} genes; the gene list has {GENES}"
    elif kind == "other vectors":
        np.save(files / "other.npy", np.load(files / "gene2vec.npy")[::-1])
        options += ["--gene2vec", str(files / "other.npy")]
        says = f"differs from the table .* {GENES} of {GENES} genes"
    torch.save(state, checkpoint)
    if kind == "damaged":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-500])
        says = "cannot be read as tensors alone"
    elif kind == "no tensors":
        torch.save({"epoch": 3}, checkpoint)
        says = "holds epoch; expected tensors by name"
    return options, says


KINDS = (
    "shape", "missing", "extra", "fine-tuned", "nan", "no list", "short list", "twice", "vectors", "other vectors",
    "damaged", "no tensors",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_one_message_and_nothing_is_written(files: Path, kind: str) -> None:
    """What was found and what was expected, exit code 2, no workspace."""
    options, says = spoil(files, kind)
    answer = run(files, "weights", "import", *options, code=2)
    assert answer["kind"] == "WeightsError"
    assert re.search(says, answer["error"]), answer["error"]
    assert not (files / "w").exists()


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickle_that_runs_code_is_refused(files: Path, wrapped: bool) -> None:
    """It is not run, whether it hides in a checkpoint or is a plain pickle."""
    mark, bad = files / "was-run", files / "bad.pth"
    if wrapped:
        torch.save({"model_state_dict": {}, "more": RunsCode(mark)}, bad)
    else:
        bad.write_bytes(pickle.dumps(RunsCode(mark)))

    answer = run(files, "weights", "import", bad, "--genes", files / "genes.txt", code=2)

    assert "could run code and is never loaded" in answer["error"]
    assert not mark.exists()
    assert not (files / "w").exists()


def test_a_stage_starts_from_weights_and_its_record_says_so(files: Path) -> None:
    """Name and digest are in the record, a replay finds them, and weights that were changed are refused."""
    first, second = files / "first.h5ad", files / "second.h5ad"
    make_adata(60, GENES + 5, types=2).write_h5ad(first)
    make_adata(60, GENES + 5, types=3, prefix="late", seed=2).write_h5ad(second)
    facts = run(files, "weights", "import", files / "panglao.pth", "--genes", files / "genes.txt")
    sets = [word for value in SMALL for word in ("--set", value)]
    add = ["stage", "add", "--preset", "canal", *sets, "--data"]

    done = run(files, *add, first, "--weights", "panglao")

    workspace = canal.open_workspace(files / "w")
    note = workspace.stages()[0].notes["weights"]
    assert (note["name"], note["digest"]) == ("panglao", facts["digest"])
    assert note["genes"] + note["genes_without_row"] == done["genes"]
    assert any("have no vector in the weights panglao" in text for text in done["warnings"]) == (
        note["genes_without_row"] > 0
    )
    assert workspace.stages()[0].preset["encoder"]["dim"] == 20  # the sizes of the weights, not of the preset
    assert run(files, "stage", "replay", files / "w/stages", "--out", files / "again")["identical"]
    save_file({"a": torch.zeros(1)}, files / "w/weights/panglao/weights.safetensors")
    assert "was changed" in run(files, *add, second, "--weights", "panglao", code=2)["error"]
    later = run(files, *add, second, "--set", "encoder.dim=20", "--set", "encoder.depth=2", "--set",
                "encoder.heads=2", "--set", "encoder.dim_head=16")  # fmt: skip
    assert later["stage"] == 2


def test_other_weights_than_the_stage_before_are_refused(files: Path) -> None:
    """Its layers were trained from none; a fresh start takes them."""
    first, second = files / "first.h5ad", files / "second.h5ad"
    make_adata(60, GENES, types=2).write_h5ad(first)
    make_adata(60, GENES, types=3, prefix="late", seed=2).write_h5ad(second)
    run(files, "weights", "import", files / "panglao.pth", "--genes", files / "genes.txt")
    sizes = ("encoder.dim=20", "encoder.depth=2", "encoder.heads=2", "encoder.dim_head=16")
    sets = [word for value in (*SMALL, *sizes) for word in ("--set", value)]
    run(files, "stage", "add", "--preset", "canal", *sets, "--data", first)
    add = ["stage", "add", "--preset", "canal", *sets, "--data", second, "--weights", "panglao"]

    assert "without pre-trained weights" in run(files, *add, code=2)["error"]
    assert run(files, *add, "--set", "training.start=fresh")["stage"] == 2
    assert "preset 'compact'" in run(
        files, "stage", "add", "--data", second, "--again", "--weights", "panglao", code=2
    )["error"]  # fmt: skip
    assert "There are no weights 'nothing'" in run(
        files, "stage", "add", "--data", second, "--again", "--preset", "canal", "--weights", "nothing", code=2
    )["error"]  # fmt: skip
