"""What a lab's name of a cell type means in the Cell Ontology."""

import csv

import pytest

from canal.errors import ConfigError, DataError
from canal.labels.suggest import names_in_table, suggest_labels
from canal.ontology.matching import Context, matcher
from canal.ontology.names import readings_of, words_of


@pytest.mark.parametrize(
    "names",
    [
        ("CD14+ Mono", "Mono_CD14", "CD14-positive monocytes", "CD14pos monocyte"),
        ("γδ T cells", "gdT", "gamma-delta T cell", "gd_T"),
        ("CD4 TCM", "CD4+ Tcm", "CD4Tcm", "central memory CD4 T cells"),
        ("FCGR3A+ Monocytes", "CD16 Mono", "Mono_CD16"),
        ("NK_CD56bright", "CD56bright NK cells", "CD56-bright natural killer cell"),
        ("Cycling AT2", "proliferating alveolar type II cells"),
    ],
)
def test_spellings_of_one_type_lead_to_one_term(names):
    """Plurals, signs, Greek letters, gene names, abbreviations and the order of the words do not matter."""
    assert len({matcher().suggest(name).candidates[0].id for name in names}) == 1


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("CD4+ T Helper2", "CL:0000546"),
        ("CD4+/CD25 T Reg", "CL:0000792"),
        ("CD4+/CD45RO+ Memory", "CL:0000897"),
        ("CD19+ B", "CL:0000236"),
        ("pDCs", "CL:0000784"),
        ("MAIT", "CL:0000940"),
        ("alpha", "CL:0000171"),
        ("LSEC", "CL:1000398"),
        ("fat cell", "CL:0000136"),
        ("native cell", "CL:0000000"),  # an obsolete term, by its replacement
    ],
)
def test_names_of_the_field(name, term):
    """Names as authors write them lead to the term that they mean."""
    assert matcher().suggest(name).candidates[0].id == term


def test_relations():
    """A term that says less than the name is broad, one that says more is narrow."""
    relations = {candidate.label: candidate.relation for candidate in matcher().suggest("GZMK CD8 T cell").candidates}
    assert relations["CD8-positive, alpha-beta T cell"] == "broad"
    relations = {candidate.label: candidate.relation for candidate in matcher().suggest("T cell").candidates}
    assert relations["T cell"] == "exact"
    assert relations["memory T cell"] == "narrow"


def test_a_tissue_decides():
    """ "Goblet" is not accepted without a tissue; with one the term of that tissue gains."""
    assert matcher().suggest("Goblet cells").accepted is None
    plain = {c.label: c.score for c in matcher().suggest("Goblet cells").candidates}
    told = {c.label: c.score for c in matcher().suggest("Goblet cells", Context(tissue="lung")).candidates}
    assert told["lung goblet cell"] > plain["lung goblet cell"]
    # Outside the pancreas "alpha" is not of the pancreas.
    assert matcher().suggest("acinar", Context(tissue="salivary gland")).candidates[0].id != "CL:0002064"


def test_siblings_decide():
    """A marker that every cell of a type has says something where another name of the file has another marker."""
    alone = matcher().suggest("CD56 NK cell").candidates[0]
    beside = matcher().suggest("CD56 NK cell", Context(siblings=("CD16 NK cell", "CD56 NK cell"))).candidates[0]
    assert alone.label == "natural killer cell"
    assert beside.id != alone.id


def test_ambiguous_abbreviations_are_not_accepted():
    """ "HSC" is a stem cell of the blood or a stellate cell of the liver: it is suggested, and asked."""
    suggestion = matcher().suggest("HSC")
    assert suggestion.candidates[0].id == "CL:0000037"
    assert suggestion.accepted is None
    assert matcher().suggest("hematopoietic stem cell").accepted == "CL:0000037"


def test_names_like_nothing():
    """A cluster number or nonsense is never accepted."""
    for name in ("7", "cluster 12", "xyzzy", "", "+", "other"):
        assert matcher().suggest(name).accepted is None


def test_words():
    """Markers carry their level; abbreviations are a reading of their own."""
    assert words_of("CD14-low, CD16-positive monocyte") == ("cd14low", "cd16", "monocyte")
    assert words_of("CD16-CD56bright NK cell") == ("cd16negative", "cd56bright", "nk")
    assert readings_of("Tregs")[-1].words == ("regulatory", "t")


def test_the_table_of_suggestions(tmp_path):
    """An accepted id stands in its column, another name is to be filled; every name has one row."""
    report = suggest_labels(["B cells", "HSC", "B cells"])
    report.write(tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["id"]) for row in rows] == [("B cells", "CL:0000236"), ("HSC", "")]
    assert "CL:0000037" in rows[1]["others"]
    assert {row["release"] for row in rows} == {"2026-03-26"}
    assert names_in_table(tmp_path / "labels.csv") == ("B cells", "HSC")


def test_the_json_has_the_promised_keys():
    """`{"suggestions": [{"name", "candidates": [{"id", "label", "relation", "score"}], "accepted"}]}`."""
    (suggestion,) = suggest_labels(["NK cells"]).to_dict()["suggestions"]
    assert set(suggestion) == {"name", "candidates", "accepted"}
    assert suggestion["accepted"] == "CL:0000623"
    assert set(suggestion["candidates"][0]) >= {"id", "label", "relation", "score"}


def test_bad_requests(tmp_path):
    """A species that is none, and a table without names."""
    with pytest.raises(ConfigError, match="expected human or mouse"):
        suggest_labels(["B"], species="martian")
    (tmp_path / "empty.csv").write_text("name\n\n")
    with pytest.raises(DataError, match="no name in it"):
        names_in_table(tmp_path / "empty.csv")


@pytest.mark.shared_data
@pytest.mark.parametrize(("table", "first", "five"), [("scimilarity", 0.99, 0.97), ("azimuth_exact", 0.80, 0.97)])
def test_figures_on_gold_tables(streams, table, first, five):
    """Names that people mapped: first guess, first five, and what is accepted without asking."""
    path = streams.parent / "labels" / f"{table}.csv"
    if not path.is_file():
        pytest.skip("the tables of names are not here")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    report = suggest_labels([row["name"] for row in rows])
    ids = [[candidate.id for candidate in suggestion.candidates] for suggestion in report.suggestions]
    chosen = [row["cl_id"] for row in rows]
    accepted = [(s.accepted, c) for s, c in zip(report.suggestions, chosen, strict=True) if s.accepted]
    assert sum(i[:1] == [c] for i, c in zip(ids, chosen, strict=True)) / len(rows) >= first
    assert sum(c in i[:5] for i, c in zip(ids, chosen, strict=True)) / len(rows) >= five
    assert sum(a == c for a, c in accepted) / len(accepted) >= 0.98
