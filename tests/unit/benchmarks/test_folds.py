"""Cross-validation: every cell is tested once, by a model that never saw it."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import folds
from benchmarks.folds import Question, cross_validate, fold_of_cells, table
from canal.errors import DataError
from tests.make import make_adata


def test_folds_are_stratified_and_even() -> None:
    """Types differ by at most a cell between folds, and so does the whole where types do not divide."""
    labels = np.array(["a"] * 53 + ["b"] * 11 + ["c"] * 6)

    fold = fold_of_cells(labels, 5, np.random.default_rng(0))

    for name in "abc":
        sizes = np.bincount(fold[labels == name], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    assert np.ptp(np.bincount(fold)) <= 3


def test_a_type_that_cannot_be_split_is_named() -> None:
    """With fewer cells than folds some fold would be taught nothing of it, or tested on nothing."""
    with pytest.raises(DataError, match=r"fewer of b \(3\)"):
        fold_of_cells(np.array(["a"] * 20 + ["b"] * 3), 5, np.random.default_rng(0))


def test_every_cell_is_tested_once_and_never_by_a_model_that_saw_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds are kept, so that a run that was stopped goes on; the table has mean and spread."""
    path = tmp_path / "cells.h5ad"
    make_adata(60, 40, types=("B", "NK")).write_h5ad(path)
    seen: list[tuple[set[str], set[str]]] = []

    def note(question: Question, train, test) -> dict[str, float]:
        seen.append((set(train.obs_names), set(test.obs_names)))
        return {"accuracy": len(seen) / 10}

    monkeypatch.setattr(folds, "_fold", note)
    question = Question(data=str(path), labels="cell_type", preset="compact", folds=3)
    with pytest.raises(DataError, match="no fold 4: folds are counted from 1 to 3"):
        cross_validate(question, tmp_path / "out.jsonl", only=(4,))
    alone = cross_validate(question, tmp_path / "out.jsonl", only=(1,))
    assert [line["fold"] for line in alone] == [0]
    assert "| accuracy | 0.1000 | not measured | 0.1000 |" in table(alone)
    lines = cross_validate(question, tmp_path / "out.jsonl")

    assert len(seen) == 3
    assert all(not train & test and len(train | test) == 60 for train, test in seen)
    assert set.union(*(test for _, test in seen)) == {f"cell{i}" for i in range(60)}
    assert "| accuracy | 0.2000 | 0.1000 | 0.1000, 0.2000, 0.3000 |" in table(lines)


def test_a_fold_is_learned_and_tested(tmp_path: Path) -> None:
    """A quick fold of real stages names toy cells far better than chance."""
    cells = make_adata(90, 60, types=("B", "NK", "HSC"))
    quick = ("training.epochs=20", "training.min_steps=0", "bank.size=9", "analytic.pseudo_cells=0")

    found = folds._fold(
        Question(data="", labels="cell_type", preset="compact", overrides=quick), cells[:60].copy(), cells[60:].copy()
    )

    assert found["accuracy"] > 0.8
