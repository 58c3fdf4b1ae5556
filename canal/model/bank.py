"""The example bank: a fixed number of cells that stand for all earlier stages.

The bank is one file that holds its cells and nothing else of the data they came from.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from canal.data.cells import CellPool
from canal.data.panel import GenePanel
from canal.data.sparse_checks import BadSparseError, csr_of
from canal.errors import RegistryError
from canal.files import read_tensor_file, write_tensor_file
from canal.model.stage_keys import bank_stages

FORMAT = 1
BANK = "bank.safetensors"  # its name among the files of a model
ARRAYS = ("data", "indices", "indptr", "measured", "source", "stage")


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
        If the file is not a bank of this or an earlier version, or what it holds does not fit together.
    """
    arrays, strings = read_tensor_file(path, "strings", "example bank", FORMAT)
    missing = sorted(set(ARRAYS) - set(arrays))
    if missing:
        raise RegistryError(_damaged(path, f"it has no {', '.join(missing)}"))
    panel = GenePanel.from_dict(strings["panel"])
    labels = np.array([str(label) for label in strings["labels"]], dtype=object)
    names = np.array([str(name) for name in strings["names"]], dtype=object)
    try:
        expression = csr_of(arrays["data"], arrays["indices"], arrays["indptr"], (len(labels), len(panel.genes)))
    except BadSparseError as error:
        raise RegistryError(_damaged(path, str(error))) from error
    _check_columns(path, arrays, (len(labels), len(names), len(panel.genes)))
    return CellPool(
        panel=panel,
        expression=expression,
        measured=arrays["measured"],
        source=arrays["source"],
        stage=arrays["stage"],
        labels=labels,
        names=names,
    )


def _check_columns(path: Path, arrays: Mapping[str, np.ndarray], sizes: tuple[int, int, int]) -> None:
    """Refuse what is kept beside the values of each cell where it does not fit to them.

    Parameters
    ----------
    sizes
        Number of labels, which is that of the cells, of names and of genes.
    """
    n, names, genes = sizes
    measured, source, stage = arrays["measured"], arrays["source"], arrays["stage"]
    if names != n or source.shape != (n,) or stage.shape != (n,):
        reason = f"it has {n} labels, {names} names, {source.size} sources and {stage.size} stages; expected one a cell"
    elif source.dtype.kind not in "iu" or stage.dtype.kind not in "iu":
        reason = f"its sources and stages are {source.dtype} and {stage.dtype}; expected integers"
    elif measured.dtype != bool or measured.ndim != 2 or measured.shape[1] != genes:
        reason = f"its measured genes are {measured.dtype} of shape {measured.shape}; expected bool (sources, {genes})"
    elif n and not 0 <= int(source.min()) <= int(source.max()) < len(measured):
        reason = f"its cells are of sources {source.min()} to {source.max()}; it has {len(measured)}"
    else:
        return
    raise RegistryError(_damaged(path, reason))


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is not an example bank: {reason}. Restore it, or roll back to an earlier stage."


def bank_digest(bank: CellPool) -> str:
    """Return a digest of the cells of the bank."""
    h = hashlib.sha256()
    for part in (bank.expression.data, bank.expression.indices, bank.expression.indptr, bank.source, bank.stage):
        h.update(np.ascontiguousarray(part).tobytes())
    h.update(json.dumps([bank.labels.tolist(), bank.names.tolist(), list(bank.panel.genes)]).encode())
    return f"sha256:{h.hexdigest()}"
