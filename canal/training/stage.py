"""One stage of learning: previous model, example bank and new cells in; new model and new bank out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from canal.config import Preset
from canal.data.cells import CellPool, Cells
from canal.data.panel import GenePanel
from canal.data.variable_genes import highly_variable, rank_by_variance, type_specific
from canal.errors import StageError
from canal.model.memory import AnalyticMemory
from canal.model.model import Annotator, Fusion
from canal.model.network import Network, new_network, run_network, seeded, weights_of
from canal.model.novelty.calibration import NoveltyCalibration
from canal.model.reliability import Reliability
from canal.model.stage_keys import free_key
from canal.progress import Progress
from canal.seeds import numpy_generator
from canal.training.batches import stratified_split
from canal.training.calibrate import calibrate, with_held_out
from canal.training.examples import balanced_quotas, choose_examples
from canal.training.fitting import fit_network, on_panel
from canal.training.start import PretrainedWeights, Taken, take_weights
from canal.training.train import train_network


@dataclass(frozen=True, kw_only=True)
class LearnedStage:
    """What a stage learned.

    Attributes
    ----------
    annotator
        The new model.
    bank
        The new example bank.
    held_out
        Rows of the stage's cells that no weight was fitted to, ascending.
    held_out_types
        What the model says of these cells before the memory takes them in, of shape (held-out cells,).
    reliability
        How well the model's confidence meets its accuracy on these cells.
    history
        One dict of figures an epoch.
    taken
        What the network took of pre-trained weights.
    key
        Under which memory, calibration and bank keep the stage; its number, but on top of an imported model.
    """

    annotator: Annotator
    bank: CellPool
    held_out: np.ndarray
    held_out_types: np.ndarray
    reliability: Reliability
    history: list[dict[str, float]]
    key: int
    taken: Taken | None = None


def learn_stage(
    previous: Annotator | None,
    bank: CellPool,
    cells: Cells,
    preset: Preset,
    *,
    stage: int,
    seed: int,
    progress: Progress,
    weights: PretrainedWeights | None = None,
    checkpoint: tuple[Path, str] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda _epoch, _figures: None,
    train: Callable[..., list[dict[str, float]]] = train_network,
) -> LearnedStage:
    """Learn from the labelled cells of one stage.

    Parameters
    ----------
    previous
        Model of the stage before, or ``None``.
    bank
        Its example bank.
    cells
        Labelled cells of the stage.
    preset
        Configuration.
    stage, seed
        Number of the stage and its recorded seed.
    weights
        Pre-trained weights: a new network starts from them, a grown one takes its new genes' vectors.
    progress, checkpoint, on_epoch
        As for `train_network`.
    train
        `train_network`, or the same for several processes.
    """
    assert cells.labels is not None
    types = grown_types(previous, cells.labels)
    key = free_key(stage, previous, bank)
    check_places(preset, types)
    _check_encoder(previous, preset)
    ranked = rank_by_variance(cells)
    train_rows, held_rows = stratified_split(
        cells.labels, preset.training.validation_share, numpy_generator(seed, "validation")
    )
    # Genes that are chosen by the labels must not be chosen by those of held-out cells.
    by_labels = preset.genes.specific is not None
    panel = grown_panel(previous, cells.take(train_rows) if by_labels else cells, preset, key, ranked)
    pool = bank.joined(CellPool.of(cells, key))
    network, taken = _start(previous, preset, panel, len(types), seed, weights)
    history = fit_network(
        network, previous, pool, held_rows + len(bank), panel, types, preset,
        stage=stage, key=key, seed=seed, progress=progress, checkpoint=checkpoint, on_epoch=on_epoch, train=train,
    )  # fmt: skip
    columns = statistics_columns(previous, panel, cells, ranked[: preset.genes.statistics])
    fitted = Annotator(
        preset=preset, panel=panel, types=types, weights=weights_of(network),
        memory=_memory(previous, cells.take(train_rows), columns, preset, key=key),
        fusion=Fusion(memory=preset.analytic.weight, temperature=1.0),
    )  # fmt: skip
    # Calibrated and scored on cells that neither network nor memory has seen; then the memory takes these in too.
    held = cells.take(held_rows)
    fusion, reliability = calibrate(fitted, previous, held)
    held_types = fitted.reader(held.genes, held.ensembl).best_types(held.expression)
    memory = _memory(previous, cells, columns, preset, key=key)
    novelty = _novelty(previous, fitted, held, key)
    annotator = replace(fitted, memory=memory, fusion=fusion, novelty=novelty)
    return LearnedStage(
        annotator=annotator,
        bank=_new_bank(annotator, pool, held_rows + len(bank), seed),
        held_out=held_rows,
        held_out_types=held_types,
        reliability=reliability,
        history=history,
        key=key,
        taken=taken,
    )


def grown_types(previous: Annotator | None, labels: np.ndarray) -> tuple[str, ...]:
    """Return the known types in their order, then the new ones sorted by name."""
    known = previous.types if previous is not None else ()
    return known + tuple(sorted(set(labels.tolist()) - set(known)))


def grown_panel(previous: Annotator | None, cells: Cells, preset: Preset, key: int, ranked: np.ndarray) -> GenePanel:
    """Return the panel with the stage's type-specific or variable genes added; ``ranked`` as `rank_by_variance`."""
    panel = previous.panel if previous is not None else GenePanel.empty()
    n, specific = preset.genes.per_stage, preset.genes.specific
    if specific is not None:
        columns = type_specific(cells, n, specific)
    else:
        columns = ranked[:n] if preset.genes.ranking == "variance" else highly_variable(cells, n)
    return panel.extended([cells.genes[c] for c in columns], [cells.ensembl[c] for c in columns], key)


