"""CellTypist (Domínguez Conde et al., Science 2022): logistic regression as the package trains it by default."""

from collections.abc import Callable

import anndata as ad
import celltypist
import numpy as np
import pandas as pd
from serve import PeerCells, serve


def _adata(cells: PeerCells) -> ad.AnnData:
    return ad.AnnData(X=cells.expression, var=pd.DataFrame(index=cells.genes))


def fit(train: PeerCells) -> Callable[[PeerCells], list[str]]:
    """Train on log1p of 10,000 a cell, with the default settings; the check of that scale fails where genes are few."""
    model = celltypist.train(_adata(train), labels=train.labels, n_jobs=1, max_iter=200, check_expression=False)

    def predict(cells: PeerCells) -> list[str]:
        adata = _adata(cells)
        if abs(np.expm1(adata.X[:1].toarray()).sum() - 1e4) > 1:
            raise ValueError("cells are not on the scale that CellTypist expects")
        return celltypist.annotate(adata, model=model).predicted_labels["predicted_labels"].astype(str).tolist()

    return predict


serve(fit)
