"""The page of a comparison is whole, holds every figure and fetches nothing."""

import base64
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from canal.compare import figures as compare_figures
from canal.compare.page import compare_page
from canal.compare.report import CompareReport, PageArt, ReferenceMethod, SetColumn, StageRow, TypeRow
from canal.report.plots import draw_heat_map


def make_report(n: int = 3, **changes) -> CompareReport:
    """Return a comparison of n stages; the last annotates."""
    stages = tuple(
        StageRow(
            number=k + 1, name=f"toy <{k}>", parent=k or None, created="2026-01-01T00:00:00", seconds=1.0,
            in_use=k == n - 1, held_back="It falls." if k == 1 else "", cells=10, types=2, new_types=("B", "NK & T"),
            genes=50, bank={"B": 5, "NK & T": 5 - k}, average=0.9, macro_f1=0.8, forgetting=0.01 if k else None,
            backward_transfer=-0.02 if k else None, f1={"B": 0.9}, history=({"training_loss": 1.0},) * 3,
        )
        for k in range(n)
    )  # fmt: skip
    sets = tuple(
        SetColumn(stage=k + 1, name=f"toy <{k}>", kind="share", path=f"/data/{k}", cells=20, in_bank=20 * (k == 0))
        for k in range(n)
    )
    rows = tuple(tuple(0.9 if j <= k else None for j in range(n)) for k in range(n))
    facts = {
        "model": "blood",
        "champion": n,
        "focus": n,
        "stages": stages,
        "sets": sets,
        "accuracy": rows,
        "macro_f1": rows,
        "untested": ({"stage": 2, "set": 1, "reason": "gone <away>"},),
        "types": (TypeRow(name="B", cells=3, average=0.5, forgetting=None, backward_transfer=None),),
        "confusion": {"B": {"B": 2, "NK & T": 1}},
    }
    return CompareReport(**(facts | changes))


def pictures(html: str) -> list[str]:
    """Return the SVG of every picture in a page."""
    return [base64.b64decode(code).decode() for code in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)]


def test_the_page_needs_nothing_from_outside():
    """Pictures stand in the page; no address is fetched, no script is run."""
    html = compare_page(make_report(), PageArt())

    found = pictures(html)

    assert len(found) == html.count("<img") == 6
    assert all("<svg" in svg for svg in found)
    assert "<script" not in html
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []


def test_figures_and_names_stand_in_the_page():
    """Names are escaped; what was held back or not measured says why."""
    html = compare_page(make_report(), PageArt())

    for text in (
        "blood: 3 stages",
        "toy &lt;1&gt;",
        "NK &amp; T",
        "It falls.",
        "gone &lt;away&gt;",
        "0.9000",
        "-0.0200",
    ):
        assert text in html
    assert "Stage 3, toy &lt;2&gt;, annotates." in html
    assert "20 of the 20 cells of stage 1" in html
    assert "--references" in html


def test_references_say_what_they_have_seen():
    """The methods' own words stand beside their bars."""
    one = ReferenceMethod(
        name="naive", how="Trained on 3 of 9 cells.", accuracy=(0.5, None, 0.5), macro_f1=(0.5, None, 0.5)
    )

    html = " ".join(compare_page(make_report(references=(one,)), PageArt()).split())

    assert "Trained on 3 of 9 cells." in html
    assert "not to be compared" in html
    assert len(pictures(html)) == 7


@pytest.mark.parametrize("n", [1, 40])
def test_any_number_of_stages_is_drawn(n):
    """One stage, or more than can be told apart by colour."""
    assert len(pictures(compare_page(make_report(n, untested=()), PageArt()))) == 6


def test_nothing_tested_is_a_page_too():
    """A stage of an older canal kept no tests."""
    report = make_report(1, sets=(), accuracy=((),), macro_f1=((),), types=(), confusion={}, untested=())

    assert "blood" in compare_page(report, PageArt())


def test_the_same_comparison_is_the_same_page():
    """No time and no random name in it."""
    assert compare_page(make_report(), PageArt()) == compare_page(make_report(), PageArt())


def test_figures_are_written_into_the_fields():
    """NaN and empty counts stay without a figure."""
    axes = Figure().subplots()
    table = np.array([[1.0, np.nan], [0.25, 0.0]])

    draw_heat_map(axes, table, ["a", "b"], ["c", "d"], written=table * 4, form="{:.0f}")

    assert [text.get_text() for text in axes.texts] == ["4", "1"]


def test_tables_keep_what_is_missing():
    """None becomes NaN, an empty table stays empty."""
    np.testing.assert_array_equal(compare_figures.as_array([[0.5, None]]), [[0.5, np.nan]])
    assert compare_figures.as_array([]).shape == (0, 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ["Stage 3, toy &lt;2&gt;, annotates and is right for 90.0%", "there is nothing to mend"]),
        ({"forgetting": 0.05}, ["It lost 5.0 points on earlier stages", "canal stage rollback"]),
        ({"forgetting": None}, ["nothing could be forgotten yet"]),
        ({"f1": {"B": 0.2, "NK": 0.9}}, ["Do not rely on B (F1 0.20) without"]),
        ({"average": None}, ["there is nothing to conclude"]),
        ({"in_use": False}, ["does not annotate, and is right"]),
    ],
)
def test_the_page_begins_with_what_to_conclude(changes, said):
    """One paragraph on top says what the stage in use reaches, forgot, and what to do."""
    report = make_report()
    stages = (*report.stages[:-1], replace(report.stages[-1], **changes))

    html = compare_page(make_report(stages=stages), PageArt())

    top = html.split('class="conclusion">')[1].split("</p>")[0]
    for text in said:
        assert text in top
    if not changes:
        assert "Kept but not in use, for the reason in the table: stage 2." in top


def test_epochs_are_whole_numbers():
    """No epoch 2.5 on an axis."""
    history = ({"training_loss": 1.0, "validation_accuracy": 0.5},) * 4
    report = make_report(1)
    report = replace(report, stages=(replace(report.stages[0], history=history),))

    svg = compare_figures.training_curves(report)

    assert "<!-- 2 -->" in svg
    assert "<!-- 2.5 -->" not in svg
    assert "<!-- 1.5 -->" not in svg


def test_names_are_made_fit_for_pictures_once(monkeypatch: pytest.MonkeyPatch):
    """A dollar sign of a stage's name is drawn as it is written, on both sides of a heat map and in the legend."""
    report = make_report()
    report = replace(report, sets=tuple(replace(held_out, name="a$b") for held_out in report.sets))
    report = replace(report, stages=tuple(replace(stage, name="a$b") for stage in report.stages))
    drawn: list[Figure] = []
    monkeypatch.setattr(compare_figures, "as_svg", drawn.append)

    compare_figures.accuracy_heat_map(report)
    compare_figures.forgetting_curves(report)

    texts = [label.get_text() for figure in drawn for axes in figure.axes[:1] for label in axes.get_xticklabels()]
    texts += [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    texts += drawn[1].axes[0].get_legend_handles_labels()[1][:3]
    assert [text.count("$") for text in texts] == [text.count(r"\$") for text in texts]
    assert r"1 a\$b" in texts
    assert not any(r"\\$" in text or r"\\\\" in text for text in texts)
