"""Types that were never seen together with the genes of a file, carried to them by statistics."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import canal
from canal.data.cells import Cells
from canal.data.stream import read_cells
from canal.data.values import unit_rows
from canal.model.completion import (
    MOST_CONFIDENCE,
    CarriedTypes,
    carried_types,
    complete,
    missing_types,
    uncomparable_types,
)
from canal.model.memory import AnalyticMemory
from canal.model.model import Model
from canal.model.novelty.detector import NoveltyReader

GENES = 240
QUARTER = np.arange(0, GENES, 4)  # what the narrow file measures
TYPES = ("B", "CD4 T", "CD8 T", "Mono", "NK")


def own_genes(name: str) -> np.ndarray:
    """Return the genes of a type; NK has most of CD8 T's and a few of its own, so that it is easily taken for them."""
    if name == "NK":
        more = np.random.default_rng(9).permutation(GENES)[:12]
        return np.union1d(own_genes("CD8 T")[:20], more)
    return np.random.default_rng(TYPES.index(name) + 1).permutation(GENES)[:30]


def counts_of(types: tuple[str, ...], n: int, seed: int, *, columns: np.ndarray, efficiency: int) -> ad.AnnData:
    """Return cells of some types over some of the genes, whose technology has an efficiency of its own a gene."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).gamma(0.8, 2.0, GENES)
    gain = np.exp(np.random.default_rng(1000 + efficiency).normal(0.0, 0.3, GENES))
    values, labels = [], []
    for name in types:
        rate = base.copy()
        rate[own_genes(name)] += 5.0
        values.append(rng.poisson(rate * gain * rng.lognormal(0.0, 0.2, (n, 1))))
        labels += [name] * n
    counts = sp.csr_matrix(np.concatenate(values)[:, columns].astype(np.float32))
    obs = pd.DataFrame({"cell_type": labels}, index=[f"{seed}-{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"GENE{i}" for i in columns])
    return ad.AnnData(counts, obs=obs, var=var)


def cells_of(types: tuple[str, ...], n: int, seed: int, *, columns: np.ndarray, efficiency: int) -> Cells:
    """Return the same as checked cells."""
    return read_cells(counts_of(types, n, seed, columns=columns, efficiency=efficiency), labels="cell_type")


def remember(*stages: Cells) -> AnalyticMemory:
    """Return the memory of some stages, with all their genes."""
    memory = AnalyticMemory.empty(0.05)
    for number, cells in enumerate(stages, 1):
        memory = memory.with_stage(cells, np.arange(len(cells.genes)), stage=number, rank=20)
    return memory


def answers(memory: AnalyticMemory, cells: Cells, carried: CarriedTypes | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the type of each cell and the probability of it, from the memory's scores and what carried types take."""
    from scipy.special import softmax

    solved = memory.solved_for(cells.genes, TYPES)
    probabilities = softmax(10 * solved.scores(cells.expression), axis=1)
    if carried is not None:
        profiles = unit_rows(solved.match.project(cells.expression)[:, np.flatnonzero(solved.match.measured)])
        probabilities = carried.take(probabilities, np.asarray(profiles @ carried.weights))
    return np.array(TYPES, dtype=object)[probabilities.argmax(axis=1)], probabilities.max(axis=1)


EVERY = np.arange(GENES)
WIDE = ("B", "CD4 T", "CD8 T", "Mono")


@pytest.fixture(scope="module")
def taught_by_a_quarter() -> tuple[AnalyticMemory, Cells]:
    """Return a memory that learned NK from a file of a quarter of the genes, and new cells through all genes."""
    memory = remember(
        cells_of(WIDE, 80, 1, columns=EVERY, efficiency=1),
        cells_of(TYPES, 60, 2, columns=QUARTER, efficiency=2),
    )
    return memory, cells_of(TYPES, 60, 3, columns=EVERY, efficiency=1)


def test_a_type_taught_by_a_narrow_file_is_recognised_through_other_genes(
    taught_by_a_quarter: tuple[AnalyticMemory, Cells],
) -> None:
    """NK was never seen with three quarters of the genes; carried to them it is found, and no other type loses."""
    memory, query = taught_by_a_quarter
    assert query.labels is not None
    is_nk = query.labels == "NK"
    carried = carried_types(memory, memory.panel.match(query.genes).measured, TYPES)
    assert carried is not None

    without, _ = answers(memory, query, None)
    found, confidence = answers(memory, query, carried)

    assert (without[is_nk] == "NK").mean() < 0.7
    assert (found[is_nk] == "NK").mean() >= 0.95
    assert (found[~is_nk] == query.labels[~is_nk]).mean() >= (without[~is_nk] == query.labels[~is_nk]).mean() - 0.01
    assert confidence[found == "NK"].max() <= MOST_CONFIDENCE + 1e-6


