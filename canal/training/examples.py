"""Which cells stay in the example bank: how many places each type gets, and which of its cells fill them.

`choose_examples` is the whole of it. How the places are shared (the quotas) is a decision apart from which cells of a
type are chosen (the policies).

Every policy takes the representations of the cells, of shape (n, d), how many to keep, the type's classifier row (d,)
and a generator, and returns positions in order of choice. Each is deterministic given its generator.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from canal.config import BankConfig
from canal.data.cells import CellPool
from canal.errors import StageError
from canal.seeds import numpy_generator

Policy = Callable[[np.ndarray, int, np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The cells that a new bank is chosen from, and what the choice depends on.

    Attributes
    ----------
    cells
        Old bank and stage.
    representation
        The new model's representation of them, (cells, D).
    classifier_rows
        Classifier row of each type, (D,), by its own name.
    held_out
        Cells that later stages are tested on, bool (cells,): they are chosen only where their type and stage has no
        others left.
    """

    cells: CellPool
    representation: np.ndarray
    classifier_rows: Mapping[str, np.ndarray]
    held_out: np.ndarray


def choose_examples(candidates: Candidates, config: BankConfig, seed: int) -> CellPool:
    """Choose the new bank from the old bank and the cells of the stage.

    Places are shared among types as ``config.quotas`` says, and within a type equally among the stages its cells came
    with, so that a type keeps the technologies it was seen in; within a stage the policy ``config.selection`` decides.

    Parameters
    ----------
    candidates
        Old bank and stage.
    config
        Size L of the bank, quotas and policy.
    seed
        The stage's recorded seed.
    """
    pool = candidates.cells
    chosen: list[np.ndarray] = []
    places = QUOTAS[config.quotas](dict(Counter(pool.labels.tolist())), config.size)
    for name, quota in places.items():
        of_type = np.flatnonzero(pool.labels == name)
        chosen += _within_type(candidates, of_type, quota, POLICIES[config.selection], seed)
    if not chosen:
        return CellPool.empty()
    rows = np.sort(np.concatenate(chosen))
    return pool.take(rows) if len(rows) else CellPool.empty()


def balanced_quotas(available: Mapping[str, int], size: int) -> dict[str, int]:
    """Share ``size`` places equally among types, to the cell.

    Every type gets the same number of places; a place that a rare type cannot fill goes to the others, and what does
    not divide evenly goes to the types with the most cells left over, ties by name. All ``size`` places are filled
    wherever there are that many cells.

    Parameters
    ----------
    available
        Number of cells of each type that can be kept.
    size
        L, the number of places in all.

    Raises
    ------
    StageError
        If there are fewer places than types, so that a type would have no example.
    """
    types = sorted(available)
    if 0 < size < len(types):
        message = (
            f"The example bank has {size} places for {len(types)} cell types, so some types would keep no example. "
            f"Set bank.size to at least {len(types)} (1000 by default), or to 0 to keep no cell of anybody."
        )
        raise StageError(message)
    quotas = dict.fromkeys(types, 0)
    left, open_types = min(size, sum(available.values())), types
    while left > 0 and open_types:
        share = left // len(open_types)
        # Fewer places than types: one each to those with the most cells left over.
        if share == 0:
            by_rest = sorted(open_types, key=lambda t: (quotas[t] - available[t], t))
            for name in by_rest[:left]:
                quotas[name] += 1
            break
        # A round: the same number for every type that has cells left over; full ones leave their places to the others.
        for name in open_types:
            places = min(share, available[name] - quotas[name])
            quotas[name] += places
            left -= places
        open_types = [t for t in open_types if quotas[t] < available[t]]
    return quotas


