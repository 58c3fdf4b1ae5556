"""Canonical gene names."""

import numpy as np
import pandas as pd
import pytest

from canal.data.genes import name_genes
from canal.errors import DataError

IDS = ["ENSG00000141510.12", "ENSG00000012048.3", "ENSG00000139618"]
SYMBOLS = ["TP53", "BRCA1", "BRCA2"]
BARE = tuple(i.split(".")[0] for i in IDS)
HALF = ["TP53", *BARE[1:]]
UNIQUE = ["A1BG", "A1BG-1", "C1ORF112"]
NONE = ("", "", "")


def _var(index: list[str], **columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns, index=index)


@pytest.mark.parametrize(
    ("var", "gene_key", "genes", "ensembl", "key"),
    [
        (_var(SYMBOLS), None, SYMBOLS, ("", "", ""), "var_names"),
        (_var(IDS), None, BARE, BARE, "var_names"),
        (_var(IDS, feature_name=SYMBOLS), None, SYMBOLS, BARE, "feature_name"),
        (_var(IDS, feature_name=pd.Categorical(SYMBOLS)), None, SYMBOLS, BARE, "feature_name"),
        (_var(IDS, gene_short_name=SYMBOLS), None, SYMBOLS, BARE, "gene_short_name"),
        (_var(SYMBOLS, gene_ids=IDS), None, SYMBOLS, BARE, "var_names"),
        (_var(["a", "b", "c"], mine=SYMBOLS), "mine", SYMBOLS, ("", "", ""), "mine"),
        (_var(["0", "1", "2"], gene_name=SYMBOLS), None, SYMBOLS, NONE, "gene_name"),
        (_var(IDS, feature_name=SYMBOLS), "var_names", BARE, BARE, "var_names"),
        (_var(IDS, feature_name=["TP53", None, ""]), None, HALF, BARE, "feature_name"),
        (_var(["A1BG", "A1BG-1", "C1orf112"]), None, UNIQUE, NONE, "var_names"),
    ],
    ids=[
        "symbols", "versions", "cellxgene", "categorical", "monocle", "gene_ids", "gene_key",
        "numbers", "asked ids", "missing symbols", "made unique",
    ],
)  # fmt: skip
def test_names_are_found(
    var: pd.DataFrame, gene_key: str | None, genes: list[str], ensembl: tuple[str, ...], key: str
) -> None:
    """Symbols are found by themselves, and Ensembl ids are kept beside them."""
    named = name_genes(var, source="toy", gene_key=gene_key)

    assert named.genes.names == tuple(genes)
    assert named.genes.ensembl == ensembl
    assert named.key == key


def test_mouse_symbols_are_upper_case_with_a_warning() -> None:
    """Mouse symbols match human ones by upper case, and the person is told."""
    named = name_genes(_var(["Ins1", "Ctrb1", "Gcg"]), source="toy")

    assert named.genes.names == ("INS1", "CTRB1", "GCG")
    assert "mouse gene symbols" in named.warnings[0]


def test_mouse_ids_without_symbols_are_told() -> None:
    """Mouse ids alone match nothing human."""
    named = name_genes(_var(["ENSMUSG00000000001", "ENSMUSG00000000028"]), source="toy")

    assert named.kind == "ensembl"
    assert "mouse Ensembl ids" in named.warnings[0]


def test_collisions_keep_the_most_expressed() -> None:
    """Two columns that come to one name: the most expressed stays; without weights the first."""
    var = _var(["C2orf15", "TP53", "C2ORF15"])

    assert name_genes(var, source="toy").columns.tolist() == [0, 1]
    named = name_genes(var, source="toy", weights=np.array([1.0, 1.0, 5.0]))
    assert named.columns.tolist() == [1, 2]
    assert named.genes.names == ("TP53", "C2ORF15")
    assert "C2ORF15" in named.warnings[0]


def test_exact_duplicates_are_refused() -> None:
    """Two columns of one name in var_names are an error of the file."""
    with pytest.raises(DataError, match=r"occur more than once.*A, B.*var_names_make_unique"):
        name_genes(_var(["A", "A", "B", "B", "C"]), source="toy")
