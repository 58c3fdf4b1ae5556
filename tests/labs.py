"""Toy labs in files, for tests that add stages."""

from pathlib import Path
from typing import Any

from canal.stages.request import StageResult
from canal.workspace import Workspace
from tests.make import make_adata

QUICK = ("training.epochs=3", "training.min_steps=20", "bank.size=24", "analytic.pseudo_cells=40")


def write(folder: Path, name: str, types: tuple[str, ...] = ("B", "NK"), n: int = 80, **options: Any) -> Path:
    """Write toy cells to a file."""
    path = folder / f"{name}.h5ad"
    make_adata(n, types=types, prefix=name, **options).write_h5ad(path)
    return path


def add(workspace: Workspace, data: Any, *more: str, **options: Any) -> StageResult:
    """Add a stage quickly."""
    return workspace.add_stage(data, labels="cell_type", overrides=(*QUICK, *more), **options)


def everything(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder but caches and locks."""
    skip = ("cache", "lock")
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not any(part in skip for part in p.relative_to(folder).parts)
    }