def _memory(
    previous: Annotator | None, cells: Cells, columns: np.ndarray, preset: Preset, *, key: int
) -> AnalyticMemory | None:
    """Return the previous memory with some of the stage's cells."""
    config = preset.analytic
    if not config.enabled:
        return None
    before = previous.memory if previous is not None else None
    memory = before or AnalyticMemory.empty(config.ridge)
    return memory.with_stage(cells, columns, stage=key, rank=config.rank)


def statistics_columns(previous: Annotator | None, panel: GenePanel, cells: Cells, variable: np.ndarray) -> np.ndarray:
    """Return the columns of the stage to keep statistics of: the most variable and all that are followed already."""
    followed = panel.match(cells.genes, cells.ensembl).columns
    if previous is not None and previous.memory is not None:
        earlier = previous.memory.panel.match(cells.genes, cells.ensembl).columns
        followed = np.concatenate([followed, earlier])
    return np.unique(np.concatenate([variable, followed[followed >= 0]]))


def _novelty(previous: Annotator | None, fitted: Annotator, held: Cells, key: int) -> NoveltyCalibration:
    before = previous.novelty if previous is not None else NoveltyCalibration()
    if fitted.memory is None:
        return before
    return with_held_out(before, fitted.memory, held, key)


def check_places(preset: Preset, types: tuple[str, ...]) -> None:
    """Refuse a bank that has fewer places than there are types.

    Raises
    ------
    StageError
        If so.
    """
    balanced_quotas(dict.fromkeys(types, 1), preset.bank.size)


def _check_encoder(previous: Annotator | None, preset: Preset) -> None:
    if previous is None or preset.training.start == "fresh" or preset.encoder == previous.preset.encoder:
        return
    message = (
        f"The stage before was trained with the encoder of preset {previous.preset.name!r} "
        f"({previous.preset.encoder}), this one asks for {preset.encoder}. Use the same preset, or start the network "
        "anew from bank and memory with --set training.start=fresh."
    )
    raise StageError(message)


def _start(
    previous: Annotator | None,
    preset: Preset,
    panel: GenePanel,
    n_types: int,
    seed: int,
    weights: PretrainedWeights | None,
) -> tuple[Network, Taken | None]:
    known = 0 if previous is None or preset.training.start == "fresh" else len(previous.panel)
    if previous is None or known == 0:
        network = new_network(preset, len(panel), n_types, seed)
    else:
        network = new_network(previous.preset, known, len(previous.types), seed)
        network.load_state_dict(previous.network.state_dict())
        with seeded(seed, "new rows"):
            network.grow(len(panel), n_types, random_rows=preset.training.new_rows == "random")
    return network, None if weights is None else take_weights(network, weights, panel, known, seed)


def _new_bank(annotator: Annotator, pool: CellPool, held: np.ndarray, seed: int) -> CellPool:
    """Choose the bank; held-out cells, which later stages are tested on, come last."""
    config = annotator.preset.bank
    if config.size == 0:
        return CellPool.empty()
    _, rep = run_network(annotator.network, on_panel(pool, annotator.panel))
    weights = annotator.network.classifier.weight.detach().numpy()
    rows = {name: weights[i] for i, name in enumerate(annotator.types)}
    last = np.isin(np.arange(len(pool)), held)
    return choose_examples(
        pool, rep, rows, size=config.size, selection=config.selection, seed=seed, last=last, quotas=config.quotas
    )
