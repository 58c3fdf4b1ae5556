"""The Cell Ontology: terms, their synonyms, what is a kind of what, and what became of obsolete terms.

It is read from the bundle beside this file, which `benchmarks/cell_ontology.py` makes from a public release.
"""

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from canal.errors import DataError

BUNDLE = Path(__file__).with_name("cell_ontology.json.gz")
ROOT = "CL:0000000"  # "cell"
ID = re.compile(r"CL[:_](\d{7})", re.IGNORECASE)


@dataclass(frozen=True)
class Term:
    """A term of the ontology.

    Attributes
    ----------
    id, label
        Such as ``"CL:0000236"`` and ``"B cell"``.
    synonyms
        Other names of it; the source keeps the exact ones alone.
    definition
        A sentence; ``""`` where there is none.
    parents
        Ids of the terms that it is a kind of, the nearest alone.
    """

    id: str
    label: str
    synonyms: tuple[str, ...]
    definition: str
    parents: tuple[str, ...]


@dataclass(frozen=True)
class ObsoleteTerm:
    """A term that is no longer to be used.

    Attributes
    ----------
    id, label
        As they were; the label begins with "obsolete".
    replacements
        Ids of the terms to use instead: one where the ontology names the replacement, several where it names terms to
        consider, none where it names nothing.
    """

    id: str
    label: str
    replacements: tuple[str, ...]


class CellOntology:
    """The terms of one release, and how they hang together.

    Parameters
    ----------
    bundle
        What the bundled file holds: ``release``, ``license``, ``source`` and ``terms``.
    """

    def __init__(self, bundle: Mapping[str, Any]) -> None:
        self.release: str = bundle["release"]
        self.license: str = bundle["license"]
        self.source: str = bundle["source"]
        self.terms: dict[str, Term] = {}
        self.obsolete: dict[str, ObsoleteTerm] = {}
        for term in bundle["terms"]:
            if "obsolete" in term:
                self.obsolete[term["id"]] = ObsoleteTerm(term["id"], term["label"], tuple(term["obsolete"]))
            else:
                synonyms = tuple(term.get("synonyms", ()))
                definition = term.get("definition", "")
                self.terms[term["id"]] = Term(term["id"], term["label"], synonyms, definition, tuple(term["parents"]))
        self._children = _children_of(self.terms)
        self._ancestors: dict[str, frozenset[str]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.terms

    def __getitem__(self, name: str) -> Term:
        """Return a term that is in use; `term` is for ids that a user wrote."""
        return self.terms[name]

    def term(self, written: str, where: str = "") -> Term:
        """Return the term of an id as a user wrote it, ``CL_0000236`` and ``cl:0000236`` among them.

        Parameters
        ----------
        written
            The id.
        where
            Where it stands, for the message of an error; such as ``"map.csv, line 3: "``.

        Raises
        ------
        DataError
            If it is no id of the ontology, one of a newer release, or an obsolete one.
        """
        matched = ID.fullmatch(written.strip())
        if matched is None:
            message = f"{where}{written!r} is no id of the Cell Ontology; expected one such as CL:0000236."
            raise DataError(message)
        name = f"CL:{matched.group(1)}"
        if name in self.terms:
            return self.terms[name]
        if name in self.obsolete:
            raise DataError(where + self._obsolete_message(name))
        message = (
            f"{where}{name} is not in release {self.release} of the Cell Ontology, the one that this canal bundles. "
            "Correct the id; a term of a newer release needs a newer canal: until then use one of its parents."
        )
        raise DataError(message)

    def _obsolete_message(self, name: str) -> str:
        """Return what to say of an obsolete id."""
        old = self.obsolete[name]
        named = [f"{other} ({self.terms[other].label})" for other in old.replacements if other in self.terms]
        advice = f"Use {' or '.join(named)} in its place." if named else "The ontology names no term in its place."
        return f"{name} ({old.label}) is obsolete in release {self.release} of the Cell Ontology. {advice}"

    def parents(self, name: str) -> tuple[str, ...]:
        """Return the ids of the nearest ancestors of a term."""
        return self.terms[name].parents

    def children(self, name: str) -> tuple[str, ...]:
        """Return the ids of the terms whose parent a term is, in order."""
        return self._children.get(name, ())

    def ancestors(self, name: str) -> frozenset[str]:
        """Return the ids of all that a term is a kind of, without itself."""
        if name not in self._ancestors:
            reached: set[str] = set()
            for parent in self.terms[name].parents:
                reached |= {parent, *self.ancestors(parent)}
            self._ancestors[name] = frozenset(reached)
        return self._ancestors[name]

    def is_a(self, name: str, other: str) -> bool:
        """Tell whether a term is another one, or a kind of it."""
        return name == other or other in self.ancestors(name)

    def descendants(self, name: str) -> frozenset[str]:
        """Return the ids of all kinds of a term, without itself."""
        reached: set[str] = set()
        waiting = list(self.children(name))
        while waiting:
            child = waiting.pop()
            if child not in reached:
                reached.add(child)
                waiting.extend(self.children(child))
        return frozenset(reached)

    def depth(self, name: str) -> int:
        """Return how many terms a term is a kind of: 0 for "cell", more for what is more specific."""
        return len(self.ancestors(name))

    def common_ancestors(self, names: Iterable[str]) -> frozenset[str]:
        """Return the ids of the terms that all of these are, or are kinds of."""
        shared: frozenset[str] | None = None
        for name in names:
            own = self.ancestors(name) | {name}
            shared = own if shared is None else shared & own
        return shared or frozenset()


def _children_of(terms: Mapping[str, Term]) -> dict[str, tuple[str, ...]]:
    """Return the ids of the terms below each term, in order of their ids."""
    children: dict[str, list[str]] = {}
    for name in sorted(terms):
        for parent in terms[name].parents:
            children.setdefault(parent, []).append(name)
    return {parent: tuple(below) for parent, below in children.items()}


@lru_cache(maxsize=1)
def cell_ontology() -> CellOntology:
    """Return the Cell Ontology of the bundle; it is read once."""
    with gzip.open(BUNDLE, "rt", encoding="utf-8") as file:
        return CellOntology(json.load(file))
