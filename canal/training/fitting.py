"""Fitting the network of a stage: which cells it trains on, which score it, what each counts and what holds it.

`fit_network` is the whole of it. Below it stand the weights of the training cells, and the pseudo-cells: cells drawn
from the analytic memory, with which the network rehearses the types of earlier stages.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import torch

from canal.config import Preset
from canal.data.cells import CellPool
from canal.data.panel import GenePanel
from canal.model.memory import AnalyticMemory
from canal.model.model import Model
from canal.model.network import Network, PanelCells, best_device, join_cells, run_network
from canal.progress import Late, Progress
from canal.seeds import numpy_generator
from canal.training.distributed import train_on_devices
from canal.training.frozen import FrozenOutputs, can_precompute
from canal.training.plugins import distillation_weight
from canal.training.run import Run
from canal.training.splits import stratified_split
from canal.training.train import Distillation, TrainingData


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What the network of a stage takes and gives: its preset, its gene panel and its types, both in their order.

    ``kinds`` are those of each coarse type among them, which a cell of that label may be; see `canal.model.kinds`.
    """

    preset: Preset
    panel: GenePanel
    types: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def meant(self) -> np.ndarray | None:
        """Which types each label may mean, bool (types, types); ``None`` where every label means itself alone."""
        if not self.kinds:
            return None
        meant = np.eye(len(self.types), dtype=bool)
        place = {name: k for k, name in enumerate(self.types)}
        for coarse, kinds in self.kinds.items():
            # A coarse label is never the answer: its cells are of one of its kinds.
            meant[place[coarse]] = False
            meant[place[coarse], [place[kind] for kind in kinds]] = True
        return meant


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a training leaves beside the weights.

    Attributes
    ----------
    history
        One dict of figures an epoch.
    kept
        Outputs of the frozen layers for the cells that trained and for those that scored, with their rows of the pool;
        empty where none are kept. Their files go with this object.
    """

    history: list[dict[str, float]]
    kept: tuple[tuple[np.ndarray, FrozenOutputs], ...] = ()

    def representation(self, network: Network, cells: PanelCells, progress: Progress) -> np.ndarray:
        """Return the trained network's representation of the pool's cells, float32 (cells, D), from what is kept."""
        if not self.kept:
            return run_network(network, cells, progress)[1]
        network.to(best_device())
        found = np.zeros((len(cells), network.encoder.dim), np.float32)
        for rows, outputs in self.kept:
            # Pseudo-cells stand behind the cells of the pool.
            found[rows] = outputs.representations(network, progress)[: len(rows)]
        network.to("cpu")
        return found


def fit_network(
    network: Network, parent: Model | None, pool: CellPool, held_rows: np.ndarray, spec: NetworkSpec, run: Run
) -> Fitted:
    """Train a network in place on labelled cells and pseudo-cells; some of the cells score it.

    Parameters
    ----------
    network
        As it starts: on the genes and types of ``spec``.
    parent
        Model of the stage before: its memory gives pseudo-cells, its representation holds the network.
    pool
        Example bank and stage.
    held_rows
        Rows of the pool that were held out of the stage. They and a like share of the bank score the epochs.
    spec
        Preset, gene panel and types.
    run
        Number of the stage, its seed, its checkpoint and who watches.

    Returns
    -------
    The figures of each epoch, and the outputs of frozen layers.
    """
    # 1. Which cells train, which score.
    validation_rows = _validation_rows(pool, held_rows, spec.preset, run)
    rows = np.setdiff1d(np.arange(len(pool)), validation_rows)
    cells, targets = on_panel(pool, spec.panel), type_index(pool.labels, spec.types)
    training, validation = cells.take(rows), cells.take(validation_rows)
    # 2. Pseudo-cells rehearse what the earlier stages taught.
    pseudo_cells = _pseudo_cells(parent, spec, run)
    if len(pseudo_cells):
        training = join_cells(training, on_panel(pseudo_cells, spec.panel))
    # 3. The outputs of frozen layers are computed once, where they stay the same.
    frozen = frozen_validation = None
    watching = Late(run.progress)
    if can_precompute(network, spec.preset.training):
        device = best_device()
        network.to(device)
        folder = None if run.draft is None else run.draft.folder
        frozen = FrozenOutputs.of(network, training, device, folder, watching)
        frozen_validation = FrozenOutputs.of(network, validation, device, folder, watching)
    data = TrainingData(
        cells=training,
        types=np.concatenate([targets[rows], type_index(pseudo_cells.labels, spec.types)]),
        weights=_weights(parent, pool.stage[rows], pool.labels[rows], pseudo_cells, spec.preset),
        validation=validation,
        validation_types=targets[validation_rows],
        frozen_outputs=frozen,
        validation_frozen_outputs=frozen_validation,
        meant=spec.meant,
    )
    # 4. The representation is held near that of the network as it starts: the parent's on the new panel.
    distillation = _distillation(parent, network, data, spec, watching)
    history = train_on_devices(network, data, spec.preset.training, run, distillation)
    if frozen is None or frozen_validation is None:
        return Fitted(history=history)
    return Fitted(history=history, kept=((rows, frozen), (validation_rows, frozen_validation)))


def _validation_rows(pool: CellPool, held_rows: np.ndarray, preset: Preset, run: Run) -> np.ndarray:
    """Return rows of the pool for validation: the stage's held-out cells and a like share of the bank."""
    old = np.flatnonzero(pool.stage != run.kept_under)
    if not len(old):
        return held_rows
    # A share of every type of every stage in the bank.
    groups = np.array([f"{stage}:{name}" for stage, name in zip(pool.stage[old], pool.labels[old], strict=True)])
    share = preset.training.validation_share
    _, held = stratified_split(groups, share, numpy_generator(run.seed, "bank validation"))
    return np.sort(np.concatenate([old[held], held_rows]))


