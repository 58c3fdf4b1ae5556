"""The GPU's benchmark: all of its parts run on a CPU, too, and its table has what they measured."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from tests.make import make_adata


def table_rows(part: str) -> list[list[str]]:
    """Return the cells of a Markdown table below its head."""
    lines = [line for line in part.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


@pytest.mark.filterwarnings("ignore")
def test_all_parts_run_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed, labels, neighbours and one stream of two stages, each a table with figures of its own."""
    folder = tmp_path / "streams" / "toy"
    folder.mkdir(parents=True)
    for number, types in enumerate([("B", "NK"), ("B", "NK", "T")], 1):
        for part, seed in (("train", 0), ("test", 1)):
            cells = make_adata(60, 80, types=types, seed=10 * number + seed)
            cells.write_h5ad(folder / f"{number}_s{number}.{part}.h5ad")
    words = [str(tmp_path / "streams"), "--quick", "--out", str(tmp_path / "gpu"), "--set", "training.batch_size=30"]
    words += ["--methods", "canal"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])

    gpu.main()

    parts = (tmp_path / "gpu.md").read_text().split("\n## ")[1:]
    assert [part.split("\n")[0] for part in parts] == ["Speed", "Labels", "Neighbours", "Streams"]
    rows = [table_rows(part) for part in parts]
    # Every speed is a positive share of the device's products, for both kinds of numbers.
    assert [row[:2] for row in rows[0]] == [
        [work, numbers] for numbers in ("float32", "bfloat16") for work in ("annotation", "training step")
    ]
    assert all(float(row[2]) > 0 and float(row[5].rstrip("%")) > 0 for row in rows[0])
    assert float(rows[1][0][1].rstrip("%")) > 50
    if not torch.cuda.is_available():
        assert {row[3] for row in rows[2]} == {"no GPU, or faiss-cpu"}
    # The stream was learned, stage by stage, and tested.
    assert [row[:2] for row in rows[3]] == [["toy", "canal"]]
    assert all(0 <= float(row[2]) <= 1 for row in rows[3])
