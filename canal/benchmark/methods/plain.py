"""Plain classifiers on the union of the stages' highly variable genes; what a file does not measure is zero."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.benchmark.method import Context, Predict, both_ways, labels_of
from canal.data.cells import Cells
from canal.data.panel import GenePanel
from canal.data.variable_genes import highly_variable
from canal.stages.evaluate import fit_logistic_regression

GENES, NEIGHBOURS, COMPONENTS = 2000, 15, 50


def logistic_regression(stages: Sequence[Cells], context: Context) -> Predict:
    """Fit multinomial logistic regression, C = 0.1."""
    del context
    return fit_logistic_regression(list(stages))


def nearest_neighbours(stages: Sequence[Cells], context: Context) -> Predict:
    """Fit k nearest neighbours (k = 15, cosine) in 50 principal components."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.neighbors import KNeighborsClassifier

    panel = union_panel(stages)
    values = sp.vstack([on_panel(panel, cells) for cells in stages])
    labels = np.concatenate([labels_of(cells) for cells in stages])
    reduction = TruncatedSVD(min(COMPONENTS, min(values.shape) - 1), random_state=context.seed)
    knn = KNeighborsClassifier(min(NEIGHBOURS, len(labels)), metric="cosine").fit(
        reduction.fit_transform(values), labels
    )  # fmt: skip
    return lambda cells: np.asarray(knn.predict(reduction.transform(on_panel(panel, cells))))


def union_panel(stages: Sequence[Cells]) -> GenePanel:
    """Return the union of each stage's `GENES` highly variable genes."""
    panel = GenePanel.empty()
    for number, cells in enumerate(stages, 1):
        columns = highly_variable(cells, GENES)
        panel = panel.extended(cells.genes.take(columns), number)
    return panel


def on_panel(panel: GenePanel, cells: Cells) -> Any:
    """Return the cells on the genes of a panel, CSR float32 (cells, genes)."""
    return panel.match(cells.genes).project(cells.expression)


METHODS = (
    *both_ways("lr", "logistic regression", "scikit-learn, C = 0.1", logistic_regression),
    *both_ways("knn", "kNN in principal components", "scikit-learn, k = 15", nearest_neighbours, seeded=True),
)
