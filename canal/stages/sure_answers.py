"""Answers that are as specific as they are sure of, for the cells of a file: see `canal.model.sure`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canal.errors import ConfigError, StageError
from canal.model.model import Model
from canal.model.novelty.calibration import check_alpha
from canal.model.sure import ALPHA_LABEL, SureNodes
from canal.ontology.matching import Context, matcher
from canal.ontology.tree import cell_ontology


@dataclass(frozen=True, kw_only=True)
class SureRule:
    """How sure answers are given.

    Attributes
    ----------
    nodes
        What can be answered.
    threshold
        What a node's probability has to be above.
    alpha
        Share of the answers that may be wrong.
    release
        Of the ontology.
    """

    nodes: SureNodes
    threshold: float
    alpha: float
    release: str

    def of(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the node of each cell, int32 (cells,), from the probabilities of the types (cells, types)."""
        return self.nodes.answers(probabilities, self.threshold)

    def columns(self, answers: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns that tell of the nodes of the cells."""
        return {"cell_type_sure": self.nodes.names[answers], "cell_type_sure_id": self.nodes.ids[answers]}

    def facts(self) -> dict[str, Any]:
        """Return the facts of the rule; the keys are persisted in ``uns`` and JSON."""
        return {"alpha_label": self.alpha, "label_threshold": self.threshold, "ontology_release": self.release}


# Formats that others ask for, with the version of their schemas: CELLxGENE's, whose terms are those of the bundled
# release, and the encoding of the Cell Annotation Platform.
FORMATS = {"cellxgene": "7.1.0", "cap": "1.0.0"}
# Terms that say nothing of a cell, which the schema does not take; it has "unknown" for them.
NO_ANSWER = frozenset({"", "CL:0000000", "CL:0000255", "CL:0000257", "CL:0000548"})
UNKNOWN = "unknown"


def check_format(written: str | None, model: Model) -> None:
    """Refuse a format that is none, and one that asks for terms of a model whose types have none.

    Raises
    ------
    ConfigError, StageError
        If so.
    """
    if written is None:
        return
    if written not in FORMATS:
        message = f"There is no format {written!r}; expected {' or '.join(FORMATS)}."
        raise ConfigError(message)
    if model.sure is None:
        message = (
            f"Stage {model.stage.number} has no places in the Cell Ontology, whose terms --format {written} writes. "
            "Teach with --ontology auto, or leave --format out."
        )
        raise StageError(message)


def schema_columns(columns: Mapping[str, np.ndarray], form: str) -> dict[str, np.ndarray]:
    """Return the columns that a schema asks for, from the sure answers.

    CELLxGENE's is one of terms, "unknown" for novel cells and for "cell". The Cell Annotation Platform has four beside
    the answers, whose names begin with that of theirs: full name, whether there is a term, its id and its label.

    Parameters
    ----------
    columns
        Of the annotation.
    form
        One of `FORMATS`.
    """
    ids = columns["cell_type_sure_id"].astype(object)
    nothing = np.isin(ids, list(NO_ANSWER))
    if "status" in columns:
        nothing |= columns["status"] == "novel"
    if form == "cellxgene":
        return {"cell_type_ontology_term_id": np.where(nothing, UNKNOWN, ids)}
    # Each id is looked up once.
    ontology = cell_ontology()
    label_of = {id_: ontology[id_].label if id_ in ontology else "" for id_ in set(ids.tolist())}
    labels = np.array([label_of[id_] for id_ in ids.tolist()], dtype=object)
    names = np.where(labels == "", columns["cell_type_sure"].astype(object), labels)
    return {
        "cell_type_sure--cell_fullname": np.where(nothing, UNKNOWN, names),
        "cell_type_sure--cell_ontology_exists": ~nothing,
        "cell_type_sure--cell_ontology_term_id": np.where(nothing, "", ids),
        "cell_type_sure--cell_ontology_term": np.where(nothing, "", labels),
    }


def terms_by_name(model: Model) -> dict[str, tuple[str, str]]:
    """Return id and label of the term of every type and node that is one; a type that only hangs below has none."""
    if model.sure is None or model.nodes is None:
        return {}
    ontology = cell_ontology()
    terms = {}
    for name, id_ in zip(model.nodes.names.tolist(), model.nodes.ids.tolist(), strict=True):
        own = model.sure.placement.exact_id(name) if name in model.types else id_
        if own:
            terms[name] = (own, ontology[own].label)
    return terms


def sure_rule(model: Model, alpha: float | None) -> SureRule | None:
    """Return how a model gives sure answers, ``None`` where it gives none and none are asked for.

    Raises
    ------
    StageError
        If they are asked for and the types of the model have no places, or alpha is no share.
    """
    if model.sure is None or model.nodes is None:
        if alpha is None:
            return None
        message = (
            f"Stage {model.stage.number} has no places in the Cell Ontology, so that there is no answer less specific "
            "than a type. Teach with --ontology auto, or leave --alpha-label out."
        )
        raise StageError(message)
    alpha = ALPHA_LABEL if alpha is None else check_alpha(alpha)
    return SureRule(
        nodes=model.nodes,
        threshold=model.sure.threshold(alpha),
        alpha=alpha,
        release=model.sure.placement.release,
    )


def types_below(model: Model, wanted: Sequence[str]) -> list[str]:
    """Return types, with those below it in the place of a term that is named by its label or id.

    In the place of a coarse type stand its kinds, one of which is answered for it.
    """
    if model.sure is None:
        return list(wanted)
    wanted = [kind for name in wanted for kind in model.kinds.get(name, (name,))]
    ontology = cell_ontology()
    by_label = {term.label.lower(): term.id for term in ontology.terms.values()}
    types: list[str] = []
    for name in wanted:
        term = name.replace("_", ":") if name.replace("_", ":") in ontology else by_label.get(name.lower())
        if name in model.types or term is None:
            types.append(name)
            continue
        below = []
        for known in model.types:
            place = model.sure.placement.node(known)
            if place is not None and ontology.is_a(place.id, term):
                below.append(known)
        types += below or [name]
    return list(dict.fromkeys(types))


def granular_figures(
    model: Model, truth: np.ndarray, predicted: np.ndarray, rule: SureRule, answers: np.ndarray
) -> dict[str, float]:
    """Score answers against labels of mixed granularity.

    A label that is a term above the answered type is right ("T cell" where "CD4 T" is answered), unless the file uses a
    name for that type, too: two labels of one file exclude each other.

    Parameters
    ----------
    model
        A model whose types stand in the ontology.
    truth, predicted
        Given label and best type of each cell, (cells,).
    rule, answers
        How sure answers were given, and the node of each cell, (cells,).

    Returns
    -------
    ``exact``, ``ancestor_correct`` and ``mean_depth`` of the best types; ``sure_wrong``, ``sure_of_type`` and
    ``sure_mean_depth`` of the sure answers; ``placed``, the share of cells whose label has a term.
    """
    assert model.sure is not None
    ontology = cell_ontology()
    labels = sorted(set(truth.tolist()))
    terms = _terms_of_labels(labels, model)
    of_type = {name: place.id for name in model.types if (place := model.sure.placement.node(name)) is not None}
    named_here = {terms[label] for label in labels if label in terms}

    def right(label: str, name: str) -> bool:
        if label == name:
            return True
        above, below = terms.get(label), of_type.get(name)
        if above is None or below is None:
            return False
        return above == below or (below not in named_here and name not in terms and ontology.is_a(below, above))

    def sure_right(label: str, node: int) -> bool:
        if label in model.types:
            return bool(rule.nodes.right[model.types.index(label), node])
        term, answered = terms.get(label), str(rule.nodes.ids[node])
        related = bool(term and answered) and (ontology.is_a(str(term), answered) or ontology.is_a(answered, str(term)))
        return related or bool(rule.nodes.covers[:, node].all())

    # Each pair of label and answer is looked at once.
    pairs = _shares(truth, predicted)
    nodes = _shares(truth, answers)
    return {
        "exact": sum(share for (label, name), share in pairs.items() if _same(label, name, terms, of_type)),
        "ancestor_correct": sum(share for (label, name), share in pairs.items() if right(label, name)),
        "mean_depth": sum(share * _depth(of_type.get(name, "")) for (_label, name), share in pairs.items()),
        "sure_wrong": sum(share for (label, node), share in nodes.items() if not sure_right(label, node)),
        "sure_of_type": sum(share for (_, node), share in nodes.items() if rule.nodes.sizes[node] == 1),
        "sure_mean_depth": sum(share * _depth(str(rule.nodes.ids[node])) for (_, node), share in nodes.items()),
        "placed": float(np.isin(truth, list(terms)).mean()),
    }


def _terms_of_labels(labels: Sequence[str], model: Model) -> dict[str, str]:
    """Return the terms of the labels of a file: as the model's types stand, else where a name is as good as certain."""
    assert model.sure is not None
    terms = {}
    context = Context(siblings=tuple(labels))
    for label in labels:
        place = model.sure.placement.node(label)
        accepted = place.id if place is not None else matcher().suggest(label, context).accepted
        if accepted is not None:
            terms[label] = accepted
    return terms


def _same(label: str, name: str, terms: Mapping[str, str], of_type: Mapping[str, str]) -> bool:
    """Tell whether a label and a type are the same, by name or by term."""
    return label == name or (label in terms and terms[label] == of_type.get(name))


def _depth(term: str) -> int:
    """Return how many terms a term is a kind of; 0 where there is none."""
    return cell_ontology().depth(term) if term else 0


def _shares(first: np.ndarray, second: np.ndarray) -> dict[tuple[Any, Any], float]:
    """Return the share of the cells of every pair of values."""
    counts = Counter(zip(first.tolist(), second.tolist(), strict=True))
    return {pair: n / len(first) for pair, n in counts.items()}