def _pseudo_cells(parent: Model | None, spec: NetworkSpec, run: Run) -> CellPool:
    """Draw cells from the parent's statistics, where there are some and the preset asks for them."""
    number = spec.preset.analytic.pseudo_cells
    if parent is None or parent.memory is None or number == 0:
        return CellPool.empty()
    return draw_pseudo_cells(parent.memory, number, spec.panel, numpy_generator(run.seed, "pseudo-cells"))


def _weights(
    parent: Model | None, stage: np.ndarray, labels: np.ndarray, pseudo_cells: CellPool, preset: Preset
) -> np.ndarray:
    """Return the weight of each training cell: real ones, then pseudo-cells."""
    counts = parent.memory.counts() if parent is not None and parent.memory is not None else {}
    return training_weights(
        np.concatenate([stage, pseudo_cells.stage]),
        np.concatenate([labels, pseudo_cells.labels]),
        np.concatenate([np.zeros(len(stage), dtype=bool), np.ones(len(pseudo_cells), dtype=bool)]),
        counts,
        balance=preset.training.balance,
        drawn_share=preset.analytic.pseudo_share,
    )


def _distillation(
    parent: Model | None, network: Network, data: TrainingData, spec: NetworkSpec, progress: Progress
) -> Distillation | None:
    """Represent the training cells once with the parent's network, grown to the new panel."""
    config = spec.preset.training
    if parent is None or config.distillation == 0 or config.start == "fresh":
        return None
    weight = distillation_weight(config.distillation, len(parent.types), len(spec.types))
    if data.frozen_outputs is None:
        representation = run_network(network, data.cells, progress)[1]
    else:
        representation = data.frozen_outputs.representations(network, progress)
    return Distillation(previous=torch.from_numpy(representation), weight=weight)


