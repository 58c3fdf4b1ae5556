"""What a plain model reaches on the same cells: no learned figure stands alone."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from canal.data.cells import Cells
from canal.data.hvg import highly_variable
from canal.data.panel import GenePanel
from canal.stages.metrics import score


def joint_logistic_regression(train: list[Cells], test: list[Cells], n_genes: int = 2000) -> list[tuple[float, float]]:
    """Train logistic regression on the cells of all stages at once and score it on each test.

    No continual learner may see that much: it is the figure to come near.

    Parameters
    ----------
    train, test
        Labelled cells.
    n_genes
        Highly variable genes of each stage.

    Returns
    -------
    Accuracy and macro-F1 of each test.
    """
    predict = fit_joint(train, n_genes)
    results = []
    for cells in test:
        assert cells.labels is not None
        figures = score(cells.labels.astype(str), predict(cells).astype(str))
        results.append((figures["accuracy"], figures["macro_f1"]))
    return results


def fit_joint(train: list[Cells], n_genes: int = 2000) -> Callable[[Cells], np.ndarray]:
    """Train logistic regression on all cells; return what names the cells of a file.

    The panel is the union of each stage's highly variable genes, unmeasured genes are zero, C = 0.1.
    """
    from sklearn.linear_model import LogisticRegression

    panel = GenePanel.empty()
    for number, cells in enumerate(train, 1):
        columns = highly_variable(cells, n_genes)
        panel = panel.extended([cells.genes[c] for c in columns], [cells.ensembl[c] for c in columns], number)
    values = sp.vstack([_on(panel, cells) for cells in train])
    labels = np.concatenate([cells.labels for cells in train if cells.labels is not None]).astype(str)
    model = LogisticRegression(C=0.1, max_iter=500).fit(values, labels)
    return lambda cells: np.asarray(model.predict(_on(panel, cells)))


def _on(panel: GenePanel, cells: Cells) -> sp.csr_matrix:
    return panel.match(cells.genes, cells.ensembl).project(cells.expression)
