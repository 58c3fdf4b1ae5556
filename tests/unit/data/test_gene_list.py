"""Lists and vectors of genes in the forms that labs have them in."""

import json
from pathlib import Path

import numpy as np
import pytest

from canal.data.gene_list import read_gene_list, read_gene_vectors
from canal.errors import WeightsError
from tests.make import make_adata

NAMES = ("CD3D", "C1orf112", "HLA-DRA")


@pytest.mark.parametrize("form", ["txt", "csv", "list", "vocabulary", "h5ad"])
def test_every_form_gives_the_names_in_their_order(tmp_path: Path, form: str) -> None:
    """Text, JSON of either kind, and the var_names of a file of cells."""
    path = tmp_path / {"txt": "g.txt", "csv": "g.csv", "h5ad": "g.h5ad"}.get(form, "g.json")
    if form == "h5ad":
        make_adata(5, 3, genes=NAMES).write_h5ad(path)
    else:
        text = {
            "txt": "\n".join(NAMES) + "\n",
            "csv": "\n".join(f"{g},ENSG{i}" for i, g in enumerate(NAMES)),
            "list": json.dumps(NAMES),
            "vocabulary": json.dumps({"HLA-DRA": 2, "CD3D": 0, "C1orf112": 1}),
        }[form]
        path.write_text(text)
    assert read_gene_list(path) == NAMES


@pytest.mark.parametrize(
    ("text", "suffix", "says"),
    [
        ("A\nB\nA", "txt", "A more than once"),
        ("", "txt", "holds an empty name|holds nothing"),
        ("A\n\nB", "txt", "an empty name"),
        ('{"A": 0, "B": 2}', "json", "not 0, 1, 2"),
        ('{"A": {"B": 1}}', "json", "no list of genes"),
        ("3", "json", "a JSON int"),
        ("[1, 2]", "json", "a JSON list"),
        ("{", "json", "no list of genes"),
        ("no file of cells", "h5ad", "no list of genes"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, text: str, suffix: str, says: str) -> None:
    """One message that says what was found."""
    path = tmp_path / f"genes.{suffix}"
    path.write_text(text)
    with pytest.raises(WeightsError, match=says):
        read_gene_list(path)


@pytest.mark.parametrize("header", ["", "2 3\n"])
def test_vectors_as_text_are_taken_by_name(tmp_path: Path, header: str) -> None:
    """With word2vec's first line or without it; the order asked for decides."""
    path = tmp_path / "vectors.txt"
    path.write_text(header + "A 1 2 3\nB 4 5 6.5\n")
    found = read_gene_vectors(path)
    np.testing.assert_array_equal(found.in_order(("B", "A")), [[4, 5, 6.5], [1, 2, 3]])
    with pytest.raises(WeightsError, match=r"no vector for 1 of the 2 genes .*\(C\)"):
        found.in_order(("A", "C"))


@pytest.mark.parametrize("kind", ["ragged", "words", "nan", "one dimension", "pickled", "absent"])
def test_what_holds_no_vectors_is_refused(tmp_path: Path, kind: str) -> None:
    """Neither text nor array; an array of objects is not unpickled."""
    path = tmp_path / ("v.npy" if kind in {"one dimension", "pickled"} else "v.txt")
    if kind == "one dimension":
        np.save(path, np.zeros(3))
    elif kind == "pickled":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind != "absent":
        path.write_text({"ragged": "A 1 2\nB 1", "words": "A one two\nB 1 2", "nan": "A 1 nan\nB 1 2"}[kind])
    with pytest.raises(WeightsError, match=r"does not hold vectors|There is no file"):
        read_gene_vectors(path)
