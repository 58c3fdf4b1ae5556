"""A lab with three toy stages, for all tests that compare and change stages."""

import shutil
from pathlib import Path

import pytest

import canal
from canal.stages.layout import Layout
from tests.make import make_adata

QUICK = ("training.epochs=3", "training.min_steps=20", "bank.size=24", "analytic.pseudo_cells=40")
FILES = {"first": ("B", "NK"), "second": ("B", "CD4 T"), "third": ("NK", "HSC")}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace of three stages and their files; tests work on copies of the workspace."""
    folder = tmp_path_factory.mktemp("lab")
    workspace = canal.open_workspace(folder / "ws", create=True)
    for seed, (name, types) in enumerate(FILES.items()):
        make_adata(80, types=types, prefix=name, seed=seed).write_h5ad(folder / f"{name}.h5ad")
        workspace.add_stage(folder / f"{name}.h5ad", labels="cell_type", overrides=QUICK)
    return folder


@pytest.fixture
def layout(made: Path, tmp_path: Path) -> Layout:
    """Return the layout of a copy of the workspace."""
    shutil.copytree(made / "ws", tmp_path / "ws")
    return Layout(tmp_path / "ws")
