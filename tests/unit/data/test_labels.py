"""Labels, label maps, and new names that may be known types."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from canal.data.labels import (
    NOVEL,
    LabelOptions,
    called_known,
    coarser_names,
    names_no_type,
    read_label_map,
    similar_names,
    take_labels,
)
from canal.errors import DataError


def _obs(*labels: object) -> pd.DataFrame:
    return pd.DataFrame({"t": pd.Series(labels, dtype=object)})


def test_rare_types_are_dropped_on_demand() -> None:
    """A type with one cell goes, and is named with its number of cells."""
    taken = take_labels(_obs("A", "A", "B", None), LabelOptions(column="t", drop_rare=True), "toy")

    assert taken.labels.tolist() == ["A", "A", "", ""]
    assert taken.dropped_types == {"B": 1}
    assert taken.unlabelled == 1


def test_categories_without_cells_do_not_count() -> None:
    """Types that are only categories of the column are no types of the file."""
    obs = pd.DataFrame({"t": pd.Categorical(["A", "A"], categories=["A", "B"])})

    with pytest.raises(DataError, match="one type, 'A'"):
        take_labels(obs, LabelOptions(column="t", require_two=True), "toy")


def test_cluster_numbers_are_told() -> None:
    """Numbers as text may be meant, but the person is told."""
    taken = take_labels(_obs("0", "0", "1", "1"), LabelOptions(column="t"), "toy")

    assert "cluster numbers" in taken.warnings[0]


def test_all_types_rare() -> None:
    """Dropping rare types must leave one."""
    with pytest.raises(DataError, match="every type"):
        take_labels(_obs("A", "B"), LabelOptions(column="t", drop_rare=True), "toy")


def test_label_map(tmp_path: Path) -> None:
    """Names are mapped, to nothing too; names that do not occur are a warning."""
    path = tmp_path / "map.csv"
    path.write_text('\ufefftheirs,ours\n"T cell, CD4",CD4 T\nmess,\nabsent,B\n', encoding="utf-8")

    taken = take_labels(_obs("T cell, CD4", "CD4 T", "mess"), LabelOptions(column="t", label_map=path), "toy")

    assert taken.labels.tolist() == ["CD4 T", "CD4 T", ""]
    assert "absent" in taken.warnings[0]
    assert "theirs" not in taken.warnings[0]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "There is no label map"),
        ("a,b,c\n", "line 1: found 3 columns"),
        ("a\n", "line 1: found 1 columns"),
        ("a,b\na,c\n", "line 2: 'a' is mapped to 'c'"),
        ("", "is empty"),
        (b"\xff\xfe\x00a", "not a CSV text"),
    ],
    ids=["missing", "three columns", "one column", "conflict", "empty", "binary"],
)
def test_bad_label_maps(text: str | bytes | None, match: str, tmp_path: Path) -> None:
    """A label map that cannot be used names its line."""
    path = tmp_path / "map.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(DataError, match=match):
        read_label_map(path)


@pytest.mark.parametrize(
    ("new", "known"),
    [
        ("B cells", "B"), ("b-cell", "B"), ("Bcell", "B"), ("B  Cells", "B cell"), ("DCs", "DC"),
        ("nk", "NK"), ("Monocytes", "monocyte"), ("CD4+ T", "CD4 T"), ("T cells, CD4+", "CD4 T"),
        ("CD14_Mono", "CD14 Mono"), ("HSCs", "HSC"), ("β cell", "beta"),
        ("Megakaryocytes", "megakaryocyte"),
    ],
)  # fmt: skip
def test_the_same_name_in_another_spelling(new: str, known: str) -> None:
    """Case, plural, punctuation, spaces and "cell" do not make a new type."""
    found = similar_names([new], [known, "other"])

    assert [(w.new, w.known, w.reason, w.share) for w in found] == [(new, known, "name", None)]


@pytest.mark.parametrize(
    ("new", "known"),
    [
        ("CD4 T", "CD8 T"), ("CD14 Mono", "CD16 Mono"), ("Tcm", "Tem"), ("NK", "NKT"), ("T", "B"),
        ("alpha", "beta"), ("pDC", "DC"), ("cDC1", "cDC2"), ("Th1", "Th17"), ("naive B", "B"),
        ("cells", "B"), ("platelet", "plasma"),
    ],
)  # fmt: skip
def test_other_types_are_not_confused(new: str, known: str) -> None:
    """Names that differ in a letter or a digit are two types."""
    assert similar_names([new], [known]) == []


def test_known_names_are_not_new() -> None:
    """A name that is known already needs no warning."""
    assert similar_names(["B"], ["B", "b cells"]) == []


def test_new_types_that_the_model_calls_known() -> None:
    """More than 80 % of a new type called one known type is told; 80 % or no type is not."""
    labels = np.array(["new"] * 10 + ["other"] * 10 + ["B"] * 2 + ["odd"] * 10, dtype=object)
    predictions = np.array(["B"] * 9 + ["T"] + ["B"] * 8 + ["T"] * 2 + ["B"] * 2 + ["novel"] * 10, dtype=object)

    found = called_known(labels, predictions, ["B", "T"])

    assert [(w.new, w.known, w.reason, w.share) for w in found] == [("new", "B", "cells", 0.9)]


@pytest.mark.parametrize(
    "label",
    ["Doublet", "doublets", "low quality", "Low-quality cells", "not_determined", "other", "Ambiguous", "Unknown"],
)
def test_labels_that_name_no_type_are_left_out_and_counted(label: str) -> None:
    """They become no type; the person is told which, and how many cells."""
    taken = take_labels(_obs("A", "A", label, label), LabelOptions(column="t"), "toy")

    assert taken.labels.tolist() == ["A", "A", "", ""]
    assert taken.unlabelled == 2
    if label != "Unknown":  # a missing label, as ever
        assert taken.dropped_labels == {label: 2}
        assert "2 cells of toy were left out for their label in 't'" in taken.warnings[0]
        assert f"{label} (2)" in taken.warnings[0]


@pytest.mark.parametrize("keep", [("other",), ("*",)])
def test_a_type_may_be_called_so(keep: tuple[str, ...]) -> None:
    """What a lab says is a type, is one."""
    taken = take_labels(_obs("A", "A", "other", "other"), LabelOptions(column="t", keep=keep), "toy")

    assert taken.labels.tolist() == ["A", "A", "other", "other"]
    assert taken.dropped_labels == {}


@pytest.mark.parametrize("name", ["other endocrine", "Mixed lineage", "Dead-box B", "Dendritic"])
def test_types_that_only_begin_so_stay(name: str) -> None:
    """A name is compared whole."""
    assert not names_no_type(name)


def test_labels_are_left_out_on_demand() -> None:
    """By the file's name or by ours; a name that does not occur is refused."""
    obs = _obs("A", "A", "junk", "junk", "B", "B")
    options = LabelOptions(column="t", drop=("junk", "Beta"), label_map={"B": "Beta"}, drop_must_occur=True)

    taken = take_labels(obs, options, "toy")

    assert taken.labels.tolist() == ["A", "A", "", "", "", ""]
    assert taken.dropped_labels == {"junk": 2, "B": 2}
    with pytest.raises(DataError, match=r"'jnk' is no label in 't'.*A, B, junk.*--drop-label"):
        take_labels(obs, LabelOptions(column="t", drop=("jnk",), drop_must_occur=True), "toy")


