"""`canal labels accept`, `list` and `tree`: the terms that a lab has settled on for the names of its types."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from canal.errors import StageError
from canal.files import write_whole
from canal.ontology.grouping import parting_terms
from canal.ontology.placement import Place, read_placement
from canal.ontology.tree import cell_ontology
from canal.stages.layout import Layout, open_registry
from canal.stages.placing import kept_placement, placement_of


@dataclass(frozen=True)
class AcceptedLabels:
    """The outcome of `canal labels accept`.

    Attributes
    ----------
    file
        The workspace's table.
    accepted
        Places that were read, by name; `total` of them stand in the table now.
    total
        Number of names in the table.
    changed
        Names that had another place before.
    """

    file: str
    accepted: dict[str, Place]
    total: int
    changed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def accept_labels(layout: Layout, path: Path) -> AcceptedLabels:
    """Take the places of a filled table into the workspace's own; nothing is written if a row of it is wrong.

    Raises
    ------
    DataError
        If the table cannot be used; see `read_placement`.
    """
    layout.require()
    given = read_placement(path, cell_ontology())
    before = kept_placement(layout)
    joined = before.joined(given)
    changed = [name for name, place in given.places.items() if before.places.get(name, place) != place]
    write_whole(layout.labels, joined.to_csv())
    return AcceptedLabels(str(layout.labels), dict(given.places), len(joined.places), tuple(sorted(changed)))


@dataclass(frozen=True)
class ListedLabel:
    """A taught type and where it stands; its values are keys of the JSON of `canal labels list`."""

    type: str
    id: str
    label: str
    relation: str
    below: str


@dataclass(frozen=True)
class LabelList:
    """The types of a stage and where they stand.

    Attributes
    ----------
    stage
        Number of the stage.
    release
        Release of the ontology.
    labels
        One a type, in the order of the stage.
    """

    stage: int
    release: str
    labels: tuple[ListedLabel, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def list_labels(layout: Layout, stage: int | None = None) -> LabelList:
    """Return the types of a stage, by default of the one in use, and where they stand."""
    record = open_registry(layout).record(stage)
    placement = placement_of(layout, record)
    listed = []
    for name in record.types:
        place = placement.node(name)
        if place is None:
            listed.append(ListedLabel(name, "", "", "", ""))
            continue
        own = placement.places[name]
        below = own.parent if own.parent else place.label if place.relation != "exact" else ""
        listed.append(ListedLabel(name, place.id, place.label, own.relation, below))
    return LabelList(record.number, placement.release, tuple(listed))


@dataclass(frozen=True)
class TreeNode:
    """A line of the tree.

    Attributes
    ----------
    id, label
        The term; ``""`` for a type that has none of its own.
    types
        Names of the types that are this term, or the one type that hangs here.
    children
        What is below it.
    """

    id: str
    label: str
    types: tuple[str, ...]
    children: tuple["TreeNode", ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LabelTree:
    """The types of a stage as a tree.

    Attributes
    ----------
    nodes
        The topmost terms.
    without
        Types without a place.
    """

    nodes: tuple[TreeNode, ...]
    without: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the lines that show it on a terminal."""
        lines = tree_lines(self.nodes)
        return [*lines, f"without a term: {', '.join(self.without)}"] if self.without else lines


def label_tree(labels: LabelList) -> LabelTree:
    """Return the tree of the types of a stage: their terms, and of the terms above them those that part some.

    Raises
    ------
    StageError
        If no type of the stage has a term.
    """
    ontology = cell_ontology()
    placed = [listed for listed in labels.labels if listed.id]
    if not placed:
        message = (
            f"No type of stage {labels.stage} has a term of the Cell Ontology. Let `canal labels suggest --stage "
            f"{labels.stage} --out labels.csv` suggest some and look through the table; `canal labels accept "
            "labels.csv` takes it."
        )
        raise StageError(message)
    terms = {listed.id for listed in placed}
    shown = terms | set(parting_terms(terms, ontology).values())
    # Each term hangs below the nearest that is shown: the one with the most ancestors of its own.
    below: dict[str, list[str]] = {}
    for term in shown:
        above = [other for other in shown if other in ontology.ancestors(term)]
        nearest = max(above, key=lambda other: (ontology.depth(other), other), default="")
        below.setdefault(nearest, []).append(term)

    def node(term: str) -> TreeNode:
        exact = tuple(listed.type for listed in placed if listed.id == term and listed.relation == "exact")
        hanging = [listed.type for listed in placed if listed.id == term and listed.relation != "exact"]
        children = [node(child) for child in sorted(below.get(term, ()), key=lambda child: ontology[child].label)]
        children += [TreeNode("", "", (name,), ()) for name in hanging]
        return TreeNode(term, ontology[term].label, exact, tuple(children))

    top = tuple(node(term) for term in sorted(below[""], key=lambda term: ontology[term].label))
    return LabelTree(top, tuple(listed.type for listed in labels.labels if not listed.id))


def tree_lines(nodes: Sequence[TreeNode], indent: str = "") -> list[str]:
    """Return the lines that show a tree on a terminal."""
    lines = []
    for number, node in enumerate(nodes):
        last = number == len(nodes) - 1
        shown = ", ".join(node.types)
        text = f"{node.label} ({node.id})" + (f": {shown}" if shown else "") if node.id else f"{shown} (no term)"
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{text}")
        lines += tree_lines(node.children, indent + ("   " if last else "│  "))
    return lines
