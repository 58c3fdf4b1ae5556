"""Write the cells that the tests of the Galaxy tool read, 30 of those that scanpy brings: test-data/cells.h5ad."""

from pathlib import Path

import scanpy as sc

folder = Path(__file__).parent / "test-data"
folder.mkdir(exist_ok=True)
cells = sc.datasets.pbmc68k_reduced()[:30].raw.to_adata()
sc.AnnData(cells.X, obs=cells.obs[[]], var=cells.var[[]]).write_h5ad(folder / "cells.h5ad")
