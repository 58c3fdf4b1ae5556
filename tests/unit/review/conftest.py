"""A lab whose workspace knows three types, and a file with a fourth; made once."""

import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import canal
from canal.review.journal import Journal
from canal.review.review import Review, open_review
from canal.workspace import Workspace
from tests.make import make_adata

ARCHIVE = Path(__file__).parents[2] / "archives" / "v1" / "workspace.tar.xz"  # two stages that need not be learned
MADE_AS = ("B", "NK", "CD4 T", "DC")  # types of the toy cells in turn; nobody taught the last


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace that knows three types and a file with a fourth to review."""
    folder = tmp_path_factory.mktemp("review")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder / "ws", filter="data")
    query = make_adata(180, types=MADE_AS, prefix="query", seed=5, batches=2)
    # Seven cells have a label that is another known type.
    labels = query.obs["cell_type"].astype(str).to_numpy()
    labels[np.flatnonzero(labels == "B")[:7]] = "NK"
    query.obs["cell_type"] = labels
    query.obs["donor"] = query.obs["batch"].astype(str) + "-donor"
    query.write_h5ad(folder / "query.h5ad")
    return folder


@pytest.fixture(scope="session")
def prepared(made: Path) -> Iterator[Review]:
    """Return a review whose cells, answers and expression the quick reviews of tests share."""
    opened = open_review(canal.open_workspace(made / "ws"), made / "query.h5ad")
    yield opened
    opened.close()


def quick(prepared: Review, decisions: Path) -> Review:
    """Return a review of the same cells with another file of decisions; it needs no closing."""
    places = replace(prepared._places, decisions=decisions)
    journal = Journal(decisions)
    journal.create(prepared._journal.head())
    return Review(prepared.workspace, places, prepared._record, prepared._prepared, journal)


@pytest.fixture
def review(prepared: Review, tmp_path: Path) -> Review:
    """Return a review of the shared cells without any decision; its workspace is shared, too."""
    return quick(prepared, tmp_path / "review.jsonl")


@pytest.fixture
def lab(made: Path, tmp_path: Path) -> Path:
    """Return a copy of workspace and file that a test may change."""
    ignored = shutil.ignore_patterns("query.h5ad.review*")
    return Path(shutil.copytree(made, tmp_path / "lab", ignore=ignored))


@pytest.fixture
def workspace(lab: Path) -> Workspace:
    """Return the workspace of the copy."""
    return canal.open_workspace(lab / "ws")
