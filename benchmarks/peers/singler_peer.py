"""SingleR (Aran et al., Nature Immunology 2019): correlation with reference cells, of each stage as one reference."""

from collections.abc import Callable

import numpy as np
import singler
from serve import PeerCells, serve


def fit(train: PeerCells) -> Callable[[PeerCells], list[str]]:
    """Keep the reference of each stage, on the genes that stage measures; markers are chosen for each query's genes."""
    parts = []
    for stage in np.unique(train.stage):
        rows = np.flatnonzero(train.stage == stage)
        matrix = train.expression[rows]
        columns = np.flatnonzero(np.diff(matrix.tocsc().indptr))
        parts.append((matrix[:, columns].T.toarray().astype(np.float64), [train.genes[c] for c in columns],
                      train.labels[rows].tolist()))  # fmt: skip

    def predict(cells: PeerCells) -> list[str]:
        test = cells.expression.T.toarray().astype(np.float64)
        if len(parts) == 1:
            matrix, genes, labels = parts[0]
            found = singler.annotate_single(test, matrix, labels, test_features=cells.genes, ref_features=genes)
            return [str(name) for name in found["best"]]
        found = singler.annotate_integrated(
            test, ref_data=[p[0] for p in parts], ref_labels=[p[2] for p in parts],
            test_features=cells.genes, ref_features=[p[1] for p in parts],
        )  # fmt: skip
        integrated = found[1] if isinstance(found, tuple) else found["integrated"]
        return [str(name) for name in integrated["best_label"]]

    return predict


serve(fit)
