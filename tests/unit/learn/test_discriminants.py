"""Discriminants among the ridge scores, against the cells themselves and against the density they stand for."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize

from canal.data.cells import Cells
from canal.data.genes import Genes
from canal.data.stream import read_cells
from canal.errors import ConfigError, RegistryError
from canal.model.discriminants import AMPLITUDE, CENTRE_CELLS, ScoreMoments
from canal.model.memory import AnalyticMemory, SolvedMemory
from canal.model.model import Fusion
from tests.learning import learn, quick, toy
from tests.make import make_adata


def make_cells(n: int = 120, seed: int = 0, **options: object) -> Cells:
    """Return labelled cells of three types."""
    return read_cells(make_adata(n, seed=seed, types=("B", "NK", "HSC"), **options), labels="cell_type")


def make_solved(cells: Cells, types: tuple[str, ...] = ("B", "NK", "HSC")) -> SolvedMemory:
    """Return the memory of these cells with every direction kept, solved for their genes."""
    columns = np.arange(len(cells.genes))
    memory = AnalyticMemory.empty(0.1).with_stage(cells, columns, stage=1, rank=1000, cells_per_factor=1)
    return memory.solved_for(cells.genes, types)


def make_moments(n: tuple[int, ...] = (50, 3, 0)) -> ScoreMoments:
    """Return moments of types of so many cells, three at most."""
    kept = np.flatnonzero(n)
    means = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.0], [0.0, 0.1, 0.7]])[kept]
    covariance = np.array([[0.02, 0.01, 0.0], [0.01, 0.03, 0.0], [0.0, 0.0, 0.01]])
    return ScoreMoments(means=means, n=np.array(n, dtype=float)[kept], types=kept, covariance=covariance)


def test_the_moments_are_those_of_the_cells() -> None:
    """Means and the covariance weighted by roots, from the statistics and from the scores of the cells."""
    cells = make_cells()
    solved = make_solved(cells)

    scores = solved.scores(cells.expression).astype(np.float64)

    covariance, roots = np.zeros((3, 3)), 0.0
    for k, name in enumerate(("B", "HSC", "NK")):  # the memory's order
        own = scores[cells.labels == name]
        np.testing.assert_allclose(solved.moments.means[k], own.mean(axis=0), atol=1e-4)
        covariance += len(own) ** 0.5 * np.cov(own.T)
        roots += len(own) ** 0.5
    np.testing.assert_allclose(solved.moments.covariance, covariance / roots, atol=1e-5)


def test_a_file_with_fewer_genes_has_moments_of_its_own() -> None:
    """Through half of the genes the means are those of the cells' scores through that half, up to their length."""
    cells = make_cells(n_genes=60)
    half = list(range(30))
    columns = np.arange(60)
    memory = AnalyticMemory.empty(0.1).with_stage(cells, columns, stage=1, rank=1000, cells_per_factor=1)
    solved = memory.solved_for(cells.genes.take(half), ("B", "NK", "HSC"))

    scores = solved.scores(cells.expression[:, half])

    own = scores[cells.labels == "B"].mean(axis=0)
    np.testing.assert_allclose(solved.moments.means[0], own, atol=0.02)


def test_the_answer_is_the_density_at_the_best_amplitude() -> None:
    """Of a Gaussian around a centre times an amplitude near 1, less what all types share."""
    moments = make_moments((50, 30, 20))
    scores = np.random.default_rng(0).normal(0.3, 0.3, size=(5, 3))

    answer = moments.discriminants.of(scores)

    for cell, row in zip(scores, answer, strict=True):
        expected = []
        for centre in moments.centres:

            def loss(a: float, cell: np.ndarray = cell, centre: np.ndarray = centre) -> float:
                away = cell - a * centre
                return 0.5 * (away @ moments.precision @ away + ((a - 1) / AMPLITUDE) ** 2)

            expected.append(-scipy.optimize.minimize_scalar(loss).fun)
        shared = -0.5 * cell @ moments.precision @ cell
        np.testing.assert_allclose(row, np.array(expected) - shared, rtol=1e-4, atol=1e-4)


