"""The paper's rule for novel cells, against a plain loop over cells and mixes."""

import numpy as np
import pytest

from canal.model.novelty.scores import (
    PAIRS,
    TEMPERATURE,
    Mixes,
    energy,
    max_probability,
    transductive_scores,
    transductive_threshold,
)

PAPERS = 0.8  # the paper's temperature, written out


def softmax_and_energy(z: np.ndarray) -> tuple[float, float]:
    """Return largest probability and energy of one cell, written out."""
    p = np.exp(z - z.max())
    return float((p / p.sum()).max()), float(-PAPERS * np.log(np.sum(np.exp(z / PAPERS))))


def by_hand(logits: np.ndarray) -> np.ndarray:
    """Return (En + 1 - conf) / 2 of some cells, written out."""
    conf, energies = np.array([softmax_and_energy(z) for z in logits]).T
    scaled = (energies - energies.min()) / (energies.max() - energies.min())
    return (scaled + 1 - conf) / 2


def test_scores_and_threshold_are_the_papers() -> None:
    """As CANAL computes them: the mean of scaled energy and doubt; one less the mean score of mixes."""
    logits = np.random.default_rng(0).normal(scale=3.0, size=(30, 4))
    mixes = Mixes.draw(30, np.random.default_rng(1))

    scores = transductive_scores(max_probability(logits), energy(logits, TEMPERATURE))
    threshold = transductive_threshold(logits[mixes.first], logits[mixes.second], mixes.weights)

    np.testing.assert_allclose(scores, by_hand(logits), rtol=1e-6)
    pairs = zip(mixes.first, mixes.second, strict=True)
    mixed = np.array([w * logits[i] + (1 - w) * logits[j] for i, j in pairs for w in mixes.weights])
    assert threshold == pytest.approx(1 - by_hand(mixed).mean(), abs=1e-5)


def test_doubtful_cells_are_above_the_threshold() -> None:
    """Cells the network is sure of are known, flat logits are novel."""
    rng = np.random.default_rng(0)
    sure = 9.0 * np.eye(4)[rng.integers(4, size=90)] + rng.normal(scale=0.3, size=(90, 4))
    logits = np.concatenate([sure, rng.normal(scale=0.3, size=(10, 4))])
    mixes = Mixes.draw(100, rng)

    scores = transductive_scores(max_probability(logits), energy(logits, TEMPERATURE))
    novel = scores > transductive_threshold(logits[mixes.first], logits[mixes.second], mixes.weights)

    assert novel[90:].sum() >= 9
    assert not novel[:90].any()


def test_few_cells_are_mixed_whatever_the_file() -> None:
    """Every cell once in a small file, `PAIRS` of them in a large one."""
    small, large = (Mixes.draw(n, np.random.default_rng(0)) for n in (7, 50_000))

    assert small.first.tolist() == list(range(7))
    assert len(large.first) == len(large.second) == PAIRS
    assert len(large.rows) <= 2 * PAIRS
    assert np.unique(large.first).size == PAIRS


def test_cells_that_are_all_alike_have_no_energy_to_compare() -> None:
    """The scaled energy is 0 then, not 0 / 0."""
    logits = np.tile([2.0, 0.0], (3, 1))

    found = transductive_scores(max_probability(logits), energy(logits, TEMPERATURE))

    np.testing.assert_allclose(found, (1 - max_probability(logits)) / 2)
