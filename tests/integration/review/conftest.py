"""A workspace whose types have hostile names, and a file with a type that nobody taught."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import canal
from canal.review.review import open_review
from canal.review.web.app import make_app
from canal.review.web.security import ENTRANCE, Visitors
from tests.integration.review.driver import Server, chromium
from tests.make import make_adata
from tests.review_client import Client, served

QUICK = ("training.epochs=3", "training.min_steps=20", "bank.size=60", "analytic.pseudo_cells=40")
SCRIPT, RIGHT_TO_LEFT, LONG = "<script>alert(1)</script>", "תאי B \u202eabc", "long " + 495 * "x"
KNOWN, LEFT_OUT = (SCRIPT, RIGHT_TO_LEFT, LONG), "DC"
GENES = [f"GENE{g}" for g in range(200)]
GENES[40] = 'DC"s <img src=x onerror=alert(1)>'  # a marker of the type that was left out


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace of one stage and a file with one type more; tests work on copies."""
    folder = tmp_path_factory.mktemp("review")
    workspace = canal.open_workspace(folder / "ws", create=True)
    cells = make_adata(240, types=KNOWN, genes=GENES, n_genes=200, prefix="first", seed=0, batches=2)
    workspace.add_stage(cells, labels="cell_type", name="first", overrides=QUICK)
    query = make_adata(320, types=(*KNOWN, LEFT_OUT), genes=GENES, n_genes=200, prefix="query", seed=5, batches=2)
    # Nobody knows the types of a new file; the truth is kept beside it.
    query.obs[["cell_type"]].to_csv(folder / "truth.csv")
    del query.obs["cell_type"]
    query.layers["counts"] = query.X.copy()
    query.obs["donor"] = query.obs["batch"].astype(str) + "-donor"
    query.write_h5ad(folder / "query.h5ad")
    # What is computed once is computed here, not by each test.
    review = open_review(workspace, folder / "query.h5ad")
    review.map()
    review.close()
    return folder


@pytest.fixture
def lab(made: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "lab"))


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Return the browser of all tests."""
    with chromium() as started:
        yield started


@contextmanager
def in_process(folder: Path) -> Iterator[Server]:
    """Serve a review from this process, which has compiled already, with links for two users."""
    review = open_review(canal.open_workspace(folder / "ws"), folder / "query.h5ad")
    visitors = Visitors(cookie_name="canal_review")
    with served(lambda port: make_app(review, visitors, port)) as address:
        users = ("ann", "bob <i>b</i>")
        yield Server([f"{address}{ENTRANCE}?token={visitors.invite(user)}" for user in users], pid=0)
    review.close()


@pytest.fixture
def server(lab: Path) -> Iterator[Server]:
    """Return a server of a copy that a test may change."""
    with in_process(lab) as started:
        yield started


@pytest.fixture(scope="package")
def shared(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Return a client of one server, for tests that change nothing."""
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("shared") / "lab"))
    with in_process(folder) as started:
        yield started.client()
