"""Plain classifiers on the union of the stages' highly variable genes; what a file does not measure is zero."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.benchmark.method import Context, Predict, labels_of, newest_and_joint
from canal.data.cells import Cells
from canal.data.panel import GenePanel
from canal.data.variable_genes import highly_variable
from canal.stages.evaluate import fit_logistic_regression

VARIABLE_GENES = 2000  # of each stage; Seurat's default
NEIGHBOURS, COMPONENTS = 15, 50  # scanpy's defaults


def fit_joint_logistic_regression(stages: Sequence[Cells], context: Context) -> Predict:
    """Fit multinomial logistic regression, C = 0.1."""
    del context
    return fit_logistic_regression(list(stages))


def fit_nearest_neighbours(stages: Sequence[Cells], context: Context) -> Predict:
    """Fit k nearest neighbours (k = 15, cosine) in 50 principal components."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.neighbors import KNeighborsClassifier

    # The stages' cells on one panel.
    panel = _union_panel(stages)
    values = expression_on(panel, *stages)
    labels = labels_of(*stages)
    # Toy stages may have fewer cells or genes than components and neighbours.
    svd = TruncatedSVD(min(COMPONENTS, min(values.shape) - 1), random_state=context.seed)
    components = svd.fit_transform(values)
    knn = KNeighborsClassifier(min(NEIGHBOURS, len(labels)), metric="cosine").fit(components, labels)

    def predict(cells: Cells) -> np.ndarray:
        return np.asarray(knn.predict(svd.transform(expression_on(panel, cells))))

    return predict


def _union_panel(stages: Sequence[Cells]) -> GenePanel:
    """Return the union of each stage's highly variable genes."""
    panel = GenePanel.empty()
    for number, cells in enumerate(stages, 1):
        columns = highly_variable(cells, VARIABLE_GENES)
        panel = panel.extended(cells.genes.take(columns), number)
    return panel


def expression_on(panel: GenePanel, *files: Cells) -> Any:
    """Return the cells of one file, or of several in turn, on the genes of a panel, CSR float32 (cells, genes)."""
    return sp.vstack([panel.match(cells.genes).project(cells.expression) for cells in files], format="csr")


METHODS = (
    *newest_and_joint("lr", "logistic regression", "scikit-learn, C = 0.1", fit_joint_logistic_regression),
    *newest_and_joint(
        "knn", "kNN in principal components", "scikit-learn, k = 15", fit_nearest_neighbours, seeded=True
    ),
)
