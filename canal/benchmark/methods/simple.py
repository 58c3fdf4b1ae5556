"""The simplest rivals that keep no more than we do: a balanced bank, statistics, and a linear classifier on them.

All see unit profiles over the stages' highly variable genes; what a file does not measure is zero.
"""

from collections import Counter
from collections.abc import Generator, Iterator

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from canal.benchmark.method import Context, Learn, Method, Predict, labels_of
from canal.data.cells import CellPool, Cells
from canal.data.panel import GenePanel
from canal.data.values import unit_rows
from canal.data.variable_genes import highly_variable
from canal.model.memory import AnalyticMemory
from canal.seeds import numpy_generator
from canal.training.examples import balanced_quotas

VARIABLE_GENES = 2000  # of each stage, for logistic regression; Seurat's default
LDA_GENES = 6000  # of the first stage, for the discriminants
SHRINKAGE = 0.5  # of their covariance towards the same variance everywhere; leads on other labs' streams
STRENGTH, ROUNDS = 10.0, 500  # inverse of the ridge for profiles of length 1, and rounds of the solver
PSEUDO_CELLS = 2000


def _random_examples(bank: CellPool, cells: Cells, context: Context, stage: int) -> CellPool:
    """Return a balanced random choice of `bank.size` cells from the bank and a stage (GDumb; Prabhu et al., 2020)."""
    rng = numpy_generator(context.seed, f"simple-bank-{stage}")
    pool = bank.joined(CellPool.of(cells, stage))
    kept = []
    for name, quota in balanced_quotas(Counter(pool.labels.tolist()), context.preset.bank.size).items():
        kept.append(rng.choice(np.flatnonzero(pool.labels == name), quota, replace=False))
    return pool.take(np.sort(np.concatenate(kept)).astype(np.int64))


def _rehearsing_regression(*, stage_cells: bool, pseudo_cells: bool) -> Learn:
    """Return logistic regression on the bank, and where asked for on the stage and on cells drawn from statistics."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        bank, panel = CellPool.empty(), GenePanel.empty()
        memory = AnalyticMemory.empty(context.preset.analytic.ridge)
        for number, cells in enumerate(stages, 1):
            columns = highly_variable(cells, VARIABLE_GENES)
            panel = panel.extended(cells.genes.take(columns), number)
            before = bank
            bank = _random_examples(bank, cells, context, number)
            # What it is trained on: the bank of now alone, or the stage with what is kept of the earlier ones.
            pools = [before, CellPool.of(cells, number)] if stage_cells else [bank]
            rows = [unit_rows(pool.on(panel)[0]) for pool in pools if len(pool)]
            labels = [pool.labels for pool in pools if len(pool)]
            if pseudo_cells and memory.statistics:
                from canal.training.fitting import draw_pseudo_cells  # loads torch

                drawn = draw_pseudo_cells(
                    memory, PSEUDO_CELLS, panel, numpy_generator(context.seed, f"simple-pseudo-{number}")
                )
                rows.append(drawn.on(panel)[0])
                labels.append(drawn.labels)
            if pseudo_cells:
                rank = context.preset.analytic.rank
                memory = memory.with_stage(cells, np.sort(columns), stage=number, rank=rank)
            yield _fitted(sp.vstack(rows, format="csr"), np.concatenate(labels).astype(str), panel)

    return learn


def _fitted(rows: sp.csr_matrix, labels: np.ndarray, panel: GenePanel) -> Predict:
    """Return the function that predicts by logistic regression on these rows."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels.tolist())) == 1:
        return lambda cells: np.full(len(cells), labels[0])
    model = LogisticRegression(C=STRENGTH, max_iter=ROUNDS).fit(rows, labels)
    return lambda cells: np.asarray(model.predict(unit_rows(panel.match(cells.genes).project(cells.expression))))


def learn_discriminants(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Learn streaming linear discriminants in gene space (Hayes and Kanan, 2020): means, numbers and one covariance.

    The genes are those of the first stage: a gene that enters later has a mean of zero in all types before, and cells
    of these would be taken for others.
    """
    del context
    panel = GenePanel.empty()
    sums: dict[str, np.ndarray] = {}
    numbers: Counter[str] = Counter()
    squares = np.zeros((0, 0), dtype=np.float32)
    for number, cells in enumerate(stages, 1):
        if number == 1:
            panel = panel.extended(cells.genes.take(highly_variable(cells, LDA_GENES)), number)
            squares = np.zeros((len(panel), len(panel)), dtype=np.float32)
        values, labels = unit_rows(panel.match(cells.genes).project(cells.expression)), labels_of(cells)
        for name in np.unique(labels).tolist():
            own = values[labels == name]
            squares += (own.T @ own).toarray()
            sums[name] = sums.get(name, np.zeros(len(panel))) + np.asarray(own.sum(axis=0), dtype=np.float64).ravel()
            numbers[name] += own.shape[0]
        # Around the mean of each type, whatever the stage: how far stages of a type differ is part of it.
        totals = np.array([sums[name] / np.sqrt(numbers[name]) for name in sums], dtype=np.float32)
        scatter = squares - totals.T @ totals
        yield _discriminants(scatter / max(sum(numbers.values()), 1), sums, numbers, panel)


def _discriminants(
    covariance: np.ndarray, sums: dict[str, np.ndarray], numbers: Counter[str], panel: GenePanel
) -> Predict:
    """Return the function that predicts the type of the nearest mean, in the metric of the covariance."""
    names = sorted(sums)
    means = np.array([sums[name] / numbers[name] for name in names])
    even = SHRINKAGE * float(np.trace(covariance)) / len(covariance) * np.eye(len(covariance), dtype=np.float32)
    directions = scipy.linalg.solve((1 - SHRINKAGE) * covariance + even, means.T, assume_a="pos")
    offsets = 0.5 * np.einsum("tg,gt->t", means, directions)

    def predict(cells: Cells) -> np.ndarray:
        values = unit_rows(panel.match(cells.genes).project(cells.expression))
        best = np.asarray(values @ directions - offsets).argmax(axis=1)
        return np.asarray(np.array(names)[best])

    return predict


METHODS = (
    Method(
        name="lr-bank",
        title="logistic regression on the bank alone (GDumb)",
        group="strategies",
        keeps="L cells",
        reference="Prabhu et al. 2020; scikit-learn",
        learn=_rehearsing_regression(stage_cells=False, pseudo_cells=False),
    ),
    Method(
        name="lr-stage-bank",
        title="logistic regression on stage and bank",
        group="strategies",
        keeps="L cells",
        reference="scikit-learn",
        learn=_rehearsing_regression(stage_cells=True, pseudo_cells=False),
    ),
    Method(
        name="lr-rehearsal",
        title="logistic regression on stage, bank and pseudo-cells",
        group="strategies",
        keeps="L cells, statistics",
        reference="scikit-learn, on cells drawn from the memory",
        learn=_rehearsing_regression(stage_cells=True, pseudo_cells=True),
    ),
    Method(
        name="slda-genes",
        title="streaming LDA in gene space",
        group="strategies",
        keeps="statistics",
        reference="Hayes and Kanan 2020",
        learn=learn_discriminants,
        seeded=False,
    ),
)