def test_nothing_is_carried_where_every_type_was_seen_with_the_genes() -> None:
    """Two wide stages of the same types: the statistics stay as they are, and no cell is taken."""
    memory = remember(
        cells_of(TYPES, 40, 1, columns=EVERY, efficiency=1),
        cells_of(TYPES, 40, 2, columns=EVERY, efficiency=2),
    )
    seen = np.ones(len(memory.panel), dtype=bool)

    completion = complete(memory, seen)

    assert missing_types(memory, seen) == []
    assert completion.statistics is memory.statistics
    assert carried_types(memory, seen, TYPES) is None


def test_a_file_of_the_same_narrow_genes_needs_nothing(taught_by_a_quarter: tuple[AnalyticMemory, Cells]) -> None:
    """Through the genes of the file that taught it, NK is a measured type like any other."""
    memory, _ = taught_by_a_quarter
    narrow = cells_of(TYPES, 10, 4, columns=QUARTER, efficiency=2)

    assert carried_types(memory, memory.panel.match(narrow.genes).measured, TYPES) is None


def test_what_is_imputed_is_noted_and_close_to_what_the_stage_would_have_shown(
    taught_by_a_quarter: tuple[AnalyticMemory, Cells],
) -> None:
    """The genes that NK's file lacks are named; over all genes the carried mean is that of the stage's own NK cells."""
    memory, _ = taught_by_a_quarter
    truth = remember(cells_of(TYPES, 200, 5, columns=EVERY, efficiency=1))
    expected = next(s.mean for s in truth.statistics if s.name == "NK")[: len(EVERY)]

    completion = complete(memory, np.ones(len(memory.panel), dtype=bool))

    (carried,) = completion.carried
    assert (carried.stage, carried.source, carried.name) == (1, 2, "NK")
    names = {memory.panel.genes.names[i] for i in carried.genes.tolist()}
    assert names == {f"GENE{i}" for i in range(GENES) if i % 4}
    mean = completion.statistics[-1].mean
    by_name = dict(zip(memory.panel.genes.names, mean, strict=False))
    order = [by_name[name] for name in truth.panel.genes.names]
    # Three quarters of NK's genes cannot be guessed from other types; the level of each gene in the technology can.
    assert np.corrcoef(order, expected)[0, 1] > 0.8


def test_a_type_without_a_common_type_beside_it_is_not_carried() -> None:
    """A file that holds the new type alone gives no factor between the technologies: nothing is guessed."""
    memory = remember(
        cells_of(WIDE, 40, 1, columns=EVERY, efficiency=1),
        cells_of(("NK",), 40, 2, columns=QUARTER, efficiency=2),
    )

    assert complete(memory, np.ones(len(memory.panel), dtype=bool)).carried == ()
    assert uncomparable_types(memory, 2) == {"NK": [1]}


def test_types_that_can_be_carried_are_comparable(taught_by_a_quarter: tuple[AnalyticMemory, Cells]) -> None:
    """With known types beside it nothing is out of reach; nor is what has the same genes."""
    memory, _ = taught_by_a_quarter
    same = remember(
        cells_of(WIDE, 40, 1, columns=EVERY, efficiency=1),
        cells_of(("NK",), 40, 2, columns=EVERY, efficiency=2),
    )

    assert uncomparable_types(memory, 2) == {}
    assert uncomparable_types(same, 2) == {}


