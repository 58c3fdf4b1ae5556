"""What the Performer adds: every kind of features is taught and tested on the same cells."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import performer_adds
from canal.workspace import open_workspace
from tests.make import make_adata

TINY = (
    "encoder.dim=16", "encoder.depth=2", "encoder.heads=2", "encoder.dim_head=8", "encoder.hidden=8",
    "encoder.representation=8", "genes.per_stage=40", "training.epochs=1", "bank.size=30",
)  # fmt: skip
KINDS = ["profiles", "panel", "representation", "joined", "sum", "network"]


@pytest.mark.filterwarnings("ignore")
def test_memories_of_all_kinds_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accuracy of types that are easy to tell, and how novel cells look of the one that nobody was taught."""
    for part, types, seed in (("stage", ("B", "NK"), 0), ("teach", ("B", "NK", "T"), 1), ("test", ("B", "NK", "T"), 2)):
        make_adata(90, 80, types=types, seed=seed).write_h5ad(tmp_path / f"{part}.h5ad")
    workspace = open_workspace(tmp_path / "w", create=True)
    workspace.add_stage(tmp_path / "stage.h5ad", labels="cell_type", preset="canal-paper", overrides=TINY)
    out = tmp_path / "adds.jsonl"
    words = [str(tmp_path / "w"), "--teach", str(tmp_path / "teach.h5ad"), "--test", str(tmp_path / "test.h5ad")]
    words += ["--cells", "5", "0", "--repeats", "2", "--novel", "T", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["performer_adds.py", *words])

    performer_adds.main()

    lines = [json.loads(line) for line in out.read_text().splitlines()]
    # Two repeats of five cells of each type, and all cells once.
    assert [line["features"] for line in lines] == 3 * KINDS
    assert {(line["cells"], line["taught"]) for line in lines} == {(5, 10), (0, 60)}
    profiles = [line for line in lines if line["features"] == "profiles"]
    assert all(line["accuracy"] == 1.0 and line["tested"] == 60 for line in profiles)
    assert all(("novelty_auroc" in line) == (line["features"] != "network") for line in lines)
    assert capsys.readouterr().out.count("| test.h5ad | all |") == 6
