"""The cells of the demonstration: scanpy's `pbmc68k_reduced` as three deliveries with new types each."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from canal.seeds import numpy_generator

if TYPE_CHECKING:
    import anndata as ad


LABELS = "bulk_labels"
STAGES = {
    "myeloid-b": ("CD14+ Monocyte", "Dendritic", "CD19+ B"),
    "t-cells": (
        "CD4+/CD25 T Reg",
        "CD4+/CD45RA+/CD25- Naive T",
        "CD4+/CD45RO+ Memory",
        "CD8+ Cytotoxic T",
        "CD8+/CD45RA+ Naive Cytotoxic",
    ),
    "nk-stem": ("CD56+ NK", "CD34+"),
}
HELD_OUT = 0.25


@dataclass(frozen=True, kw_only=True)
class DemoCells:
    """Files and tables of the demonstration's cells.

    Attributes
    ----------
    train, test
        Files of each stage: cells to learn, cells held out.
    held_out
        File of all held-out cells.
    coordinates
        UMAP that comes with the data, of shape (cells, 2).
    labels
        Given cell types, of shape (cells,).
    held_out_rows
        Rows of the held-out cells, in the order of their file.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    held_out: Path
    coordinates: np.ndarray
    labels: np.ndarray
    held_out_rows: np.ndarray

    @property
    def count(self) -> int:
        """Number of cells in all."""
        return len(self.labels)


def write_cells(folder: Path, seed: int) -> DemoCells:
    """Write the files of the demonstration.

    Parameters
    ----------
    folder
        Made if missing.
    seed
        Decides which quarter of each type is held out.
    """
    adata = _bundled()
    labels = adata.obs[LABELS].to_numpy(dtype=object)
    held = held_out_rows(labels, seed)
    is_held = np.isin(np.arange(len(labels)), held)
    folder.mkdir(parents=True, exist_ok=True)
    train, test = [], []
    for k, (name, types) in enumerate(STAGES.items(), 1):
        of_stage = np.isin(labels, types)
        train.append(_write(adata, of_stage & ~is_held, folder / f"{k}_{name}.train.h5ad"))
        test.append(_write(adata, of_stage & is_held, folder / f"{k}_{name}.test.h5ad"))
    return DemoCells(
        train=tuple(train),
        test=tuple(test),
        held_out=_write(adata, is_held, folder / "held_out.h5ad"),
        coordinates=np.asarray(adata.obsm["X_umap"]),
        labels=labels,
        held_out_rows=held,
    )


def held_out_rows(labels: np.ndarray, seed: int) -> np.ndarray:
    """Choose a quarter of each type, at least one cell; rows ascending.

    Parameters
    ----------
    labels
        Cell types, of shape (cells,).
    seed
        The one seed of the choice.
    """
    rng = numpy_generator(seed, "demo held-out")
    chosen = []
    for name in sorted(set(labels.tolist())):
        rows = np.flatnonzero(labels == name)
        chosen.append(rng.choice(rows, max(1, round(HELD_OUT * len(rows))), replace=False))
    return np.sort(np.concatenate(chosen))


def _bundled() -> "ad.AnnData":
    import scanpy as sc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is older than today's anndata
        return sc.datasets.pbmc68k_reduced()


def _write(adata: "ad.AnnData", rows: np.ndarray, path: Path) -> Path:
    part = adata[rows].copy()
    for name in list(part.obsp):
        del part.obsp[name]  # neighbours among cells that are not here
    part.uns.clear()
    part.write_h5ad(path)
    return path
