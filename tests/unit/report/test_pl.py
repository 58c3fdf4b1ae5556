"""The pictures of `canal.pl`."""

import numpy as np
import pandas as pd
import pytest

import canal
from canal.errors import ConfigError


def test_dots_are_shares_of_the_given_types():
    """The area of a dot is the share of its row, and what agrees stands on the diagonal."""
    given = pd.Series(pd.Categorical(["B", "B", "B", "B", "NK", None]))
    predicted = np.array(["b", "b", "b", "nk", "nk", "nk"], dtype=object)

    axes = canal.pl.dotplot(given, predicted)

    dots = axes.collections[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["", "B", "NK"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["nk", "b"]
    by_place = {tuple(place): area for place, area in zip(dots.get_offsets().tolist(), dots.get_sizes(), strict=True)}
    assert by_place[(1.0, 1.0)] == pytest.approx(0.75 * by_place[(0.0, 2.0)])
    assert by_place[(0.0, 1.0)] == pytest.approx(0.25 * by_place[(0.0, 2.0)])


def test_colours_are_the_mean_confidence():
    """Where it is given."""
    axes = canal.pl.dotplot(["B", "B"], ["B", "B"], confidence=[0.5, 1.0])

    assert axes.collections[0].get_array().tolist() == [0.75]


@pytest.mark.parametrize("columns", [(["B"], ["B", "B"]), ([], [])])
def test_columns_of_other_cells_are_refused(columns):
    """One value for each of the same cells."""
    with pytest.raises(ConfigError, match="expected one value for each"):
        canal.pl.dotplot(*columns)
