"""Maps side by side are turned alike, and drawn in one set of colours."""

import base64
import re
from dataclasses import replace

import numpy as np
import pytest

from canal.compare.figures import aligned_maps, map_pictures
from canal.compare.page import compare_page
from canal.compare.report import PageArt, Picture, StageMap
from tests.unit.report.test_compare_page import make_report, pictures

PNG = r'src="data:image/png;base64,([^"]+)"'


def make_map(stage: int = 1, seed: int = 0, types: tuple[str, ...] = ("B", "NK", "DC")) -> StageMap:
    """Return three clouds of cells."""
    rng = np.random.default_rng(seed)
    names = tuple(np.repeat(types, 30).tolist())
    centres = np.repeat(np.array([[0.0, 0.0], [9.0, 1.0], [2.0, 5.0]])[: len(types)], 30, axis=0)
    return StageMap(
        stage=stage, name=f"toy <{stage}>", types=names, coordinates=centres + rng.normal(0, 0.3, centres.shape)
    )


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize("angle", [0.4, 2.0, 4.0])
def test_a_turned_map_is_turned_back(angle, mirror):
    """Rotation, reflection and shift are undone; distances stay."""
    first = make_map()
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1.0, mirror])
    second = StageMap(stage=2, name="x", types=first.types, coordinates=first.coordinates @ turn + 7.0)

    one, two = aligned_maps([first, second])

    np.testing.assert_allclose(two.coordinates, one.coordinates, atol=1e-9)


def test_maps_that_share_too_little_stay():
    """One shared type or none gives no direction; an empty bank has no place."""
    other = make_map(2, types=("B", "MK", "HSC"))
    empty = StageMap(stage=3, name="none", types=(), coordinates=np.zeros((0, 2)))

    found = aligned_maps([make_map(), other, empty])

    np.testing.assert_allclose(found[1].coordinates, other.coordinates - other.coordinates.mean(axis=0))
    assert map_pictures([make_map(), other, empty]).startswith(b"\x89PNG")


def test_the_page_shows_maps_and_pictures_of_others():
    """Each in its section, and still nothing is fetched."""
    art = PageArt(
        maps=(make_map(1), make_map(2)),
        pictures=(Picture(title="Reliability & more", svg="<svg>r</svg>", caption="Bars <end> on the diagonal."),),
    )
    html = compare_page(make_report(), art)

    assert len(re.findall(PNG, html)) == 1
    assert base64.b64decode(re.findall(PNG, html)[0]).startswith(b"\x89PNG")
    assert "2 of the 3 stages" in html
    assert pictures(html)[-3] == "<svg>r</svg>" or "<svg>r</svg>" in pictures(html)
    assert "<h2>Reliability &amp; more</h2>" in html
    assert "Bars &lt;end&gt; on the diagonal." in html
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert html == compare_page(make_report(), art)


def test_the_page_shows_what_each_data_set_met_when_it_was_new():
    """A row for each stage that was measured, and a reason where none was."""
    report = make_report()
    figures = {"cells": 77, "accuracy": 0.754, "macro_f1": 0.7, "calibration_error": 0.1, "false_alarms": None}
    measured = replace(
        report, stages=(report.stages[0], replace(report.stages[1], incoming=figures), *report.stages[2:])
    )

    html = compare_page(measured, PageArt())

    assert "0.7540" in html
    assert ">77<" in html
    assert "one stage only" not in html
    assert "one stage only" in compare_page(report, PageArt())
