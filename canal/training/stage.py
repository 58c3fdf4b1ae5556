"""One stage of learning: the model of the stage before and new labelled cells in, a new model out.

`learn_stage` is the whole of it, top to bottom; what it calls stands below it in the order of the calls.
"""

from dataclasses import dataclass, replace

import numpy as np

from canal.config import Preset
from canal.data.cells import CellPool, Cells
from canal.data.panel import GenePanel
from canal.data.values import unit_rows
from canal.data.variable_genes import highly_variable, rank_by_variance, type_specific
from canal.errors import StageError
from canal.model.kinds import coarse_kinds
from canal.model.memory import AnalyticMemory
from canal.model.model import Fusion, Model
from canal.model.network import Network, new_network, seeded, weights_of
from canal.model.novelty.calibration import NoveltyCalibration
from canal.model.novelty.detector import NoveltyDetector
from canal.model.reliability import Reliability
from canal.model.stage_keys import free_key
from canal.model.sure import SureCalibration
from canal.ontology.placement import Placement
from canal.progress import Late
from canal.seeds import numpy_generator
from canal.training.examples import Candidates, balanced_quotas, choose_examples
from canal.training.fitting import Fitted, NetworkSpec, fit_network, on_panel, type_index
from canal.training.run import Run
from canal.training.splits import stratified_split
from canal.training.start import PretrainedGenes, PretrainedWeights, start_from_pretrained


@dataclass(frozen=True, kw_only=True)
class LearnedStage:
    """What a stage learned.

    Attributes
    ----------
    model
        The new model with its example bank.
    key
        Number under which memory, calibration and bank keep the stage; see `canal.model.stage_keys`.
    held_out
        Rows of the stage's cells that no weight was fitted to, ascending.
    held_out_types
        Types that the model predicts for these cells before the memory takes them in, of shape (held-out cells,); the
        label itself where that is coarse and the prediction one of its kinds.
    held_out_probabilities
        Of every type for these cells before the memory takes them in, each half by the temperature of the other;
        float32 of shape (held-out cells, types).
    reliability
        How well the model's confidence meets its accuracy on these cells.
    history
        One dict of figures an epoch.
    pretrained_genes
        How many of the genes new to the network have a pre-trained vector; ``None`` without pre-trained weights.
    """

    model: Model
    key: int
    held_out: np.ndarray
    held_out_types: np.ndarray
    held_out_probabilities: np.ndarray
    reliability: Reliability
    history: list[dict[str, float]]
    pretrained_genes: PretrainedGenes | None = None


def learn_stage(
    parent: Model | None,
    cells: Cells,
    preset: Preset,
    run: Run,
    weights: PretrainedWeights | None = None,
    placement: Placement | None = None,
    split: str | None = None,
) -> LearnedStage:
    """Learn from the labelled cells of one stage.

    Parameters
    ----------
    parent
        Model of the stage before, with its example bank; ``None`` at the first stage.
    cells
        Labelled cells of the stage.
    preset
        Configuration.
    run
        Number of the stage, its seed, its checkpoint and who watches.
    weights
        Pre-trained weights: a new network starts from them, a grown one takes its new genes' vectors.
    placement
        Where the types stand in the Cell Ontology: labels that are terms above others teach these. The thresholds of
        sure answers are not learned here.
    split
        A type of the parent that the cells are of, under finer names: it is answered as one of these from then on.

    Raises
    ------
    StageError
        If the bank has fewer places than there are types, or the parent has another encoder.
    """
    assert cells.labels is not None
    _check_encoder(parent, preset)
    # On top of an imported model the stage's number may be taken, by another stage.
    run = replace(run, key=free_key(run.number, parent))
    # 1. Hold back a share of every type: no weight is fitted to these cells.
    share = preset.training.validation_share
    train_rows, held_rows = stratified_split(cells.labels, share, numpy_generator(run.seed, "validation"))
    held = cells.take(held_rows)
    # 2. Types and genes grow at the end; what the parent knows keeps its place.
    ranked = rank_by_variance(cells)
    types = _grown_types(parent, cells.labels)
    check_bank_size(preset, types)
    panel = _grown_panel(parent, cells, train_rows, preset, run, ranked, weights)
    splits = _split(parent, split, cells.labels)
    together = [*([] if parent is None else parent.taught_together), frozenset(cells.labels.tolist())]
    kinds = coarse_kinds(types, placement, together, splits)
    spec = NetworkSpec(preset=preset, panel=panel, types=types, kinds=kinds)
    # 3. Fit the network on the example bank, the stage and pseudo-cells of the parent's memory.
    bank = CellPool.empty() if parent is None else parent.bank
    pool = bank.joined(CellPool.of(cells, run.kept_under))
    held_in_pool = held_rows + len(bank)
    network, pretrained_genes = _starting_network(parent, spec, run, weights)
    fitting = fit_network(network, parent, pool, held_in_pool, spec, run)
    # 4. The memory, at first without the held-out cells.
    columns = _statistics_columns(parent, panel, cells, ranked[: preset.genes.statistics])
    fitted = Model(
        preset=preset,
        panel=panel,
        types=types,
        weights=weights_of(network),
        memory=_memory(parent, cells.take(train_rows), columns, preset, run),
        fusion=_fusion(preset),
        sure=None if placement is None else SureCalibration(placement=placement),
        split=splits,
    )
    # 5. Calibrate and score on cells that neither network nor memory has seen.
    fusion, probabilities, reliability = calibrate(fitted, parent, held)
    if fitted.kinds:
        fitted = replace(fitted, fusion=fusion)
        probabilities = fitted.reader(held.genes).among_kinds(probabilities, held.expression)
    assert held.labels is not None
    held_types = fitted.as_labelled(held.labels, fitted.types_of(held))
    novelty = _novelty(parent, fitted, held, run)
    # 6. Then the memory takes these in too: nothing that was labelled is wasted.
    memory = _memory(parent, cells, columns, preset, run)
    model = replace(fitted, memory=memory, fusion=fusion, novelty=novelty)
    # 7. Choose the examples that stand for all stages so far.
    model = replace(model, bank=_new_bank(model, pool, held_in_pool, fitting, run))
    return LearnedStage(
        model=model,
        key=run.kept_under,
        held_out=held_rows,
        held_out_types=held_types,
        held_out_probabilities=probabilities,
        reliability=reliability,
        history=fitting.history,
        pretrained_genes=pretrained_genes,
    )