def floor_quotas(available: Mapping[str, int], size: int) -> dict[str, int]:
    """Give every type ``size // types`` places, and leave empty what a type cannot fill (CANAL, example bank).

    Parameters
    ----------
    available, size
        As for `balanced_quotas`.

    Raises
    ------
    StageError
        As `balanced_quotas`.
    """
    balanced_quotas(dict.fromkeys(available, 1), size)  # refuses too few places
    return {name: min(size // len(available), n) for name, n in sorted(available.items())}


QUOTAS = {"balanced": balanced_quotas, "floor": floor_quotas}


def _within_type(
    candidates: Candidates, of_type: np.ndarray, quota: int, policy: Policy, seed: int
) -> list[np.ndarray]:
    """Return rows of one type, its places shared among the stages that its cells came with."""
    pool, representation = candidates.cells, candidates.representation
    name = pool.labels[of_type[0]]
    stages = pool.stage[of_type]
    # With leading zeros the order of the names is that of the stages.
    available = {f"{stage:06d}": int(n) for stage, n in Counter(stages.tolist()).items()}
    chosen = []
    for stage, share in _stage_quotas(available, quota).items():
        rows = of_type[stages == int(stage)]
        draw = numpy_generator(seed, f"bank:{name}:{stage}")
        # Cells that later stages are tested on fill only the places that the others leave.
        fitted, held_out = rows[~candidates.held_out[rows]], rows[candidates.held_out[rows]]
        for group, places in ((fitted, min(share, len(fitted))), (held_out, max(share - len(fitted), 0))):
            if places:
                order = policy(representation[group], places, candidates.classifier_rows[name], draw)
                chosen.append(group[order])
    return chosen


def _stage_quotas(available: dict[str, int], quota: int) -> dict[str, int]:
    """Share a type's places among its stages; with fewer places than stages, the largest ones get one each."""
    if quota >= len(available):
        return balanced_quotas(available, quota)
    largest = sorted(available, key=lambda s: (-available[s], s))[:quota]
    return dict.fromkeys(largest, 1)


def random_cells(rep: np.ndarray, k: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep cells drawn at random."""
    del row
    return rng.permutation(len(rep))[:k]


def herding(rep: np.ndarray, k: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep the cells whose running mean stays nearest the mean of all (Rebuffi et al., iCaRL, algorithm 4)."""
    del row, rng
    unit = _unit_length(rep)
    mean = unit.mean(axis=0)
    chosen: list[int] = []
    total = np.zeros_like(mean)
    free = np.ones(len(unit), dtype=bool)
    for step in range(1, min(k, len(unit)) + 1):
        # How far from the mean of all the mean of the chosen would be, with each cell.
        gap = ((mean - (total + unit) / step) ** 2).sum(axis=1)
        gap[~free] = np.inf
        best = int(gap.argmin())
        chosen.append(best)
        free[best] = False
        total = total + unit[best]
    return np.array(chosen, dtype=np.int64)


def coverage(rep: np.ndarray, k: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep cells that cover the type: each next one is the farthest from those kept (greedy k-centre).

    The first is the cell nearest the mean, so that one cell alone is a fair picture of its type.
    """
    del row, rng
    unit = _unit_length(rep)
    if not k or not len(unit):
        return np.zeros(0, dtype=np.int64)
    first = int(((unit - unit.mean(axis=0)) ** 2).sum(axis=1).argmin())
    chosen = [first]
    # Squared distance of every cell to the nearest of those chosen so far.
    gap = ((unit - unit[first]) ** 2).sum(axis=1)
    while len(chosen) < min(k, len(unit)):
        gap[chosen] = -1.0
        farthest = int(gap.argmax())
        chosen.append(farthest)
        gap = np.minimum(gap, ((unit - unit[farthest]) ** 2).sum(axis=1))
    return np.array(chosen, dtype=np.int64)


def prototype(rep: np.ndarray, k: int, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep the cells with the largest dot product with the type's own classifier row (CANAL, example bank)."""
    del rng
    return np.argsort(-(rep @ row), kind="stable")[:k]


POLICIES: dict[str, Policy] = {
    "random": random_cells,
    "herding": herding,
    "coverage": coverage,
    "prototype": prototype,
}


def _unit_length(rep: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rep, axis=1, keepdims=True)
    unit: np.ndarray = rep / np.maximum(length, 1e-12)
    return unit
