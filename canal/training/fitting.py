"""How much each training cell counts.

Cells drawn from the analytic memory, for the network to rehearse what it has no cells of.

Fitting the network of a stage: which cells it trains on, which score it, what each counts and what holds it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from canal.config import Preset
from canal.data.cells import CellPool
from canal.data.panel import GenePanel
from canal.model.memory import AnalyticMemory
from canal.model.model import Model
from canal.model.network import Network, PanelCells, best_device, joined, run_network
from canal.seeds import numpy_generator
from canal.training.batches import stratified_split
from canal.training.distributed import train_on_devices
from canal.training.frozen import FrozenOutputs, can_precompute
from canal.training.plugins import distillation_weight
from canal.training.run import Run
from canal.training.train import Distillation, TrainingData

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


def draw_pseudo_cells(memory: AnalyticMemory, n: int, panel: GenePanel, rng: np.random.Generator) -> CellPool:
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
    at = panel.match(memory.panel.genes)
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


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What the network of a stage is to know: its preset, the genes of its panel and its types, both in order."""

    preset: Preset
    panel: GenePanel
    types: tuple[str, ...]


def fit_network(
    network: Network, parent: Model | None, pool: CellPool, held_rows: np.ndarray, goal: NetworkSpec, run: Run
) -> list[dict[str, float]]:
    """Train a network in place on labelled cells and pseudo-cells; some of the cells score it.

    Parameters
    ----------
    network
        As it starts: on the goal's genes and types.
    parent
        Model of the stage before: its memory gives pseudo-cells, its representation holds the network.
    pool
        Example bank and stage.
    held_rows
        Rows of the pool that were held out of the stage. They and a like share of the bank score the epochs.
    goal
        Preset, gene panel and types.
    run
        Number of the stage, its seed, its checkpoint and who watches.

    Returns
    -------
    One dict of figures an epoch.
    """
    # 1. Which cells train, which score.
    held = _validation_rows(pool, held_rows, goal.preset, run)
    kept = np.setdiff1d(np.arange(len(pool)), held)
    cells, targets = on_panel(pool, goal.panel), type_index(pool.labels, goal.types)
    validation = cells.take(held)
    # 2. Pseudo-cells rehearse what the earlier stages taught.
    drawn = _pseudo_cells(parent, goal, run)
    trained = joined(cells.take(kept), on_panel(drawn, goal.panel)) if len(drawn) else cells.take(kept)
    # 3. What frozen layers make of the cells is computed once, where it can be kept.
    frozen = frozen_validation = None
    if can_precompute(network, goal.preset.training):
        device = best_device()
        network.to(device)
        folder = None if run.draft is None else run.draft.folder
        frozen = FrozenOutputs.of(network, trained, device, folder)
        frozen_validation = FrozenOutputs.of(network, validation, device, folder)
    data = TrainingData(
        cells=trained,
        frozen_outputs=frozen,
        validation_frozen_outputs=frozen_validation,
        types=np.concatenate([targets[kept], type_index(drawn.labels, goal.types)]),
        weights=_weights(parent, pool.stage[kept], pool.labels[kept], drawn, goal.preset),
        validation=validation,
        validation_types=targets[held],
    )
    # 4. The representation is held near that of the network as it starts: the parent's on the new panel.
    distillation = _distillation(parent, network, data, goal)
    return train_on_devices(network, data, goal.preset.training, run, distillation)


def _validation_rows(pool: CellPool, held_rows: np.ndarray, preset: Preset, run: Run) -> np.ndarray:
    """Return rows of the pool for validation: the stage's held-out cells and a like share of the bank."""
    old = np.flatnonzero(pool.stage != run.number)
    if not len(old):
        return held_rows
    keys = np.array([f"{s}:{t}" for s, t in zip(pool.stage[old], pool.labels[old], strict=True)])
    share = preset.training.validation_share
    _, held = stratified_split(keys, share, numpy_generator(run.seed, "bank validation"))
    return np.sort(np.concatenate([old[held], held_rows]))


def _pseudo_cells(parent: Model | None, goal: NetworkSpec, run: Run) -> CellPool:
    """Draw cells from the parent's statistics, where there are some and the preset wants them."""
    number = goal.preset.analytic.pseudo_cells
    if parent is None or parent.memory is None or number == 0:
        return CellPool.empty()
    return draw_pseudo_cells(parent.memory, number, goal.panel, numpy_generator(run.seed, "pseudo-cells"))


def _weights(
    parent: Model | None, stage: np.ndarray, labels: np.ndarray, drawn: CellPool, preset: Preset
) -> np.ndarray:
    """Return the weight of each training cell: real ones, then drawn ones."""
    counts = parent.memory.counts() if parent is not None and parent.memory is not None else {}
    return training_weights(
        np.concatenate([stage, drawn.stage]),
        np.concatenate([labels, drawn.labels]),
        np.concatenate([np.zeros(len(stage), dtype=bool), np.ones(len(drawn), dtype=bool)]),
        counts,
        balance=preset.training.balance,
        drawn_share=preset.analytic.pseudo_share,
    )


def _distillation(parent: Model | None, network: Network, data: TrainingData, goal: NetworkSpec) -> Distillation | None:
    """Represent the training cells once with the parent's network, grown to the new panel."""
    config = goal.preset.training
    if parent is None or config.distillation == 0 or config.start == "fresh":
        return None
    weight = distillation_weight(config.distillation, len(parent.types), len(goal.types))
    if data.frozen_outputs is None:
        representation = run_network(network, data.cells)[1]
    else:
        representation = data.frozen_outputs.representations(network)
    return Distillation(previous=torch.from_numpy(representation), weight=weight)


def on_panel(pool: CellPool, panel: GenePanel) -> PanelCells:
    """Return the cells of a pool on the network's genes."""
    values, measured = pool.on(panel)
    return PanelCells(values=values, measured=measured, source=pool.source)


def type_index(labels: np.ndarray, types: tuple[str, ...]) -> np.ndarray:
    """Return the classifier index of each label, int64 (cells,)."""
    at = {name: i for i, name in enumerate(types)}
    return np.array([at[name] for name in labels.tolist()], dtype=np.int64)
