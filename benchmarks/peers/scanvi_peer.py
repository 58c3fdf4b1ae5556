"""scANVI with query surgery (Xu et al. 2021; scArches, Lotfollahi et al. 2022), by scvi-tools.

The packages' own recipe: scVI on the reference with the stage as batch, scANVI on top, then every file to annotate is
a new batch whose weights alone are trained. Counts are 10,000-normalised values, rounded: raw counts are not passed on.
Epochs are fewer than the packages' default (up to 400), so that a run takes minutes on a CPU.
"""

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from serve import PeerCells, serve

GENES, EPOCHS, LABEL_EPOCHS, QUERY_EPOCHS = 2000, 60, 20, 40
UNKNOWN = "Unknown"


def _adata(cells: PeerCells, genes: list[str], labels: np.ndarray, batch: np.ndarray) -> ad.AnnData:
    values = cells.on(genes)
    values.data = np.round(np.expm1(values.data))
    obs = pd.DataFrame(
        {"type": labels, "batch": batch.astype(str)}, index=[f"{batch[0]}_{i}" for i in range(values.shape[0])]
    )  # fmt: skip
    return ad.AnnData(X=values, obs=obs, var=pd.DataFrame(index=genes))


def _genes(train: PeerCells) -> list[str]:
    chosen: dict[str, None] = {}
    for stage in np.unique(train.stage):
        part = ad.AnnData(X=train.expression[train.stage == stage], var=pd.DataFrame(index=train.genes))
        part.uns["log1p"] = {"base": None}
        sc.pp.highly_variable_genes(part, n_top_genes=min(GENES, part.n_vars), flavor="seurat")
        chosen |= dict.fromkeys(part.var_names[part.var["highly_variable"]])
    return list(chosen)


def fit(train: PeerCells) -> Callable[[PeerCells], list[str]]:
    """Train scVI and scANVI on the reference."""
    scvi.settings.seed = train.seed
    genes = _genes(train)
    reference = _adata(train, genes, train.labels, np.array([f"stage{s}" for s in train.stage]))
    scvi.model.SCVI.setup_anndata(reference, batch_key="batch", labels_key="type")
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    base = scvi.model.SCVI(
        reference, n_layers=2, encode_covariates=True, deeply_inject_covariates=False,
        use_layer_norm="both", use_batch_norm="none",
    )  # fmt: skip
    base.train(max_epochs=EPOCHS, **quiet)
    model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category=UNKNOWN)
    model.train(max_epochs=LABEL_EPOCHS, n_samples_per_label=100, **quiet)

    def predict(cells: PeerCells) -> list[str]:
        n = len(cells.labels)
        query = _adata(cells, genes, np.full(n, UNKNOWN), np.full(n, "query"))
        scvi.settings.seed = train.seed
        surgery = scvi.model.SCANVI.load_query_data(query, model)
        surgery.train(max_epochs=QUERY_EPOCHS, plan_kwargs={"weight_decay": 0.0}, check_val_every_n_epoch=10, **quiet)
        return [str(name) for name in surgery.predict(query)]

    return predict


serve(fit)