def _split(parent: Model | None, split: str | None, labels: np.ndarray) -> dict[str, tuple[str, ...]]:
    """Return what types were split into so far, and one more into the labels of the stage."""
    before = {} if parent is None else dict(parent.split)
    if split is not None:
        before[split] = tuple(dict.fromkeys((*before.get(split, ()), *sorted(set(labels.tolist())))))
    return before


def check_bank_size(preset: Preset, types: tuple[str, ...]) -> None:
    """Refuse a preset whose example bank has fewer places than there are types.

    Raises
    ------
    StageError
        If so; see `balanced_quotas`.
    """
    balanced_quotas(dict.fromkeys(types, 1), preset.bank.size)


def _check_encoder(parent: Model | None, preset: Preset) -> None:
    """Refuse an encoder other than the parent's, whose network is to be trained further."""
    if parent is None or preset.training.start == "fresh" or preset.encoder == parent.preset.encoder:
        return
    message = (
        f"The stage before was trained with the encoder of preset {parent.preset.name!r} "
        f"({parent.preset.encoder}), this one asks for {preset.encoder}. Use the same preset, or start the network "
        "anew from bank and memory with --set training.start=fresh."
    )
    raise StageError(message)


def _grown_types(parent: Model | None, labels: np.ndarray) -> tuple[str, ...]:
    """Return the known types in their order, then the new ones sorted by name."""
    known = parent.types if parent is not None else ()
    return known + tuple(sorted(set(labels.tolist()) - set(known)))


def _grown_panel(
    parent: Model | None,
    cells: Cells,
    train_rows: np.ndarray,
    preset: Preset,
    run: Run,
    ranked: np.ndarray,
    weights: PretrainedWeights | None,
) -> GenePanel:
    """Return the panel with the stage's type-specific or variable genes added; ``ranked`` is of `rank_by_variance`.

    With pre-trained weights genes that have a vector there come first: to the pre-trained layers all others are noise.
    """
    panel = parent.panel if parent is not None else GenePanel.empty()
    n, specific = preset.genes.per_stage, preset.genes.specific
    first = np.arange(len(cells.genes)) if weights is None else weights.columns_of(cells.genes)
    if specific is not None:
        # Genes that are chosen by the labels must not be chosen by those of held-out cells.
        columns = type_specific(cells.take(train_rows), n, specific)
    elif preset.genes.ranking == "variance":
        columns = ranked[np.argsort(~np.isin(ranked, first), kind="stable")][:n]
    else:
        columns = highly_variable(cells, n, first)
    return panel.extended(cells.genes.take(columns), run.kept_under)


def _starting_network(
    parent: Model | None, spec: NetworkSpec, run: Run, weights: PretrainedWeights | None
) -> tuple[Network, PretrainedGenes | None]:
    """Return the network that the stage begins with: a fresh one, or the parent's with room for what is new."""
    preset, panel = spec.preset, spec.panel
    # Genes that the network was trained on before.
    known = 0 if parent is None or preset.training.start == "fresh" else len(parent.panel)
    if parent is None or known == 0:
        network = new_network(preset, len(panel), len(spec.types), run.seed)
    else:
        network = new_network(parent.preset, known, len(parent.types), run.seed)
        network.load_state_dict(parent.network.state_dict())
        with seeded(run.seed, "new rows"):
            network.grow(len(panel), len(spec.types), random_rows=preset.training.new_rows == "random")
    # Pre-trained weights, where they were asked for.
    if weights is None:
        return network, None
    return network, start_from_pretrained(network, weights, panel, known, run.seed)


