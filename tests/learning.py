"""Toy stages without files, for tests of learning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from canal.config import Preset, load_preset
from canal.data.cells import CellPool, Cells
from canal.data.stream import read_cells
from canal.training.examples import Candidates, choose_examples
from canal.training.run import Run
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
    return read_cells(make_adata(n, types=types, prefix=prefix, **options), labels="cell_type")


@dataclass(frozen=True)
class ToyDraft:
    """A working folder that tells a test about every epoch."""

    folder: Path
    key: str = "key"
    on_epoch: Callable[[int, Mapping[str, float]], object] = lambda _epoch, _figures: None

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell the test."""
        self.on_epoch(step, metrics)


def learn(
    cells: Cells,
    before: LearnedStage | None = None,
    preset: Preset | None = None,
    draft: ToyDraft | None = None,
    **run: Any,
) -> LearnedStage:
    """Learn one stage; ``run`` are other fields of `Run`."""
    parent = before.model if before else None
    settings = Run(**({"number": 2 if before else 1, "seed": 0, "draft": draft} | run))
    return learn_stage(parent, cells, preset or quick(), settings)


def choose(pool: CellPool, rep: np.ndarray, rows: Mapping[str, np.ndarray], **options: Any) -> CellPool:
    """Choose a bank; ``options`` are size, selection and quotas, ``seed``, and ``held_out`` as in `Candidates`."""
    seed, last = options.pop("seed", 0), options.pop("held_out", None)
    late = np.zeros(len(pool), dtype=bool) if last is None else last
    candidates = Candidates(cells=pool, representation=rep, classifier_rows=rows, held_out=late)
    config = load_preset("compact").bank.model_copy(update={"quotas": "balanced"} | options)
    return choose_examples(candidates, config, seed)


def weights_of(stage: LearnedStage) -> dict[str, torch.Tensor]:
    """Return the network's weights."""
    return stage.model.network.state_dict()


def same(a: LearnedStage, b: LearnedStage) -> bool:
    """Tell whether two networks are equal bit for bit."""
    return all(torch.equal(v, weights_of(b)[k]) for k, v in weights_of(a).items())
