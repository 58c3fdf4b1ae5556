"""The published systems' presets through the command line, on real cells and small panels."""

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

from canal.cli.main import app

pytestmark = pytest.mark.shared_data

TINY_PERFORMER = (
    "encoder.dim=16", "encoder.depth=2", "encoder.heads=2", "encoder.dim_head=8", "encoder.hidden=32",
    "encoder.representation=16", "genes.per_stage=100", "training.epochs=12", "training.batch_size=14",
    "training.learning_rate=3e-3", "bank.size=60",
)  # fmt: skip
SETS = {
    "scannonet": ("training.epochs=20", "training.batch_size=32", "genes.per_stage=800", "bank.size=60"),
    "canal-paper": TINY_PERFORMER,
    "transanno": TINY_PERFORMER,
}
EACH = 20  # cells of a type that are taught
FILES = {"transanno": ("1_baron_human", "2_baron_mouse")}  # mouse symbols are mapped


def call(workspace: Path, *words: object) -> dict[str, Any]:
    """Run one command and return its JSON."""
    done = CliRunner().invoke(app, ["-C", str(workspace), *map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def some(path: Path, out: Path, each: int) -> Path:
    """Write a few cells of each type, those with two or more."""
    cells = ad.read_h5ad(path)
    labels = cells.obs["cell_type"].to_numpy(str)
    rows = [np.flatnonzero(labels == t)[:each] for t in np.unique(labels)]
    cells[np.sort(np.concatenate([r for r in rows if len(r) > 1]))].copy().write_h5ad(out)
    return out


@pytest.mark.parametrize("preset", SETS)
def test_two_stages_annotate_and_evaluate(preset: str, streams: Path, tmp_path: Path) -> None:
    """Stages are added one after the other; both files' types are named far better than by chance."""
    names = FILES.get(preset, ("1_zheng_facs", "2_pbmc3k"))
    folder = streams / ("pancreas" if preset in FILES else "immune")
    options = [word for text in SETS[preset] for word in ("--set", text)]
    for name in names:
        data = some(folder / f"{name}.train.h5ad", tmp_path / f"{name}.h5ad", EACH)
        added = call(tmp_path / "ws", "stage", "add", "--data", data, "--preset", preset, "--set",
                     "promotion.max_fall=1", "--set", "genes.min_overlap=0.01", *options)  # fmt: skip

    assert added["champion"]
    assert added["stage"] == 2
    assert added["new_types"]
    for name in names:
        test = some(folder / f"{name}.test.h5ad", tmp_path / f"{name}.test.h5ad", 12)
        figures = call(tmp_path / "ws", "evaluate", "--data", test, "--labels", "cell_type")
        chance = max(row["support"] for row in figures["per_type"].values()) / figures["cells"]
        assert figures["accuracy"] > 2 * chance, (name, figures["accuracy"], chance)
        call(tmp_path / "ws", "annotate", "--data", test, "--out", tmp_path / f"{name}.csv")
        assert (tmp_path / f"{name}.csv").is_file()


def test_the_presets_are_listed_in_one_line_each() -> None:
    """`canal config list` has every system with a summary."""
    done = CliRunner().invoke(app, ["config", "list", "--json"])

    found = json.loads(done.stdout)["presets"]
    assert {"canal-paper", "compact", "performer", "scannonet", "transanno"} <= set(found)
    assert all(20 < len(about["description"]) < 70 and "\n" not in about["description"] for about in found.values())
