"""Names to choose from while somebody types: given in this review, known types, terms of the Cell Ontology."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from canal.review.values import NameSuggestion
from canal.workspace import Workspace

FEWEST_LETTERS = 2  # of a text that terms are looked for by
MOST_TERMS = 8
CERTAIN = 0.9  # score from which a term is what was meant


def suggested_names(
    workspace: Workspace, text: str, given: Sequence[str], types: Sequence[str]
) -> list[NameSuggestion]:
    """Return names that begin with a text, contain it, or may mean the same; the first kind first.

    Parameters
    ----------
    workspace
        Its labels are asked for terms of the Cell Ontology.
    text
        What was typed; all given names and known types where it is empty.
    given
        Names that groups of the review have.
    types
        Types of the model.
    """
    wanted = text.strip().casefold()
    suggestions: list[NameSuggestion] = []
    kinds: tuple[tuple[Literal["review", "known"], str, Sequence[str]], ...] = (
        ("review", "given in this review", given),
        ("known", "the model knows it", types),
    )
    for begins in (True, False):
        for source, note, names in kinds:
            for name in names:
                lower = name.casefold()
                if lower.startswith(wanted) if begins else wanted in lower:
                    suggestions.append(NameSuggestion(name=name, source=source, note=note))
    if len(wanted) >= FEWEST_LETTERS:
        suggestions += _terms(workspace, text.strip())
    # Each name once, as it comes first.
    once: dict[str, NameSuggestion] = {}
    for suggestion in suggestions:
        once.setdefault(suggestion.name, suggestion)
    return list(once.values())


def _terms(workspace: Workspace, text: str) -> list[NameSuggestion]:
    """Return terms whose label begins with a text, then those that the text may mean."""
    beginning: list[NameSuggestion] = []
    for label, id_ in _labels():
        if len(beginning) < MOST_TERMS and label.casefold().startswith(text.casefold()):
            beginning.append(NameSuggestion(name=label, source="ontology", term=id_, note="Cell Ontology"))
    # What a text means for certain comes before what begins with its letters: "DC" is a dendritic cell.
    certain: list[NameSuggestion] = []
    likely: list[NameSuggestion] = []
    for candidate in workspace.suggest_labels(names=[text]).suggestions[0].candidates[:MOST_TERMS]:
        note = f"Cell Ontology, {candidate.relation}, {candidate.score:.2f}: {candidate.why}"
        term = NameSuggestion(name=candidate.label, source="ontology", term=candidate.id, note=note)
        (certain if candidate.score >= CERTAIN else likely).append(term)
    return [*certain, *beginning, *likely]


@lru_cache(maxsize=1)
def _labels() -> tuple[tuple[str, str], ...]:
    """Return label and id of every term, the shortest labels first."""
    from canal.ontology.tree import cell_ontology

    labels = [(term.label, id_) for id_, term in cell_ontology().terms.items()]
    return tuple(sorted(labels, key=lambda pair: (len(pair[0]), pair[0])))
