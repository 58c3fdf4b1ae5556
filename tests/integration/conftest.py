"""A lab with three toy stages, for all tests that compare and change stages."""

import shutil
from pathlib import Path

import pytest

import canal
from canal.stages.layout import Layout
from tests.labs import add, write

FILES = {"first": ("B", "NK"), "second": ("B", "CD4 T"), "third": ("NK", "HSC")}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace of three stages and their files; tests work on copies of the workspace."""
    folder = tmp_path_factory.mktemp("lab")
    workspace = canal.open_workspace(folder / "ws", create=True)
    for seed, (name, types) in enumerate(FILES.items()):
        add(workspace, write(folder, name, types, seed=seed))
    return folder


@pytest.fixture
def layout(made: Path, tmp_path: Path) -> Layout:
    """Return the layout of a copy of the workspace."""
    shutil.copytree(made / "ws", tmp_path / "ws")
    return Layout(tmp_path / "ws")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a workspace of two stages; no test adds to it."""
    folder = tmp_path_factory.mktemp("lab")
    workspace = canal.open_workspace(folder / "ws", create=True)
    add(workspace, write(folder, "first"))
    add(workspace, write(folder, "second", ("B", "CD4 T"), seed=1), name="more")
    return folder
