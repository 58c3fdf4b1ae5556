"""The common half of the peers' scripts: cells come as .npz, the answer goes as JSON, one line a request.

A script calls ``serve(fit)``. ``fit(train)`` returns a function from cells to the names of their types. The training
cells lie in ``train.npz``; each line on standard input names a file to annotate.
"""

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp


@dataclass
class PeerCells:
    """Cells as a peer gets them.

    Attributes
    ----------
    expression
        CSR float32 (cells, genes): natural log1p of values per 10,000; genes that a file does not measure are zero.
    genes
        Names of the genes.
    labels
        Types (cells,), empty for cells to annotate.
    stage
        Number of the stage of each cell, (cells,).
    seed
        The recorded seed.
    """

    expression: sp.csr_matrix
    genes: list[str]
    labels: np.ndarray
    stage: np.ndarray
    seed: int

    def on(self, genes: Sequence[str]) -> sp.csr_matrix:
        """Return the cells on other genes; what is not measured is zero."""
        at = {g: i for i, g in enumerate(self.genes)}
        places = [(at[g], j) for j, g in enumerate(genes) if g in at]
        rows, columns = zip(*places, strict=True) if places else ((), ())
        pick = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(at), len(genes)))
        return (self.expression @ pick).tocsr()


def read(path: Path) -> PeerCells:
    """Read cells that `canal.benchmark.methods.external` wrote."""
    with np.load(path, allow_pickle=False) as file:
        matrix = sp.csr_matrix((file["data"], file["indices"], file["indptr"]), shape=tuple(file["shape"]))
        stage = file["stage"]
    table = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return PeerCells(matrix, table["genes"], np.array(table["labels"], dtype=str), stage, int(table["seed"]))


def serve(fit: Callable[[PeerCells], Callable[[PeerCells], Sequence[str]]]) -> None:
    """Train, then answer requests until standard input ends."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    folder = Path(sys.argv[1])
    try:
        predict = fit(read(folder / "train.npz"))
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            path = folder / line.strip()
            names = [str(name) for name in predict(read(path))]
            path.with_suffix(".answer").write_text(json.dumps(names), encoding="utf-8")
            print("ready", file=answers, flush=True)
    except Exception as error:  # noqa: BLE001 - told to the benchmark, which makes it the method's row
        traceback.print_exc()
        text = (str(error).strip().splitlines() or [""])[-1]
        print(f"{type(error).__name__}: {text}", file=answers, flush=True)
        sys.exit(1)
