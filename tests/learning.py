"""Toy stages without files, for tests of learning."""

from pathlib import Path

import torch

from canal.config import Preset, load_preset
from canal.data.cells import CellPool, Cells
from canal.data.stream import check_adata
from canal.progress import Silent
from canal.training.stage import LearnedStage, learn_stage
from tests.make import make_adata

QUICK = (
    "training.epochs=4",
    "training.min_steps=0",
    "training.batch_size=16",
    "bank.size=20",
    "analytic.pseudo_cells=30",
)


def quick(*sets: str) -> Preset:
    """Return the default preset, made quick."""
    return load_preset("compact", (*QUICK, *sets))


def toy(types: tuple[str, ...] = ("B", "NK"), n: int = 60, prefix: str = "a", **options: object) -> Cells:
    """Return labelled toy cells."""
    return check_adata(make_adata(n, types=types, prefix=prefix, **options), labels="cell_type")


def learn(
    cells: Cells,
    before: LearnedStage | None = None,
    preset: Preset | None = None,
    checkpoint: tuple[Path, str] | None = None,
    seed: int = 0,
    on_epoch=lambda _epoch, _figures: None,
) -> LearnedStage:
    """Learn one stage."""
    return learn_stage(
        before.annotator if before else None,
        before.bank if before else CellPool.empty(),
        cells,
        preset or quick(),
        stage=2 if before else 1,
        seed=seed,
        progress=Silent(),
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )


def weights_of(stage: LearnedStage) -> dict[str, torch.Tensor]:
    """Return the network's weights."""
    return stage.annotator.network.state_dict()


def same(a: LearnedStage, b: LearnedStage) -> bool:
    """Tell whether two networks are equal bit for bit."""
    return all(torch.equal(v, weights_of(b)[k]) for k, v in weights_of(a).items())
