"""The gene panel."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from canal.data.genes import Genes
from canal.data.panel import GenePanel, check_overlap
from canal.errors import DataError

NAMES = st.lists(st.sampled_from([f"G{i}" for i in range(12)]), unique=True, max_size=10)


def _panel(*genes: str) -> GenePanel:
    return GenePanel.empty().extended(Genes.of(genes, [""] * len(genes)), 1)


@settings(max_examples=60, deadline=None)
@given(panel=NAMES, genes=NAMES, seed=st.integers(0, 100))
def test_projection_is_a_lookup_by_name(panel: list[str], genes: list[str], seed: int) -> None:
    """Each column of the projection is the file's column of that name, or zero."""
    values = np.random.default_rng(seed).poisson(0.7, (5, len(genes))).astype(np.float32)
    match = _panel(*panel).match(Genes.of(genes, [""] * len(genes)))

    projected = match.project(sp.csr_matrix(values))

    expected = np.zeros((5, len(panel)), dtype=np.float32)
    for position, name in enumerate(panel):
        if name in genes:
            expected[:, position] = values[:, genes.index(name)]
    assert (projected.toarray() == expected).all()
    assert projected.has_sorted_indices
    assert projected.dtype == np.float32
    assert match.measured.tolist() == [name in genes for name in panel]
    assert match.columns.tolist() == [genes.index(n) if n in genes else -1 for n in panel]


@settings(max_examples=60, deadline=None)
@given(first=NAMES, second=NAMES)
def test_panels_grow_at_the_end(first: list[str], second: list[str]) -> None:
    """Genes keep their position, none twice, and each knows the stage at which it entered."""
    one = _panel(*first)

    two = one.extended(Genes.of(second, [""] * len(second)), 2)

    assert two.genes[: len(first)] == one.genes.names
    assert sorted(two.genes) == sorted(set(first) | set(second))
    assert two.entered == (1,) * len(first) + (2,) * (len(two) - len(first))


def test_ids_match_where_names_do_not() -> None:
    """A gene that was renamed is found by its Ensembl id; a name comes before an id."""
    panel = GenePanel.empty().extended(Genes.of(["OLD", "B"], ["ENSG01", "ENSG02"]), 1)

    assert panel.match(Genes.of(["NEW", "B"], ["ENSG01", ""])).columns.tolist() == [0, 1]
    assert panel.match(Genes.of(["ENSG02", "ENSG01"], ["ENSG02", "ENSG01"])).columns.tolist() == [1, 0]
    assert panel.match(Genes.of(["X", "OLD"], ["ENSG01", ""])).columns.tolist() == [1, -1]
    assert len(panel.extended(Genes.of(["NEW"], ["ENSG01"]), 2)) == 2


def test_missing_ids_are_filled_in() -> None:
    """A later file may bring the ids of genes that the panel holds by name."""
    panel = _panel("A", "B").extended(Genes.of(["B"], ["ENSG02"]), 2)

    assert panel.genes.ensembl == ("", "ENSG02")


def test_panels_survive_json() -> None:
    """What is written is what is read."""
    panel = GenePanel.empty().extended(Genes.of(["A"], ["ENSG01"]), 1).extended(Genes.of(["B"], [""]), 2)

    assert panel == GenePanel.from_dict(json.loads(json.dumps(panel.to_dict())))
    assert panel.subset(np.array([1])).genes.names == ("B",)


@pytest.mark.parametrize(
    ("genes", "match"),
    [
        (["X", "Y"], "no gene in common.*X, Y.*A, B"),
        (["A", "Y"], r"1 of the model's 4 genes \(25.0%\); expected 50"),
    ],
    ids=["zero genes in common", "too few"],
)
def test_files_with_other_genes_are_refused(genes: list[str], match: str) -> None:
    """The message shows names of both sides."""
    with pytest.raises(DataError, match=match):
        check_overlap(_panel("A", "B", "C", "D").match(Genes.of(genes, ["", ""])), 0.5, "toy.h5ad")


def test_enough_genes_pass() -> None:
    """At the floor, and before the first stage, a file passes."""
    check_overlap(_panel("A", "B").match(Genes.of(["A"], [""])), 0.5, "toy.h5ad")
    check_overlap(GenePanel.empty().match(Genes.of(["A"], [""])), 0.5, "toy.h5ad")