def test_the_centre_of_a_small_type_is_drawn_to_that_of_all() -> None:
    """Three cells keep 3 / 8 of their distance to it, fifty nearly all."""
    small, large = make_moments((50, 3, 0)), make_moments((50, 3000, 0))

    roots = np.sqrt([50.0, 3.0])
    grand = roots @ small.means / roots.sum()
    kept = 3 / (3 + CENTRE_CELLS)
    np.testing.assert_allclose(small.centres[1], kept * small.means[1] + (1 - kept) * grand)
    np.testing.assert_allclose(large.centres[1], large.means[1], atol=0.002)


def test_a_type_without_statistics_is_never_the_memorys_answer() -> None:
    """It gets what the least likely of the others gets; without any statistics nothing is said."""
    scores = np.random.default_rng(0).normal(0.3, 0.3, size=(20, 3))

    some = make_moments((50, 30, 0)).discriminants.of(scores)
    none = make_moments((0, 0, 0)).discriminants.of(scores)

    np.testing.assert_array_equal(some[:, 2], some[:, :2].min(axis=1))
    np.testing.assert_array_equal(none, 0.0)


def test_small_types_and_kin_are_told_apart_better_than_by_the_largest_score() -> None:
    """On cells the memory has not seen, of which one type was taught from two cells."""
    cells, query = make_cells(240, n_genes=80, seed=1), make_cells(240, n_genes=80, seed=2)
    rows = np.sort(np.concatenate([np.flatnonzero(cells.labels != "HSC"), np.flatnonzero(cells.labels == "HSC")[:2]]))
    solved = make_solved(cells.take(rows))
    names = np.array(solved.types, dtype=object)

    scores = solved.scores(query.expression)
    largest = names[scores.argmax(axis=1)] == query.labels
    discriminants = names[solved.moments.discriminants.of(scores).argmax(axis=1)] == query.labels

    assert discriminants.mean() > largest.mean()


def test_a_file_without_a_gene_of_the_memory_gets_numbers() -> None:
    """All types alike; the network decides alone."""
    cells = make_cells()
    memory = AnalyticMemory.empty(0.1).with_stage(cells, np.arange(20), stage=1, rank=20)
    solved = memory.solved_for(Genes.of(["X1", "X2"]), ("B", "NK", "HSC"))

    answer = solved.moments.discriminants.of(np.zeros((4, 3), dtype=np.float32))

    np.testing.assert_array_equal(answer, 0.0)


def test_the_preset_says_by_which_rule_a_model_answers() -> None:
    """Discriminants by default, the sum where it is asked for, and where there is no memory; else a clear error."""
    by_rule = {
        "discriminants": learn(toy(), preset=quick("training.epochs=1")).model,
        "sum": learn(toy(), preset=quick("training.epochs=1", "analytic.rule=sum")).model,
    }
    alone = learn(toy(), preset=quick("training.epochs=1", "analytic.enabled=false")).model

    assert {rule: model.fusion.rule for rule, model in by_rule.items()} == {rule: rule for rule in by_rule}
    assert alone.fusion.rule == "sum"
    with pytest.raises(ConfigError, match=r"analytic\.rule"):
        quick("analytic.rule=vote")


def test_a_model_from_before_there_were_rules_answers_by_the_sum() -> None:
    """Its file is read as it was written, and written as it was read; a preset without the key keeps none."""
    text = {"format": 1, "memory": 3.0, "temperature": 0.4508, "stages": 4}

    fusion = Fusion.from_dict(text)

    assert fusion.rule == "sum"
    assert json.dumps(fusion.to_dict()) == json.dumps(text)
    now = replace(fusion, rule="discriminants")
    assert now.to_dict()["format"] == 2
    assert Fusion.from_dict(now.to_dict()) == now
    for later in ({"format": 3}, {"format": 2, "rule": "vote"}):
        with pytest.raises(RegistryError, match="Install a newer canal"):
            Fusion.from_dict(text | later)


def test_a_stage_on_top_of_an_older_model_begins_its_mean_anew() -> None:
    """Temperatures of a sum and of discriminants are of different scales."""
    before = Fusion(memory=3.0, temperature=0.3, stages=4)
    stage = Fusion(memory=2.0, temperature=8.0, rule="discriminants")

    assert stage.averaged(before) == stage
    assert stage.averaged(replace(stage, temperature=2.0)).temperature == pytest.approx(4.0)
