"""A stage from a checkpoint of scBERT's full size: seconds and memory, so that who has the real one meets no surprise.

    python -m benchmarks.checkpoint CELLS.h5ad --cells 56 --genes 16906 --out checkpoint.md

The checkpoint is made up: performer-pytorch's language model at the published sizes (6 layers of 200, 10 heads of 64,
a table of 16,906 genes) with random weights, in the published layout of 91 tensors. Its genes are those of the file,
filled up with names of none. It is imported, and one stage learned on some cells of the file with the preset's own
settings but for the epochs, through the command line, each command in a process of its own. Weights without knowledge
say nothing about accuracy: none is printed.
"""

import argparse
import json
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import torch

from benchmarks.measure import canal, machine
from tests.published import published_model, published_state

GENES = 16_906  # of the published table


def write_checkpoint(path: Path) -> None:
    """Write random weights in the published layout at the published sizes."""
    model = published_model(genes=GENES, dim=200, depth=6, heads=10, dim_head=64)
    torch.save({"model_state_dict": published_state(model)}, path)


def write_cells(source: Path, labels: str, cells: int, folder: Path) -> tuple[Path, Path]:
    """Write some cells, the same number of each type, and the list of the checkpoint's genes."""
    adata = ad.read_h5ad(source)
    each = cells // adata.obs[labels].nunique()
    rng, rows = np.random.default_rng(0), []
    for _, positions in adata.obs.reset_index(drop=True).groupby(labels, observed=True).groups.items():
        rows += rng.permutation(np.asarray(positions))[:each].tolist()
    adata = adata[sorted(rows)].copy()
    adata.write_h5ad(folder / "cells.h5ad")
    names = list(adata.var_names[:GENES])
    names += [f"NOGENE{number}" for number in range(GENES - len(names))]
    (folder / "genes.txt").write_text("\n".join(names))
    return folder / "cells.h5ad", folder / "genes.txt"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", default="cell_type")
    parser.add_argument("--cells", type=int, default=56)
    parser.add_argument("--genes", type=int, default=GENES, help="genes of the stage")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--preset", default="canal-paper")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = machine()
    with tempfile.TemporaryDirectory(prefix="canal-checkpoint-") as name:
        folder = Path(name)
        write_checkpoint(folder / "scbert.pth")
        cells, genes = write_cells(options.data, options.labels, options.cells, folder)
        workspace = folder / "workspace"
        imported = canal("weights", "import", folder / "scbert.pth", "--genes", genes, folder=workspace)
        learned = canal(
            "stage", "add", "--data", cells, "--labels", options.labels, "--preset", options.preset, "--weights",
            "scbert", "--set", f"genes.per_stage={options.genes}", "--set", f"training.epochs={options.epochs}",
            folder=workspace,
        )  # fmt: skip
        annotated = canal("annotate", "--data", cells, "--out", folder / "out.h5ad", folder=workspace)
        # A file with fewer genes than were asked for gives a smaller panel, whose figures say little of the full one.
        panel = json.loads(canal("stage", "show", "1", "--json", folder=workspace).output)["genes"]
    lines = [f"{head}; {options.cells} cells, {panel} genes, epochs: {options.epochs}", ""]
    lines += ["| | seconds | seconds a cell | of computing | peak MB |", "|---|---|---|---|---|"]
    for title, run in (("weights import", imported), ("stage add", learned), ("annotate", annotated)):
        each = "" if run is imported else f"{run.seconds / options.cells:.2f}"
        lines.append(f"| {title} | {run.seconds:.0f} | {each} | {run.cpu:.0f} | {run.peak:.0f} |")
    page = "\n".join(lines) + "\n"
    print(page)
    if options.out is not None:
        options.out.write_text(page)


if __name__ == "__main__":
    main()
