"""The space in which novelty is scored: leading directions of the analytic memory, for the genes a file measures.

Everything follows from the statistics of the types of each stage (number, mean, factors of spread, rest of the
variance); no stored cell is needed. Genes are divided by their spread within types first, so that one gene of wide
spread does not take a direction for itself.

The known types lie in this space as classes. What is computed with classes must not grow with the stages: up to
`MOST_CLASSES` every type of every stage is a class of its own; beyond, neighbouring stages of a type are one class,
whose mean and covariance are those of all its cells.

`build_space` is the whole of it; what it calls stands below it in the order of the calls.

Shapes: n cells, g genes of a stage, S genes that the file measures, s of them that a stage has statistics of, k
factors, T classes, C types, D directions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import scipy.linalg

DIRECTIONS = 128
MOST_CLASSES = 64  # classes in all, or one of each type where there are more types
ROWS = 1_500  # rows of means and factors that the directions are taken from; more classes give fewer each
FACTORS = 50  # most factors of one class among them; its covariance takes all
RIDGE = 0.1  # of the type scores, for rows of mean square 1
PRIOR_CELLS = 20.0  # cells of the pooled covariance that each class's own is mixed with
LEAST_COVERAGE = 0.5  # share of the best covered stage's genes that a stage of the type must have
LEAST_EIGENVALUE = 1e-6  # of the largest: directions with less variance are noise of the decomposition


class Statistics(Protocol):
    """What is kept of the cells of one type of one stage; see `canal.model.memory.TypeStatistics`."""

    @property
    def stage(self) -> int:
        """Number of the stage."""

    @property
    def name(self) -> str:
        """Name of the type."""

    @property
    def n(self) -> int:
        """Number of cells."""

    @property
    def mean(self) -> np.ndarray:
        """Mean unit profile over the stage's genes, (g,)."""

    @property
    def factors(self) -> np.ndarray:
        """Leading directions of the centred profiles times the root of their sums of squares, (k, g)."""

    @property
    def rest(self) -> np.ndarray:
        """Variance of each gene that the factors leave out, (g,)."""


@dataclass(frozen=True, kw_only=True)
class KnownClass:
    """A type of a stage through the genes of a file, scaled to profiles of mean square 1.

    Attributes
    ----------
    stage, name, n
        Stage, type and number of cells.
    columns
        Measured genes that the stage has statistics of, positions among S, (s,).
    mean, factors, rest
        Mean (s,), root of the covariance (k, s) and variance beside it (s,).
    """

    stage: int
    name: str
    n: int
    columns: np.ndarray
    mean: np.ndarray
    factors: np.ndarray
    rest: np.ndarray


@dataclass(frozen=True, kw_only=True)
class JointClass:
    """A class in the directions of a space: a type of one stage or of several.

    Attributes
    ----------
    stages
        Stages that its cells come from.
    name, n
        Type and number of cells.
    mean, covariance
        Float64 (D,) and (D, D).
    """

    stages: tuple[int, ...]
    name: str
    n: int
    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Space:
    """Directions, and the known classes in them.

    Attributes
    ----------
    directions
        From profiles to coordinates, float32 (S, D).
    types
        Names of the types, sorted.
    stages
        Of each class: the stages it comes from, one unless there are very many.
    type_index, n
        Of each class: position of its type in ``types``, number of cells; (T,).
    means, covariances
        Of each class in these directions: (T, D) and (T, D, D). The covariances are those of a cell to come.
    pooled
        Covariance within classes, (D, D).
    scores
        From coordinates to one ridge score a type, (D, C).
    """

    directions: np.ndarray
    types: tuple[str, ...]
    stages: tuple[tuple[int, ...], ...]
    type_index: np.ndarray
    n: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    pooled: np.ndarray
    scores: np.ndarray

    @cached_property
    def roots(self) -> np.ndarray:
        """Root of each class's covariance, (T, D, D)."""
        values, vectors = np.linalg.eigh(self.covariances)
        return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])


