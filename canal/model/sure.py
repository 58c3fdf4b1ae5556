"""An answer as specific as it is sure of: the smallest group of types with a term whose probability is high enough.

Types stand in the Cell Ontology; a term above some of them is a *node* with the sum of their probabilities, every type
is a node of itself, and "cell" is all of them. Of the nodes that are more probable than a threshold the one of the
fewest types is answered. The threshold keeps the share of wrong answers (the cell's type is not below the node) at most
alpha: conformal risk control (Angelopoulos and others, 2022) on the cells that were held out at each stage.

Of a held-out cell one number is kept: the highest threshold at which its answer would be wrong. So the threshold for
any alpha is a quantile of these numbers.

Shapes: n cells, C types, V nodes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from canal.files import refuse_newer
from canal.ontology.grouping import parting_terms
from canal.ontology.placement import Placement
from canal.ontology.tree import ROOT, CellOntology, cell_ontology

FORMAT, KINDS_FORMAT = 1, 2  # before coarse labels taught their kinds, and since
ALPHA_LABEL = 0.05  # share of wrong answers that is allowed, where no other is asked for


@dataclass(frozen=True, kw_only=True)
class SureNodes:
    """The nodes above and of some types.

    Attributes
    ----------
    names, ids
        Of each node, object (V,); a type's node has its own name, and the id of the nearest term, or ``""``.
    covers
        Whether a node stands for a type, bool (C, V).
    right
        Whether a node is a right answer for a cell of a type, bool (C, V): where it stands for it, and where it is a
        type of the same term, as labs have several names for one.
    """

    names: np.ndarray
    ids: np.ndarray
    covers: np.ndarray
    right: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Number of types of each node, (V,)."""
        return np.asarray(self.covers.sum(axis=0))

    def answers(self, probabilities: np.ndarray, threshold: float) -> np.ndarray:
        """Return the index of the most specific node of each cell that is sure enough, int32 (n,).

        Parameters
        ----------
        probabilities
            Of the types, (n, C).
        threshold
            What a node's probability has to be above; that of all types is sure at any threshold.
        """
        of_nodes = probabilities @ self.covers
        sure = (of_nodes > threshold) | (self.sizes == len(self.covers))
        # The fewest types, and among those of one size the most probable.
        rank = np.where(sure, of_nodes - 2.0 * self.sizes, -np.inf)
        return np.asarray(rank.argmax(axis=1), dtype=np.int32)

    def highest_wrong(self, probabilities: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Return the highest threshold at which the answer for each cell would be wrong, 0 where none is, (n,).

        Parameters
        ----------
        probabilities
            Of the types, (n, C).
        types
            Index of each cell's type, (n,).
        """
        of_nodes = probabilities @ self.covers
        right = self.right[types]
        cells = np.arange(len(types))
        highest, most = np.zeros(len(types)), np.full(len(types), -1.0)
        # From the most specific nodes up: a node is answered up to its probability, if no smaller one is as probable.
        for size in np.unique(self.sizes).tolist():
            if size == len(self.covers):
                continue
            of_size = np.flatnonzero(self.sizes == size)
            best = of_size[of_nodes[:, of_size].argmax(axis=1)]
            probability = of_nodes[cells, best]
            answered = probability > most
            wrong = answered & ~right[cells, best]
            highest = np.where(wrong, np.maximum(highest, probability), highest)
            most = np.maximum(most, probability)
        return highest


def sure_nodes(
    types: Sequence[str],
    placement: Placement,
    together: Sequence[frozenset[str]],
    kinds: Mapping[str, Sequence[str]] | None = None,
    ontology: CellOntology | None = None,
) -> SureNodes:
    """Return the nodes of a model's types.

    Parameters
    ----------
    types
        In the order of the model.
    placement
        Where they stand.
    together
        Types that one stage taught: they exclude each other, so that none of them stands for a group with another,
        whatever the ontology says (in it CD14-low CD16-positive monocytes *are* CD14-positive monocytes).
    kinds
        Kinds of the coarse types, which are answered as one of them; see `canal.model.kinds`.
    ontology
        The terms; the bundled ones by default.
    """
    ontology = ontology or cell_ontology()
    terms: dict[str, list[int]] = {}
    own: dict[str, list[str]] = {}
    names: list[str] = list(types)
    ids: list[str] = []
    for position, name in enumerate(types):
        place = placement.node(name)
        ids.append("" if place is None else place.id)
        if place is not None:
            terms.setdefault(place.id, []).append(position)
        exact = placement.exact_id(name)
        if exact is not None:
            own.setdefault(exact, []).append(name)

    def may_part(term: str) -> bool:
        # A type's own term, with another type of the same file below it, means "the rest" there.
        below = {types[i] for other, positions in terms.items() if ontology.is_a(other, term) for i in positions}
        return not any(name in group and len(below & group) > 1 for name in own.get(term, ()) for group in together)

    # Every type; every term that several names stand for; every term that parts some.
    covers = [np.eye(len(types), dtype=bool)[:, position] for position in range(len(types))]
    parting = parting_terms(terms, ontology, may_part)
    shared = {frozenset({term}): term for term, positions in terms.items() if len(positions) > 1}
    for group, term in sorted((shared | parting).items(), key=lambda item: item[1]):
        covered = np.zeros(len(types), dtype=bool)
        for other in group:
            covered[terms[other]] = True
        if term != ROOT and not covered.all():
            names.append(ontology[term].label)
            ids.append(term)
            covers.append(covered)
    # All types: under the term that all are, or as cells.
    common = parting.get(frozenset(terms), ROOT) if "" not in ids[: len(types)] else ROOT
    names.append(ontology[common].label)
    ids.append(common)
    covers.append(np.ones(len(types), dtype=bool))
    stacked = np.stack(covers, axis=1)
    right = stacked.copy()
    for same in own.values():
        positions = [types.index(name) for name in same]
        right[np.ix_(positions, positions)] = True
    # What stands for kinds of a coarse label alone is right for its cells: the label says no more.
    kinds = kinds or {}
    for coarse, own_kinds in kinds.items():
        inside = np.isin(list(types), own_kinds)
        inside |= np.array([name in kinds and set(kinds[name]) <= set(own_kinds) for name in types])
        right[types.index(coarse)] |= ~stacked[~inside].any(axis=0)
    return SureNodes(names=np.array(names, dtype=object), ids=np.array(ids, dtype=object), covers=stacked, right=right)


@dataclass(frozen=True, kw_only=True)
class SureCalibration:
    """What a model keeps to answer as specifically as it is sure of.

    Attributes
    ----------
    placement
        Where its types stand.
    stages
        For each stage the highest wrong threshold of every held-out cell, (cells,).
    kinds
        Whether a label that is a term above other types teaches these; not so in models of before it did.
    """

    placement: Placement
    stages: Mapping[int, np.ndarray] = field(default_factory=dict)
    kinds: bool = True

    def with_stage(self, key: int, placement: Placement, highest_wrong: np.ndarray) -> "SureCalibration":
        """Return the calibration with one more stage, and the places of its types."""
        stages = {**self.stages, key: highest_wrong}
        return SureCalibration(placement=self.placement.joined(placement), stages=stages)

    def without_stage(self, key: int) -> "SureCalibration":
        """Return the calibration as if the stage had never been."""
        return replace(self, stages={stage: values for stage, values in self.stages.items() if stage != key})

    def renamed(self, names: Mapping[str, str]) -> "SureCalibration":
        """Return the calibration under new names of types."""
        return replace(self, placement=self.placement.renamed(names))

    def threshold(self, alpha: float) -> float:
        """Return the lowest threshold whose share of wrong answers is at most ``alpha``, 1 where no cell says so.

        With n held-out cells, k of them wrong, the bound is (k + 1) / (n + 1): right in expectation over the cells.
        """
        values = np.sort(np.concatenate([np.zeros(0), *self.stages.values()]))[::-1]
        allowed = math.floor(alpha * (len(values) + 1)) - 1
        if allowed < 0 or not len(values):
            return 1.0
        return float(values[allowed]) if allowed < len(values) else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        stages = []
        for stage, values in self.stages.items():
            stages.append({"stage": stage, "highest_wrong": [round(value, 6) for value in values.tolist()]})
        places = self.placement.to_dict()
        if not self.kinds:
            return {"format": FORMAT, "placement": places, "stages": stages}
        # A canal of before would give other answers: it must refuse to read this.
        return {"format": KINDS_FORMAT, "placement": places, "stages": stages, "kinds": True}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SureCalibration":
        """Return the calibration of `to_dict`'s values.

        Raises
        ------
        RegistryError
            If a newer canal wrote them.
        """
        refuse_newer("The calibration of sure answers", values["format"], KINDS_FORMAT)
        stages = {}
        for entry in values["stages"]:
            stages[int(entry["stage"])] = np.array(entry["highest_wrong"], dtype=np.float64)
        placement = Placement.from_dict(values["placement"])
        return cls(placement=placement, stages=stages, kinds=bool(values.get("kinds")))
