"""scHPL (Michielsen et al., Nature Communications 2021): a tree of types over all data sets, linear SVMs."""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
from scHPL import learn, predict
from serve import PeerCells, serve

GENES = 2000


def _most_variable(matrix: object, n: int) -> np.ndarray:
    mean = np.asarray(matrix.mean(axis=0)).ravel()
    square = np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel()
    return np.argsort(-(square - mean**2), kind="stable")[:n]


def fit(train: PeerCells) -> Callable[[PeerCells], list[str]]:
    """Learn the tree from one table a stage, on the union of each stage's most variable genes."""
    chosen: dict[int, None] = {}
    data, labels = [], []
    stages = np.unique(train.stage)
    for stage in stages:
        rows = np.flatnonzero(train.stage == stage)
        chosen |= dict.fromkeys(_most_variable(train.expression[rows], GENES).tolist())
    genes = [train.genes[c] for c in chosen]
    for stage in stages:
        rows = np.flatnonzero(train.stage == stage)
        data.append(pd.DataFrame(train.expression[rows][:, list(chosen)].toarray(), columns=genes))
        labels.append(pd.DataFrame({"label": [f"{name}@{stage}" for name in train.labels[rows]]}))
    tree = _tree(data, labels)
    return lambda cells: [_plain(n) for n in predict.predict_labels(cells.on(genes).toarray(), tree)[0].ravel()]


def _tree(data: list[pd.DataFrame], labels: list[pd.DataFrame]) -> object:
    joined = ad.AnnData(
        X=np.concatenate([d.to_numpy() for d in data]),
        obs=pd.DataFrame(
            {"label": np.concatenate([lab["label"] for lab in labels]),
             "batch": np.concatenate([[str(k)] * len(d) for k, d in enumerate(data)])},
            index=[str(i) for i in range(sum(len(d) for d in data))],
        ),
    )  # fmt: skip
    return learn.learn_tree(
        joined, batch_key="batch", batch_order=[str(k) for k in range(len(data))], cell_type_key="label",
        classifier="svm", dynamic_neighbors=False,
    )[0]  # fmt: skip


def _plain(name: str) -> str:
    """Return the type of a node: its name without the stage, the first of joined names."""
    return str(name).split("@")[0]


serve(fit)
