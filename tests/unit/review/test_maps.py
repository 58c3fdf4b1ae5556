"""Maps that are computed: of a sample where there are many cells, with their progress told."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from canal.errors import DataError
from canal.review import maps, waiting
from canal.review.maps import computed_points, placed
from canal.review.review import Review
from canal.review.waiting import Waiting
from tests.unit.review.conftest import MADE_AS


def drawn(review: Review, folder: Path, progress: Waiting | None = None) -> maps.MapPoints:
    """Draw the map of a review anew."""
    prepared = review._prepared
    representation = prepared.annotation.representation
    return computed_points(prepared.expression, representation, 0, folder, progress or Waiting())


def test_many_cells_stand_beside_a_sample_that_is_laid_out(
    review: Review, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most cells stand among their own type, whether or not they are of the sample; it is said."""
    monkeypatch.setattr(maps, "MOST_LAID_OUT", 60)
    told = drawn(review, tmp_path)
    assert "computed here of 60 cells that stand for all" in told.note
    assert told.coordinates.shape == (review.cells, 2)
    kinds = np.arange(review.cells) % len(MADE_AS)
    apart = np.linalg.norm(told.coordinates[:, None] - told.coordinates, axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = kinds[apart.argsort(axis=1)[:, :5]]
    assert (nearest == kinds[:, None]).mean() > 0.8


def test_cells_are_placed_by_the_nearest_of_those_laid_out() -> None:
    """A cell at the place of one stands there, one in the middle between, and those laid out stay where they are."""
    layout, points = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]]), np.array([[0.0], [2.0], [50.0]])
    everywhere = np.array([[0.0], [1.0], [2.0], [50.0], [50.0]])
    result = placed(layout, points, np.array([0, 2, 3]), everywhere)
    np.testing.assert_allclose(result[[0, 2, 3, 4]], [[0, 0], [1, 0], [9, 9], [9, 9]], atol=1e-6)
    np.testing.assert_allclose(result[1], [0.5, 0.0], atol=1e-3)


def test_a_map_that_cannot_be_kept_is_said(review: Review, tmp_path: Path) -> None:
    """The folder of what is computed is gone: the message names it."""
    with pytest.raises(DataError, match=r"map-umap.npy cannot be written: No such file"):
        drawn(review, tmp_path / "gone")


def test_progress_is_told_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing before the beginning and after the end; the time left once there is a rate, and less of it later."""
    now = [100.0]
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: now[0]))
    waits = Waiting()
    assert waits.told() is None
    waits.start(10, "drawing the map")
    assert str(waits.told()) == "drawing the map: 0%."
    now[0] += 8
    waits.advance(4)
    assert str(waits.told()) == "drawing the map: 40%, about 12 s left."
    now[0] += 5
    assert str(waits.told()) == "drawing the map: 40%, about 7 s left."
    waits.close()
    assert waits.told() is None
