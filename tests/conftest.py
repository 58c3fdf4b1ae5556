"""Fixtures and markers for all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _streams() -> Path | None:
    shared = os.environ.get("CANAL_SHARED")
    candidates = [Path(shared) / "data" / "streams", Path(shared)] if shared else [ROOT.parent / "shared/data/streams"]
    return next((folder for folder in candidates if (folder / "immune").is_dir()), None)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs data or devices that are not here."""
    marked = {mark: [item for item in items if item.get_closest_marker(mark)] for mark in ("shared_data", "gpu")}
    if marked["shared_data"] and _streams() is None:
        skip = pytest.mark.skip(reason="the labelled streams are not here; set CANAL_SHARED to their folder")
        for item in marked["shared_data"]:
            item.add_marker(skip)
    if marked["gpu"] and not _has_cuda():
        for item in marked["gpu"]:
            item.add_marker(pytest.mark.skip(reason="no CUDA here"))


@pytest.fixture(scope="session")
def streams() -> Path:
    """Folder of the labelled streams; use it in tests marked ``shared_data``."""
    folder = _streams()
    if folder is None:
        pytest.skip("the labelled streams are not here; set CANAL_SHARED to their folder")
    return folder
