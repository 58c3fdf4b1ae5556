"""Types are joined by name and by term; every doubt is named and settled by a table alone."""

import pytest

from canal.errors import StageError
from canal.sites.types import SiteTypes, TypeMap, common_names, read_type_map


def site(name, types, **ids):
    return SiteTypes(site=name, cells=types, ids=ids)


def test_types_of_one_term_are_one():
    """The name that most cells have; a type without a term stays by its name."""
    a = site("a", {"B": 50, "NK": 30}, B="CL:0000236")
    b = site("b", {"Bcell": 60, "NK": 10}, Bcell="CL:0000236")
    expected = {"a": {"B": "Bcell", "NK": "NK"}, "b": {"Bcell": "Bcell", "NK": "NK"}}
    assert common_names([a, b], TypeMap({})) == expected
    assert common_names([b, a], TypeMap({})) == expected


CLASHES = {
    "one name, two terms": (
        [site("a", {"NK": 30}, NK="CL:0000623"), site("b", {"NK": 30}, NK="CL:0000236")],
        "'NK' is CL:0000236 at b, CL:0000623 at a",
    ),
    "two types of one term at a site": (
        [site("a", {"B": 9, "B2": 9}, B="CL:0000236", B2="CL:0000236"), site("b", {"B": 9}, B="CL:0000236")],
        "a has 'B', 'B2', all of them CL:0000236",
    ),
    "spelling": ([site("a", {"B cells": 30}), site("b", {"B": 30})], "differ in spelling alone"),
}


@pytest.mark.parametrize("name", CLASHES)
def test_clashes_are_named(name):
    """Nothing is guessed; a table settles each."""
    sites, message = CLASHES[name]
    with pytest.raises(StageError, match=message):
        common_names(sites, TypeMap({}))
    rows = {(one.site, kind): kind for one in sites for kind in one.cells}
    assert common_names(sites, TypeMap(rows)) == {one.site: {kind: kind for kind in one.cells} for one in sites}


TABLES = {
    "no column to": ("site,name\na,B\n", "expected the columns name"),
    "unknown site": ("site,name,to\nz,B,B\n", "no site 'z'"),
    "two answers": ("site,name,to\na,B,x\na,B,y\n", "becomes 'y' here and 'x' further up"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_do_not_fit(name, tmp_path):
    """One message that names the line."""
    text, message = TABLES[name]
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(StageError, match=message):
        read_type_map(tmp_path / "map.csv", ["a", "b"])


def test_a_table_with_and_without_sites(tmp_path):
    """A row of a site comes before one of all sites."""
    (tmp_path / "map.csv").write_text("site,name,to\n,B cell,B\na,B cell,plasma\n")
    table = read_type_map(tmp_path / "map.csv", ["a", "b"])
    assert (table.of("a", "B cell"), table.of("b", "B cell"), table.of("b", "NK")) == ("plasma", "B", None)
