"""Confidence beside accuracy: what is kept of a stage, and its picture."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from canal.errors import RegistryError
from canal.model.reliability import Reliability, expected_calibration_error
from canal.report.plots import reliability_figure


def make_reliability(n: int = 400, seed: int = 0) -> Reliability:
    """Return the reliability of answers that are surer than they are right."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(5, 1, n)
    return Reliability.of(confidence, rng.random(n) < confidence - 0.1, temperature=0.3)


def test_it_says_what_the_cells_say() -> None:
    """Figures follow from the cells; the error is that of the bins."""
    confidence, right = np.array([0.25, 0.75, 0.85, 0.95]), np.array([False, True, True, True])

    found = Reliability.of(confidence, right, temperature=0.5)

    assert (found.cells, found.accuracy, found.confidence) == (4, 0.75, pytest.approx(0.7))
    assert (
        found.error == expected_calibration_error(confidence, right) == pytest.approx((0.25 + 0.25 + 0.15 + 0.05) / 4)
    )
    assert sum(found.bins.cells) == 4


def test_a_round_trip_through_json_loses_nothing() -> None:
    """What is written is what is read; a newer format is refused."""
    found = make_reliability()
    values = json.loads(json.dumps(found.to_dict()))

    assert Reliability.from_dict(values) == found
    with pytest.raises(RegistryError, match=r"newer canal"):
        Reliability.from_dict(values | {"format": 2})


def test_the_picture_has_a_panel_for_each_stage() -> None:
    """It is one SVG that parses, fetches nothing, and is the same for the same figures."""
    stages = [(f"{k} toy $x_1$ <{k}>", make_reliability(seed=k)) for k in range(5)]

    svg = reliability_figure(stages)

    assert svg == reliability_figure(stages)
    ET.fromstring(svg)
    assert svg.count('id="axes_') == 8  # two rows of four, the last three of them empty
    assert 'href="http' not in svg
    assert reliability_figure(stages[:1]).count('id="axes_') == 1
