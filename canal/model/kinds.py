"""A label that is a term above other types teaches its kinds: "T cell" of one lab is "CD4 T" and "CD8 T" of another.

The memory keeps the statistics of such a *coarse* type as they came, so that nothing depends on the order of the
stages. Two questions are asked of it when it is solved for the genes of a file:

1. With all types: how probable is each of them? Cells of the coarse label's own lab and technology are most like it.
2. Without the coarse types: which of its kinds is a cell most like?

The probability of a coarse type is then shared among its kinds as the second answer has it, and it is never the
answer itself. Of the ways that were tried this one lost nothing where a coarse label is told from its neighbours
(docs/labels.md).

Shapes: n cells, C types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from canal.model.memory import AnalyticMemory
from canal.ontology.placement import Placement
from canal.ontology.tree import CellOntology, cell_ontology

FEWEST_KINDS = 2  # with one kind taught nothing tells which cells of the coarse label are of it: it stays a type
LEAST_SHARE = 1e-12  # of the kinds together, below which they share evenly


def taught_kinds(
    types: Sequence[str],
    placement: Placement,
    together: Sequence[frozenset[str]],
    ontology: CellOntology | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return the coarse ones among a model's types, each with its kinds, which are not coarse themselves.

    Two labels of one file exclude each other, whatever the ontology says: beside a label for some of its kinds a term
    means the rest, here and wherever it is used.

    Parameters
    ----------
    types
        Of the model.
    placement
        Where they stand.
    together
        Types that one stage taught.
    ontology
        The terms; the bundled ones by default.

    Returns
    -------
    Kinds by coarse type, in the order of the model; types with fewer than `FEWEST_KINDS` kinds are none.
    """
    ontology = ontology or cell_ontology()
    placed = {}
    for name in types:
        place = placement.node(name)
        if place is not None:
            placed[name] = place.id
    # Only a name that is a term stands for all kinds of it; one that hangs below a term is itself one of them.
    exact = {name: placed[name] for name in placed if placement.exact_id(name) is not None}
    kinds: dict[str, tuple[str, ...]] = {}
    # From the most specific terms up, so that the coarse ones below a term are known before it.
    for coarse in sorted(exact, key=lambda name: (-ontology.depth(exact[name]), name)):
        term = exact[coarse]
        siblings = [group for group in together if any(exact.get(name) == term for name in group)]
        below = []
        for name, other in placed.items():
            is_kind = ontology.is_a(other, term) and (other != term or name not in exact)
            if is_kind and name not in kinds and not _named_beside(name, other, term, siblings, exact, ontology):
                below.append(name)
        # Names of one term are one kind.
        if len({exact.get(name, name) for name in below}) >= FEWEST_KINDS:
            kinds[coarse] = tuple(below)
    return {name: kinds[name] for name in types if name in kinds}


def _named_beside(
    name: str,
    placed: str,
    term: str,
    siblings: Sequence[frozenset[str]],
    exact: Mapping[str, str],
    ontology: CellOntology,
) -> bool:
    """Tell whether a file that has a name for a term has another one that stands for one of its kinds, too.

    Parameters
    ----------
    name, placed
        The kind, and the term that it is or hangs below.
    term
        The coarse term.
    siblings
        Types of each stage that has a name for the term.
    exact
        Terms of the types that are terms.
    ontology
        The terms.
    """
    for group in siblings:
        if name in group:
            return True
        for other in group:
            beside = exact.get(other)
            if beside is None or beside == term or ontology.is_a(term, beside):
                continue
            if ontology.is_a(placed, beside):
                return True
    return False


def coarse_kinds(
    types: Sequence[str],
    placement: Placement | None,
    together: Sequence[frozenset[str]],
    split: Mapping[str, Sequence[str]],
) -> dict[str, tuple[str, ...]]:
    """Return the kinds of each coarse type of a model: those of `taught_kinds`, and what types were split into.

    Parameters
    ----------
    types, together
        As for `taught_kinds`.
    placement
        Where the types stand; ``None`` where that makes none of them coarse.
    split
        Finer names by type; see `with_split`.
    """
    kinds = {} if placement is None else taught_kinds(types, placement, together)
    return with_split(kinds, split, types) if split else kinds


def with_split(
    kinds: Mapping[str, Sequence[str]], split: Mapping[str, Sequence[str]], types: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the kinds of each coarse type, with those of types that were split, whatever the ontology says.

    Parameters
    ----------
    kinds
        As the ontology has them.
    split
        Finer types by the type that was split into them.
    types
        Of the model; what is none of them is left out.
    """
    joined = {name: tuple(own) for name, own in kinds.items()}
    for name, finer in split.items():
        known = [other for other in finer if other in types and other != name]
        if name in types and known:
            joined[name] = tuple(dict.fromkeys((*joined.get(name, ()), *known)))

    def finest(name: str, above: frozenset[str]) -> list[str]:
        # A kind that was split is answered as what it was split into; a circle, which no file has, ends.
        if name not in joined or name in above:
            return [name]
        return [other for kind in joined[name] for other in finest(kind, above | {name})]

    resolved = {}
    for name in types:
        if name in joined:
            reached = dict.fromkeys(finest(name, frozenset()))
            resolved[name] = tuple(other for other in reached if other not in joined)
    return {name: own for name, own in resolved.items() if own}


def without_types(memory: AnalyticMemory, names: Mapping[str, object]) -> AnalyticMemory:
    """Return the memory without what it knows of some types; the genes of every stage stay."""
    return replace(memory, statistics=tuple(s for s in memory.statistics if s.name not in names))


def shared_among_kinds(probabilities: np.ndarray, of_kinds: np.ndarray, kinds: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return probabilities in which every coarse type's is shared among its kinds.

    Parameters
    ----------
    probabilities
        Of all types, (n, C).
    of_kinds
        Of all types, asked without the coarse ones, (n, C): the kinds of a coarse type share by these.
    kinds
        Positions of the kinds by that of their coarse type.
    """
    shared = probabilities.copy()
    for coarse, positions in kinds.items():
        part = of_kinds[:, positions]
        total = part.sum(axis=1, keepdims=True)
        share = np.where(total > LEAST_SHARE, part / np.maximum(total, LEAST_SHARE), 1.0 / len(positions))
        shared[:, positions] += probabilities[:, [coarse]] * share.astype(probabilities.dtype)
        shared[:, coarse] = 0.0
    return shared
