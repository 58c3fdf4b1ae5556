"""The pictures of `canal.pl`."""

import anndata as ad
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


def test_confusion_is_in_percent_of_the_row():
    """Each row sums to 100, its cells stand beside its name, and rare mistakes stay empty."""
    given = ["B"] * 300 + ["NK"] * 4
    predicted = ["B"] * 299 + ["NK"] + ["NK"] * 3 + ["B"]

    axes = canal.pl.confusion(given, predicted)

    assert [text.get_text() for text in axes.get_yticklabels()] == ["B (300)", "NK (4)"]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "100", (0, 1): "25", (1, 1): "75"}
    with pytest.raises(ConfigError, match="given holds 1 cells, predicted 2"):
        canal.pl.confusion(["B"], ["B", "NK"])


def annotated(types: list[str]) -> ad.AnnData:
    """Return cells of these types."""
    obs = pd.DataFrame({"canal_cell_type": types}, index=[f"cell{k}" for k in range(len(types))])
    return ad.AnnData(np.zeros((len(types), 1), dtype=np.float32), obs=obs)


def test_the_map_shows_novel_cells_above_the_others():
    """In black, after all types; a column or a map that is not there is named."""
    types = ["novel", "B", "uncertain", "NK", "B"]
    cells = ad.AnnData(
        np.zeros((5, 1), dtype=np.float32), obs=pd.DataFrame({"canal_cell_type": types}, index=list("abcde"))
    )
    with pytest.raises(ConfigError, match="neither a map"):
        canal.pl.umap(cells)
    cells.obsm["X_umap"] = np.arange(10.0).reshape(5, 2)

    axes = canal.pl.umap(cells)

    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "B (2)",
        "NK (1)",
        "uncertain (1)",
        "novel (1)",
    ]
    last = axes.collections[-1]
    assert last.get_offsets().tolist() == [[0.0, 1.0]]
    assert last.get_facecolor()[0].tolist() == [0, 0, 0, 1]
    with pytest.raises(ConfigError, match="no obs\\['batch'\\]"):
        canal.pl.umap(cells, color="batch")


def test_a_map_is_made_of_the_representation_where_there_is_none():
    """It is kept beside it, and made once; the user's own neighbours stay."""
    representation = np.concatenate([np.zeros((20, 4)), np.ones((20, 4))]) + np.random.default_rng(0).normal(
        0, 0.1, (40, 4)
    )
    names = [str(k) for k in range(40)]
    cells = ad.AnnData(
        np.zeros((40, 1), dtype=np.float32), obs=pd.DataFrame({"canal_cell_type": ["B"] * 40}, index=names)
    )
    cells.obsm["X_canal"] = representation.astype(np.float32)

    canal.pl.umap(cells)
    made = cells.obsm["X_canal_umap"].copy()
    canal.pl.umap(cells)

    assert made.shape == (40, 2)
    np.testing.assert_array_equal(made, cells.obsm["X_canal_umap"])
    assert not cells.uns
    assert not len(cells.obsp)


def test_markers_stand_for_and_against():
    """Right and left of the middle, the most of each side first; one type at a time."""
    rows = [("NK", "for", "NKG7", 2.0), ("NK", "for", "GNLY", 1.0), ("NK", "against", "CD3D", -1.5)]
    table = pd.DataFrame(rows, columns=["cell_type", "evidence", "gene", "score"])

    axes = canal.pl.markers(table, top=1)

    assert [text.get_text() for text in axes.get_yticklabels()] == ["NKG7", "CD3D"]
    assert [bar.get_width() for bar in axes.patches] == [2.0, -1.5]
    with pytest.raises(ConfigError, match="0 types"):
        canal.pl.markers(table.iloc[:0])
