"""Which terms above some others part them: of all that stand above, the most specific one for every group below."""

from collections.abc import Callable, Iterable

from canal.ontology.tree import CellOntology


def parting_terms(
    terms: Iterable[str], ontology: CellOntology, allowed: Callable[[str], bool] | None = None
) -> dict[frozenset[str], str]:
    """Return, for every group of terms that some term has below it, the most specific such term.

    Parameters
    ----------
    terms
        Ids of the terms to be parted.
    ontology
        Where they stand.
    allowed
        Tells whether a term may stand for its group; all may by default.

    Returns
    -------
    Id of the parting term by group; groups of one are left out.
    """
    wanted = frozenset(terms)
    above: set[str] = set(wanted)
    for term in wanted:
        above |= ontology.ancestors(term)
    groups: dict[frozenset[str], str] = {}
    best: dict[frozenset[str], tuple[int, int]] = {}
    for term in sorted(above):
        group = frozenset(other for other in wanted if ontology.is_a(other, term))
        if len(group) < 2 or (allowed is not None and not allowed(term)):
            continue
        # The most specific term has the fewest kinds, and of those with as many the most ancestors.
        rank = (-len(ontology.descendants(term)), ontology.depth(term))
        if group not in best or rank > best[group]:
            groups[group], best[group] = term, rank
    return groups
