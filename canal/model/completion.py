"""Types that were never seen together with the genes of a file, carried to them by statistics alone.

A type is taught by some stages, and a file may measure genes that none of them had. To every score that needs these
genes the type then looks like one that does not express them. It is carried to the stages that have them, as these
stages would show it:

1. A technology captures each gene with its own efficiency. The types that both stages hold give a factor a gene; the
   statistics of the type are multiplied by it.
2. Genes that the type's own stage did not measure follow from those that it did, by ridge regression over the other
   types of the stage that it is carried to.

What comes out are statistics like the measured ones. They are an estimate: they never take part in the ridge regression
that tells the measured types apart. A carried type takes a cell only where every measured type leaves it, further than
nearly all of that type's own cells would go (Neyman and Pearson). And where the stage that taught the type held the
other one, too, it has to say the same on the genes that it measured: cells of a technology that nobody taught leave
their type as well. Where every type was seen with nearly all genes of the file, nothing is carried and nothing changes.

Shapes: n cells, G genes of the memory, S of them that a file measures, g genes of a stage, R rows, T classes, C types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from canal.model.memory import AnalyticMemory, TypeStatistics
from canal.model.novelty.space import Space, build_space

# Chosen on the immune and pancreas streams, one type taught by one file only (docs/novel.md).
COVERED = 0.95  # a type with statistics for this share of a file's genes is known there as it is
TARGET_COVERAGE = 0.5  # of the best stage's genes in the file: stages with fewer are not carried to
LEAST_CELLS = 8  # of a type in a stage, to be carried or to give a factor
LEAST_GENES = 50  # that two stages have to share
LARGEST_FACTOR = 2.0  # of a gene between two stages, and its inverse the smallest
PRIOR = 0.05  # of the mean expression, added to both sides of a factor: genes that nobody expresses give none
FACTORS = 40  # directions of spread that are carried; the others' variance goes to the rest
RIDGE = 0.5  # of the regression of missing genes, for rows of mean square 1
SHRINKAGE = 0.1  # of the covariance within types towards the same variance everywhere
BETWEEN = 5.0  # weight of the covariance between stages of a type: directions in which technologies differ count less
PART_WAY = 0.35  # of the way from a measured type to the carried one, that a cell has to lie: outliers do not get there
SIGMAS = 3.0  # that a cell has to lie beyond the mean of every measured type, towards a carried one
MOST_CONFIDENCE = 0.8  # of a carried type's answer: what is estimated is never as sure as what was measured


@dataclass(frozen=True, kw_only=True)
class CarriedType:
    """A type as a stage would show it that never held it.

    Attributes
    ----------
    stage, source
        Stage that it is carried to, and stage that taught it.
    name
        Of the type.
    genes
        Genes of the file, positions in the memory's panel, that only the regression gives it.
    """

    stage: int
    source: int
    name: str
    genes: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Statistics of a memory, completed for the genes of a file.

    Attributes
    ----------
    statistics
        Those of the memory, and those that were carried, last.
    carried
        What was carried, in the order of the statistics.
    """

    statistics: tuple[TypeStatistics, ...]
    carried: tuple[CarriedType, ...] = ()


def missing_types(memory: AnalyticMemory, seen: np.ndarray) -> list[str]:
    """Return the types that too many genes of a file were never seen together with, sorted.

    Parameters
    ----------
    memory
        Statistics of all stages.
    seen
        Genes of the memory that the file measures, bool (G,).
    """
    covered: dict[str, np.ndarray] = {}
    for s in memory.statistics:
        genes = covered.setdefault(s.name, np.zeros(len(seen), dtype=bool))
        genes[memory.measured[s.stage]] = True
    wanted = int(seen.sum())
    return sorted(name for name, genes in covered.items() if int((genes & seen).sum()) < COVERED * wanted)


