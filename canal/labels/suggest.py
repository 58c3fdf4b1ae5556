"""`canal labels suggest`: which terms of the Cell Ontology the names of a file, a stage or a table may mean."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.data.genes import name_genes
from canal.data.labels import LabelOptions, take_labels
from canal.data.stream import opened
from canal.errors import ConfigError, DataError
from canal.files import write_whole
from canal.ontology.matching import Context, Suggestion, matcher
from canal.ontology.placement import read_table
from canal.ontology.tree import cell_ontology
from canal.text import csv_row

if TYPE_CHECKING:
    import anndata as ad

SPECIES = ("human", "mouse")
OTHERS = 4  # candidates beside the first that a row of the table tells of


@dataclass(frozen=True)
class LabelReport:
    """What some names may mean; `to_dict` is the JSON of `canal labels suggest`.

    Attributes
    ----------
    release
        Release of the ontology.
    suggestions
        One a name, in their order.
    species
        That was given, or that the genes of the file are of; ``""`` where nothing tells.
    """

    release: str
    suggestions: tuple[Suggestion, ...]
    species: str = ""

    @property
    def accepted(self) -> int:
        """Number of names whose term is as good as certain."""
        return sum(suggestion.accepted is not None for suggestion in self.suggestions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        suggestions = [suggestion.to_dict() for suggestion in self.suggestions]
        return {"suggestions": suggestions, "release": self.release, "species": self.species}

    def write(self, out: Path) -> None:
        """Write a table to look through: the id stands there where it is accepted, else it is to be filled."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "id", "relation", "label", "score", "why", "others", "release"])
        for suggestion in self.suggestions:
            first = suggestion.candidates[0] if suggestion.candidates else None
            # Where nothing is accepted the first candidate stands among the others: it is not to be taken unseen.
            sure = first is not None and suggestion.accepted is not None
            shown = suggestion.candidates[1 if sure else 0 :][:OTHERS]
            others = "; ".join(f"{c.id} {c.label} ({c.relation}, {c.score:.2f})" for c in shown)
            if sure:
                assert first is not None
                told = [first.id, first.relation, first.label, f"{first.score:.3f}", first.why]
            else:
                told = ["", "", "", "", ""]
            writer.writerow(csv_row([suggestion.name, *told, others, self.release]))
        write_whole(out, text.getvalue().encode())


def suggest_labels(names: Sequence[str], *, tissue: str = "", species: str = "") -> LabelReport:
    """Return what names may mean, each beside the others.

    Parameters
    ----------
    names
        As a lab writes them; each counts once.
    tissue, species
        Where the cells come from, in words; ``"human"``, ``"mouse"`` or nothing.

    Raises
    ------
    ConfigError
        If the species is another.
    """
    if species and species not in SPECIES:
        message = f"The species is {species!r}; expected {' or '.join(SPECIES)}, or nothing."
        raise ConfigError(message)
    once = tuple(dict.fromkeys(name.strip() for name in names))
    context = Context(tissue=tissue, species=species, siblings=once)
    suggestions = tuple(matcher().suggest(name, context) for name in once)
    return LabelReport(cell_ontology().release, suggestions, species)


def names_in_table(path: Path) -> tuple[str, ...]:
    """Return the values of the column ``name`` of a CSV file.

    Raises
    ------
    DataError
        If the file cannot be read, has no such column, or no name.
    """
    names = tuple(row["name"] for _number, row in read_table(path) if row["name"])
    if not names:
        message = f"{path} has a column name, but no name in it. Write one name of a cell type a line."
        raise DataError(message)
    return names


def species_of_file(data: "str | Path | ad.AnnData") -> str:
    """Return the species that the names of a file's genes are of: ``"human"``, ``"mouse"``, or ``""``."""
    with opened(data) as source:
        try:
            return name_genes(source.var, source=source.source).species
        except DataError:  # names of cell types can be read all the same
            return ""


def names_in_file(data: "str | Path | ad.AnnData", column: str) -> tuple[str, ...]:
    """Return the cell types that a column of ``obs`` names, sorted; labels that name no type are left out.

    Raises
    ------
    DataError
        If the file or the column cannot be used.
    """
    with opened(data) as source:
        taken = take_labels(source.obs, LabelOptions(column=column, keep_rare=True), source.source)
    return tuple(sorted(set(taken.labels.tolist()) - {""}))
