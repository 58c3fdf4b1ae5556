"""From Python as from the command line: every command on stages has a method that does the same."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import CanalError, RegistryError
from canal.stages import clusters
from canal.stages.layout import Layout
from tests.integration.conftest import FILES
from tests.labs import add, write
from tests.make import make_adata


def told(layout: Layout, *words: Any) -> dict[str, Any]:
    """Return the JSON of a command."""
    return json.loads(CliRunner().invoke(app, ["-C", str(layout.root), *map(str, words), "--json"]).stdout)


def plain(result: Any) -> dict[str, Any]:
    """Return what is printed of a result."""
    return json.loads(json.dumps(result.to_dict()))


def test_what_changes_nothing_says_the_same(layout, made, tmp_path, monkeypatch):
    """Compare, diff and their JSON; the page is written."""
    monkeypatch.setattr(clusters, "umap_coordinates", lambda points, _: points[:, :2])
    workspace = canal.open_workspace(layout.root)

    assert plain(workspace.compare()) == told(layout, "compare")
    assert plain(workspace.compare(1, 3)) == told(layout, "compare", 1, 3)
    data = made / "third.h5ad"
    assert plain(workspace.diff(1, 3, data=data)) == told(layout, "stage", "diff", 1, 3, "--data", data)
    in_memory = workspace.diff(1, 3, data=make_adata(80, types=FILES["third"], prefix="third", seed=2))
    assert plain(in_memory) == plain(workspace.diff(1, 3, data=data))
    assert workspace.verify() == workspace.gc() == []

    workspace.compare(html=tmp_path / "r.html")
    assert "data:image/png" in (tmp_path / "r.html").read_text()
    with pytest.raises(CanalError, match=r"does not end in \.html"):
        workspace.compare(html=tmp_path / "r.txt")


def test_what_is_in_use_is_changed(layout):
    """Promote and roll back; the model that annotates is the one that was chosen."""
    workspace = canal.open_workspace(layout.root)
    assert workspace.rollback().to_dict() == {
        "champion": 2, "name": "second", "version": 2, "before": 3, "changed": True,
    }  # fmt: skip
    assert workspace.champion() == told(layout, "stage", "list")["champion"] == 2
    assert plain(workspace.promote(1)) == {**told(layout, "stage", "promote", 1), "before": 2, "changed": True}
    assert workspace.model().record.number == 1
    with pytest.raises(RegistryError, match="first of its line"):
        workspace.rollback()


def test_a_stage_is_taken_out_handed_over_and_learned_again(tmp_path):
    """Each result tells what happened."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    for seed, (name, types) in enumerate(FILES.items()):
        add(workspace, write(tmp_path, name, types, seed=seed))
    result = workspace.remove(2)
    assert (result.stage, result.champion, result.removed_types) == (4, True, ("CD4 T",))

    assert workspace.export(tmp_path / "m.canal").number == 4
    other = canal.open_workspace(tmp_path / "other", create=True)
    assert other.import_stage(tmp_path / "m.canal", name="atlas").name == "atlas"
    assert other.champion() == 1

    report = workspace.replay(tmp_path / "again")
    assert report.identical, [(stage.stage, stage.different) for stage in report.stages]
    assert [stage.stage for stage in report.stages] == [1, 2, 3, 4]
