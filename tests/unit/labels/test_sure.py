"""Answers as specific as they are sure of: nodes above types, and the threshold that keeps errors below alpha."""

import json

import numpy as np
import pytest

from canal.model.sure import SureCalibration, sure_nodes
from canal.ontology.placement import Place, Placement
from canal.ontology.tree import cell_ontology

TERMS = {"B": "CL:0000236", "CD4 T": "CL:0000624", "CD8 T": "CL:0000625", "CD14 Mono": "CL:0001054"}
TYPES = (*TERMS, "odd")


def placement(terms):
    """Return where some types stand, each as a term of its own."""
    ontology = cell_ontology()
    places = {name: Place(name, term, ontology[term].label, "exact") for name, term in terms.items()}
    return Placement(ontology.release, places)


@pytest.fixture(scope="module")
def nodes():
    """Return the nodes of four placed types and one that stands nowhere."""
    return sure_nodes(TYPES, placement(TERMS), [frozenset(TYPES)])


def groups_of(nodes, types):
    """Return the types below each node by its name."""
    return {
        str(name): {types[i] for i in np.flatnonzero(c)} for name, c in zip(nodes.names, nodes.covers.T, strict=True)
    }


def test_nodes_are_terms_above_types(nodes):
    """Every type is a node, every group that a term parts is one, and all types are "cell"."""
    groups = groups_of(nodes, TYPES)
    assert all(groups[name] == {name} for name in TYPES)
    assert groups["mature alpha-beta T cell"] == {"CD4 T", "CD8 T"}
    assert groups["lymphocyte"] == {"B", "CD4 T", "CD8 T"}
    assert groups["cell"] == set(TYPES)
    ids = dict(zip(nodes.names.tolist(), nodes.ids.tolist(), strict=True))
    assert (ids["CD4 T"], ids["odd"], ids["lymphocyte"]) == ("CL:0000624", "", "CL:0000542")


def test_two_labels_of_one_file_exclude_each_other():
    """The ontology calls CD16 monocytes a kind of CD14 monocytes; who teaches both from one file means two kinds."""
    terms = {"CD14 Mono": "CL:0001054", "CD16 Mono": "CL:0002396", "B": "CL:0000236"}
    types = tuple(terms)
    one_file = groups_of(sure_nodes(types, placement(terms), [frozenset(types)]), types)
    two_files = groups_of(
        sure_nodes(types, placement(terms), [frozenset({"CD14 Mono"}), frozenset({"CD16 Mono"})]), types
    )
    assert {"CD14 Mono", "CD16 Mono"} == one_file["monocyte"]
    assert "CD14-positive monocyte" not in one_file
    assert two_files["CD14-positive monocyte"] == {"CD14 Mono", "CD16 Mono"}


def test_names_of_one_term_are_one_node():
    """Labs have two names for B cells: both are right, and together they are "B cell"."""
    terms = {"B": "CL:0000236", "B cells": "CL:0000236", "NK": "CL:0000623"}
    found = sure_nodes(tuple(terms), placement(terms), [frozenset({"B", "NK"}), frozenset({"B cells"})])
    assert groups_of(found, tuple(terms))["B cell"] == {"B", "B cells"}
    probabilities = np.array([[0.5, 0.45, 0.05]])
    assert found.names[found.answers(probabilities, 0.6)][0] == "B cell"
    # Answered by the other name it is not wrong; answered as NK it is.
    assert found.highest_wrong(probabilities, np.array([1]))[0] == 0.0
    assert found.highest_wrong(probabilities, np.array([2]))[0] == pytest.approx(0.95)


def test_the_most_specific_node_that_is_sure(nodes):
    """As the threshold rises the answer becomes less specific; "cell" is sure at any."""
    probabilities = np.array([[0.1, 0.5, 0.3, 0.06, 0.04]])
    names = [str(nodes.names[nodes.answers(probabilities, t)][0]) for t in (0.0, 0.49, 0.6, 0.85, 1.0)]
    assert names == ["CD4 T", "CD4 T", "mature alpha-beta T cell", "lymphocyte", "cell"]


