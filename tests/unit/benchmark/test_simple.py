"""The simplest rivals: a balanced bank, statistics, and a linear classifier on them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from canal.benchmark.method import Context
from canal.benchmark.methods import find_method
from canal.benchmark.methods.simple import METHODS, _random_examples, learn_discriminants
from canal.config import load_preset
from canal.data.cells import CellPool, Cells
from canal.data.stream import read_cells
from tests.make import make_adata

STAGES = (("B", "NK"), ("HSC", "DC"))


def cells_of(types: tuple[str, ...], n: int, seed: int) -> Cells:
    return read_cells(make_adata(n, 120, types=types, seed=seed), labels="cell_type")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    preset = load_preset("compact", overrides=("bank.size=40",))
    return Context(preset=preset, seed=0, n_types=4, markers=None, peers=None, scratch=tmp_path)


@pytest.mark.parametrize("name", [method.name for method in METHODS])
def test_a_rival_keeps_the_types_of_earlier_stages(name: str, context: Context) -> None:
    """Two stages of other types: both are named after the second, by what was kept of the first."""
    stages = [cells_of(types, 120, seed) for seed, types in enumerate(STAGES, 1)]
    query = cells_of(STAGES[0] + STAGES[1], 200, 9)

    predictors = list(find_method(name).learn(iter(stages), context))

    assert query.labels is not None
    first, last = (predict(query) for predict in predictors)
    assert set(first.tolist()) <= set(STAGES[0])
    assert (last == query.labels).mean() > 0.9


def test_the_bank_of_the_rivals_is_balanced_and_of_its_size(context: Context) -> None:
    """GDumb's: the same number of each type, from all stages, never more than L in all."""
    bank = CellPool.empty()
    for number, types in enumerate(STAGES, 1):
        bank = _random_examples(bank, cells_of(types, 120, number), context, number)

    assert Counter(bank.labels.tolist()) == dict.fromkeys(STAGES[0] + STAGES[1], 10)
    assert Counter(bank.stage.tolist()) == {1: 20, 2: 20}


def test_discriminants_do_not_depend_on_the_order_of_the_stages(context: Context) -> None:
    """They are sums: what is taught first is not forgotten, bit by bit aside."""
    stages = [cells_of(STAGES[0] + STAGES[1], 120, seed) for seed in (1, 2)]
    query = cells_of(STAGES[0] + STAGES[1], 200, 9)

    answers = []
    for order in (stages, stages[::-1]):
        *_, last = learn_discriminants(iter(order), context)
        answers.append(last(query))

    np.testing.assert_array_equal(answers[0], answers[1])
