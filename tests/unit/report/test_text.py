"""Names are text: in a spreadsheet, on a terminal and on MLflow's pages; and every table that canal reads again is
as it was written."""

import csv
import io

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.table import Table

import canal
from canal.cli.answer import Answer, Session
from canal.history.diff import ChangedCells, write_changes
from canal.labels.suggest import names_in_table, suggest_labels
from canal.novel.folder import read_table
from canal.ontology.placement import Place, Placement, read_placement
from canal.ontology.tree import cell_ontology
from canal.progress import Lines
from canal.registry.flavour import model_card
from canal.report.annotation import Annotation, write_csv
from canal.report.plots import as_svg, draw_heat_map
from canal.text import csv_text, shown, text_of_csv
from tests.unit.registry.make import make_record

FORMULAS = ('=cmd|"/c calc"!A1', "+1+1", "-2+3", "@SUM(A1)", "'=already", "＝full width")  # noqa: RUF001
COMMANDS = "\x1b[31mred\x1b[0m\x07\x08\u202egnp.exe\u2066\x9b2J"


@given(st.text() | st.from_regex(r"'*[=+\-@\t].*"))
def test_every_text_comes_back(text):
    """What is written can be read, and begins like no formula."""
    written = csv_text(text)

    assert text_of_csv(written) == text
    assert not written.startswith(("=", "+", "-", "@", "\t", "\r"))


def annotation(names: tuple[str, ...]) -> Annotation:
    """Return an annotation whose cells, types and columns have these names."""
    n = len(names)
    return Annotation(
        cell_names=np.array(names, dtype=object),
        cell_type=np.array(names, dtype=object),
        confidence=np.full(n, 0.5, dtype=np.float32),
        representation=np.zeros((n, 2), dtype=np.float32),
        facts={"model": "canal", "stage": 1},
        columns={"best_known": np.array(names, dtype=object), "novelty": np.full(n, -1.5)},
    )


def test_no_column_of_an_annotation_is_a_formula(tmp_path):
    """Names of cells and types are text, numbers stay numbers, and the names themselves come back."""
    write_csv(annotation(FORMULAS), tmp_path / "cells.csv")

    table = pd.read_csv(tmp_path / "cells.csv")

    for column in ("cell", "cell_type", "best_known"):
        assert all(text.startswith("'") for text in table[column])
        assert tuple(map(text_of_csv, table[column])) == FORMULAS
    assert (table["novelty"] == -1.5).all()
    assert list(annotation(FORMULAS).to_frame()["cell_type"]) == list(FORMULAS)


def test_changed_cells_are_no_formulas(tmp_path):
    """Nor are their types before and after."""
    names = np.array(FORMULAS, dtype=object)
    confidence = np.full(len(names), 0.5)
    changed = ChangedCells(names=names, types=(names, names[::-1]), confidence=(confidence, confidence))

    write_changes(changed, (1, 2), tmp_path / "changed.csv")

    rows = list(csv.reader(io.StringIO((tmp_path / "changed.csv").read_text(encoding="utf-8"))))
    assert len(rows) > 1
    for row in rows[1:]:
        assert all(text.startswith("'") for text in row[:3])


def test_suggested_and_accepted_labels_are_read_as_they_are(tmp_path):
    """The names of a table that somebody looks through in a spreadsheet are those of the file afterwards."""
    suggest_labels(FORMULAS).write(tmp_path / "labels.csv")
    places = {name: Place(name, "CL:0000236", "B cell", "broad", "") for name in FORMULAS}
    placement = Placement(cell_ontology().release, places)
    (tmp_path / "places.csv").write_bytes(placement.to_csv())

    assert set(names_in_table(tmp_path / "labels.csv")) == set(FORMULAS)
    assert read_placement(tmp_path / "places.csv", cell_ontology()) == placement
    for file in ("labels.csv", "places.csv"):
        lines = (tmp_path / file).read_text(encoding="utf-8").splitlines()[1:]
        assert not [line for line in lines if line.lstrip('"').startswith(("=", "+", "-", "@"))]


def test_names_of_novel_groups_are_read_as_they_were_suggested(tmp_path):
    """A name that is copied from the column of suggestions is the suggested one."""
    path = tmp_path / "names.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("cluster", "cells", "suggested", "name"))
        writer.writerow(("1", 5, "", csv_text("+T")))

    assert read_table(path)[0][1]["name"] == "+T"


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("screen", [io.StringIO(), Screen()], ids=["pipe", "terminal"])
def test_names_give_no_commands_to_a_terminal(screen, tmp_path):
    """Neither in lines nor in tables; line ends and rich's own styles are left."""
    table = Table()
    table.add_column("type")
    table.add_row(COMMANDS)
    session = Session(layout=None, stdout=screen)

    session.print(Answer({}, (f"cells of {COMMANDS}", table)))

    text = screen.getvalue()
    assert "\x1b[31m" not in text
    assert not set(text) & set("\x07\x08\x9b\u202e\u2066")
    assert text.count("red") == 2
    assert "\n" in text


def test_progress_and_representations_give_no_commands(capsys):
    """The name of a stage is told while it is learned."""
    lines = Lines()
    lines.start(1, COMMANDS)

    assert "\x1b" not in capsys.readouterr().err
    assert "\x1b" not in repr(annotation((COMMANDS,)))
    assert shown("plain\ttext\n") == "plain\ttext\n"


def test_the_card_of_a_stage_holds_no_markup_of_a_name():
    """MLflow shows it as Markdown: links, pictures, HTML and new lines of a name are text."""
    name = "B\n\n# Stage 9 <script>alert(1)</script> ![x](http://a/b.png) [y](javascript:z) `code`"
    card = model_card(make_record(1, types=(name, "NK"), new_types=(name,)))

    assert "<script" not in card.replace("\\<", "")
    assert "\n# Stage 9" not in card
    assert "](http" not in card.replace("\\]", "")
    assert "](javascript" not in card.replace("\\]", "")


def test_names_are_no_formulas_of_a_picture(tmp_path):
    """Dollar signs, long names and names that begin with an underscore: in heat maps, plots and their legends."""
    names = ["$\\foo$", "_hidden", "x$^{", "\u202eright to left", "name " * 40]
    figure = Figure(layout="constrained")
    draw_heat_map(figure.subplots(), np.eye(5), names, names)
    assert as_svg(figure).startswith("<")
    canal.pl.confusion(names, names).figure.savefig(tmp_path / "confusion.png")
    adata = anndata.AnnData(np.ones((5, 2), dtype=np.float32))
    adata.obs["given"] = names
    adata.obsm["X_umap"] = np.arange(10.0).reshape(5, 2)
    axes = canal.pl.umap(adata, color="given")
    axes.figure.savefig(tmp_path / "umap.png")
    assert any("_hidden" in label for label in axes.get_legend_handles_labels()[1])
