"""Canonical gene names."""

import re

import numpy as np
import pandas as pd
import pytest

from canal.data.genes import name_genes
from canal.data.reading_rules import ReadingRules
from canal.errors import DataError

IDS = ["ENSG00000141510.12", "ENSG00000012048.3", "ENSG00000139618"]
SYMBOLS = ["TP53", "BRCA1", "BRCA2"]
BARE = tuple(i.split(".")[0] for i in IDS)
UNIQUE = ["A1BG", "A1BG-1", "C1ORF112"]
NONE = ("", "", "")


def _var(index: list[str], **columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns, index=index)


@pytest.mark.parametrize(
    ("var", "gene_key", "genes", "ensembl", "key"),
    [
        (_var(SYMBOLS), None, SYMBOLS, ("", "", ""), "var_names"),
        (_var(IDS), None, SYMBOLS, BARE, "var_names"),
        (_var(IDS, feature_name=SYMBOLS), None, SYMBOLS, BARE, "feature_name"),
        (_var(IDS, feature_name=pd.Categorical(SYMBOLS)), None, SYMBOLS, BARE, "feature_name"),
        (_var(IDS, gene_short_name=SYMBOLS), None, SYMBOLS, BARE, "gene_short_name"),
        (_var(SYMBOLS, gene_ids=IDS), None, SYMBOLS, BARE, "var_names"),
        (_var(["a", "b", "c"], mine=SYMBOLS), "mine", SYMBOLS, ("", "", ""), "mine"),
        (_var(["0", "1", "2"], gene_name=SYMBOLS), None, SYMBOLS, NONE, "gene_name"),
        (_var(IDS, feature_name=SYMBOLS), "var_names", SYMBOLS, BARE, "var_names"),
        (_var(IDS, feature_name=["TP53", None, ""]), None, SYMBOLS, BARE, "feature_name"),
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


def test_mouse_symbols_become_human_ones_with_a_warning() -> None:
    """Mouse symbols match human ones, and the person is told."""
    named = name_genes(_var(["Ins1", "Ctrb1", "Gcg"]), source="toy")

    assert named.genes.names == ("INS", "CTRB1", "GCG")
    assert "mouse gene symbols" in named.warnings[0]


def test_mouse_ids_without_symbols_are_told() -> None:
    """Mouse ids become symbols, which match human ones; unknown ids match nothing human."""
    named = name_genes(_var(["ENSMUSG00000000001", "ENSMUSG00000000028"]), source="toy")
    unknown = name_genes(_var(["ENSMUSG09000000001", "ENSMUSG09000000028"]), source="toy")

    assert named.kind == unknown.kind == "ensembl"
    assert named.genes.names == ("GNAI3", "CDC45")
    assert "mouse Ensembl ids" in named.warnings[1]
    assert "by their symbol in upper case" in named.warnings[1]
    assert "match mouse files only" in unknown.warnings[0]
    assert unknown.translated == 0


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


@pytest.mark.parametrize(
    ("index", "names", "ids", "shown"),
    [
        (
            ["CD79A_ENSG00000105369", "CD3D_ENSG00000167286.15"],
            ("CD79A", "CD3D"),
            ("ENSG00000105369", "ENSG00000167286"),
            "2 gene names .* CD79A_ENSG00000105369 as CD79A",
        ),
        (["ENSG00000105369|CD79A", "CD3D"], ("CD79A", "CD3D"), ("ENSG00000105369", ""), "1 gene names .* as CD79A"),
        (["GRCh38_CD3D", "GRCh38_HLA-DRA"], ("CD3D", "HLA-DRA"), ("", ""), "2 gene names .* GRCh38_CD3D as CD3D"),
        (["GRCh38___CD3D", "GRCh38___B2M"], ("CD3D", "B2M"), ("", ""), "2 gene names"),
        (
            ["HLA.DRA", "MT.CO1", "AC012345.1", "RP11.34P13.7", "B2M"],
            ("HLA-DRA", "MT-CO1", "AC012345.1", "RP11-34P13.7", "B2M"),
            ("",) * 5,
            "3 gene names .* HLA.DRA as HLA-DRA",
        ),
    ],
    ids=["symbol and id", "id and symbol", "genome", "genome of a mixture", "R"],
)
def test_spellings_of_other_tools_are_read_and_told(
    index: list[str], names: tuple[str, ...], ids: tuple[str, ...], shown: str
) -> None:
    """Names that hold more than a symbol match those that do not; how many there were is told."""
    named = name_genes(_var(index), source="toy")

    assert named.genes.names == names
    assert named.genes.ensembl == ids
    assert any(re.search(shown, text) for text in named.warnings)
    assert name_genes(_var(index), source="toy", rules=ReadingRules.FIRST).genes.names != names


@pytest.mark.parametrize(
    "index",
    [["HLA-DRA", "AC012345.1", "RP11-34P13.7"], ["hg19_CD3D", "mm10_Cd3d"], ["A_B", "HG-1", "MM-2"]],
    ids=["dots by right", "half of two genomes", "other underscores"],
)
def test_names_that_are_right_stay(index: list[str]) -> None:
    """Nothing is taken from a name without evidence in the file."""
    named = name_genes(_var(index), source="toy")

    assert named.genes.names == tuple(name.upper() for name in index)
