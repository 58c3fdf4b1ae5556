"""Find the values that count and bring them to one scale."""

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from canal.data.scale import (
    NAMES,
    Scale,
    ScaleVerdict,
    is_integer,
    judge_scale,
    to_linear,
    unusable,
)
from canal.data.source import CellSource, Matrix
from canal.errors import DataError

TARGET = 1e4
COUNT_LAYERS = (
    "layers['counts']",
    "layers['count']",
    "layers['raw_counts']",
    "layers['raw']",
    "layers['umi']",
)
FIX = (
    "Write raw counts to layers['counts'] before scaling (adata.layers['counts'] = raw counts), "
    "or keep them in X or raw.X; natural-log or log2 values of normalised counts work too"
)


def find_values(source: CellSource) -> ScaleVerdict:
    """Decide which matrix of a file is used, and its scale.

    Raw counts come first: ``layers["counts"]``, then ``X``, then ``raw.X``, then layers with a name
    for counts. Where there are none, normalised values of ``X`` or ``raw.X`` are used, whichever
    has more genes, then those of layers.

    Raises
    ------
    DataError
        If no place holds counts or normalised values; the message says what was found at each.
    """
    if not source.places:
        message = f"{source.source} holds no matrix of values: X, raw.X and layers are empty. {FIX}."
        raise DataError(message)
    verdicts: dict[str, ScaleVerdict] = {}
    usable: list[ScaleVerdict] = []
    for group in _groups(source.places):
        for where in group:
            verdict = verdicts[where] = judge_scale(source.places[where].sampled, where, source.log_base)
            if verdict.scale == "counts" and not verdict.doubtful:
                return verdict
        usable = [v for v in verdicts.values() if v.scale is not None]
        if usable:
            break
    if not usable:
        found = "; ".join(f"{where}: {v.evidence}" for where, v in verdicts.items())
        message = f"{source.source} has no values that can be used. Found in {found}. {FIX}."
        raise DataError(message)
    ranks = {where: rank for rank, where in enumerate(("X", "raw.X"))}
    return min(
        usable,
        key=lambda v: (
            v.where not in ranks,
            -source.places[v.where].shape[1],
            ranks.get(v.where, 2),
        ),
    )


def normalise(
    block: sp.csr_matrix, scale: Scale, where: str, source: str, columns: np.ndarray | None = None
) -> sp.csr_matrix:
    """Bring a block of rows to the natural ``log1p`` of values scaled to 10,000 a cell.

    Parameters
    ----------
    block
        CSR of shape (cells, genes) on ``scale``, without stored zeros. Left as it is.
    columns
        The genes to return, ascending; all by default. Cells are scaled over all genes of the block.

    Returns
    -------
    CSR float32 of shape (cells, columns), indices sorted; rows without any value stay zero. The same value for a cell
    whatever columns are asked for.

    Raises
    ------
    DataError
        If a value is NaN, infinite or negative, or not an integer among counts.
    """
    problem = unusable(block.data)
    if problem is None and scale == "counts" and not is_integer(block.data):
        problem = "some values are not integers, while other cells hold counts: two scales in one matrix"
    if problem is not None:
        message = f"{source}: in {where} {problem}. {FIX}."
        raise DataError(message)
    # Counts below 2^24 are exact in float32; undone logarithms are not, and stay float64 until they are logged again.
    linear = block.data.astype(np.float32, copy=False) if scale == "counts" else to_linear(block.data, scale)
    whole = sp.csr_matrix((linear, block.indices, block.indptr), shape=block.shape)
    totals = _integer_totals(whole) if scale == "counts" else whole @ np.ones(block.shape[1])
    kept = whole if columns is None else whole[:, columns]
    factor = np.divide(TARGET, totals, out=np.zeros_like(totals), where=totals > 0).astype(linear.dtype)
    values = np.log1p(kept.data * np.repeat(factor, np.diff(kept.indptr))).astype(np.float32, copy=False)
    return sp.csr_matrix((values, kept.indices, kept.indptr), shape=kept.shape)


def _integer_totals(counts: sp.csr_matrix) -> np.ndarray:
    """Return the sum of each row, float64; exact in whatever order it is added up."""
    totals = np.zeros(counts.shape[0])
    filled = np.flatnonzero(np.diff(counts.indptr))
    if len(filled):
        totals[filled] = np.add.reduceat(counts.data, counts.indptr[:-1][filled], dtype=np.float64)
    return totals


def scale_warning(verdict: ScaleVerdict) -> str | None:
    """Return a sentence for the person who added the file where the scale is not certain."""
    if not verdict.doubtful or verdict.scale is None:
        return None
    return (
        f"The values in {verdict.where} were taken as {NAMES[verdict.scale]} because "
        f"{verdict.evidence}; this is the likeliest reading, not the only one. Put raw counts into "
        "layers['counts'] to be sure."
    )


def _groups(places: Mapping[str, Matrix]) -> tuple[list[str], list[str]]:
    """Return the places to look at in order, and those for want of better ones.

    A layer such as ``spliced`` holds a part of the counts only.
    """
    first = [where for where in (COUNT_LAYERS[0], "X", "raw.X", *COUNT_LAYERS[1:]) if where in places]
    return first, sorted(set(places) - set(first))
