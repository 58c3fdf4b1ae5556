"""Which scale the values of a matrix are on, decided from a sample of its cells.

Find the values that count and bring them to one scale.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.sparse as sp

from canal.data.source import CellSource, Matrix
from canal.errors import DataError

Scale = Literal["counts", "ln", "log2", "linear", "log10", "ln twice"]

NAMES: dict[Scale, str] = {
    "counts": "counts",
    "ln": "natural logarithm",
    "log2": "logarithm to base 2",
    "linear": "normalised values that are not logged",
    "log10": "logarithm to base 10",
    "ln twice": "natural logarithm taken twice",
}
UNUSUAL: frozenset[Scale] = frozenset({"log10", "ln twice"})  # undone like the others, but told even where certain
LN_MAX = 9.22  # ln(1 + 1e4): no gene can hold more than all of a cell scaled to 1e4
LOG_MAX = 25.0  # log2 of a whole cell scaled to a million is 20; above, nothing is logged
# A whole cell scaled to ten million.
STATED_MAX: dict[Scale, float] = {"ln": 16.2, "log2": 23.3, "log10": 7.1, "ln twice": 2.9}
STEADY = 0.01  # relative spread of the totals below which they were made equal
# Mean distance from an integer that counts as "is a multiple"; rounding to 3 decimals stays below.
MULTIPLE = 0.03


@dataclass(frozen=True, kw_only=True)
class ScaleVerdict:
    """Which scale the values at a place are on.

    Attributes
    ----------
    where
        The place: ``"X"``, ``"raw.X"``, ``"layers['counts']"``.
    scale
        The scale, or ``None`` where the values cannot be used.
    evidence
        What was seen, as a clause that says why.
    doubtful
        Whether another scale is possible, so that a person should look.
    note
        Why not the place was taken that comes first; empty where it was.
    """

    where: str
    scale: Scale | None
    evidence: str
    doubtful: bool = False
    note: str = ""


def to_linear(data: np.ndarray, scale: Scale) -> np.ndarray:
    """Undo the logarithm of values, in float64; any shape."""
    values = data.astype(np.float64)
    if scale == "ln":
        return np.expm1(values)
    if scale == "ln twice":
        return np.expm1(np.expm1(values))
    base = {"log2": 2.0, "log10": 10.0}.get(scale)
    return values if base is None else np.expm1(values * np.log(base))


def unusable(data: np.ndarray) -> str | None:
    """Return why values cannot be expression on any scale, or ``None``."""
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        return f"{int((~np.isfinite(data)).sum())} values are NaN or infinite"
    if data.size and (smallest := data.min()) < 0:
        if is_integer(data):
            return f"counts are negative, down to {smallest:g}"
        return f"values are negative, down to {smallest:.3g}: they were scaled or centred"
    return None


def is_integer(data: np.ndarray) -> bool:
    """Say whether all values are integers, however they are stored."""
    if data.dtype.kind in "iub":
        return True
    rounded = np.rint(data)
    return np.array_equal(rounded, data) or bool((np.abs(data - rounded) <= 1e-5).all())


def judge_scale(sample: sp.csr_matrix, where: str, log_base: float | None = None) -> ScaleVerdict:
    """Decide the scale of a matrix from some of its cells.

    Parameters
    ----------
    sample
        CSR of shape (some cells, genes) without stored zeros.
    where
        Name of the place, for the verdict.
    log_base
        Base that the file states in ``uns["log1p"]``; believed where the values do not speak
        against it.
    """
    if problem := unusable(sample.data):
        return ScaleVerdict(where=where, scale=None, evidence=problem)
    if sample.nnz == 0:
        return ScaleVerdict(where=where, scale=None, evidence="every value is zero")
    if is_integer(sample.data):
        only_one = bool(sample.data.max() <= 1)
        evidence = "every value is 0 or 1" if only_one else "every value is a non-negative integer"
        return ScaleVerdict(where=where, scale="counts", evidence=evidence, doubtful=only_one)
    top = float(sample.data.max())
    for scale, evidence, doubtful in (
        *_from_multiples(sample),
        *_from_statement(log_base, top),
        *_from_totals(sample, top),
        *_from_range(top),
    ):
        return ScaleVerdict(where=where, scale=scale, evidence=evidence, doubtful=doubtful)
    # Estimated counts (RSEM, kallisto), corrected counts, or some genes of normalised values: all are scaled by cell.
    evidence = (
        f"values go up to {top:.4g}, more than any logarithm can be, are no integers, and cells have different totals, "
        "as estimated and corrected counts do"
    )
    return ScaleVerdict(where=where, scale="linear", evidence=evidence, doubtful=True)


Finding = tuple[Scale, str, bool]


def _hypotheses(top: float) -> list[Scale]:
    """Return the scales that values up to ``top`` may be on."""
    if top > LOG_MAX:
        return ["linear"]
    unusual = [scale for scale in sorted(UNUSUAL) if top <= STATED_MAX[scale]]
    return ["ln", "log2", "linear", *unusual]


def _from_statement(log_base: float | None, top: float) -> list[Finding]:
    stated: dict[float, Scale] = {round(float(np.e), 6): "ln", 2.0: "log2", 10.0: "log10"}
    scale = stated.get(round(log_base, 6)) if log_base is not None else None
    if scale is None or top > STATED_MAX[scale]:
        return []
    return [(scale, f"uns['log1p'] states the {NAMES[scale]}", False)]


def _from_multiples(sample: sp.csr_matrix) -> list[Finding]:
    """Molecules are counted: undone rightly, a cell's values are multiples of its smallest."""
    top = float(sample.data.max())
    off = {scale: _distance_from_multiples(sample, scale) for scale in _hypotheses(top)}
    best = _clearest(off, MULTIPLE)
    if best is None:
        return []
    why = f"read as {NAMES[best]}, the values of a cell are multiples of its smallest"
    return [(best, why, False)]