def test_highest_wrong_threshold(nodes):
    """It is the threshold above which no answer is wrong, as trying many thresholds finds it."""
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet(np.full(len(TYPES), 0.4), size=300)
    types = draw.integers(len(TYPES), size=300)
    highest = nodes.highest_wrong(probabilities, types)
    grid = np.linspace(0, 1, 801)
    wrong = np.stack([~nodes.covers[types, nodes.answers(probabilities, threshold)] for threshold in grid])
    last = np.array([grid[w].max() if w.any() else 0.0 for w in wrong.T])
    np.testing.assert_allclose(highest, last, atol=2 / 800)
    # Above it, no answer is wrong; just below it, one is.
    for cell in np.flatnonzero(highest > 0)[:40]:
        row, above, below = probabilities[cell : cell + 1], highest[cell] + 1e-9, highest[cell] - 1e-9
        assert nodes.covers[types[cell], nodes.answers(row, above)[0]]
        assert not nodes.covers[types[cell], nodes.answers(row, below)[0]]


def test_errors_stay_below_alpha(nodes):
    """On new cells like the held-out ones, the share of wrong answers is alpha or less, whatever the probabilities."""
    draw = np.random.default_rng(1)

    def cells(n):
        probabilities = draw.dirichlet(np.full(len(TYPES), 0.3), size=n)
        # Overconfident: the types are drawn from flattened probabilities.
        flat = probabilities**0.4
        flat /= flat.sum(axis=1, keepdims=True)
        return probabilities, np.array([draw.choice(len(TYPES), p=p) for p in flat])

    for alpha in (0.05, 0.2):
        errors = []
        for _ in range(20):
            calibration = SureCalibration(placement=placement(TERMS)).with_stage(
                1, placement(TERMS), nodes.highest_wrong(*cells(300))
            )
            probabilities, types = cells(1000)
            answers = nodes.answers(probabilities, calibration.threshold(alpha))
            errors.append((~nodes.covers[types, answers]).mean())
        assert alpha - 0.03 < np.mean(errors) < alpha + 0.01


def test_few_cells_promise_nothing():
    """Ten cells cannot promise one error in twenty: the answer is "cell"; without any cell likewise."""
    empty = SureCalibration(placement=placement(TERMS))
    assert empty.threshold(0.05) == 1.0
    assert empty.with_stage(1, placement(TERMS), np.zeros(10)).threshold(0.05) == 1.0
    assert empty.with_stage(1, placement(TERMS), np.zeros(19)).threshold(0.05) == 0.0
    assert empty.with_stage(1, placement(TERMS), np.array([0.9, *[0.2] * 50])).threshold(0.05) == pytest.approx(0.2)


def test_it_is_kept_and_follows_stages():
    """What is written is read again; a stage can be taken out, and types renamed."""
    kept = SureCalibration(placement=placement(TERMS)).with_stage(3, placement(TERMS), np.array([0.25, 0.5]))
    again = SureCalibration.from_dict(json.loads(json.dumps(kept.to_dict())))
    assert again.placement == kept.placement
    np.testing.assert_array_equal(again.stages[3], [0.25, 0.5])
    assert again.without_stage(3).stages == {}
    assert again.renamed({"B": "b"}).placement.exact_id("b") == TERMS["B"]


def test_a_kind_is_right_for_a_coarse_label():
    """Cells of a coarse label are of one of its kinds: that one is right, and so is what stands for some of them."""
    terms = {"T cell": "CL:0000084", **TERMS}
    types, kinds = tuple(terms), {"T cell": ("CD4 T", "CD8 T")}
    nodes = sure_nodes(types, placement(terms), [frozenset(TERMS), frozenset({"T cell"})], kinds)
    right = dict(zip(nodes.names.tolist(), nodes.right[types.index("T cell")].tolist(), strict=True))
    assert all(right[name] for name in ("CD4 T", "CD8 T", "T cell", "mature alpha-beta T cell", "lymphocyte"))
    assert not right["B"]
    assert not right["CD14 Mono"]


def test_models_of_before_answer_as_before():
    """A calibration that an earlier canal wrote teaches no kinds, and is written as it was."""
    kept = SureCalibration(placement=placement(TERMS)).with_stage(3, placement(TERMS), np.array([0.25]))
    written = kept.to_dict()
    assert (written["format"], written["kinds"]) == (2, True)
    assert SureCalibration.from_dict(written).kinds
    before = {"format": 1, "placement": written["placement"], "stages": written["stages"]}
    read = SureCalibration.from_dict(before)
    assert not read.kinds
    assert read.to_dict() == before
