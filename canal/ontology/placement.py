"""Where the names of cell types stand in the Cell Ontology: the table that people fill and that canal keeps.

A CSV file with the columns ``name`` and ``id``, and if wanted ``relation``, ``parent`` and ``release``; others are not
read. ``relation`` tells what the term is to the name: "exact", or "broad" where the term says less, which hangs the
type below the term. A type without a term (no id) may hang below another name of the table with ``parent``.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from canal.errors import DataError
from canal.ontology.tree import CellOntology
from canal.text import csv_row, text_of_csv

EXACT, BROAD, NARROW = "exact", "broad", "narrow"
RELATIONS = (EXACT, BROAD)
EXPECTED = "Expected a CSV file with the columns name and id, as `canal labels suggest --out` writes it."


@dataclass(frozen=True)
class Place:
    """Where one name stands.

    Attributes
    ----------
    name
        Of the type.
    id, label
        The term, and its label; ``""`` where there is none.
    relation
        ``"exact"`` where the term is the type, ``"broad"`` where the type is a kind of the term.
    parent
        Another name that this one is a kind of, where it has no term; else ``""``.
    """

    name: str
    id: str
    label: str
    relation: str
    parent: str = ""


@dataclass(frozen=True)
class Placement:
    """Where some names stand.

    Attributes
    ----------
    release
        Release of the ontology.
    places
        By name.
    """

    release: str
    places: Mapping[str, Place] = field(default_factory=dict)

    def joined(self, newer: "Placement") -> "Placement":
        """Return the places of both; those of ``newer`` where both have a name."""
        return Placement(newer.release, {**self.places, **newer.places})

    def node(self, name: str) -> Place | None:
        """Return the nearest place with a term of a name: its own, or that of the names it hangs below."""
        place = self.places.get(name)
        # A circle, which no table that was read here has, ends at the number of names.
        for _ in self.places:
            if place is None or place.id:
                return place
            place = self.places.get(place.parent)
        return place if place is not None and place.id else None

    def exact_id(self, name: str) -> str | None:
        """Return the id of the term that a name is, ``None`` where it only hangs below one."""
        place = self.places.get(name)
        return place.id if place is not None and place.id and place.relation == EXACT else None

    def renamed(self, names: Mapping[str, str]) -> "Placement":
        """Return the places under new names; what two names that become one say is kept where they agree."""
        places: dict[str, Place] = {}
        disagreeing = set()
        for name, place in self.places.items():
            new = names.get(name, name)
            moved = Place(new, place.id, place.label, place.relation, names.get(place.parent, place.parent))
            if places.setdefault(new, moved) != moved:
                disagreeing.add(new)
        return Placement(self.release, {name: place for name, place in places.items() if name not in disagreeing})

    def to_csv(self) -> bytes:
        """Return the table as `read_placement` reads it."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "id", "label", "relation", "parent", "release"])
        for name in sorted(self.places):
            place = self.places[name]
            row = [name, place.id, place.label, place.relation, place.parent, self.release]
            writer.writerow(csv_row(row))
        return text.getvalue().encode()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the release, and id and relation by name."""
        places = {}
        for name, place in self.places.items():
            places[name] = {"id": place.id, "label": place.label, "relation": place.relation, "parent": place.parent}
        return {"release": self.release, "places": places}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Placement":
        """Return the placement of `to_dict`'s values."""
        places = {}
        for name, place in values.get("places", {}).items():
            places[name] = Place(name, place["id"], place["label"], place["relation"], place.get("parent", ""))
        return cls(str(values.get("release", "")), places)


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return line number and values by column of the rows of a CSV file, columns in lower case.

    Raises
    ------
    DataError
        If the file is missing, is no CSV text, or has no column ``name``.
    """
    if not path.is_file():
        message = f"There is no file {path}. {EXPECTED}"
        raise DataError(message)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte-order mark
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)  # German spreadsheets part by semicolons
            reader = csv.DictReader(file, delimiter=delimiter)
            columns = [str(column).strip().lower() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = []
            for row in reader:
                values = {column: text_of_csv((row.get(column) or "").strip()) for column in columns}
                if any(values.values()):
                    rows.append((reader.line_num, values))
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{path} is not a CSV text in UTF-8 ({error}). Save it as CSV (UTF-8)."
        raise DataError(message) from error
    if "name" not in columns:
        message = f"{path} has the columns {', '.join(columns) or 'none'}, and none called name. {EXPECTED}"
        raise DataError(message)
    return rows


def read_placement(path: Path, ontology: CellOntology) -> Placement:
    """Read the table of places that somebody filled; rows without id and parent are left out.

    Raises
    ------
    DataError
        If the file cannot be read, an id is unknown or obsolete, a name is mapped twice, a relation is none, names hang
        below each other in a circle, or the table is of a newer release than the bundle.
    """
    rows = read_table(path)
    places: dict[str, Place] = {}
    for number, row in rows:
        where = f"{path}, line {number}: "
        _check_release(row.get("release", ""), ontology, where)
        place = _place_of(row, ontology, where)
        if place is None:
            continue
        if place.name in places and places[place.name] != place:
            before = places[place.name]
            message = (
                f"{where}{place.name!r} is mapped to {place.id or place.parent} and, further up, to "
                f"{before.id or before.parent}. Keep one of the two rows."
            )
            raise DataError(message)
        places[place.name] = place
    if not places:
        message = f"No row of {path} names a term: fill the column id, such as CL:0000236, and run this again."
        raise DataError(message)
    _check_parents(places, path)
    return Placement(ontology.release, places)


def _check_release(written: str, ontology: CellOntology, where: str) -> None:
    """Refuse a table of a newer release than the bundled one; releases are dates, which compare as text."""
    if written and written > ontology.release:
        message = (
            f"{where}the table is of release {written} of the Cell Ontology; this version of canal bundles "
            f"{ontology.release}. Install a newer canal, or let `canal labels suggest` write the table anew."
        )
        raise DataError(message)


def _place_of(row: Mapping[str, str], ontology: CellOntology, where: str) -> Place | None:
    """Return the place that a row tells, ``None`` where it tells none."""
    name, relation = row["name"], row.get("relation", "").lower() or EXACT
    written, parent = row.get("id", ""), row.get("parent", "")
    if not name:
        message = f"{where}the column name is empty; expected the name of a cell type."
        raise DataError(message)
    if not written and not parent:
        return None
    if written and parent:
        message = f"{where}{name!r} has an id and a parent; a type with a term has its parents there. Keep one of them."
        raise DataError(message)
    # A term that says more than the name is none of the places where the name may stand.
    if relation not in RELATIONS:
        message = (
            f"{where}the relation of {name!r} is {relation!r}; expected exact (the term is the type) or broad (the "
            "type is a kind of the term)."
        )
        raise DataError(message)
    if parent:
        return Place(name, "", "", BROAD, parent)
    term = ontology.term(written, where)
    return Place(name, term.id, term.label, relation)


def _check_parents(places: Mapping[str, Place], path: Path) -> None:
    """Refuse parents that are no names of the table, and names that hang below each other in a circle."""
    for name in places:
        chain = [name]
        while places[chain[-1]].parent:
            parent = places[chain[-1]].parent
            if parent not in places:
                message = (
                    f"{path}: {chain[-1]!r} hangs below {parent!r}, which has no row with an id. Give it one, or write "
                    "the id of a broader term with the relation broad."
                )
                raise DataError(message)
            if parent in chain:
                circle = " -> ".join([*chain[chain.index(parent) :], parent])
                message = f"{path}: names hang below each other in a circle ({circle}). Give one of them an id."
                raise DataError(message)
            chain.append(parent)
