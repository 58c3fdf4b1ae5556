"""A lab with a workspace that knows two types, a file with a third, and what was found in it."""

import csv
import shutil
from pathlib import Path

import pytest

import canal
from tests.make import make_adata

QUICK = ("training.epochs=3", "training.min_steps=20", "bank.size=60", "analytic.pseudo_cells=40")
GENES = 200


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace that knows two types, a file with a third, and what was found in it."""
    folder = tmp_path_factory.mktemp("novel")
    workspace = canal.open_workspace(folder / "ws", create=True)
    for name, seed in (("first", 0), ("second", 1)):
        cells = make_adata(240, GENES, types=("B", "NK"), prefix=name, seed=seed, batches=2)
        workspace.add_stage(cells, labels="cell_type", name=name, overrides=QUICK)
    query = make_adata(240, GENES, types=("B", "NK", "DC"), prefix="query", seed=5, batches=2)
    query.layers["counts"] = query.X.copy()
    query.obs["donor"] = query.obs["batch"].astype(str) + "-donor"
    query.write_h5ad(folder / "query.h5ad")
    workspace.find_novel(folder / "query.h5ad", folder / "found")
    return folder


@pytest.fixture
def found(lab: Path, tmp_path: Path) -> Path:
    """Return a copy of the result that a test may change."""
    return Path(shutil.copytree(lab / "found", tmp_path / "found"))


def fill(folder: Path, names: dict[str, str]) -> None:
    """Fill the table of a result."""
    with (folder / "names.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "names.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"name": names.get(row["cluster"], "")} for row in rows)