def complete(memory: AnalyticMemory, seen: np.ndarray) -> Completion:
    """Return the statistics of a memory with what is carried to the genes of a file.

    Parameters
    ----------
    memory
        Statistics of all stages.
    seen
        Genes of the memory that the file measures, bool (G,).
    """
    missing = missing_types(memory, seen)
    if not missing:
        return Completion(statistics=memory.statistics)
    by_stage = _by_stage(memory)
    coverage = {stage: int(seen[memory.measured[stage]].sum()) for stage in by_stage}
    carried, fresh = [], []
    for target, own in by_stage.items():
        # Only stages that have many of the file's genes say how the file may show a type.
        if coverage[target] < TARGET_COVERAGE * max(coverage.values()):
            continue
        for name in missing:
            if name in own:
                continue
            source = _best_source(memory.measured, by_stage, name, target, seen)
            if source is not None:
                statistics, genes = _carry(memory.measured, by_stage, (source, target, name), seen)
                fresh.append(statistics)
                carried.append(CarriedType(stage=target, source=source, name=name, genes=genes))
    return Completion(statistics=(*memory.statistics, *fresh), carried=tuple(carried))


def uncomparable_types(memory: AnalyticMemory, stage: int) -> dict[str, list[int]]:
    """Return the types of a stage that cannot be carried to the genes of some other stages, and these stages.

    Parameters
    ----------
    memory
        Statistics of all stages.
    stage
        The stage that taught the types.
    """
    by_stage = _by_stage(memory)
    out_of_reach: dict[str, list[int]] = {}
    for target, own in by_stage.items():
        seen = np.zeros(len(memory.panel), dtype=bool)
        seen[memory.measured[target]] = True
        for name in set(missing_types(memory, seen)) & set(by_stage[stage]) - set(own):
            if _best_source(memory.measured, by_stage, name, target, seen) is None:
                out_of_reach.setdefault(name, []).append(target)
    return dict(sorted(out_of_reach.items()))


def _by_stage(memory: AnalyticMemory) -> dict[int, dict[str, TypeStatistics]]:
    """Return the statistics by stage and type."""
    by_stage: dict[int, dict[str, TypeStatistics]] = {}
    for s in memory.statistics:
        by_stage.setdefault(s.stage, {})[s.name] = s
    return by_stage


def _best_source(
    measured: Mapping[int, np.ndarray],
    by_stage: Mapping[int, Mapping[str, TypeStatistics]],
    name: str,
    target: int,
    seen: np.ndarray,
) -> int | None:
    """Return the stage that a type is carried from: that with the most common genes, then with the most cells.

    Parameters
    ----------
    measured, by_stage
        Genes of each stage, positions in the panel; statistics by stage and type.
    name, target
        The type, and the stage that it is carried to.
    seen
        Genes of the file, bool (G,).

    Returns
    -------
    ``None`` where no stage of the type shares enough genes and a type with the target.
    """
    best: tuple[tuple[int, int], int] | None = None
    for source, types in by_stage.items():
        if name not in types or types[name].n < LEAST_CELLS:
            continue
        shared = int(_shared_genes(measured, source, target, seen).sum())
        if shared >= LEAST_GENES and _shared_types(by_stage, source, target):
            best = max(best or ((0, 0), source), ((shared, types[name].n), source))
    return None if best is None else best[1]


def _shared_genes(measured: Mapping[int, np.ndarray], source: int, target: int, seen: np.ndarray) -> np.ndarray:
    """Return the genes of the file that two stages both have statistics of, bool (G,)."""
    both = np.zeros(len(seen), dtype=int)
    both[measured[source]] += 1
    both[measured[target]] += 1
    return np.asarray((both == 2) & seen)


def _shared_types(by_stage: Mapping[int, Mapping[str, TypeStatistics]], source: int, target: int) -> list[str]:
    """Return the types that two stages both hold enough cells of, sorted."""
    names = []
    for name, s in by_stage[source].items():
        other = by_stage[target].get(name)
        if other is not None and min(s.n, other.n) >= LEAST_CELLS:
            names.append(name)
    return sorted(names)