def _distance_from_multiples(sample: sp.csr_matrix, scale: Scale) -> float:
    distances, seen = [], 0
    for start, stop in zip(sample.indptr[:-1], sample.indptr[1:], strict=True):
        if stop - start < 3:
            continue
        values = to_linear(sample.data[start:stop], scale)
        ratio = values / values.min()
        ratio = ratio[(ratio > 1.25) & (ratio < 10.5)]
        if len(ratio) >= 3:
            distances.append(float(np.abs(ratio - np.rint(ratio)).mean()))
            seen += len(ratio)
    return float(np.median(distances)) if seen >= 20 else np.inf


def _from_totals(sample: sp.csr_matrix, top: float) -> list[Finding]:
    """Cells were scaled to one total: undone rightly, their totals are equal."""
    spread = {scale: _spread_of_totals(sample, scale) for scale in _hypotheses(top)}
    best = _clearest(spread, STEADY)
    if best is None:
        return []
    return [(best, f"read as {NAMES[best]}, all cells have the same total", False)]


def _spread_of_totals(sample: sp.csr_matrix, scale: Scale) -> float:
    linear = sp.csr_matrix((to_linear(sample.data, scale), sample.indices, sample.indptr), shape=sample.shape)
    totals = np.asarray(linear.sum(axis=1)).ravel()
    totals = totals[totals > 0]
    return float(totals.std() / totals.mean()) if len(totals) >= 3 else np.inf


def _clearest(off: dict[Scale, float], most: float) -> Scale | None:
    """Return the hypothesis that is off by ``most`` at most and by a third of any other's."""
    best, *others = sorted(off, key=lambda scale: off[scale])
    clear = all(off[best] * 3 < off[other] for other in others)
    return best if off[best] <= most and clear else None


