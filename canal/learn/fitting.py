"""Fitting the network of a stage: which cells it trains on, which score it, what each counts and what holds it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from canal.config import Preset
from canal.data.panel import GenePanel
from canal.data.pool import CellPool
from canal.learn.annotator import Annotator, run_network
from canal.learn.batches import PanelCells, joined
from canal.learn.device import best_device
from canal.learn.halfway import Halfway, can_keep
from canal.learn.losses import distillation_weight
from canal.learn.network import Network
from canal.learn.progress import Progress
from canal.learn.pseudo_cells import draw_cells
from canal.learn.split import stratified_split
from canal.learn.training import Distillation, TrainingData, train_network
from canal.learn.weights import training_weights
from canal.seeds import numpy_generator


def fit_network(
    network: Network,
    previous: Annotator | None,
    pool: CellPool,
    stage_held_rows: np.ndarray,
    panel: GenePanel,
    types: tuple[str, ...],
    preset: Preset,
    *,
    stage: int,
    seed: int,
    progress: Progress,
    checkpoint: tuple[Path, str] | None,
    on_epoch: Callable[[int, dict[str, float]], None],
    train: Callable[..., list[dict[str, float]]] = train_network,
) -> list[dict[str, float]]:
    """Train a network in place on pool and pseudo-cells; the stage's held-out rows and a share of the bank validate."""
    held = _held_out(pool, stage_held_rows, stage, preset, seed)
    kept = np.setdiff1d(np.arange(len(pool)), held)
    drawn = _pseudo_cells(previous, panel, preset, seed)
    cells, targets = on_panel(pool, panel), type_index(pool.labels, types)
    trained = joined(cells.take(kept), on_panel(drawn, panel)) if len(drawn) else cells.take(kept)
    validation = cells.take(held)
    halfway = held_halfway = None
    if can_keep(network, preset.training):
        device = best_device()
        network.to(device)
        folder = checkpoint and checkpoint[0].parent
        halfway, held_halfway = (Halfway.of(network, c, device, folder) for c in (trained, validation))
    data = TrainingData(
        cells=trained,
        halfway=halfway,
        validation_halfway=held_halfway,
        types=np.concatenate([targets[kept], type_index(drawn.labels, types)]),
        weights=_weights(previous, pool.stage[kept], pool.labels[kept], drawn, preset),
        validation=validation,
        validation_types=targets[held],
    )
    return train(
        network, data, preset.training,
        seed=seed, stage=stage, distillation=_distillation(previous, network, data, types, preset),
        progress=progress, checkpoint=checkpoint, on_epoch=on_epoch,
    )  # fmt: skip


def _pseudo_cells(previous: Annotator | None, panel: GenePanel, preset: Preset, seed: int) -> CellPool:
    if previous is None or previous.memory is None or preset.analytic.pseudo_cells == 0:
        return CellPool.empty()
    draw = numpy_generator(seed, "pseudo-cells")
    return draw_cells(previous.memory, preset.analytic.pseudo_cells, panel, draw)


def _weights(
    previous: Annotator | None, stage: np.ndarray, labels: np.ndarray, drawn: CellPool, preset: Preset
) -> np.ndarray:
    counts = previous.memory.counts() if previous is not None and previous.memory is not None else {}
    return training_weights(
        np.concatenate([stage, drawn.stage]),
        np.concatenate([labels, drawn.labels]),
        np.concatenate([np.zeros(len(stage), dtype=bool), np.ones(len(drawn), dtype=bool)]),
        counts,
        balance=preset.training.balance,
        drawn_share=preset.analytic.pseudo_share,
    )


def _held_out(pool: CellPool, stage_rows: np.ndarray, stage: int, preset: Preset, seed: int) -> np.ndarray:
    """Return rows of the pool for validation: the stage's held-out cells and a like share of the bank."""
    old = np.flatnonzero(pool.stage != stage)
    if not len(old):
        return stage_rows
    keys = np.array([f"{s}:{t}" for s, t in zip(pool.stage[old], pool.labels[old], strict=True)])
    _, held = stratified_split(keys, preset.training.validation_share, numpy_generator(seed, "bank validation"))
    return np.sort(np.concatenate([old[held], stage_rows]))


def _distillation(
    previous: Annotator | None, network: Network, data: TrainingData, types: tuple[str, ...], preset: Preset
) -> Distillation | None:
    """Represent the training cells once with the previous model, grown to the new panel."""
    if previous is None or preset.training.distillation == 0 or preset.training.start == "fresh":
        return None
    weight = distillation_weight(preset.training.distillation, len(previous.types), len(types))
    # The network as it starts is the previous model on the new panel.
    rep = run_network(network, data.cells)[1] if data.halfway is None else data.halfway.representations(network)
    return Distillation(previous=torch.from_numpy(rep), weight=weight)


def on_panel(pool: CellPool, panel: GenePanel) -> PanelCells:
    """Return the cells of a pool on the network's genes."""
    values, measured = pool.on(panel)
    return PanelCells(values=values, measured=measured, source=pool.source)


def type_index(labels: np.ndarray, types: tuple[str, ...]) -> np.ndarray:
    """Return the classifier index of each label, int64 (cells,)."""
    at = {name: i for i, name in enumerate(types)}
    return np.array([at[name] for name in labels.tolist()], dtype=np.int64)
