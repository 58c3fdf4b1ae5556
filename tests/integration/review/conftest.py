"""A workspace whose types have hostile names, and a file with types that nobody taught."""

import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import canal
from canal.review.review import open_review
from canal.review.web.app import make_app
from canal.review.web.security import ENTRANCE, Visitors
from tests.integration.review.driver import Server, chromium
from tests.make import make_adata
from tests.review_client import Client, served

ARCHIVE = Path(__file__).parents[2] / "archives" / "v1" / "workspace.tar.xz"  # two stages that need not be learned
SCRIPT, RIGHT_TO_LEFT, LONG = "<script>alert(1)</script>", "תאי B \u202eabc", "long " + 495 * "x"
CELLS = 200
KNOWN, LEFT_OUT = (SCRIPT, RIGHT_TO_LEFT, LONG), "DC"
MADE_AS = ("B", "NK", "CD4 T", LEFT_OUT, "HSC")  # toy types; the model knows the first three
QUOTED = 'DC"s <img src=x onerror=alert(1)>'  # a gene: a marker of the type that was left out
# What a stage is taught with here: as the stages of the archive were, with a bank that has room for four types.
PRESET = {
    "name": '"tiny"',
    "epochs": "3",
    "min_steps": "20",
    "size": "24",
    "pseudo_cells": "10",
    "hidden": "8",
    "dim": "8",
}
PRESETS = Path(__file__).parents[3] / "configs"


def tiny_preset() -> str:
    """Return the usual preset, of a network that is learned in a second."""
    lines = []
    for line in (PRESETS / "compact.toml").read_text(encoding="utf-8").splitlines():
        key = line.partition("=")[0].strip()
        lines.append(f"{key} = {PRESET[key]}" if key in PRESET else line)
    return "\n".join(lines)


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace that knows three types and a file with two more; tests work on copies."""
    folder = tmp_path_factory.mktemp("review")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder / "ws", filter="data")
    workspace = canal.open_workspace(folder / "ws")
    for old, new in zip(MADE_AS, KNOWN, strict=False):
        workspace.rename_type(old, new)
    (folder / "ws" / "configs" / "tiny.toml").write_text(tiny_preset(), encoding="utf-8")
    settings = folder / "ws" / "canal.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"compact"', '"tiny"'), encoding="utf-8")
    query = make_adata(CELLS, types=MADE_AS, prefix="query", seed=5, batches=2)
    query.var_names = [QUOTED if name == "GENE40" else name for name in query.var_names]
    # Nobody knows the types of a new file; the truth is kept beside it.
    query.obs[["cell_type"]].to_csv(folder / "truth.csv")
    del query.obs["cell_type"]
    query.layers["counts"] = query.X.copy()
    query.obs["donor"] = query.obs["batch"].astype(str) + "-donor"
    # A cloud for each type: a map need not be computed.
    rng = np.random.default_rng(0)
    kinds = np.arange(CELLS) % len(MADE_AS)
    query.obsm["X_umap"] = np.column_stack([kinds * 2.0, 3.0 * (kinds % 2)]) + 0.4 * rng.normal(size=(CELLS, 2))
    query.write_h5ad(folder / "query.h5ad")
    # What is computed once is computed here, not by each test.
    open_review(workspace, folder / "query.h5ad").close()
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