def test_stage_add_says_what_cannot_be_compared(tmp_path: Path) -> None:
    """A narrow file of one new type and no other is taught with a plain warning; with known types there is none."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    quick = ("training.epochs=1", "training.min_steps=0", "bank.size=40", "analytic.pseudo_cells=40")
    workspace.add_stage(counts_of(WIDE, 40, 1, columns=EVERY, efficiency=1), labels="cell_type", overrides=quick)

    alone = workspace.add_stage(
        counts_of(("NK",), 40, 2, columns=QUARTER, efficiency=2), labels="cell_type", overrides=quick
    )
    balanced = workspace.add_stage(
        counts_of(TYPES, 40, 3, columns=QUARTER, efficiency=2), labels="cell_type", overrides=quick
    )

    assert any("'NK' cannot be compared with the known types" in text for text in alone.warnings)
    assert not any("cannot be compared" in text for text in balanced.warnings)


def test_taken_probabilities_stay_probabilities(taught_by_a_quarter: tuple[AnalyticMemory, Cells]) -> None:
    """Every row sums to one, also where another type was certain."""
    memory, query = taught_by_a_quarter
    carried = carried_types(memory, memory.panel.match(query.genes).measured, TYPES)
    assert carried is not None
    certain = np.zeros((len(query), len(TYPES)), dtype=np.float32)
    certain[:, 0] = 1.0
    solved = memory.solved_for(query.genes, TYPES)
    profiles = unit_rows(solved.match.project(query.expression)[:, np.flatnonzero(solved.match.measured)])

    result = carried.take(certain, np.asarray(profiles @ carried.weights))

    np.testing.assert_allclose(result.sum(axis=1), 1.0, atol=1e-5)
    assert (result.argmax(axis=1)[query.labels == "NK"] == TYPES.index("NK")).mean() >= 0.95


def test_the_stage_that_taught_a_type_has_a_say(taught_by_a_quarter: tuple[AnalyticMemory, Cells]) -> None:
    """A cell that it would give to the measured type stays there, as those of an untaught technology should."""
    memory, query = taught_by_a_quarter
    carried = carried_types(memory, memory.panel.match(query.genes).measured, TYPES)
    assert carried is not None
    nk, cd8 = TYPES.index("NK"), TYPES.index("CD8 T")
    solved = memory.solved_for(query.genes, TYPES)
    profiles = unit_rows(solved.match.project(query.expression)[:, np.flatnonzero(solved.match.measured)])
    projected = np.asarray(profiles @ carried.weights)[query.labels == "NK"]
    before = np.zeros((len(projected), len(TYPES)), dtype=np.float32)
    before[:, cd8] = 1.0
    assert (carried.take(before, projected).argmax(axis=1) == nk).mean() >= 0.95

    # The ridge scores of the stage that taught NK are the last columns: now they are for CD8 T.
    scores = projected[:, -len(TYPES) :]
    scores[:, [nk, cd8]] = scores[:, [cd8, nk]]
    assert (carried.take(before, projected).argmax(axis=1) == cd8).mean() >= 0.95
    # Of a type that it did not hold it cannot say anything.
    carried._held[:, cd8] = False
    assert (carried.take(before, projected).argmax(axis=1) == nk).mean() >= 0.95


def test_weights_of_one_stage_know_its_types_and_genes_alone(
    taught_by_a_quarter: tuple[AnalyticMemory, Cells],
) -> None:
    """They tell its own types apart, and are zero for genes that it did not measure and types that it did not hold."""
    memory, query = taught_by_a_quarter
    seen = memory.panel.match(query.genes).measured
    weights = memory.stage_weights(2, seen, (*TYPES, "HSC"))
    assert not weights[:, -1].any()
    assert not np.delete(weights, memory.measured[2], axis=0).any()
    values = unit_rows(query.expression) @ weights
    assert (np.array(TYPES)[values[:, :-1].argmax(axis=1)] == query.labels).mean() > 0.8


def mean_novelty(model: Model, query: ad.AnnData, rows: np.ndarray, *, blind: bool = False) -> float:
    """Return the mean novelty of some cells by the model's detector, or by one that is blind to what was carried."""
    cells = read_cells(query, labels=None)
    assert model.memory is not None
    detector = model.reader(cells.genes).novelty()
    if blind:
        detector = NoveltyReader(model.memory, model.novelty, model.bank, cells.genes)
    assert detector is not None
    return float(detector.score(cells.expression).novelty[rows].mean())


def test_annotate_knows_the_type_and_says_that_it_is_estimated(tmp_path: Path) -> None:
    """Taught by the narrow file, NK is annotated in the wide one, though the network never saw it there."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    quick = ("training.epochs=4", "training.min_steps=0", "bank.size=40", "analytic.pseudo_cells=60")
    wide = counts_of(WIDE, 80, 1, columns=EVERY, efficiency=1)
    narrow = counts_of(TYPES, 60, 2, columns=QUARTER, efficiency=2)
    workspace.add_stage(wide, labels="cell_type", overrides=quick)
    workspace.add_stage(narrow, labels="cell_type", overrides=quick)
    query = counts_of(TYPES, 60, 3, columns=EVERY, efficiency=1)
    is_nk = (query.obs["cell_type"] == "NK").to_numpy()

    annotation = workspace.annotate(query)
    explanation = workspace.explain(query, labels="cell_type")
    in_narrow = workspace.annotate(narrow)

    assert (annotation.cell_type[is_nk] == "NK").mean() >= 0.9
    assert (annotation.cell_type[~is_nk] == query.obs["cell_type"].to_numpy()[~is_nk]).mean() >= 0.95
    assert annotation.facts["carried_types"] == ["NK"]
    assert in_narrow.facts["carried_types"] == []
    (imputed,) = [genes.imputed for genes in explanation.types if genes.name == "NK"]
    assert imputed == {f"GENE{i}" for i in range(GENES) if i % 4}
    model = workspace.model()
    assert mean_novelty(model, query, is_nk) < 0.7 * mean_novelty(model, query, is_nk, blind=True)
    assert any("'NK' was never seen together with 180 genes" in text for text in explanation.warnings)
    assert all(not genes.imputed for genes in explanation.types if genes.name != "NK")
