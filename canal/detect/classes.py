"""The known classes in the directions of a space: a type of a stage each, or of several stages where there are many.

What is computed with classes must not grow with the stages. Up to `MOST_CLASSES` every type of every stage is a class
of its own; beyond, neighbouring stages of a type are one class, whose mean and covariance are those of all its cells.

Shapes: S genes that the file measures, D directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

MOST_CLASSES = 64  # classes in all, or one of each type where there are more types
Rows = dict[tuple[int, str], np.ndarray]  # of a stage and a type


@dataclass(frozen=True, kw_only=True)
class KnownClass:
    """A type of a stage as seen through the genes of a file, scaled to profiles of mean square 1.

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
    """A class in the directions of a space.

    Attributes
    ----------
    stages
        Where its cells come from.
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


def joint_classes(classes: Sequence[KnownClass], matrix: np.ndarray, most: int = MOST_CLASSES) -> list[JointClass]:
    """Return the classes in the directions of ``matrix`` (S, D), those of a type together where there are too many."""
    matrix = matrix.astype(np.float64)
    rows = projected(classes, matrix)
    if len(classes) <= most:
        return [joined_class([c], rows, matrix) for c in classes]
    names = sorted({c.name for c in classes})
    each = max(1, most // len(names))
    found = []
    for name in names:
        of_type = sorted((c for c in classes if c.name == name), key=lambda c: c.stage)
        bounds = np.linspace(0, len(of_type), min(each, len(of_type)) + 1).astype(int).tolist()
        found += [joined_class(of_type[i:j], rows, matrix) for i, j in pairwise(bounds)]
    return found


def projected(classes: Sequence[KnownClass], matrix: np.ndarray) -> Rows:
    """Return mean and factors of each class in the directions, (1 + k, D); a stage's classes have the same columns."""
    found: Rows = {}
    for stage in sorted({c.stage for c in classes}):
        members = [c for c in classes if c.stage == stage]
        rows = (
            np.concatenate([part for c in members for part in (c.mean[None], c.factors)]) @ matrix[members[0].columns]
        )
        ends = np.cumsum([1 + len(c.factors) for c in members])
        found |= {(stage, c.name): part for c, part in zip(members, np.split(rows, ends[:-1]), strict=True)}
    return found


def joined_class(members: Sequence[KnownClass], rows: Rows, matrix: np.ndarray) -> JointClass:
    """Return mean and covariance of the cells of all members together (law of total covariance)."""
    n = sum(c.n for c in members)
    parts = [(c, rows[c.stage, c.name]) for c in members]
    mean = np.asarray(sum(c.n / n * own[0] for c, own in parts))
    covariance, rest = np.zeros((len(mean), len(mean))), np.zeros(len(matrix))
    for c, own in parts:
        away = np.concatenate([own[1:], own[:1] - mean])
        covariance += c.n / n * (away.T @ away)
        rest[c.columns] += c.n / n * c.rest
    covariance += (matrix.T * rest) @ matrix
    return JointClass(
        stages=tuple(c.stage for c in members), name=members[0].name, n=n, mean=mean, covariance=covariance
    )