def _carry(
    measured: Mapping[int, np.ndarray],
    by_stage: Mapping[int, Mapping[str, TypeStatistics]],
    which: tuple[int, int, str],
    seen: np.ndarray,
) -> tuple[TypeStatistics, np.ndarray]:
    """Carry a type from one stage to another.

    Parameters
    ----------
    measured, by_stage
        Genes of each stage, positions in the panel; statistics by stage and type.
    which
        Stage that taught the type, stage that it is carried to, and the type.
    seen
        Genes of the file, bool (G,).

    Returns
    -------
    Its statistics over the genes of the other stage, and the genes, (imputed,), that only the regression gives it.
    """
    source, target, name = which
    shared = _shared_genes(measured, source, target, seen)
    s = by_stage[source][name].with_rank(FACTORS)
    # 1. Places of the shared genes in both stages, and of those that the type lacks.
    in_source = np.flatnonzero(shared[measured[source]])
    in_target = np.flatnonzero(shared[measured[target]])
    lacking = np.flatnonzero((seen & ~shared)[measured[target]])
    # The positions of a stage's genes ascend, so that both places stand for the same genes in the same order.
    assert (measured[source][in_source] == measured[target][in_target]).all()
    # 2. What both stages have: the type's statistics times the factor between the stages.
    factor = _stage_factor(by_stage, (source, in_source), (target, in_target))
    genes = len(measured[target])
    rows = np.zeros((1 + len(s.factors), genes), dtype=np.float32)
    rest = np.zeros(genes, dtype=np.float32)
    rows[0, in_target] = s.mean[in_source] * factor
    rows[1:, in_target] = s.factors[:, in_source] * factor
    rest[in_target] = s.rest[in_source] * factor**2
    # 3. What the type's stage did not measure: as the other types of the target show it.
    if len(lacking):
        _impute(rows, rest, s.n, list(by_stage[target].values()), (in_target, lacking))
    statistics = TypeStatistics(stage=target, name=name, n=s.n, mean=rows[0], factors=rows[1:], rest=rest)
    return statistics, measured[target][lacking]


def _stage_factor(
    by_stage: Mapping[int, Mapping[str, TypeStatistics]],
    source: tuple[int, np.ndarray],
    target: tuple[int, np.ndarray],
) -> np.ndarray:
    """Return what each shared gene is multiplied by from one stage to another, (shared,).

    Parameters
    ----------
    by_stage
        Statistics by stage and type.
    source, target
        Number of the stage and the places of the shared genes among its own.
    """
    above, below = np.zeros(len(source[1])), np.zeros(len(source[1]))
    for name in _shared_types(by_stage, source[0], target[0]):
        a, b = by_stage[source[0]][name], by_stage[target[0]][name]
        weight = min(a.n, b.n) ** 0.5
        below += weight * a.mean[source[1]] / _length(a, source[1])
        above += weight * b.mean[target[1]] / _length(b, target[1])
    prior = PRIOR * float(below.mean())
    return np.clip((above + prior) / (below + prior), 1 / LARGEST_FACTOR, LARGEST_FACTOR)


def _length(s: TypeStatistics, genes: np.ndarray) -> float:
    """Return the root mean square length of a type's cells over some of its stage's genes."""
    energy = (s.mean[genes] ** 2).sum() + (s.factors[:, genes] ** 2).sum() / s.n + s.rest[genes].sum()
    return float(np.sqrt(max(float(energy), 1e-12)))


def _impute(
    rows: np.ndarray,
    rest: np.ndarray,
    n: int,
    others: Sequence[TypeStatistics],
    places: tuple[np.ndarray, np.ndarray],
) -> None:
    """Fill in place the genes that a carried type lacks, by ridge regression over the rows of other types.

    Parameters
    ----------
    rows, rest
        Mean and factors of the type (1 + k, g), and variance beside them (g,).
    n
        Its cells.
    others
        The types of the stage that has these genes.
    places
        Places among its genes: of those that the type has, and of those that it lacks.
    """
    have, lacking = places
    # 1. The rows of the others on both sets of genes, each type weighed by the root of its cells.
    known_rows, wanted_rows, beside, mass = [], [], np.zeros(len(lacking)), 0.0
    for s in others:
        weight = s.n**0.25 / _length(s, have)
        own = np.concatenate([s.mean[None], s.factors[:FACTORS] / np.sqrt(s.n)])
        known_rows.append(weight * own[:, have])
        wanted_rows.append(weight * own[:, lacking])
        beside += weight**2 * s.rest[lacking]
        mass += s.n**0.5
    known, wanted = np.concatenate(known_rows), np.concatenate(wanted_rows)
    # 2. The regression, solved on the side of the rows.
    gram = known @ known.T
    ridge = RIDGE * float(np.trace(gram)) / len(gram)
    gram[np.diag_indices_from(gram)] += ridge
    solution = scipy.linalg.solve(gram, wanted, assume_a="pos", check_finite=False)
    rows[:, lacking] = (rows[:, have] @ known.T) @ solution
    # 3. What it leaves unexplained belongs to the variance of each gene.
    energy = float((rows[0, have] ** 2).sum() + (rows[1:, have] ** 2).sum() / n + rest[have].sum())
    unexplained = ((ridge * solution) ** 2).sum(axis=0) + beside
    rest[lacking] = energy * unexplained / mass