def test_cells_of_a_name_that_is_mapped_to_nothing_are_counted() -> None:
    """An empty side of a label map leaves cells out, by name."""
    taken = take_labels(_obs("A", "A", "mess"), LabelOptions(column="t", label_map={"mess": None}), "toy")

    assert taken.dropped_labels == {"mess": 1}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_label_maps_of_any_spreadsheet(mark: str, tmp_path: Path) -> None:
    """Commas, semicolons and tabs part the names, whichever the program wrote; commas in quotes do not."""
    path = tmp_path / "map.csv"
    path.write_text(f'author_type{mark}our_type\n"T cell, CD4"{mark}CD4 T\nb{mark}B\n', encoding="utf-8")

    taken = take_labels(_obs("T cell, CD4", "b"), LabelOptions(column="t", label_map=path, keep_rare=True), "toy")

    assert taken.labels.tolist() == ["CD4 T", "B"]
    assert "'author_type' to 'our_type', may be a header" in taken.warnings[0]


@pytest.mark.parametrize("bad", [[("a", "b")], {}, {"a": 1}, {1: "a"}, 7])
def test_a_label_map_that_is_none(bad: object) -> None:
    """What is neither a file nor names to names is refused with what it is."""
    with pytest.raises(DataError, match="label map"):
        take_labels(_obs("A", "A"), LabelOptions(column="t", label_map=bad), "toy")  # type: ignore[arg-type]


def test_cells_that_look_novel_do_not_speak_for_a_known_type() -> None:
    """A truly new type lies nearest to some known one: its few cells that look known are no reason to merge the two."""
    labels = np.array(["MK"] * 10 + ["alias"] * 10, dtype=object)
    predictions = np.array([NOVEL] * 6 + ["B"] * 4 + [NOVEL] * 3 + ["B"] * 7, dtype=object)

    warned = called_known(labels, predictions, ["B", "T"])

    assert [(w.new, w.known, w.share) for w in warned] == [("alias", "B", 1.0)]


def test_a_name_that_covers_several_known_types_is_told() -> None:
    """Nearly all of it goes to a few types, none alone; a single type or scattered cells are something else."""
    labels = np.array(["T cell"] * 20 + ["mixed"] * 20 + ["one"] * 20 + ["new"] * 20, dtype=object)
    halves = ["CD4 T"] * 11 + ["CD8 T"] * 8 + ["B"]
    scattered = [f"type {i % 8}" for i in range(20)]
    predictions = np.array(halves + scattered + ["B"] * 20 + [NOVEL] * 15 + halves[9:14], dtype=object)
    known = ["B", "CD4 T", "CD8 T", *(f"type {i}" for i in range(8))]

    (warned,) = coarser_names(labels, predictions, known)

    assert (warned.new, warned.known, warned.reason) == ("T cell", "CD4 T or CD8 T", "coarse")
    assert warned.share == 0.95
    assert "95% of the 20 cells of the new type 'T cell'" in warned.message
