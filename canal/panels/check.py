"""What a targeted panel will tell apart before it is bought, from the statistics of the taught types alone.

Pseudo-cells of every type of every stage are cut to the genes of the panel, and the model, solved for these genes,
annotates them. Drawn from Gaussians they would be easier to tell than cells; their spread is therefore widened.

`check_panel` is the whole of it; what it calls stands below it in the order of the calls.

Shapes: n pseudo-cells of a stage, G genes of the memory, P of them on the panel.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse as sp

from canal.data.cells import CellPool
from canal.data.gene_list import read_gene_list
from canal.data.genes import Genes, name_genes
from canal.errors import ConfigError, DataError, WeightsError
from canal.model.memory import AnalyticMemory
from canal.model.model import Model
from canal.model.reader import GeneSetReader
from canal.progress import Progress, Silent
from canal.seeds import numpy_generator
from canal.training.fitting import draw_pseudo_cells

PSEUDO_CELLS = 6_000  # of all types and stages: the accuracy of a stage is then known to less than a point
# What the spread of pseudo-cells is multiplied by: Gaussians are easier to tell than cells. At this the immune types
# are as hard to tell with all genes as the held-out cells (docs/panels.md).
WIDENING = 1.25
SCALE = 1e4  # sum of a cell's values before the logarithm
STEEPEST = 200.0  # bound of a unit profile's length in natural logarithms; real cells lie between 20 and 80
MOST_PAIRS = 20  # pairs of types that are listed
MUCH_UNKNOWN = 0.2  # share of the panel's genes that nothing is known of
LEAST_SHARE = 0.01  # of a type that is taken for another, to be listed


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    """What a panel reaches on cells like those of one stage; the field names are keys of the JSON.

    Attributes
    ----------
    stage
        Number of the stage.
    genes
        Genes of the panel that it has statistics of.
    accuracy
        Expected of a file like it that measures the panel alone.
    all_genes
        What the model reached on its held-out cells with all genes; ``None`` where that was not kept.
    """

    stage: int
    genes: int
    accuracy: float
    all_genes: float | None


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """Cells of a type that the panel takes for another; the field names are keys of the JSON.

    Attributes
    ----------
    cell_type, taken_for
        The two types.
    share
        Of the cells of the first, mean over the stages that hold it.
    """

    cell_type: str
    taken_for: str
    share: float


@dataclass(frozen=True, kw_only=True)
class PanelCheck:
    """What a panel will tell apart.

    Attributes
    ----------
    known, unknown
        Genes of the panel that the model has statistics of, and those that it has not.
    depth
        Counts a cell that were assumed; ``None`` for those of the data sets that were taught.
    stages
        Of each stage.
    recall
        By type: share of its cells that keep their name, mean over the stages that hold it.
    mistakes
        Pairs of types that are taken for each other, the worst first.
    """

    known: tuple[str, ...]
    unknown: tuple[str, ...]
    depth: int | None
    stages: tuple[StageForecast, ...]
    recall: dict[str, float]
    mistakes: tuple[Mistake, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is uncertain about the forecast."""
        texts = []
        if len(self.unknown) > MUCH_UNKNOWN * (len(self.known) + len(self.unknown)):
            texts.append(
                f"{len(self.unknown)} genes of the panel are unknown to the model: they may be misspelt, of another "
                "species, or not measured by any taught data set. Nothing is expected of them."
            )
        return tuple(texts)

    @property
    def accuracy(self) -> float:
        """Expected accuracy, mean over the stages."""
        return float(np.mean([stage.accuracy for stage in self.stages]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "accuracy": self.accuracy,
            "genes": {"known": len(self.known), "unknown": list(self.unknown)},
            "depth": self.depth,
            "stages": [asdict(stage) for stage in self.stages],
            "recall": self.recall,
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
            "warnings": list(self.warnings),
        }


def read_panel(genes: str | Path | Sequence[str]) -> Genes:
    """Return the genes of a panel, from a file with a name a line (also ``.json``, ``.h5ad``) or a list of names.

    Raises
    ------
    DataError
        If there is no such file, or it holds no names.
    """
    import pandas as pd

    source = "the list of genes"
    if isinstance(genes, str | Path):
        source = str(genes)
        try:
            genes = read_gene_list(Path(genes))
        except WeightsError as error:
            raise DataError(str(error)) from error
    if not len(genes):
        message = "The list holds no gene; expected the names of the genes of a panel."
        raise DataError(message)
    return name_genes(pd.DataFrame(index=list(map(str, genes))), source=source).genes


def pseudo_cells(model: Model) -> CellPool:
    """Return the pseudo-cells of all types and stages that every panel is judged by, on the memory's panel.

    Raises
    ------
    ConfigError
        If the model has no memory.
    """
    memory = memory_of(model)
    rng = numpy_generator(model.stage.seed, "panel")
    return draw_pseudo_cells(memory, PSEUDO_CELLS, memory.panel, rng, WIDENING)


def check_panel(
    model: Model,
    panel: Genes,
    depth: int | None = None,
    progress: Progress | None = None,
    drawn: CellPool | None = None,
) -> PanelCheck:
    """Say what a panel will tell apart.

    Parameters
    ----------
    model
        With an analytic memory.
    panel
        Genes of the panel.
    depth
        Counts of the panel's genes a cell; those of the taught data sets by default.
    progress
        Told about every stage.
    drawn
        The model's `pseudo_cells`, where several panels are checked: to draw them takes most of the time.

    Raises
    ------
    ConfigError, DataError
        If the model has no memory, no gene of the panel is known to it, or the depth is no number of counts.
    """
    memory = memory_of(model)
    if depth is not None and depth < 1:
        message = f"depth is {depth}; expected counts a cell, 1 at least."
        raise ConfigError(message)
    # 1. Which genes of the panel the memory knows, and under which of its names.
    match = memory.panel.match(panel)
    positions = np.flatnonzero(match.measured)
    if not len(positions):
        message = (
            f"The model knows none of the {len(panel)} genes, such as {', '.join(list(panel)[:5])}; it knows "
            f"{', '.join(list(memory.panel.genes)[:5])} and others. Give names of the same kind and species."
        )
        raise DataError(message)
    known_columns = set(match.columns[positions].tolist())
    unknown = tuple(name for column, name in enumerate(panel) if column not in known_columns)
    # 2. Pseudo-cells of all types and stages, the same ones for every panel.
    drawn = pseudo_cells(model) if drawn is None else drawn
    # 3. What comes of the panel in cells like those of each stage.
    progress = progress or Silent()
    progress.start(len(memory.measured), "stages")
    forecasts, tables = [], []
    for key in memory.measured:
        forecast = _forecast(model, memory, drawn, key, positions, depth)
        if forecast is not None:
            forecasts.append(forecast[0])
            tables.append(forecast[1])
        progress.advance(1, f"stage {model.stage_of_key.get(key, key)}")
    progress.close()
    recall, mistakes = _joined(tables, model.types)
    return PanelCheck(
        known=tuple(memory.panel.genes.names[i] for i in positions.tolist()),
        unknown=unknown,
        depth=depth,
        stages=tuple(forecasts),
        recall=recall,
        mistakes=mistakes,
    )


def memory_of(model: Model) -> AnalyticMemory:
    """Return the memory of a model.

    Raises
    ------
    ConfigError
        If it has none.
    """
    if model.memory is None or not model.memory.statistics:
        message = (
            f"The model of preset {model.preset.name!r} has no analytic memory, from whose statistics a panel is "
            "judged. Use a stage of preset 'compact'."
        )
        raise ConfigError(message)
    return model.memory


def _forecast(
    model: Model, memory: AnalyticMemory, drawn: CellPool, key: int, positions: np.ndarray, depth: int | None
) -> tuple[StageForecast, np.ndarray] | None:
    """Return what a panel reaches on the pseudo-cells of a stage, and the table of it; ``None`` without its genes.

    Parameters
    ----------
    model, memory
        The model and its memory.
    drawn
        Pseudo-cells of all stages on the memory's panel.
    key
        Number under which the memory keeps the stage.
    positions
        Of the panel's genes in the memory, ascending.
    depth
        Counts a cell, ``None`` for those of the stage.

    Returns
    -------
    The forecast, and the share of each type (rows, as ``model.types``) that gets each name; rows of NaN for types that
    the stage does not hold.
    """
    genes = np.intersect1d(positions, memory.measured[key])
    cells = np.flatnonzero(drawn.stage == key)
    if not len(genes) or not len(cells):
        return None
    profiles, labels = sp.csr_matrix(drawn.expression[cells]), drawn.labels[cells]
    stage = model.stage_of_key.get(key, key)
    on_panel = profiles[:, genes]
    if depth is not None:
        rng = numpy_generator(model.stage.seed, f"panel depth {stage}")
        length = _length(profiles)
        on_panel = _at_depth(on_panel, length, counted_molecules(memory, key, length), depth, rng)
    predicted = _named(model, memory, on_panel, genes)
    accuracy = _accuracy(memory, key, labels, predicted)
    table = np.full((len(model.types), len(model.types)), np.nan)
    place = {name: i for i, name in enumerate(model.types)}
    for name in np.unique(labels):
        answers = predicted[labels == name]
        table[place[name]] = [float((answers == other).mean()) for other in model.types]
    held_out = held_out_accuracy(model, stage)
    return StageForecast(stage=stage, genes=len(genes), accuracy=accuracy, all_genes=held_out), table


def _accuracy(memory: AnalyticMemory, key: int, labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return the accuracy on pseudo-cells of a stage, each type counted as often as it was taught."""
    counts, right, total = memory.counts(), 0.0, 0
    for name in np.unique(labels):
        right += counts[key, name] * float((predicted[labels == name] == name).mean())
        total += counts[key, name]
    return right / total


def held_out_accuracy(model: Model, stage: int) -> float | None:
    """Return what a model reached on the held-out cells of a stage, ``None`` where its record does not say."""
    if model.record is None:
        return None
    own = "validation_accuracy" if stage == model.record.number else ""
    value = model.record.metrics.get(f"test/{stage}/accuracy", model.record.metrics.get(own))
    return None if value is None else float(value)


def _length(profiles: sp.csr_matrix) -> float:
    """Return by what unit profiles (n, G) are multiplied to be natural logarithms of values that sum to `SCALE`.

    It holds for their mean, and takes the genes with statistics for all of the transcriptome.
    """
    values = profiles.astype(np.float64)
    values.data = np.maximum(values.data, 0.0)
    n = int(values.shape[0])

    def excess(length: float) -> float:
        """Return by how much the values of a mean cell exceed `SCALE`."""
        total = float(np.expm1(length * values.data).sum())
        return total / n - SCALE

    if excess(STEEPEST) < 0:
        return STEEPEST
    return float(scipy.optimize.brentq(excess, 1e-3, STEEPEST))


def counted_molecules(memory: AnalyticMemory, key: int, length: float) -> float:
    """Return how many molecules of all genes were counted in a cell of a stage, from its statistics alone.

    Of a gene that few cells show, a cell that shows it has one molecule: its mean square over its mean is the value of
    a single molecule, which follows from the sum of the cell.

    Parameters
    ----------
    memory, key
        The memory, and the number under which it keeps the stage.
    length
        Of the stage's profiles; see `_length`.
    """
    own = [s for s in memory.statistics if s.stage == key]
    weights = np.array([s.n for s in own], dtype=np.float64)
    means = np.stack([s.mean.astype(np.float64) for s in own])
    squares = np.stack([(s.factors.astype(np.float64) ** 2).sum(axis=0) / s.n + s.rest for s in own]) + means**2
    mean, square = np.average(means, axis=0, weights=weights), np.average(squares, axis=0, weights=weights)
    # The lower half of the genes that anybody shows.
    shown = mean > 0
    if not shown.any():
        return SCALE
    few = shown & (mean <= np.median(mean[shown]))
    single = float(np.median(square[few] / mean[few])) * length
    return SCALE / float(np.expm1(single))


def _at_depth(
    profiles: sp.csr_matrix, length: float, molecules: float, depth: int, rng: np.random.Generator
) -> sp.csr_matrix:
    """Return pseudo-cells (n, P) as a file would hold them that counts so many molecules of the panel's genes a cell.

    Pseudo-cells hold the noise of the molecules that were counted in the taught data sets: those are thinned, each
    molecule kept with the same probability. Where fewer were counted than are asked for, they stay as they are.

    Parameters
    ----------
    profiles
        Unit profiles over the memory's genes, of the panel's genes alone.
    length, molecules
        As `_length` and `counted_molecules` return them.
    depth
        Counts of the panel's genes a cell.
    rng
        Draws the molecules.
    """
    values = profiles.tocsr().astype(np.float64)
    counts = np.expm1(length * np.maximum(values.data, 0.0)) * molecules / SCALE
    # Whole molecules, the same on average.
    values.data = np.floor(counts + rng.random(len(counts)))
    sums = np.asarray(values.sum(axis=1)).ravel()
    kept = np.minimum(np.divide(float(depth), sums, out=np.ones_like(sums), where=sums > 0), 1.0)
    values.data = rng.binomial(values.data.astype(np.int64), np.repeat(kept, np.diff(values.indptr))).astype(np.float64)
    values = _scaled(values, SCALE)
    values.data = np.log1p(values.data)
    values.eliminate_zeros()
    return values.astype(np.float32)


def _scaled(values: sp.csr_matrix, total: float) -> sp.csr_matrix:
    """Return cells scaled to a sum; those without any value stay empty."""
    sums = np.asarray(values.sum(axis=1)).ravel()
    factors = np.divide(total, sums, out=np.zeros_like(sums), where=sums > 0)
    return sp.csr_matrix(sp.diags(factors) @ values)


def _named(model: Model, memory: AnalyticMemory, cells: sp.csr_matrix, positions: np.ndarray) -> np.ndarray:
    """Return the type of cells that measure some genes of the memory, (n,)."""
    return GeneSetReader(model, memory.panel.genes.take(positions)).best_types(cells.astype(np.float32))


def _joined(tables: Sequence[np.ndarray], types: Sequence[str]) -> tuple[dict[str, float], tuple[Mistake, ...]]:
    """Return the recall of each type and the worst mistakes, means over the stages that hold a type."""
    table = np.stack(tables)
    held = np.isfinite(table[:, :, 0])
    mean = np.nansum(np.where(held[:, :, None], table, 0.0), axis=0) / np.maximum(held.sum(axis=0), 1)[:, None]
    recall, mistakes = {}, []
    for i in np.flatnonzero(held.any(axis=0)).tolist():
        recall[types[i]] = float(mean[i, i])
        for j, other in enumerate(types):
            if j != i and mean[i, j] >= LEAST_SHARE:
                mistakes.append(Mistake(cell_type=types[i], taken_for=other, share=float(mean[i, j])))
    mistakes.sort(key=lambda mistake: (-mistake.share, mistake.cell_type, mistake.taken_for))
    return recall, tuple(mistakes[:MOST_PAIRS])
