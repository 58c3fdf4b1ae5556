"""The temperature of a stage is learned and measured on held-out cells, never on the same ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from canal.model.model import Fusion
from canal.training.stage import calibrate, half_of_each_type

NAMES = ("a", "b", "c")


def make_model(logits: np.ndarray, fusion: Fusion) -> SimpleNamespace:
    """Return a stand-in for an annotator that says these logits, whatever the cells."""
    reader = SimpleNamespace(network_outputs=lambda _: (logits, None), solved=None)
    return SimpleNamespace(reader=lambda *_: reader, types=NAMES, fusion=fusion)


def make_held(types: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(labels=np.array(NAMES, dtype=object)[types], genes=(), ensembl=(), expression=None)


def answers(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are right four times in five and types."""
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n)
    said = np.where(rng.random(n) < 0.3, rng.integers(3, size=n), types)
    return 8.0 * np.eye(3)[said], types


def test_confidence_meets_accuracy_on_cells_it_was_not_fitted_to() -> None:
    """The error is near zero, and the temperature that of all cells."""
    logits, types = answers()
    plain = Fusion(memory=0.0, temperature=1.0)

    fusion, _, found = calibrate(make_model(logits, plain), None, make_held(types))

    assert fusion == plain.calibrated(logits, None, types)
    assert found.cells == len(types)
    assert found.accuracy == pytest.approx((logits.argmax(axis=1) == types).mean())
    assert found.error < 0.03
    assert found.temperature == fusion.temperature


def test_the_temperature_of_a_half_comes_from_the_other() -> None:
    """Where one half is all right and the other all wrong, each is judged by what the other shows."""
    types = np.zeros(40, dtype=np.int64)
    logits = np.where(half_of_each_type(types)[:, None], [8.0, 0.0, 0.0], [0.0, 8.0, 0.0])

    _, _, found = calibrate(make_model(logits, Fusion(memory=0.0, temperature=1.0)), None, make_held(types))

    # The half that is right is told to doubt, the wrong half to be sure: the worst of both, and it shows.
    assert found.error > 0.5


def test_stages_before_are_averaged_in() -> None:
    """The temperature is the geometric mean with theirs; a single cell is enough."""
    logits, types = answers(1)
    previous = make_model(logits, Fusion(memory=0.0, temperature=0.5, stages=3))
    plain = Fusion(memory=0.0, temperature=1.0)

    fusion, _, found = calibrate(make_model(logits, plain), previous, make_held(types))

    assert fusion == plain.calibrated(logits, None, types).averaged(previous.fusion)
    assert found.cells == 1


def test_halves_share_every_type() -> None:
    """A type's cells differ by one at most between the half_of_each_type."""
    types = np.array([0, 0, 0, 1, 2, 2, 1, 2, 2])

    first = half_of_each_type(types)

    for t in range(3):
        assert abs(int(first[types == t].sum()) - int((~first)[types == t].sum())) <= 1
