"""The example bank: a fixed number of cells that stand for all earlier stages.

The bank is one file that holds its cells and nothing else of the data they came from.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from canal.data.cells import CellPool
from canal.data.panel import GenePanel
from canal.files import read_tensor_file, write_tensor_file
from canal.model.stage_keys import bank_stages

FORMAT = 1


def bank_contents(bank: CellPool, stages: Mapping[int, int] | None = None) -> dict[str, object]:
    """Return size, cells per type and cells per stage, as they go into the record.

    Parameters
    ----------
    bank
        The example bank.
    stages
        Number of the stage by the key of its cells, where they differ; see `canal.model.stage_keys`.
    """
    return {
        "size": len(bank),
        "per_type": dict(sorted(Counter(bank.labels.tolist()).items())),
        "per_stage": {str(k): n for k, n in sorted(Counter(bank_stages(bank, stages or {}).tolist()).items())},
    }


def save_bank(bank: CellPool, path: Path) -> None:
    """Write the bank's cells to one safetensors file."""
    strings = {
        "format": FORMAT,
        "panel": bank.panel.to_dict(),
        "labels": bank.labels.tolist(),
        "names": bank.names.tolist(),
    }
    csr = bank.expression
    arrays = {
        "data": csr.data.astype(np.float32),
        "indices": csr.indices.astype(np.int32),
        "indptr": csr.indptr.astype(np.int64),
        "measured": bank.measured,
        "source": bank.source,
        "stage": bank.stage,
    }
    write_tensor_file(path, arrays, "strings", strings)


def load_bank(path: Path) -> CellPool:
    """Read a bank.

    Raises
    ------
    RegistryError
        If the file is not a bank of this or an earlier version.
    """
    arrays, strings = read_tensor_file(path, "strings", "example bank", FORMAT)
    panel = GenePanel.from_dict(strings["panel"])
    n = len(strings["labels"])
    expression = sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=(n, len(panel.genes)))
    return CellPool(
        panel=panel,
        expression=expression,
        measured=arrays["measured"],
        source=arrays["source"],
        stage=arrays["stage"],
        labels=np.array(strings["labels"], dtype=object),
        names=np.array(strings["names"], dtype=object),
    )


def bank_digest(bank: CellPool) -> str:
    """Return a digest of the cells of the bank."""
    h = hashlib.sha256()
    for part in (bank.expression.data, bank.expression.indices, bank.expression.indptr, bank.source, bank.stage):
        h.update(np.ascontiguousarray(part).tobytes())
    h.update(json.dumps([bank.labels.tolist(), bank.names.tolist(), list(bank.panel.genes)]).encode())
    return f"sha256:{h.hexdigest()}"
