"""The page of a comparison, on a real registry of toy stages."""

import re
from pathlib import Path

import numpy as np
import pytest

import canal
from canal.compare.gather import compare_stages
from canal.compare.page import MOST_MAPS, stage_map, stages_with_maps, write_compare_page
from canal.errors import DataError
from canal.model.model import Model
from canal.registry.registry import Registry
from canal.stages import clusters
from canal.stages.layout import open_registry
from tests.integration.test_compare_many import kept_of
from tests.unit.registry.make import make_files, make_record


def test_the_page_has_a_map_of_every_stage(layout, tmp_path, monkeypatch):
    """Computed once: the second page opens no model, and is the same."""
    report = compare_stages(layout)
    monkeypatch.setattr(clusters, "umap_coordinates", lambda points, _: points[:, :2])  # UMAP compiles for seconds
    write_compare_page(layout, report, tmp_path / "a.html")
    monkeypatch.setattr(Model, "load", lambda *_: pytest.fail("a model was opened"))
    write_compare_page(layout, report, tmp_path / "b.html")

    html = (tmp_path / "a.html").read_text()
    assert (tmp_path / "b.html").read_text() == html
    assert html.count("data:image/png") == 1
    assert "in each stage's example bank" in html.replace("&#39;", "'")
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []

    def full_disk(_: Path) -> None:
        message = "No space left on device"
        raise OSError(message)

    # A disk that fills up leaves the page that was there.
    monkeypatch.setattr("canal.files.sync_file", full_disk)
    (tmp_path / "a.html").write_text("the page before")
    with pytest.raises(DataError, match="No space left"):
        write_compare_page(layout, report, tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text() == "the page before"


def test_markup_in_a_record_is_text_on_the_page(tmp_path, monkeypatch):
    """A record may come from anywhere, as by an import: whatever its fields hold, the page has no script."""
    monkeypatch.setattr("canal.compare.page.stage_map", lambda *_: pytest.fail("there is no map"))
    markup = "<script>alert(1)</script>"
    record = make_record(
        1, name=markup, created=markup, canal_version=markup, types=(markup, "B"), new_types=(markup,),
        notes={"held_back": markup, "overrides": [markup]}, bank={"per_type": {markup: 5}},
    )  # fmt: skip
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    registry = Registry.open(workspace.layout.registry, workspace.layout.settings.name, create=True)
    draft = registry.draft("toy-1")
    files = make_files(draft.folder)
    del files["bank.safetensors"]
    tests = kept_of(1).write(draft.folder)
    draft.commit(record, files | tests)

    workspace.compare(html=tmp_path / "page.html")

    html = (tmp_path / "page.html").read_text()
    assert "<td>&lt;script&gt;al</td>" in html  # the day it was added
    assert html.count("&lt;script&gt;") >= 4
    assert "<script" not in html


def test_a_map_shows_the_bank_as_the_network_represents_it(layout, monkeypatch):
    """Each cell with its type, at the place of what the model says of it."""
    registry = open_registry(layout)
    record = registry.record(3)
    model = registry.model(record)
    bank = model.bank
    reader = model.reader(bank.panel.genes)
    seen = []
    monkeypatch.setattr(clusters, "umap_coordinates", lambda points, _: seen.append(points) or points[:, :2])

    found = stage_map(registry, record)

    assert found.types == tuple(bank.labels.tolist())
    whole = np.flatnonzero(bank.measured[bank.source].all(axis=1))  # cells that measured all genes of the pool
    expected = reader.predict(bank.expression).representation
    np.testing.assert_allclose(seen[0][whole], expected[whole], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.coordinates, seen[0][:, :2], atol=1e-3)


def test_false_alarms_are_told_of_every_stage(layout):
    """From what was kept; shares that rise with alpha."""
    report = compare_stages(layout)

    assert {c.stage for c in report.alarms} <= {1, 2, 3}
    for curve in report.alarms:
        assert list(curve.share) == sorted(curve.share)


@pytest.mark.parametrize("focus", [1, 7, 13, 40])
def test_of_many_stages_some_have_a_map(focus):
    """The first, the focus, and others spread over the rest."""
    found = stages_with_maps(range(1, 41), focus)
    assert len(found) == MOST_MAPS
    assert found == sorted(found)
    assert {1, focus} <= set(found)
    assert stages_with_maps([4, 2], 2) == [4, 2]
