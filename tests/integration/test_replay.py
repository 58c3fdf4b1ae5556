"""Replay: a registry is built again from its declarations, and the answer says whether it is the same."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import ConfigError, DataError, StageError
from canal.history.exchange import export_stage, import_stage
from canal.history.remove import remove_stage
from canal.history.replay import replay
from canal.registry.registry import Registry
from canal.stages.layout import Layout
from tests.integration.conftest import FILES
from tests.labs import QUICK
from tests.make import make_adata


def run(layout: Layout, *words) -> tuple[int, dict]:
    """Run a command line with --json."""
    result = CliRunner().invoke(app, ["-C", str(layout.root), *map(str, words), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def digests(layout: Layout) -> list[dict]:
    """Return the digests of all files of all stages."""
    return [record.artifacts for record in canal.open_workspace(layout.root).stages()]


def test_replay_gives_the_same_bytes(layout, tmp_path):
    """Stages, a roll-back and a removal are learned again; every file is identical."""
    remove_stage(layout, 2)
    Registry.open(layout.registry, layout.settings.name).set_champion(2)
    make_adata(80, types=("B", "MK"), prefix="fifth", seed=5).write_h5ad(tmp_path / "fifth.h5ad")
    canal.open_workspace(layout.root).add_stage(tmp_path / "fifth.h5ad", labels="cell_type", overrides=QUICK)

    code, found = run(layout, "stage", "replay", layout.stages, "--out", tmp_path / "again")

    assert found["identical"], found
    assert code == 0
    assert [s["stage"] for s in found["stages"]] == [1, 2, 3, 4, 5]
    parents = [r.parent for r in canal.open_workspace(tmp_path / "again").stages()]
    assert parents == [None, 1, 2, 3, 2]


def test_replay_names_what_is_different(layout, tmp_path):
    """A declaration with another digest is not called identical."""
    path = next(layout.stages.glob("001-*"))
    weights = canal.open_workspace(layout.root).stage(1).artifacts["weights.safetensors"]
    path.write_text(path.read_text().replace(weights, "sha256:" + "0" * 64))
    for other in layout.stages.glob("00[23]-*"):
        other.unlink()

    code, found = run(layout, "stage", "replay", layout.stages, "--out", tmp_path / "again")

    assert code == 1
    assert found["stages"] == [{"stage": 1, "name": "first", "canal": canal.__version__,
                                "different": ["weights.safetensors"]}]  # fmt: skip


def test_replay_refuses_missing_and_changed_files(layout, made, tmp_path):
    """All of them are named at once, and nothing is written."""
    content = (made / "second.h5ad").read_bytes()
    (made / "first.h5ad").rename(made / "away.h5ad")
    make_adata(80, types=FILES["second"], prefix="other", seed=8).write_h5ad(made / "second.h5ad")
    try:
        with pytest.raises(DataError, match=r"stage 1 .*first\.h5ad.*stage 2 .*was changed"):
            replay(layout.stages, tmp_path / "again")
    finally:
        (made / "away.h5ad").rename(made / "first.h5ad")
        (made / "second.h5ad").write_bytes(content)
    assert not (tmp_path / "again").exists()


BAD = {
    "no folder": (shutil.rmtree, StageError, "holds no declarations"),
    "nothing left": (
        lambda stages: next(stages.glob("001-*")).unlink(),
        StageError,
        "None of these stages .* Stage 1: .* no declaration",
    ),
    "twice": (
        lambda stages: shutil.copy(next(stages.glob("002-*")), stages / "002-copy.toml"),
        StageError,
        "stages 1, 2, 2, 3; expected each number once",
    ),
    "no declaration": (lambda stages: next(stages.glob("002-*")).write_text("= 3"), StageError, "002-second"),
    "newer": (
        lambda stages: (p := next(stages.glob("001-*"))).write_text(p.read_text().replace("schema = 1", "schema = 9")),
        StageError,
        "newer canal",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=BAD)
def test_replay_refuses_declarations_that_do_not_fit(layout, tmp_path, case):
    """One message, and no new workspace."""
    spoil, error, match = BAD[case]
    spoil(layout.stages)
    with pytest.raises(error, match=match):
        replay(layout.stages, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_replay_takes_no_folder_with_other_things(layout, tmp_path):
    """What is there is not overwritten."""
    with pytest.raises(ConfigError, match="not empty"):
        replay(layout.stages, layout.root)


def test_a_stage_that_fell_too_much_is_a_candidate_again(layout, tmp_path, monkeypatch):
    """The rule has the same say, so that later stages have the same parents."""
    monkeypatch.setattr("canal.history.remove.reason_to_hold_back", lambda *_: "It falls.")
    remove_stage(layout, 2)

    found = replay(layout.stages, tmp_path / "again")

    assert found.identical
    again = canal.open_workspace(tmp_path / "again")
    assert (again.champion(), again.stage(4).notes["held_back"]) == (3, "It falls.")


def test_an_imported_stage_comes_from_its_export(layout, tmp_path):
    """Where the file lies beside the declarations; what was learned on top of it is learned again."""
    export_stage(layout, 2, tmp_path / "two.canal")
    other = canal.open_workspace(tmp_path / "other", create=True).layout
    import_stage(other, tmp_path / "two.canal", "taken")
    make_adata(80, types=("B", "MK"), prefix="next", seed=5).write_h5ad(tmp_path / "next.h5ad")
    canal.open_workspace(other.root).add_stage(tmp_path / "next.h5ad", labels="cell_type", overrides=QUICK)

    with pytest.raises(
        StageError, match=r"Stage 1: It was imported, and no export in .*stages is the one with sha256:"
    ):
        replay(other.stages, tmp_path / "without")
    assert not (tmp_path / "without").exists()

    shutil.copy(tmp_path / "two.canal", other.stages / "any-name.canal")
    (other.stages / "no-export.canal").write_bytes(b"other")
    found = replay(other.stages, tmp_path / "again")

    assert found.identical
    assert [stage.name for stage in found.stages] == ["taken", "next"]
    assert digests(Layout(tmp_path / "again")) == digests(other)


def test_what_is_missing_is_left_out_with_all_that_follows(layout, tmp_path):
    """Stages keep their numbers; the answer is not `identical`, and says why."""
    registry = Registry.open(layout.registry, layout.settings.name)
    registry.set_champion(1)
    make_adata(80, types=("B", "MK"), prefix="fourth", seed=5).write_h5ad(tmp_path / "fourth.h5ad")
    workspace = canal.open_workspace(layout.root)
    workspace.add_stage(tmp_path / "fourth.h5ad", labels="cell_type", overrides=QUICK)
    workspace.add_stage(make_adata(60, types=("B", "NK"), seed=6), labels="cell_type", name="memory", overrides=QUICK)
    next(layout.stages.glob("002-*")).unlink()

    code, found = run(layout, "stage", "replay", layout.stages, "--out", tmp_path / "again")

    assert code == 1
    assert not found["identical"]
    assert [(s["stage"], s["different"]) for s in found["stages"]] == [(1, []), (4, [])]
    assert [(s["stage"], s["name"]) for s in found["left_out"]] == [(2, ""), (3, "third"), (5, "memory")]
    assert [
        text for s, text in zip(found["left_out"], ("no declaration", "learned from stage 2, which is left out",
                                                    "given in memory"), strict=True) if text in s["reason"]
    ] == ["no declaration", "learned from stage 2, which is left out", "given in memory"]  # fmt: skip
    assert [r.number for r in canal.open_workspace(tmp_path / "again").stages()] == [1, 4]
    shown = CliRunner().invoke(app, ["stage", "replay", str(layout.stages), "--out", str(tmp_path / "third")]).stdout
    assert "stage 2: left out." in shown
    assert "Not identical." in shown
