"""Toy sites: workspaces of one or two stages, and their exports."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from canal.model.model import Model
from canal.model.record import StageRecord
from canal.sites.export import ExportOptions, reduced_model, write_export
from canal.sites.manifest import manifest_of
from tests.learning import learn, quick, toy

QUICK = ("bank.size=24", "training.epochs=2")
SITES = {"north": ("B", "NK"), "south": ("B", "CD4 T"), "west": ("NK", "CD4 T", "HSC")}


def model_of(types: tuple[str, ...], seed: int, **options: Any) -> Model:
    """Return a model of one toy stage with a record."""
    n = options.pop("n", 330)
    model = learn(toy(types, n=n, seed=seed, prefix=f"secret{seed}-", **options), preset=quick(*QUICK)).model
    record = StageRecord(
        number=1,
        name="toy",
        seed=0,
        preset={},
        types=model.types,
        new_types=model.types,
        cells=n,
        genes=len(model.panel),
    )
    return replace(model, record=record.with_fields(created="2026-01-01T00:00:00+00:00"))


def export_of(folder: Path, site: str, model: Model, *, ids: dict[str, str] | None = None, **options: Any) -> Path:
    """Write the export of a toy site; ``options`` are those of `ExportOptions`, and ``source``."""
    source = options.pop("source", f"source of {site}")
    chosen = ExportOptions(**options)
    reduced, facts = reduced_model(model, chosen)
    path = folder / f"{site}.canal"
    manifest = manifest_of(reduced, site, facts, ids or {}, {1: [source]})
    write_export(path, reduced, manifest, with_network=chosen.with_network)
    return path


def accuracy(model: Model, types: tuple[str, ...], seed: int = 77) -> float:
    """Return the share of toy cells that a model names rightly."""
    cells = toy(types, n=90, seed=seed)
    assert cells.labels is not None
    return float(np.mean(model.types_of(cells) == cells.labels))