class CarriedTypes:
    """Which cells of a file the carried types take.

    Attributes
    ----------
    imputed
        By type, the names of the genes of the file that only the regression gives it.
    statistics
        Completed statistics.
    space
        The directions, and the measured and carried types as classes in them.

    Parameters
    ----------
    completion
        Completed statistics, with one carried type at least.
    memory
        The memory that they complete.
    seen
        Genes of the memory that the file measures, bool (G,).
    types
        Types in the order of the answer.
    """

    def __init__(self, completion: Completion, memory: AnalyticMemory, seen: np.ndarray, types: Sequence[str]) -> None:
        self.imputed: dict[str, frozenset[str]] = {}
        for carried in completion.carried:
            genes = frozenset(memory.panel.genes.names[i] for i in carried.genes.tolist())
            self.imputed[carried.name] = self.imputed.get(carried.name, frozenset()) | genes
        self.statistics = completion.statistics
        self.space = space = build_space(completion.statistics, memory.measured, seen)
        is_carried = _carried_classes(space, completion.carried)
        # One linear function of a unit profile a class: its part of the linear discriminant.
        covariance = _covariance(space, is_carried)
        functions = scipy.linalg.solve(covariance, space.means.T, assume_a="pos")
        self._classes = functions.shape[1]
        # Beside them the ridge scores of each stage that taught a carried type, for the types that it held.
        stages = sorted({carried.source for carried in completion.carried})
        scores = [memory.stage_weights(stage, seen, types) for stage in stages]
        self.weights = np.hstack([space.directions @ functions, *scores]).astype(np.float32)
        self._teaches, self._held = _taught_by(completion.carried, memory, stages, types)
        names = [space.types[i] for i in space.type_index.tolist()]
        self._carried = np.flatnonzero(is_carried)
        self._measured = np.flatnonzero(~is_carried)
        self._type = np.array([list(types).index(names[v]) for v in self._carried.tolist()], dtype=np.int64)
        self._thresholds = np.full((len(self._carried), len(self._measured)), -np.inf)
        for k, v in enumerate(self._carried.tolist()):
            for j, c in enumerate(self._measured.tolist()):
                # A type is no rival of itself.
                if names[c] != names[v]:
                    direction = functions[:, v] - functions[:, c]
                    sigma = float(np.sqrt(max(float(direction @ space.covariances[c] @ direction), 0.0)))
                    distance = float((space.means[v] - space.means[c]) @ direction)
                    least = max(SIGMAS * sigma, PART_WAY * distance)
                    self._thresholds[k, j] = float(space.means[c] @ direction) + least

    def take(self, probabilities: np.ndarray, projected: np.ndarray) -> np.ndarray:
        """Return the probabilities (n, C) with the cells of carried types given to these.

        Parameters
        ----------
        probabilities
            Of each type, (n, C).
        projected
            Unit profiles over the memory's measured genes times ``weights``, (n, T and C for each stage that taught).
        """
        result = probabilities.copy()
        own, others = projected[:, self._carried], projected[:, self._measured]
        # How far, in units of the logarithm of the odds, a cell lies beyond the last measured type.
        beyond = np.full(own.shape, -np.inf)
        for k, thresholds in enumerate(self._thresholds):
            rivals = np.isfinite(thresholds)
            if rivals.any():
                beyond[:, k] = (own[:, k, None] - others[:, rivals] - thresholds[rivals]).min(axis=1)
        taken = np.flatnonzero(beyond.max(axis=1, initial=-np.inf) > 0)
        if not len(taken):
            return result
        best = beyond[taken].argmax(axis=1)
        column, margin = self._type[best], beyond[taken, best]
        # The type gets more than half, the others keep their order; already surer answers stay.
        share = np.minimum(1 / (1 + np.exp(-margin)), MOST_CONFIDENCE).astype(np.float32)
        before = probabilities[taken, column]
        raised = np.maximum(share, np.minimum(before, MOST_CONFIDENCE))
        result[taken] *= ((1 - raised) / np.maximum(1 - before, 1e-6))[:, None]
        result[taken, column] = raised
        # What the stage that taught the type contradicts stays as it was.
        refused = taken[self._contradicted(probabilities[taken].argmax(axis=1), column, projected[taken])]
        result[refused] = probabilities[refused]
        return result

    def _contradicted(self, before: np.ndarray, column: np.ndarray, projected: np.ndarray) -> np.ndarray:
        """Return which cells a stage that taught their carried type, and held the one before, gives to the latter.

        Both scores are linear in the profile and have no constant, so that its length, which differs with the genes,
        does not matter.

        Parameters
        ----------
        before, column
            Type of each cell by the measured types, and the carried one, (n,).
        projected
            As for `take`, of these cells.
        """
        refused = np.zeros(len(column), dtype=bool)
        rows, n_types = np.arange(len(column)), self._held.shape[1]
        for stage, held in enumerate(self._held):
            start = self._classes + stage * n_types
            scores = projected[:, start : start + n_types]
            asked = self._teaches[stage, column] & held[before]
            refused |= asked & (scores[rows, column] < scores[rows, before])
        return refused