def build_space(statistics: Sequence[Statistics], measured: Mapping[int, np.ndarray], seen: np.ndarray) -> Space:
    """Return the space for one set of genes.

    Parameters
    ----------
    statistics, measured
        Of an analytic memory: what is kept of each type of each stage, and the genes each stage has statistics of, as
        positions in its panel.
    seen
        Panel genes that the file measures, bool.
    """
    # 1. The directions.
    known = known_classes(statistics, measured, seen)
    scale = _gene_scale(known, int(seen.sum()))
    matrix = _leading_directions(known, scale)
    # 2. The classes in them.
    classes = joint_classes(known, matrix)
    n = np.array([c.n for c in classes], dtype=np.float64)
    types = tuple(sorted({c.name for c in classes}))
    index = np.array([types.index(c.name) for c in classes], dtype=np.int64)
    means = np.array([c.mean for c in classes])
    own = np.array([c.covariance for c in classes])
    # 3. Their covariances, each mixed with the pooled one, which large classes must not decide alone.
    weights = np.sqrt(n)
    pooled = np.tensordot(weights / weights.sum(), own, axes=1)
    mixed = (n[:, None, None] * own + PRIOR_CELLS * pooled) / (n + PRIOR_CELLS)[:, None, None]
    return Space(
        directions=matrix,
        types=types,
        stages=tuple(c.stages for c in classes),
        type_index=index,
        n=n,
        means=means,
        covariances=mixed + pooled / n[:, None, None],
        pooled=pooled,
        scores=_ridge_scores(means, own, weights, index, len(types)),
    )


def known_classes(
    statistics: Sequence[Statistics], measured: Mapping[int, np.ndarray], seen: np.ndarray
) -> list[KnownClass]:
    """Return the classes through the genes seen, each type by the stages that have most of them."""
    # Places of each stage's genes among the genes seen, -1 where the file lacks the gene.
    place = np.where(seen, np.cumsum(seen) - 1, -1)
    in_file = {stage: place[genes] >= 0 for stage, genes in measured.items()}
    coverage = {stage: int(mask.sum()) for stage, mask in in_file.items()}
    # The most genes that any stage of the type has.
    best: dict[str, int] = {}
    for s in statistics:
        best[s.name] = max(best.get(s.name, 1), coverage[s.stage])
    classes = []
    for s in statistics:
        if coverage[s.stage] >= LEAST_COVERAGE * best[s.name]:
            classes.append(_through_file(s, in_file[s.stage], place[measured[s.stage]]))
    assert classes, "no known type has a gene in common with the file"
    return classes


def _through_file(s: Statistics, in_file: np.ndarray, columns: np.ndarray) -> KnownClass:
    """Return a class over the stage's genes that the file has, as if profiles were unit profiles over them."""
    mean, factors, rest = s.mean[in_file], s.factors[:, in_file], s.rest[in_file]
    energy = float((mean**2).sum() + (factors**2).sum() / s.n + rest.sum())
    scale = 1.0 / math.sqrt(max(energy, 1e-12))  # a plain float leaves the factors in single precision
    return KnownClass(
        stage=s.stage,
        name=s.name,
        n=s.n,
        columns=columns[in_file],
        mean=scale * mean,
        factors=scale / math.sqrt(max(s.n - 1, 1)) * factors,
        rest=scale**2 * rest,
    )


def _gene_scale(classes: Sequence[KnownClass], n_genes: int) -> np.ndarray:
    """Return what each gene is multiplied by: the inverse root of its variance within classes plus the mean one."""
    total, weight = np.zeros(n_genes), np.zeros(n_genes)
    for c in classes:
        total[c.columns] += np.sqrt(c.n) * ((c.factors**2).sum(axis=0) + c.rest)
        weight[c.columns] += np.sqrt(c.n)
    variance = total / np.maximum(weight, 1e-12)
    floored = variance + max(float(variance.mean()), 1e-12)
    # Scaled so that the spread of a profile stays what it was, which the ridge is meant for.
    return np.asarray(np.sqrt(variance.sum() / (variance / floored).sum()) / np.sqrt(floored), dtype=np.float32)


