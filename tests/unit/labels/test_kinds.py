"""A label that is a term above other types teaches its kinds: which types are coarse, and what becomes of them."""

import numpy as np
import pytest

from canal.model.kinds import shared_among_kinds, taught_kinds
from canal.ontology.placement import Place, Placement
from canal.ontology.tree import cell_ontology

IDS = {
    "T cell": "CL:0000084",
    "T": "CL:0000084",
    "CD4 T": "CL:0000624",
    "CD4+ T": "CL:0000624",
    "CD8 T": "CL:0000625",
    "naive CD4 T": "CL:0000895",
    "memory CD4 T": "CL:0000897",
    "CD14 Mono": "CL:0001054",
    "CD16 Mono": "CL:0002396",
    "nonclassical Mono": "CL:0000875",
    "B": "CL:0000236",
}


def placement(names, broad=()):
    """Return where names stand: as a term, or below it."""
    ontology = cell_ontology()
    places = {}
    for name in names:
        relation = "broad" if name in broad else "exact"
        places[name] = Place(name, IDS.get(name, "CL:0000624"), "", relation)
    return Placement(ontology.release, places)


@pytest.mark.parametrize(
    ("files", "broad", "expected"),
    [
        # A coarse label of one lab, its kinds of others.
        ([("T cell", "B"), ("CD4 T", "CD8 T")], (), {"T cell": {"CD4 T", "CD8 T"}}),
        # Two names of a term are one kind, and one kind alone teaches nothing of the rest.
        ([("T cell", "B"), ("CD4 T",), ("CD4+ T",)], (), {}),
        # Coarse below coarse: the kinds are those that can be answered.
        (
            [("T cell", "B"), ("CD4 T", "CD8 T"), ("naive CD4 T", "memory CD4 T")],
            (),
            {
                "T cell": {"CD8 T", "naive CD4 T", "memory CD4 T"},
                "CD4 T": {"naive CD4 T", "memory CD4 T"},
            },
        ),
        # Beside a label for some of its kinds a term means the rest, in every file and under every name.
        (
            [("T cell", "CD4 T"), ("T", "B"), ("CD8 T", "naive CD4 T", "memory CD4 T")],
            (),
            {"CD4 T": {"naive CD4 T", "memory CD4 T"}},
        ),
        # The ontology calls CD16 monocytes kinds of CD14 monocytes; a file with both names means two types.
        ([("CD14 Mono", "B"), ("CD14 Mono", "CD16 Mono")], (), {}),
        # A type that hangs below a term is one of its kinds; it stands for no other.
        ([("CD4 T", "B"), ("odd CD4 T", "naive CD4 T")], ("odd CD4 T",), {"CD4 T": {"odd CD4 T", "naive CD4 T"}}),
    ],
)
def test_which_types_are_coarse(files, broad, expected):
    """Coarse are names that are a term above two kinds of other files, unless a file tells them apart."""
    types = tuple(dict.fromkeys(name for names in files for name in names))
    kinds = taught_kinds(types, placement(types, broad), [frozenset(names) for names in files])
    assert {name: set(own) for name, own in kinds.items()} == expected
    # Whatever order the files came in.
    back = taught_kinds(types[::-1], placement(types, broad), [frozenset(names) for names in files[::-1]])
    assert {name: set(own) for name, own in back.items()} == expected


def test_probability_of_a_coarse_type_goes_to_its_kinds():
    """Nothing is lost, and the kinds share as the second question has it; evenly where that says nothing."""
    probabilities = np.array([[0.1, 0.2, 0.1, 0.6], [0.0, 0.0, 0.5, 0.5]], dtype=np.float32)
    of_kinds = np.array([[0.3, 0.1, 0.6, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=np.float32)
    shared = shared_among_kinds(probabilities, of_kinds, {3: np.array([0, 1])})
    assert np.allclose(shared, [[0.1 + 0.45, 0.2 + 0.15, 0.1, 0.0], [0.25, 0.25, 0.5, 0.0]])
    assert shared.dtype == np.float32
    assert (probabilities[:, 3] > 0).all()