def _statistics_columns(parent: Model | None, panel: GenePanel, cells: Cells, variable: np.ndarray) -> np.ndarray:
    """Return the columns of the stage to keep statistics of: variable genes, the panel's and the parent memory's."""
    known = panel.match(cells.genes).columns
    if parent is not None and parent.memory is not None:
        earlier = parent.memory.panel.match(cells.genes).columns
        known = np.concatenate([known, earlier])
    return np.unique(np.concatenate([variable, known[known >= 0]]))


def _memory(parent: Model | None, cells: Cells, columns: np.ndarray, preset: Preset, run: Run) -> AnalyticMemory | None:
    """Return the parent's memory with these cells of the stage added; ``None`` where the preset has no memory."""
    config = preset.analytic
    if not config.enabled:
        return None
    before = parent.memory if parent is not None else None
    memory = before or AnalyticMemory.empty(config.ridge)
    return memory.with_stage(cells, columns, stage=run.kept_under, rank=config.rank)


def _fusion(preset: Preset) -> Fusion:
    """Return how a model of this preset answers, not calibrated yet; without a memory there is nothing to join."""
    config = preset.analytic
    rule = (config.rule or "sum") if config.enabled else "sum"
    return Fusion(memory=config.weight, temperature=1.0, rule=rule)


def calibrate(fitted: Model, parent: Model | None, held: Cells) -> tuple[Fusion, np.ndarray, Reliability]:
    """Learn the temperature on a stage's held-out cells, and measure on the same cells how reliable the confidence is.

    Each half of the cells is measured with the temperature that the other half gives, so that no cell is judged by a
    number that was fitted to it.

    Parameters
    ----------
    fitted
        Model that has not seen these cells.
    parent
        Model of the stage before, whose temperature is averaged with this one.
    held
        The held-out cells, labelled.

    Returns
    -------
    The calibrated fusion; the probabilities that were measured, (held-out cells, types); how reliable they are.
    """
    assert held.labels is not None
    # Logits of the network and what the memory says of the held-out cells.
    reader = fitted.reader(held.genes)
    logits, _ = reader.network_outputs(held.expression)
    if reader.solved is None:
        memory = np.zeros_like(logits)
    else:
        memory = reader.memory_answer(reader.solved.scores(held.expression))
    types = type_index(held.labels, fitted.types)

    def fit(rows: np.ndarray) -> Fusion:
        of_stage = fitted.fusion.calibrated(logits[rows], memory[rows], types[rows])
        return of_stage if parent is None else of_stage.averaged(parent.fusion)

    # The temperature that the model keeps is fitted to all of them.
    fusion = fit(np.ones(len(types), dtype=bool))
    # The probabilities that are measured come from the temperature of the other half.
    first = half_of_each_type(types)
    probabilities = np.zeros_like(logits)
    for rows in (first, ~first):
        other = fit(~rows) if (~rows).any() else fusion
        probabilities[rows] = other.join(logits[rows], memory[rows])
    right = probabilities.argmax(axis=1) == types
    return fusion, probabilities, Reliability.of(probabilities.max(axis=1), right, fusion.temperature)


def half_of_each_type(types: np.ndarray) -> np.ndarray:
    """Return a half of the cells: every other cell of each type, bool (cells,)."""
    first = np.zeros(len(types), dtype=bool)
    for t in np.unique(types):
        first[np.flatnonzero(types == t)[::2]] = True
    return first


def _novelty(parent: Model | None, fitted: Model, held: Cells, run: Run) -> NoveltyCalibration:
    """Return the parent's calibration of novelty with the novelties of the stage's held-out cells added."""
    before = parent.novelty if parent is not None else NoveltyCalibration()
    memory = fitted.memory
    if memory is None:
        return before
    # Unit profiles over the genes that the memory has statistics of, scored by a detector without these cells.
    match = memory.panel.match(held.genes)
    profiles = unit_rows(match.project(held.expression)[:, np.flatnonzero(match.measured)])
    detector = NoveltyDetector(statistics=memory.statistics, measured=memory.measured, calibration=before)
    return before.with_stage(detector.score_held_out(run.kept_under, match.measured, len(held.genes), profiles))


def _new_bank(model: Model, pool: CellPool, held: np.ndarray, fitting: Fitted, run: Run) -> CellPool:
    """Choose the bank; held-out cells, which later stages are tested on, are chosen last."""
    config = model.preset.bank
    if config.size == 0:
        return CellPool.empty()
    representation = fitting.representation(model.network, on_panel(pool, model.panel), Late(run.progress))
    # Each type's own classifier row: the paper's code indexes them by position and gets another type's.
    weights = model.network.classifier.weight.detach().numpy()
    rows = dict(zip(model.types, weights, strict=True))
    held_out = np.isin(np.arange(len(pool)), held)
    candidates = Candidates(cells=pool, representation=representation, classifier_rows=rows, held_out=held_out)
    return choose_examples(candidates, config, run.seed)
