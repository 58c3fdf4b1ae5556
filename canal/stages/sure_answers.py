"""Answers that are as specific as they are sure of, for the cells of a file: see `canal.model.sure`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canal.errors import StageError
from canal.model.model import Model
from canal.model.novelty.calibration import check_alpha
from canal.model.sure import ALPHA_LABEL, SureNodes
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
    """Return types, with those below it in the place of a term that is named by its label or id."""
    if model.sure is None:
        return list(wanted)
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
