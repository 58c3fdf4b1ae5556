"""A model adapted to a file: what is estimated, and the guard that keeps it from it."""

from dataclasses import replace

import numpy as np
import pytest

from canal.model.adapting.adaptation import LEAST_CELLS, adapt, judged_before
from canal.model.adapting.components import Components, leading_components
from canal.model.adapting.mixture import Known, Sample, fit_mixture
from canal.model.discriminants import ScoreMoments
from canal.model.model import Fusion

TYPES = 4
CENTRES = np.eye(TYPES) * 0.6 + 0.1


def make_known(n: int = 100) -> Known:
    """Return four types of n cells, apart from each other among the scores and the components."""
    moments = ScoreMoments(
        means=CENTRES, n=np.full(TYPES, float(n)), types=np.arange(TYPES), covariance=0.01 * np.eye(TYPES)
    )
    fusion = Fusion(memory=2.0, temperature=9.0, rule="discriminants")
    return Known(moments=moments, fusion=fusion, centres=4.0 * np.eye(TYPES))


def make_sample(types: np.ndarray, shift: np.ndarray, move: np.ndarray, seed: int = 0, noise: float = 0.1) -> Sample:
    """Return cells of some types whose scores and coordinates have moved."""
    rng = np.random.default_rng(seed)
    scores = CENTRES[types] + shift + noise * rng.standard_normal((len(types), TYPES))
    coordinates = 4.0 * np.eye(TYPES)[types] + move + rng.standard_normal((len(types), TYPES))
    return Sample(logits=np.zeros((len(types), TYPES)), scores=scores, coordinates=coordinates)


def right(known: Known, sample: Sample, answer: np.ndarray, types: np.ndarray) -> float:
    return float((known.fusion.evidence(sample.logits, answer).argmax(axis=1) == types).mean())


def test_what_all_types_have_in_common_is_taken_off() -> None:
    """Scores and coordinates that moved alike for every type: the moves are found, and the types are met again."""
    types = np.random.default_rng(1).integers(TYPES, size=1200)
    shift = np.array([0.3, -0.2, 0.0, -0.1])
    known, sample = make_known(10_000), make_sample(types, shift, np.array([1.0, -1.0, 0.5, 0.0]))

    mixture = fit_mixture(sample, known)

    plain = known.moments.discriminants.of(sample.scores)
    answer = mixture.memory_answer(known, sample.scores, sample.coordinates)
    assert right(known, sample, answer, types) > right(known, sample, plain, types)
    assert right(known, sample, answer, types) > 0.98
    assert np.linalg.norm(mixture.shift - shift) < 0.5 * np.linalg.norm(shift)
    np.testing.assert_allclose(mixture.shares, 0.25, atol=0.05)


def test_moves_that_contradict_each_other_are_none() -> None:
    """Types that moved at random, each its own way, shift nothing in common."""
    rng = np.random.default_rng(2)
    types = rng.integers(TYPES, size=1200)
    known = make_known(10_000)
    own = 0.1 * np.array([[1, -1, 1, -1], [-1, 1, -1, 1], [1, 1, -1, -1], [-1, -1, 1, 1.0]])
    sample = make_sample(types, np.zeros(TYPES), np.zeros(TYPES))
    sample = replace(sample, scores=sample.scores + own[types])

    assert np.abs(fit_mixture(sample, known).shift).max() < 0.02


def test_the_memory_holds_a_type_of_few_cells_in_the_file() -> None:
    """Two cells do not draw a centre to themselves; six hundred do."""
    types = np.array([0] * 600 + [1] * 600 + [2] * 2)
    known = make_known(10_000)

    mixture = fit_mixture(make_sample(types, np.zeros(TYPES), np.zeros(TYPES)), known)

    np.testing.assert_allclose(mixture.centres[2], 4.0 * np.eye(TYPES)[2], atol=0.5)
    np.testing.assert_allclose(mixture.centres[0], 4.0 * np.eye(TYPES)[0], atol=0.2)


@pytest.mark.parametrize(
    ("p_values", "reason"),
    [
        (np.zeros(LEAST_CELLS - 1), f"{LEAST_CELLS} are needed"),
        (np.linspace(0, 1, 1000), "like those taught"),
        (np.zeros(0), "0 cells"),
        (np.zeros(LEAST_CELLS), ""),
    ],
)
def test_the_guard_asks_for_cells_that_are_unlike(p_values: np.ndarray, reason: str) -> None:
    """Too few cells, and cells like those taught, are answered plainly; the reason is said."""
    verdict = judged_before(p_values)

    assert reason in verdict.held_back
    assert bool(verdict.held_back) == bool(reason)


def test_an_answer_moves_only_where_both_halves_move_it() -> None:
    """Where the halves say something else, the cell keeps its plain answer; where most do, so does the file."""
    types = np.random.default_rng(1).integers(TYPES, size=1200)
    known = make_known(10_000)
    sample = make_sample(types, np.array([0.3, -0.2, 0.0, -0.1]), np.zeros(TYPES), noise=0.2)
    halves = np.arange(1200) % 2 == 0
    components = Components(genes=np.arange(4), mean=np.zeros(4), directions=np.eye(4, dtype=np.float32))

    adaptation, verdict = adapt(sample, known, components, halves, judged_before(np.zeros(1200)))

    assert adaptation is not None
    assert verdict.held_back == ""
    assert verdict.moved > 0
    # A half that sees the types turned around agrees with nothing.
    turned = replace(adaptation.halves[1], centres=adaptation.halves[1].centres[::-1].copy() * 5)
    contrary = replace(adaptation, halves=(adaptation.halves[0], turned))
    plain = known.moments.discriminants.of(sample.scores)
    answer = contrary.memory_answer(sample.logits, sample.scores, sample.coordinates)
    best = known.fusion.evidence(sample.logits, answer).argmax(axis=1)
    of_turned = known.fusion.evidence(
        sample.logits, turned.memory_answer(known, sample.scores, sample.coordinates)
    ).argmax(axis=1)
    kept = known.fusion.evidence(sample.logits, plain).argmax(axis=1)
    assert (best[of_turned != best] == kept[of_turned != best]).all()


def test_components_are_those_of_the_profiles() -> None:
    """Against the singular value decomposition, whichever side is the smaller."""
    import scipy.sparse as sp

    for n, genes in ((60, 40), (30, 80)):
        x = np.random.default_rng(0).random((n, genes)).astype(np.float32)

        components = leading_components(sp.csr_matrix(x))

        centred = x - x.mean(axis=0)
        values = np.linalg.svd(centred, compute_uv=False)[:15]
        np.testing.assert_allclose(np.linalg.norm(components.of(x), axis=0), values, rtol=1e-3)
