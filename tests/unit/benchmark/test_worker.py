"""A run of the benchmark: what a method is taught, what it is tested on, and when."""

from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from canal.benchmark.method import Context, Method, Predict
from canal.benchmark.stream import StageCells
from canal.benchmark.table import _accuracy_by_stage
from canal.benchmark.worker import run_method
from canal.config import load_preset
from canal.data.cells import Cells
from canal.data.stream import read_cells
from tests.make import make_adata

STAGES = 3


def cells_of(prefix: str, types: tuple[str, ...]) -> Cells:
    """Return ten labelled cells of each type."""
    return read_cells(make_adata(10 * len(types), types=types, prefix=prefix), labels="cell_type")


@pytest.fixture
def stages() -> list[StageCells]:
    """Return three stages of two types, the names of whose cells say whether they are to be learned."""
    pairs = (("B", "NK"), ("NK", "DC"), ("HSC", "B"))
    return [StageCells(cells_of(f"train{k}-", types), cells_of(f"test{k}-", types)) for k, types in enumerate(pairs)]


class Watching:
    """A method that answers the first type of each stage, and writes down what it sees."""

    def __init__(self) -> None:
        self.taught: list[str] = []
        self.tested: list[tuple[int, str]] = []

    def learn(self, stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        """Learn nothing."""
        del context
        for number, cells in enumerate(stages, 1):
            self.taught += cells.names.tolist()
            yield lambda query, number=number: self.answer(query, number)

    def answer(self, query: Cells, number: int) -> np.ndarray:
        """Call every cell an NK cell."""
        self.tested += [(number, name) for name in query.names.tolist()]
        return np.full(len(query), "NK", dtype=object)


def run(watching: Watching, stages: list[StageCells], untaught: dict[str, Cells]) -> dict:
    """Run the method on the stages."""
    method = Method(
        name="watching", title="watching", group="ours", keeps="nothing", reference="-", learn=watching.learn
    )
    context = Context(
        preset=load_preset("compact"), seed=0, n_types=4, markers=None, peers=None, scratch=Path("nowhere")
    )
    return run_method(method, stages, untaught, context)


def test_no_test_cell_is_taught_and_no_training_cell_tested(stages):
    """After each stage the tests of the stages so far, and nothing of later ones."""
    watching = Watching()

    figures = run(watching, stages, {})

    assert all(name.startswith("train") for name in watching.taught)
    assert len(watching.taught) == 60
    for number in range(1, STAGES + 1):
        seen = {name.split("-")[0] for n, name in watching.tested if n == number}
        assert seen == {f"test{k}" for k in range(number)}
    assert figures["accuracy"] == [[0.5], [0.5, 0.5], [0.5, 0.5, 0.0]]
    assert figures["f1"]["NK"] == pytest.approx(2 * 20 / (20 + 60))


def test_files_nobody_taught_are_tested_on_types_that_were_taught(stages):
    """Cells of other types are no fault of the method."""
    watching = Watching()

    figures = run(watching, stages, {"elsewhere": cells_of("far-", ("NK", "MK"))})

    assert figures["unseen"]["elsewhere"]["cells"] == 10
    assert figures["unseen"]["elsewhere"]["accuracy"] == 1.0


def test_accuracy_is_told_in_the_order_of_the_declaration():
    """A run in another order is put back before it is averaged with others."""
    values = {"accuracy": [[0.1], [0.1, 0.2], [0.3, 0.4, 0.5]]}
    result = SimpleNamespace(run=SimpleNamespace(order=(2, 0, 1)), values=values)

    assert _accuracy_by_stage(result) == [0.4, 0.5, 0.3]
