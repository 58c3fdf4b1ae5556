"""Take a stage out of a model again.

What is exact: analytic memory and calibration of novelty hold nothing of this stage, and the bank no cell of it.
The network is trained anew, from random weights, on what is left of the bank and on pseudo-cells of the remaining
statistics: nothing of the stage is in its weights, and it is not the network that would have come about had the stage
never been. The gene panel and the temperature of the calibration stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from canal.config import Preset
from canal.data.pool import CellPool
from canal.errors import StageError
from canal.learn.annotator import Annotator, new_network, weights_of
from canal.learn.fitting import fit_network
from canal.learn.memory import AnalyticMemory
from canal.learn.progress import Progress
from canal.learn.pseudo_cells import draw_cells
from canal.learn.split import stratified_split
from canal.seeds import numpy_generator

FEWEST_TYPES = 2


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """A model without one stage.

    Attributes
    ----------
    annotator, bank
        The model and its example bank.
    removed_types
        Types that nothing is known of any more.
    history
        One dict of figures an epoch.
    """

    annotator: Annotator
    bank: CellPool
    removed_types: tuple[str, ...]
    history: list[dict[str, float]]


def relearn_without(
    previous: Annotator,
    bank: CellPool,
    removed: int,
    *,
    stage: int,
    seed: int,
    progress: Progress,
    checkpoint: tuple[Path, str] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda _epoch, _figures: None,
) -> Relearned:
    """Return the model without one of its stages.

    Parameters
    ----------
    previous, bank
        The model and its example bank.
    removed
        Number of the stage to take out.
    stage, seed
        Number of the new stage and its recorded seed.
    progress, checkpoint, on_epoch
        As for `train_network`.

    Raises
    ------
    StageError
        If fewer than two types would be left.
    """
    memory = None if previous.memory is None else previous.memory.without_stage(removed)
    left = bank.take(np.flatnonzero(bank.stage != removed)) if (bank.stage != removed).any() else CellPool.empty()
    types = _types_left(previous.types, memory, left, removed)
    if memory is not None and not memory.statistics:
        memory = None
    base = replace(previous, types=types, memory=memory, novelty=previous.novelty.without_stage(removed))
    network = new_network(previous.preset, len(base.panel), len(types), seed)
    pool = _rehearsed(base, left, seed)
    history = fit_network(
        network, base, pool, _validation(pool, base.preset, seed), base.panel, types, _fresh(base.preset),
        stage=stage, seed=seed, progress=progress, checkpoint=checkpoint, on_epoch=on_epoch,
    )  # fmt: skip
    gone = tuple(name for name in previous.types if name not in types)
    return Relearned(
        annotator=replace(base, weights=weights_of(network)), bank=left, removed_types=gone, history=history
    )


def _types_left(known: tuple[str, ...], memory: AnalyticMemory | None, bank: CellPool, removed: int) -> tuple[str, ...]:
    """Return the types that the memory or the bank still knows, in their order."""
    found = set(bank.labels.tolist()) | ({name for _, name in memory.counts()} if memory is not None else set())
    types = tuple(name for name in known if name in found)
    if len(types) < FEWEST_TYPES:
        message = (
            f"Without stage {removed} the model would know {len(types)} types ({', '.join(types) or 'none'}); expected "
            f"{FEWEST_TYPES} at least. Add another stage first, or go back to an earlier one: canal stage promote N."
        )
        raise StageError(message)
    return types


def _rehearsed(base: Annotator, bank: CellPool, seed: int) -> CellPool:
    """Return the cells to train and validate on beside the pseudo-cells: the bank, or more of these if it is too small.

    Raises
    ------
    StageError
        If there is neither.
    """
    if len(bank) > len(set(bank.labels.tolist())):  # of some type two cells: one to train on, one to validate on
        return bank
    if base.memory is None:
        message = (
            f"The example bank without this stage has {len(bank)} cells: too few to learn from. Add a stage first."
        )
        raise StageError(message)
    n = max(base.preset.analytic.pseudo_cells, 10 * len(base.types))
    return draw_cells(base.memory, n, base.panel, numpy_generator(seed, "removal"))


def _validation(pool: CellPool, preset: Preset, seed: int) -> np.ndarray:
    """Return rows to validate on where no stage has two cells of a type, of which `fit_network` would take one."""
    groups = set(zip(pool.stage.tolist(), pool.labels.tolist(), strict=True))
    if len(pool) > len(groups):
        return np.zeros(0, dtype=np.int64)
    share = preset.training.validation_share
    return stratified_split(pool.labels, share, numpy_generator(seed, "removal validation"))[1]


def _fresh(preset: Preset) -> Preset:
    """Return the preset for a network that starts from random weights: there is nothing to distil from."""
    return preset.model_copy(update={"training": preset.training.model_copy(update={"start": "fresh"})})