def _from_range(top: float) -> list[Finding]:
    if top > LOG_MAX:
        return []
    if top > LN_MAX:
        sure = top > STATED_MAX["ln"]
        why = "more than a natural logarithm of values scaled to 10,000 can be"
        return [("log2", f"values go up to {top:.2f}, {why}", not sure)]
    return [
        (
            "ln",
            f"values go up to {top:.2f}, within a natural logarithm of values scaled to 10,000",
            True,
        )
    ]


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


def find_values(
    source: CellSource, coverage: Callable[[str], int] | None = None, *, whole: bool = True
) -> ScaleVerdict:
    """Decide which matrix of a file is used, and its scale.

    Raw counts come first: ``layers["counts"]``, then ``X``, then ``raw.X``, then layers with a name
    for counts. Where there are none, normalised values of ``X`` or ``raw.X`` are used, whichever
    has more genes, then those of layers. But ``raw.X`` takes the place of a matrix that was cut to fewer genes.

    Parameters
    ----------
    source
        The open file.
    coverage
        How many genes that count the matrix at a place has; all of its genes by default.
    whole
        Whether ``raw.X`` may take the place of a matrix of fewer genes.

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
                return _whole_instead(verdict, source, coverage) if whole else verdict
        usable = [v for v in verdicts.values() if v.scale is not None]
        if usable:
            break
    if not usable:
        found = "; ".join(f"{where}: {v.evidence}" for where, v in verdicts.items())
        message = f"{source.source} has no values that can be used. Found in {found}. {FIX}."
        raise DataError(message)
    ranks = {where: rank for rank, where in enumerate(("X", "raw.X"))}
    best = min(
        usable,
        key=lambda v: (
            v.where not in ranks,
            -source.places[v.where].shape[1],
            ranks.get(v.where, 2),
        ),
    )
    return _whole_instead(best, source, coverage) if whole else best


# A matrix is taken for one that was cut where raw.X has this many times its genes.
CUT = 1.1


def _whole_instead(
    chosen: ScaleVerdict, source: CellSource, coverage: Callable[[str], int] | None = None
) -> ScaleVerdict:
    """Return the verdict on ``raw.X`` where it has clearly more genes than the place that was chosen, else that one.

    Counts of the variable genes alone are worth less than normalised values of all: most genes of a model are missing,
    and a cell's total is that of the variable genes.
    """
    if chosen.where == "raw.X" or "raw.X" not in source.places:
        return chosen
    count = coverage or (lambda where: source.places[where].shape[1])
    own, whole = count(chosen.where), count("raw.X")
    if whole <= CUT * own:
        return chosen
    verdict = judge_scale(source.places["raw.X"].sampled, "raw.X", source.log_base)
    if verdict.scale is None or verdict.doubtful:
        return chosen
    note = (
        f"The values were taken from raw.X, which has {whole} genes that can be used, and not from {chosen.where}, "
        f"which was cut to {own}."
    )
    return replace(verdict, note=note)


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
    """Return a sentence for the person who added the file where the scale is not certain, or an unusual one."""
    if verdict.scale is None or not (verdict.doubtful or verdict.scale in UNUSUAL):
        return None
    if not verdict.doubtful:
        return (
            f"The values in {verdict.where} are a {NAMES[verdict.scale]} ({verdict.evidence}); it was undone. Other "
            "tools take such values for a natural logarithm: put raw counts into layers['counts']."
        )
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


def unit_rows(values: sp.csr_matrix) -> sp.csr_matrix:
    """Divide each row by its Euclidean length; a row of zeros stays zero.

    Parameters
    ----------
    values
        CSR of shape (cells, genes).

    Returns
    -------
    CSR float32 of the same shape; it shares the places of the values with ``values``.
    """
    squares = sp.csr_matrix((values.data * values.data, values.indices, values.indptr), shape=values.shape)
    length = np.sqrt(squares @ np.ones(values.shape[1]))
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0).astype(np.float32)
    data = values.data * np.repeat(scale, np.diff(values.indptr))
    return sp.csr_matrix((data.astype(np.float32, copy=False), values.indices, values.indptr), shape=values.shape)