def _leading_directions(classes: Sequence[KnownClass], scale: np.ndarray) -> np.ndarray:
    """Return the leading right singular vectors of the classes' scaled means and factors, times the scale, (S, D)."""
    most = max(1, min(FACTORS, ROWS // len(classes)))
    blocks = []
    for c in classes:
        rows = np.zeros((1 + min(most, len(c.factors)), len(scale)), dtype=np.float32)
        rows[0, c.columns] = c.mean
        rows[1:, c.columns] = c.factors[:most]
        blocks.append(c.n**0.25 * rows * scale)
    basis = right_singular_vectors(np.concatenate(blocks), DIRECTIONS)
    return np.asarray(basis * scale[:, None], dtype=np.float32)


def right_singular_vectors(rows: np.ndarray, most: int) -> np.ndarray:
    """Return the leading right singular vectors of rows (R, S), (S, D); decomposed on the smaller of the two sides."""
    fewer_genes = rows.shape[1] < rows.shape[0]
    gram = (rows.T @ rows if fewer_genes else rows @ rows.T).astype(np.float64)
    # The largest eigenvalues are the last ones.
    last, d = len(gram) - 1, min(most, len(gram))
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=[last + 1 - d, last], check_finite=False)
    above_noise = np.flatnonzero(values > LEAST_EIGENVALUE * values[-1])[::-1]
    leading = vectors[:, above_noise]
    if fewer_genes:
        return np.asarray(leading)
    return np.asarray(rows.T @ (leading / np.sqrt(values[above_noise])))


def joint_classes(classes: Sequence[KnownClass], matrix: np.ndarray) -> list[JointClass]:
    """Return the classes in the directions of ``matrix`` (S, D), stages of a type as one where there are many."""
    matrix = matrix.astype(np.float64)
    rows = _in_directions(classes, matrix)
    if len(classes) <= MOST_CLASSES:
        return [_joined(rows, [c], matrix) for c in classes]
    # Each type gets as many classes as another: groups of neighbouring stages.
    names = sorted({c.name for c in classes})
    most_of_type = max(1, MOST_CLASSES // len(names))
    joint = []
    for name in names:
        of_type = sorted((c for c in classes if c.name == name), key=lambda c: c.stage)
        groups = min(most_of_type, len(of_type))
        bounds = np.linspace(0, len(of_type), groups + 1).astype(int).tolist()
        for start, stop in pairwise(bounds):
            joint.append(_joined(rows, of_type[start:stop], matrix))
    return joint


def _in_directions(classes: Sequence[KnownClass], matrix: np.ndarray) -> dict[tuple[int, str], np.ndarray]:
    """Return mean and factors of each class in the directions, (1 + k, D), by stage and type."""
    rows: dict[tuple[int, str], np.ndarray] = {}
    for stage in sorted({c.stage for c in classes}):
        # The classes of a stage have the same columns: one product for all of them.
        of_stage = [c for c in classes if c.stage == stage]
        blocks = []
        for c in of_stage:
            blocks += [c.mean[None], c.factors]
        product = np.concatenate(blocks) @ matrix[of_stage[0].columns]
        # Taken apart again.
        start = 0
        for c in of_stage:
            stop = start + 1 + len(c.factors)
            rows[stage, c.name] = product[start:stop]
            start = stop
    return rows


def _joined(
    rows: Mapping[tuple[int, str], np.ndarray], members: Sequence[KnownClass], matrix: np.ndarray
) -> JointClass:
    """Return mean and covariance of the cells of all members together (law of total covariance)."""
    n = sum(c.n for c in members)
    mean = np.asarray(sum(c.n / n * rows[c.stage, c.name][0] for c in members))
    covariance, rest = np.zeros((len(mean), len(mean))), np.zeros(len(matrix))
    for c in members:
        # Spread within the member, and its mean's distance from the mean of all.
        own = rows[c.stage, c.name]
        away = np.concatenate([own[1:], own[:1] - mean])
        covariance += c.n / n * (away.T @ away)
        rest[c.columns] += c.n / n * c.rest
    # The rest of each gene's variance is spread in no direction of its own.
    covariance += (matrix.T * rest) @ matrix
    return JointClass(
        stages=tuple(c.stage for c in members), name=members[0].name, n=n, mean=mean, covariance=covariance
    )


def _ridge_scores(means: np.ndarray, own: np.ndarray, weights: np.ndarray, index: np.ndarray, types: int) -> np.ndarray:
    """Return the ridge regression of types on coordinates, (D, C), from class means and covariances."""
    # Sums of squares and products of the coordinates, and of coordinates and types.
    second = np.tensordot(weights, own, axes=1) + (means * weights[:, None]).T @ means
    second[np.diag_indices_from(second)] += RIDGE
    targets = np.zeros((means.shape[1], types))
    np.add.at(targets.T, index, means * weights[:, None])
    return np.asarray(scipy.linalg.solve(second, targets, assume_a="pos"))


def drawn_cells(space: Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n cells from the Gaussian of each class, class after class, (T * n, D)."""
    drawn = []
    for mean, root in zip(space.means, space.roots, strict=True):
        drawn.append(mean + rng.standard_normal((n, len(mean))) @ root.T)
    return np.concatenate(drawn)
