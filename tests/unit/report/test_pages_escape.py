"""Markup in records, labels, genes and names of files comes out as text on every page."""

from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from canal.compare import figures
from canal.compare.page import compare_page
from canal.compare.report import AlarmCurve, PageArt, Picture, ReferenceMethod, StageMap
from canal.novel.page import novel_page
from canal.novel.report import NovelCluster, NovelReport
from canal.report.groups import MarkerGene, NearestType
from tests.unit.report.test_compare_page import make_report

# It opens elements, ends attributes of either quotes, and is a piece of a template; no slash, which ends a file name.
MARKUP = "<script>'\" onerror=\"x\" onload='y'><img>{{ 7 * 7 }}{% raw %}&amp;"
FIXED_KEYS = {"stage", "set", "reason"}  # of what was not measured; all other keys are names of types and batches


def marked(value: Any) -> Any:
    """Return a copy of plain values or dataclasses with markup before every text."""
    if isinstance(value, str):
        return MARKUP + value if value else ""
    if isinstance(value, tuple):
        return tuple(marked(one) for one in value)
    if isinstance(value, dict):
        return {key if key in FIXED_KEYS else marked(key): marked(one) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changes = {field.name: marked(getattr(value, field.name)) for field in fields(value)}
        return replace(value, **changes)
    return value


class Elements(HTMLParser):
    """Collects the elements of a page with the names of their attributes, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    return elements


def check(plain: str, with_markup: str) -> None:
    """Compare a page with the same page of values that hold markup: other text, the same elements."""
    assert read(with_markup).found == read(plain).found
    assert "<script" not in with_markup
    assert "<img>" not in with_markup
    assert MARKUP in read(with_markup).text
    assert MARKUP not in with_markup


def test_markup_is_text_on_the_page_of_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every text field of the report and of what is drawn beside it; pictures have no room for such names."""
    monkeypatch.setattr(figures, "as_svg", lambda _: "<svg></svg>")
    monkeypatch.setattr(figures, "map_pictures", lambda _: b"png")
    method = ReferenceMethod(name="naive", how="Trained.", accuracy=(0.5, None, 0.5), macro_f1=(0.5, None, 0.5))
    curve = AlarmCurve(stage=1, name="toy", cells=80, alpha=(0.05, 0.1), share=(0.04, 0.2))
    stage_map = StageMap(stage=1, name="toy", types=("B", "NK"), coordinates=np.zeros((2, 2)))
    picture = Picture(title="Confidence", svg="<svg></svg>", caption="Bars.")
    for changes in ({"references": (method,), "alarms": (curve,)}, {"recomputed": True}):
        report, art = make_report(**changes), PageArt(maps=(stage_map,), pictures=(picture,))

        check(compare_page(report, art), compare_page(marked(report), marked(art)))


def novel_report() -> NovelReport:
    """Return a report with something in every field."""
    marker = MarkerGene(gene="CD3D", fold=2.0, share=0.9, share_others=0.1, p_value=0.001)
    cluster = NovelCluster(
        name="1", cells=30, suggested="near B (CD3D)", apart=True, silhouette=0.4, own_share=0.9, batches={"one": 30},
        markers=(marker,), markers_others=(marker,), near=(NearestType(name="B", share=1.0, distance=None),),
        novelty=3.0, p_value=0.01, confidence=0.6,
    )  # fmt: skip
    return NovelReport(
        model="blood", stage=2, canal_version="0.1", data="C:\\cells.h5ad", data_digest="sha256:0", alpha=0.05,
        uncertain_too=False, resolution=1.0, min_size=10, seed=0, cells=100, cells_by_status={"known": 60, "novel": 40},
        taken=30, for_neighbours=0, aside=0, batch="donor", known_types=("B",), clusters=(cluster,),
        warnings=("Values look scaled.",),
    )  # fmt: skip


def test_markup_is_text_on_the_page_of_novel_cells() -> None:
    """In every text field of the report."""
    report = novel_report()
    check(novel_page(report, b"png", b"png"), novel_page(marked(report), b"png", b"png"))
