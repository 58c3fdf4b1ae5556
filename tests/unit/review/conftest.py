"""A lab whose workspace knows two types, and a file with a third; made once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import canal
from canal.review.review import Review, open_review
from canal.workspace import Workspace
from tests.labs import add, write
from tests.make import make_adata

GENES = 120


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace of one stage and a file to review, with what was computed for it."""
    folder = tmp_path_factory.mktemp("review")
    workspace = canal.open_workspace(folder / "ws", create=True)
    add(workspace, write(folder, "first", ("B", "NK"), 200, n_genes=GENES, batches=2), "bank.size=60")
    query = make_adata(180, GENES, types=("B", "NK", "DC"), prefix="query", seed=5, batches=2)
    # Seven cells with a label that is another known type, and a label of its own for cells of a known one.
    labels = query.obs["cell_type"].astype(str).to_numpy()
    known = [row for row in range(180) if labels[row] == "B"]
    labels[known[:7]] = "NK"
    query.obs["cell_type"] = labels
    query.obs["donor"] = query.obs["batch"].astype(str) + "-donor"
    query.write_h5ad(folder / "query.h5ad")
    open_review(workspace, folder / "query.h5ad").close()
    (folder / "query.h5ad.review.jsonl").unlink()
    return folder


@pytest.fixture
def lab(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the lab that a test may change; what was computed is there."""
    return Path(shutil.copytree(made, tmp_path / "lab", copy_function=shutil.copy2))


@pytest.fixture
def workspace(lab: Path) -> Workspace:
    """Return the workspace of the copy."""
    return canal.open_workspace(lab / "ws")


@pytest.fixture
def review(lab: Path, workspace: Workspace) -> Iterator[Review]:
    """Return an open review of the copy."""
    opened = open_review(workspace, lab / "query.h5ad")
    yield opened
    opened.close()
