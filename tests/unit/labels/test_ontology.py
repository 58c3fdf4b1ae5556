"""The bundled Cell Ontology, and the table of places that people fill."""

import gzip
import json

import pytest

from canal.errors import DataError
from canal.ontology.placement import Placement, read_placement
from canal.ontology.tree import BUNDLE, CellOntology, cell_ontology

LARGEST = 400_000  # bytes


def test_the_bundle_is_small_and_says_where_it_comes_from():
    """Release, licence and source are recorded; the wheel grows by no more than 400 kB."""
    assert BUNDLE.stat().st_size <= LARGEST
    bundle = json.loads(gzip.decompress(BUNDLE.read_bytes()))
    assert (bundle["release"], bundle["license"]) == ("2026-03-26", "CC BY 4.0")
    assert bundle["source"].startswith("https://")
    assert len(bundle["terms"]) > 3000


def test_terms_hang_together():
    """A natural killer cell is a lymphocyte and a cell; "cell" has all others below it."""
    ontology = cell_ontology()
    assert ontology["CL:0000623"].label == "natural killer cell"
    assert "NK cell" in ontology["CL:0000623"].synonyms
    assert ontology.is_a("CL:0000623", "CL:0000542")
    assert not ontology.is_a("CL:0000542", "CL:0000623")
    assert "CL:0000623" in ontology.descendants("CL:0000542")
    assert len(ontology.descendants("CL:0000000")) > 2500
    assert ontology.common_ancestors(["CL:0000624", "CL:0000625"]) >= {"CL:0000084", "CL:0000000"}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("B cell", "is no id of the Cell Ontology; expected one such as CL:0000236"),
        ("CL:236", "is no id of the Cell Ontology"),
        ("CL:9999999", "is not in release 2026-03-26"),
        ("CL:0000003", "is obsolete in release 2026-03-26 of the Cell Ontology. Use CL:0000000 (cell) in its place."),
    ],
)
def test_ids_that_cannot_be_used(written, told):
    """An id that is none, an unknown and an obsolete one are refused, and the message says what to do."""
    with pytest.raises(DataError) as error:
        cell_ontology().term(written, "map.csv, line 2: ")
    assert told in str(error.value)
    assert str(error.value).startswith("map.csv, line 2: ")


def test_ids_are_read_as_people_write_them():
    """Underscores, small letters and spaces around are the same id."""
    assert {cell_ontology().term(text).id for text in ("CL:0000236", "CL_0000236", " cl:0000236 ")} == {"CL:0000236"}


TABLES = {
    "unknown id": ("name,id\nB,CL:9999999\n", "line 2: CL:9999999 is not in release"),
    "obsolete id": ("name,id\nB,CL:0000003\n", "is obsolete"),
    "twice": (
        "name,id\nB,CL:0000236\nB,CL:0000084\n",
        "line 3: 'B' is mapped to CL:0000084 and, further up, to CL:0000236",
    ),
    "circle": ("name,id,parent\nB1,,B2\nB2,,B1\n", "below each other in a circle (B1 -> B2 -> B1)"),
    "itself": ("name,id,parent\nB1,,B1\n", "in a circle (B1 -> B1)"),
    "parent without a row": ("name,id,parent\nB1,,B\n", "'B1' hangs below 'B', which has no row with an id"),
    "id and parent": ("name,id,parent\nB,CL:0000236,T\n", "has an id and a parent"),
    "relation": ("name,id,relation\nB,CL:0000236,narrow\n", "the relation of 'B' is 'narrow'; expected exact"),
    "newer release": ("name,id,release\nB,CL:0000236,2999-01-01\n", "is of release 2999-01-01"),
    "no name": ("name,id\n,CL:0000236\n", "line 2: the column name is empty"),
    "nothing filled": ("name,id\nB,\n", "No row of"),
    "no column": ("label,id\nB,CL:0000236\n", "has the columns label, id, and none called name"),
    "empty": ("", "and none called name"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_that_cannot_be_used(tmp_path, kind):
    """Each mistake in a table is one message that names the file and what to do."""
    text, told = TABLES[kind]
    table = tmp_path / "map.csv"
    table.write_text(text)
    with pytest.raises(DataError) as error:
        read_placement(table, cell_ontology())
    assert told in str(error.value)
    assert str(table) in str(error.value)


def test_a_table_is_read_and_written(tmp_path):
    """What is written is read again; a name without a term takes the place of the one it hangs below."""
    table = tmp_path / "map.csv"
    table.write_text("name;id;relation;parent\nB;CL:0000236;;\nB gone odd;;;B\nT-ish;CL:0000084;broad;\nrest;;;\n")
    placement = read_placement(table, cell_ontology())
    assert set(placement.places) == {"B", "B gone odd", "T-ish"}
    assert placement.node("B gone odd").id == "CL:0000236"
    assert [placement.exact_id(name) for name in ("B", "B gone odd", "T-ish", "rest")] == [
        "CL:0000236",
        None,
        None,
        None,
    ]
    again = tmp_path / "again.csv"
    again.write_bytes(placement.to_csv())
    assert read_placement(again, cell_ontology()) == placement
    assert Placement.from_dict(json.loads(json.dumps(placement.to_dict()))) == placement


def test_a_circle_from_elsewhere_ends():
    """A model from elsewhere may hold any places: names in a circle stand nowhere."""
    circle = {name: {"id": "", "label": "", "relation": "broad", "parent": other} for name, other in ("ab", "ba")}
    assert Placement.from_dict({"release": "r", "places": circle}).node("a") is None


def test_places_follow_a_renaming():
    """A renamed type keeps its place; of two that become one it is kept where both agree."""
    ontology = cell_ontology()
    places = {}
    for name, term in (("B", "CL:0000236"), ("b cell", "CL:0000236"), ("T", "CL:0000084")):
        places[name] = {"id": term, "label": ontology[term].label, "relation": "exact"}
    placement = Placement.from_dict({"release": ontology.release, "places": places})
    assert placement.renamed({"B": "B lymphocyte", "b cell": "B lymphocyte"}).exact_id("B lymphocyte") == "CL:0000236"
    assert placement.renamed({"B": "x", "T": "x"}).node("x") is None


def test_a_bundle_without_replacement_says_so():
    """An obsolete term that the ontology names no successor of is refused all the same."""
    bundle = {"release": "r", "license": "l", "source": "s"}
    ontology = CellOntology({**bundle, "terms": [{"id": "CL:0000001", "label": "obsolete x", "obsolete": []}]})
    with pytest.raises(DataError, match="names no term in its place"):
        ontology.term("CL:0000001")