def training_weights(
    stage: np.ndarray,
    labels: np.ndarray,
    drawn: np.ndarray,
    counts: Mapping[tuple[int, str], int],
    *,
    balance: float,
    drawn_share: float,
) -> np.ndarray:
    """Weigh cells so that every stage counts the same, however few of its cells are left.

    Within a stage a type that had n cells weighs n^(1 - balance); within a type the cells of the bank and its
    pseudo-cells share the weight, ``drawn_share`` of it for the pseudo-cells where there are both.

    Parameters
    ----------
    stage, labels, drawn
        Stage, type and whether it is a pseudo-cell, of each cell, (cells,).
    counts
        Number of cells of each type of each stage, when it was learned; those present count where it is not known.
    balance
        0 weighs every cell the same (the paper's concatenation of bank and stage), 1 every type.
    drawn_share
        Share of the pseudo-cells in the weight of a type.

    Returns
    -------
    Float32 of shape (cells,), mean 1.
    """
    n = len(labels)
    if balance == 0 or n == 0:
        return np.ones(n, dtype=np.float32)
    # A group is a type of a stage, its real cells or its pseudo-cells.
    groups = list(zip(stage.tolist(), labels.tolist(), drawn.tolist(), strict=True))
    present = Counter(groups)
    # 1. The weight of each group, and of all groups of a stage together.
    group_weight: dict[tuple[int, str, bool], float] = {}
    stage_weight: dict[int, float] = defaultdict(float)
    for number, name, is_drawn in present:
        cells = counts.get((number, name)) or present.get((number, name, False), 1)
        share = 1.0
        if (number, name, not is_drawn) in present:
            share = drawn_share if is_drawn else 1.0 - drawn_share
        weight = share * float(cells ** (1.0 - balance))
        group_weight[number, name, is_drawn] = weight
        stage_weight[number] += weight
    # 2. That of each cell: every stage weighs 1, and a group's cells share its part of that evenly.
    cell_weight = {}
    for group, cells in present.items():
        cell_weight[group] = group_weight[group] / (cells * stage_weight[group[0]])
    weights = np.array([cell_weight[group] for group in groups])
    return np.asarray(weights * (n / weights.sum()), dtype=np.float32)


def draw_pseudo_cells(
    memory: AnalyticMemory, n: int, panel: GenePanel, rng: np.random.Generator, widening: float = 1.0
) -> CellPool:
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
    widening
        What their distance from the mean of their type is multiplied by.

    Returns
    -------
    A pool on ``panel`` with one source a stage. Values are of unit profiles, some negative.
    """
    # 1. Places of the genes that the memory knows: in the panel, and in the memory's own.
    match = panel.match(memory.panel.genes)
    in_panel, in_memory = np.flatnonzero(match.measured), match.columns[match.measured]
    # 2. Number of cells of each type of each stage.
    root = np.sqrt([s.n for s in memory.statistics])
    numbers = np.maximum(1, np.floor(n * root / root.sum())).astype(int).tolist()
    stages = list(memory.measured)
    measured = np.zeros((len(stages), len(panel)), dtype=bool)
    values: list[np.ndarray] = []
    names: list[str] = []
    sources: list[int] = []
    for s, k in zip(memory.statistics, numbers, strict=True):
        # 3. Places of the genes that this stage has statistics of, among them.
        position = np.full(len(memory.panel), -1)
        position[memory.measured[s.stage]] = np.arange(len(s.mean))
        known = position[in_memory] >= 0
        genes = position[in_memory][known]
        # 4. The mean, the spread along the factors, and the rest of each gene's variance.
        spread = rng.standard_normal((k, len(s.factors)), dtype=np.float32) / np.sqrt(max(s.n - 1, 1))
        noise = rng.standard_normal((k, len(genes)), dtype=np.float32) * np.sqrt(s.rest[genes])
        block = np.zeros((k, len(panel)), dtype=np.float32)
        block[:, in_panel[known]] = s.mean[genes] + widening * (spread @ s.factors[:, genes] + noise)
        source = stages.index(s.stage)
        measured[source, in_panel[known]] = True
        values.append(block)
        names += [s.name] * k
        sources += [source] * k
    source_of_cell = np.array(sources, dtype=np.int64)
    return CellPool(
        panel=panel,
        expression=sp.csr_matrix(np.concatenate(values)),
        measured=measured,
        source=source_of_cell,
        stage=np.array(stages, dtype=np.int64)[source_of_cell],
        labels=np.array(names, dtype=object),
        names=np.array([f"drawn {i}" for i in range(len(names))], dtype=object),
    )


def on_panel(pool: CellPool, panel: GenePanel) -> PanelCells:
    """Return the cells of a pool on the network's genes."""
    values, measured = pool.on(panel)
    return PanelCells(values=values, measured=measured, source=pool.source)


def type_index(labels: np.ndarray, types: tuple[str, ...]) -> np.ndarray:
    """Return the classifier index of each label, int64 (cells,)."""
    index = {name: i for i, name in enumerate(types)}
    return np.array([index[name] for name in labels.tolist()], dtype=np.int64)
