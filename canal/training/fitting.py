"""How much each training cell counts.

Cells drawn from the analytic memory, for the network to rehearse what it has no cells of.

Fitting the network of a stage: which cells it trains on, which score it, what each counts and what holds it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from canal.config import Preset
from canal.data.cells import CellPool
from canal.data.panel import GenePanel
from canal.model.memory import AnalyticMemory
from canal.model.model import Annotator
from canal.model.network import Network, best_device, run_network
from canal.model.panel_cells import PanelCells, joined
from canal.progress import Progress
from canal.seeds import numpy_generator
from canal.training.batches import stratified_split
from canal.training.frozen import Halfway, can_keep
from canal.training.plugins import distillation_weight
from canal.training.train import Distillation, TrainingData, train_network

Group = tuple[int, str]  # stage, type


def training_weights(
    stage: np.ndarray,
    labels: np.ndarray,
    drawn: np.ndarray,
    counts: Mapping[Group, int],
    *,
    balance: float,
    drawn_share: float,
) -> np.ndarray:
    """Weigh cells so that every stage counts the same, however few of its cells are left.

    Within a stage a type that had n cells weighs n^(1 - balance); within a type the cells of the bank and those drawn
    from the statistics share the weight, ``drawn_share`` of it for the drawn ones where there are both.

    Parameters
    ----------
    stage, labels, drawn
        Stage, type and whether the cell was drawn from statistics, each of shape (cells,).
    counts
        Cells that each type had in its stage; those present count where it is not known.
    balance
        0 weighs every cell the same (the paper's concatenation of bank and stage), 1 every type.
    drawn_share
        See above.

    Returns
    -------
    Float32 of shape (cells,), mean 1.
    """
    n = len(labels)
    if balance == 0 or n == 0:
        return np.ones(n, dtype=np.float32)
    keys = list(zip(stage.tolist(), labels.tolist(), drawn.tolist(), strict=True))
    present = Counter(keys)
    mass = {key: _share(present, key, drawn_share) * _weight(counts, present, key, balance) for key in present}
    whole: Counter[int] = Counter()
    for (number, _, _), value in mass.items():
        whole[number] += value  # type: ignore[assignment]
    weights = np.array([mass[key] / (present[key] * whole[key[0]]) for key in keys])
    return np.asarray(weights * (n / weights.sum()), dtype=np.float32)


def _share(present: Mapping[tuple[int, str, bool], int], key: tuple[int, str, bool], drawn_share: float) -> float:
    stage, name, drawn = key
    if (stage, name, not drawn) not in present:
        return 1.0
    return drawn_share if drawn else 1.0 - drawn_share


def _weight(
    counts: Mapping[Group, int],
    present: Mapping[tuple[int, str, bool], int],
    key: tuple[int, str, bool],
    balance: float,
) -> float:
    stage, name, _ = key
    n = counts.get((stage, name)) or present.get((stage, name, False), 1)
    return float(n ** (1.0 - balance))


def draw_cells(memory: AnalyticMemory, n: int, panel: GenePanel, rng: np.random.Generator) -> CellPool:
    """Draw pseudo-cells of the earlier stages: Gaussian around each type's mean, with its factors and rest.

    Parameters
    ----------
    memory
        Statistics of the earlier stages.
    n
        Cells in all; a type gets a share by the square root of its cells, one at least.
    panel
        Genes to draw; those without statistics of the stage are not measured.
    rng
        Draws them.

    Returns
    -------
    A pool on ``panel`` with one source a stage. Values are of unit profiles, some negative.
    """
    at = panel.match(memory.panel.genes, memory.panel.ensembl)
    into, of = np.flatnonzero(at.measured), at.columns[at.measured]
    share = np.sqrt([s.n for s in memory.statistics])
    numbers = np.maximum(1, np.floor(n * share / share.sum())).astype(int) if len(share) else []
    stages = list(memory.measured)
    measured = np.zeros((len(stages), len(panel)), dtype=bool)
    blocks = []
    for s, k in zip(memory.statistics, numbers, strict=True):
        position = np.full(len(memory.panel), -1)
        position[memory.measured[s.stage]] = np.arange(len(s.mean))
        have = position[of] >= 0
        genes = position[of][have]
        spread = rng.standard_normal((k, len(s.factors)), dtype=np.float32) / np.sqrt(max(s.n - 1, 1))
        noise = rng.standard_normal((k, len(genes)), dtype=np.float32) * np.sqrt(s.rest[genes])
        block = np.zeros((k, len(panel)), dtype=np.float32)
        block[:, into[have]] = s.mean[genes] + spread @ s.factors[:, genes] + noise
        measured[stages.index(s.stage), into[have]] = True
        blocks.append(block)
    names = [s.name for s, k in zip(memory.statistics, numbers, strict=True) for _ in range(k)]
    stage = np.array(
        [s.stage for s, k in zip(memory.statistics, numbers, strict=True) for _ in range(k)], dtype=np.int64
    )
    return CellPool(
        panel=panel,
        expression=sp.csr_matrix(np.concatenate(blocks)),
        measured=measured,
        source=np.array([stages.index(k) for k in stage.tolist()], dtype=np.int64),
        stage=stage,
        labels=np.array(names, dtype=object),
        names=np.array([f"drawn {i}" for i in range(len(names))], dtype=object),
    )


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
    key: int,
    seed: int,
    progress: Progress,
    checkpoint: tuple[Path, str] | None,
    on_epoch: Callable[[int, dict[str, float]], None],
    train: Callable[..., list[dict[str, float]]] = train_network,
) -> list[dict[str, float]]:
    """Train a network in place on pool and pseudo-cells; the stage's held-out rows and a share of the bank validate.

    ``stage`` is its number, for whoever watches; in the pool its cells have the ``key``.
    """
    held = _held_out(pool, stage_held_rows, key, preset, seed)
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


def _held_out(pool: CellPool, stage_rows: np.ndarray, key: int, preset: Preset, seed: int) -> np.ndarray:
    """Return rows of the pool for validation: the stage's held-out cells and a like share of the bank."""
    old = np.flatnonzero(pool.stage != key)
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
