"""The example bank: a fixed number of cells that stand for all earlier stages.

The bank is one file that holds its cells and nothing else of the data they came from.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from canal.data.panel import GenePanel
from canal.data.pool import CellPool
from canal.learn.quotas import QUOTAS, balanced_quotas
from canal.learn.selection import POLICIES
from canal.learn.tensor_file import read_tensor_file, write_tensor_file
from canal.seeds import numpy_generator

FORMAT = 1


def choose_examples(
    candidates: CellPool,
    representation: np.ndarray,
    rows_of_types: dict[str, np.ndarray],
    *,
    size: int,
    selection: str,
    seed: int,
    last: np.ndarray | None = None,
    quotas: str = "balanced",
) -> CellPool:
    """Choose the new bank from the old bank and the cells of the stage.

    Places are shared equally among types, and within a type among the stages its cells came with, so that a type keeps
    the technologies it was seen in; within a stage the policy decides.

    Parameters
    ----------
    candidates
        Old bank and stage.
    representation
        The new model's representation of the candidates, (cells, D).
    rows_of_types
        Classifier row of each type, (D,), by its own name: the paper indexes them by position and gets another
        type's row.
    size
        L, cells in all.
    selection
        Name of the policy.
    seed
        The stage's recorded seed.
    last
        Cells that are taken only where their type and stage has no others left, bool (cells,): the cells that later
        stages are tested on.
    quotas
        How places are shared among types: see `canal.learn.quotas`.
    """
    late = np.zeros(len(candidates), dtype=bool) if last is None else last
    chosen: list[np.ndarray] = []
    places = QUOTAS[quotas](dict(Counter(candidates.labels.tolist())), size)
    for name, quota in places.items():
        of_type = np.flatnonzero(candidates.labels == name)
        chosen += _within_type(
            candidates, representation, of_type, rows_of_types[name], quota, selection, seed, late
        )  # fmt: skip
    rows = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    return candidates.take(rows) if len(rows) else CellPool.empty()


def _within_type(
    pool: CellPool,
    rep: np.ndarray,
    of_type: np.ndarray,
    row: np.ndarray,
    quota: int,
    selection: str,
    seed: int,
    late: np.ndarray,
) -> list[np.ndarray]:
    stages = pool.stage[of_type]
    available = {f"{stage:06d}": int(n) for stage, n in Counter(stages.tolist()).items()}
    chosen = []
    for stage, share in _shares(available, quota).items():
        there = of_type[stages == int(stage)]
        draw = numpy_generator(seed, f"bank:{pool.labels[there[0]]}:{stage}")
        first, rest = there[~late[there]], there[late[there]]
        for cells, places in ((first, min(share, len(first))), (rest, max(share - len(first), 0))):
            if places:
                chosen.append(cells[POLICIES[selection](rep[cells], places, row, draw)])
    return chosen


def _shares(available: dict[str, int], quota: int) -> dict[str, int]:
    if quota >= len(available):
        return balanced_quotas(available, quota)
    largest = sorted(available, key=lambda s: (-available[s], s))[:quota]
    return dict.fromkeys(largest, 1)


def bank_contents(bank: CellPool) -> dict[str, object]:
    """Return size, cells per type and cells per stage, as they go into the record."""
    return {
        "size": len(bank),
        "per_type": dict(sorted(Counter(bank.labels.tolist()).items())),
        "per_stage": {str(k): n for k, n in sorted(Counter(bank.stage.tolist()).items())},
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