def _taught_by(
    carried: Sequence[CarriedType], memory: AnalyticMemory, stages: Sequence[int], types: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return which carried types each stage taught, and which types it holds, both bool (stages, C)."""
    index = {name: i for i, name in enumerate(types)}
    teaches, held = np.zeros((2, len(stages), len(types)), dtype=bool)
    for c in carried:
        teaches[stages.index(c.source), index[c.name]] = True
    for s in memory.statistics:
        if s.stage in stages:
            held[stages.index(s.stage), index[s.name]] = True
    return teaches, held


def _carried_classes(space: Space, carried: Sequence[CarriedType]) -> np.ndarray:
    """Return which classes of a space hold carried cells only, bool (T,)."""
    pairs = {(c.stage, c.name) for c in carried}
    only = []
    for stages, index in zip(space.stages, space.type_index.tolist(), strict=True):
        only.append(all((stage, space.types[index]) in pairs for stage in stages))
    return np.array(only, dtype=bool)


def _covariance(space: Space, is_carried: np.ndarray) -> np.ndarray:
    """Return the covariance within types, shrunk, and `BETWEEN` times that between stages of a type, (D, D)."""
    d = len(space.pooled)
    within = (1 - SHRINKAGE) * space.pooled + SHRINKAGE * np.trace(space.pooled) / d * np.eye(d)
    between, types = np.zeros((d, d)), 0
    for t in range(len(space.types)):
        of_type = space.means[(space.type_index == t) & ~is_carried & (space.n >= LEAST_CELLS)]
        if len(of_type) > 1:
            between += np.cov(of_type, rowvar=False)
            types += 1
    return np.asarray(within + BETWEEN * between / max(types, 1))


def carried_types(memory: AnalyticMemory, seen: np.ndarray, types: Sequence[str]) -> CarriedTypes | None:
    """Return which cells of a file carried types take; ``None`` where nothing is carried.

    Parameters
    ----------
    memory
        Statistics of all stages.
    seen
        Genes of the memory that the file measures, bool (G,).
    types
        Types in the order of the answer.
    """
    completion = complete(memory, seen)
    return CarriedTypes(completion, memory, seen, types) if completion.carried else None
