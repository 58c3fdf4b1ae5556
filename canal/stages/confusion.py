"""What was taken for what: counts of given and predicted types, and the figures that follow from them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Counts = dict[str, dict[str, int]]  # given type -> predicted type -> cells


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of a table of counts.

    Attributes
    ----------
    cells
        Cells in all.
    accuracy, macro_f1
        Share of right cells; mean F1 over the given types.
    recall, f1
        By given type.
    support
        Cells of each given type.
    """

    cells: int
    accuracy: float
    macro_f1: float
    recall: dict[str, float]
    f1: dict[str, float]
    support: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        per_type = {
            name: {"recall": self.recall[name], "f1": self.f1[name], "cells": self.support[name]} for name in self.f1
        }
        return {"cells": self.cells, "accuracy": self.accuracy, "macro_f1": self.macro_f1, "per_type": per_type}


def count(given: np.ndarray, predicted: np.ndarray) -> Counts:
    """Count what each given type, (cells,), was taken for, (cells,)."""
    pairs = Counter(zip(given.astype(str).tolist(), predicted.astype(str).tolist(), strict=True))
    counts: Counts = {}
    for (truth, answer), n in sorted(pairs.items()):
        counts.setdefault(truth, {})[answer] = n
    return counts


def total(tables: Iterable[Mapping[str, Mapping[str, int]]]) -> Counts:
    """Return the sum of several tables."""
    added: dict[str, Counter[str]] = {}
    for table in tables:
        for truth, answers in table.items():
            added.setdefault(truth, Counter()).update(answers)
    return {truth: dict(sorted(answers.items())) for truth, answers in sorted(added.items())}


def figures(counts: Mapping[str, Mapping[str, int]]) -> Figures:
    """Return accuracy, macro-F1 and figures per type; a type that was never given does not count in the mean."""
    support = {truth: sum(answers.values()) for truth, answers in counts.items()}
    answered: Counter[str] = Counter()
    for answers in counts.values():
        answered.update(answers)
    right = {truth: answers.get(truth, 0) for truth, answers in counts.items()}
    f1 = {truth: 2 * right[truth] / (support[truth] + answered[truth]) for truth in counts}
    cells = sum(support.values())
    return Figures(
        cells=cells,
        accuracy=sum(right.values()) / cells if cells else float("nan"),
        macro_f1=float(np.mean(list(f1.values()))) if f1 else float("nan"),
        recall={truth: right[truth] / support[truth] for truth in counts},
        f1=f1,
        support=support,
    )


def as_table(counts: Mapping[str, Mapping[str, int]]) -> tuple[list[str], list[str], np.ndarray]:
    """Return given types, predicted types and the counts as an array (given, predicted); the given types come first."""
    rows = sorted(counts)
    columns = rows + sorted({answer for answers in counts.values() for answer in answers} - set(rows))
    table = np.array([[counts[r].get(c, 0) for c in columns] for r in rows], dtype=np.int64)
    return rows, columns, table.reshape(len(rows), len(columns))
