"""Every command passes on what it is told and prints what it gets."""

from pathlib import Path

import pytest

from canal.cli.answer import Session
from canal.stages.layout import Layout


def test_stage_add_passes_every_option_on(run_json, workspace):
    """No option of `stage add` is without effect."""
    run_json(
        "stage add --data a.h5ad --labels kind --name first --preset canal",
        "--set training.epochs=2 --set bank.size=10 --seed 7 --resume --again",
        "--drop-rare --drop-label mess --keep-label other --keep-label Doublet",
        "--strict-labels --label-map map.csv --gene-key feature_name --test t.h5ad",
        "--weights w --devices 2 --nodes 3 --ontology map.csv",
    )
    asked = workspace.asked
    asked.pop("progress")
    assert asked == {
        "data": Path("a.h5ad"),
        "labels": "kind",
        "name": "first",
        "preset": "canal",
        "overrides": ("training.epochs=2", "bank.size=10"),
        "seed": 7,
        "resume": True,
        "again": True,
        "drop_rare": True,
        "drop_labels": ("mess",),
        "keep_labels": ("other", "Doublet"),
        "strict_labels": True,
        "label_map": Path("map.csv"),
        "gene_key": "feature_name",
        "test": Path("t.h5ad"),
        "weights": "w",
        "ontology": "map.csv",
        "devices": 2,
        "nodes": 3,
    }


def test_stage_add_leaves_defaults_to_the_workspace(run_json, workspace):
    """What is not said is None, so that canal.toml decides."""
    found = run_json("stage", "add", "--data", "a.h5ad")
    assert workspace.asked["labels"] is None
    assert workspace.asked["preset"] is None
    assert workspace.asked["seed"] is None
    assert found["new_types"] == ["B", "NK [bright]"]
    assert found["bank"]["size"] == 10
    assert found["metrics"]["validation_accuracy"] == 0.75


def test_annotate_passes_every_option_on(run_json, workspace):
    """No option of `annotate` is without effect; types are split at commas."""
    found = run_json(
        "annotate --data a.h5ad --out b.csv --stage 1 --types B,NK --majority-voting",
        "--over-clustering leiden --key-added mine --gene-key id --min-probability 0.4",
    )
    asked = workspace.asked
    assert asked["types"] == ["B", "NK"]
    assert asked["out"] == Path("b.csv")
    assert (asked["stage"], asked["key_added"], asked["gene_key"]) == (1, "mine", "id")
    assert (asked["majority_voting"], asked["over_clustering"]) == (True, "leiden")
    assert asked["min_probability"] == 0.4
    assert found["per_type"]["B"] == {"cells": 2, "mean_confidence": 0.75}
    assert found["model"] == "blood"


@pytest.mark.parametrize(
    ("out", "said"),
    [("b.txt", "does not end in .h5ad or .csv"), ("nowhere/b.csv", "no folder nowhere")],
)
def test_annotate_refuses_a_bad_target_before_any_work(run, workspace, out, said):
    """The answer is not computed if it cannot be written."""
    result = run("annotate", "--data", "a.h5ad", "--out", out)
    assert result.exit_code == 2
    assert said in result.stderr
    assert workspace.asked == {}


def test_evaluate_passes_every_option_on(run_json, workspace):
    """No option of `evaluate` is without effect."""
    found = run_json(
        "evaluate --data a.h5ad --labels kind --stage 1 --label-map m.csv --gene-key id --novel HSC --alpha 0.1",
        "--min-probability 0.4 --drop-label mess --keep-label other --adapt --batch donor --filter n>1",
    )
    assert workspace.asked == {
        "data": Path("a.h5ad"),
        "labels": "kind",
        "stage": 1,
        "label_map": Path("m.csv"),
        "drop_labels": ("mess",),
        "keep_labels": ("other",),
        "gene_key": "id",
        "novel": ("HSC",),
        "alpha": 0.1,
        "min_probability": 0.4,
        "adapt": True,
        "batch": "donor",
        "transductive": False,
        "filter": "n>1",
    }
    assert set(found) >= {"stage", "cells", "accuracy", "macro_f1", "ari", "per_type"}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "stage add --data a.h5ad",
            ["new: B, NK [bright]", "mind this", "left out: 7 whose label is no type, 1 of rare types", "0.7500"],
        ),
        ("stage list", ["1*", "first", "NK [bright]"]),
        ("stage show 1", ["1, first", "a.h5ad, values: counts", "'NK' looks like"]),
        ("bank show", ["10 cells (stage 1: 10)", "NK [bright]"]),
        ("annotate --data a.h5ad --out b.csv", ["NK [bright]", "3 cells; in b.csv"]),
        ("evaluate --data a.h5ad", ["accuracy 0.5000", "does not know HSC", "0.667"]),
    ],
)
def test_people_are_shown_names_as_they_are(run, workspace, line, shown):
    """Text for people holds the figures, and names with brackets stay whole."""
    result = run(line)
    assert result.exit_code == 0, result.output
    for part in shown:
        assert part in result.stdout


def test_an_empty_workspace_says_what_to_do(run, run_json, workspace):
    """`stage list` works before the first stage."""
    workspace.empty = True
    assert "canal stage add" in run("stage", "list").stdout
    assert run_json("stage", "list") == {"stages": [], "champion": None, "workspace": "blood"}


def test_stage_list_gives_whole_records(run_json, workspace):
    """The JSON of `stage list` holds the record that `stage show` shows beside the reliability."""
    shown = run_json("stage", "show", "1")
    assert shown.pop("reliability") is None
    assert run_json("stage", "list")["stages"] == [shown]


def test_init_makes_a_workspace_and_repeats_without_harm(run, run_json, tmp_path):
    """`init` twice leaves what is there."""
    assert run_json("init", "blood")["created"]
    (tmp_path / "blood/canal.toml").write_text('name = "mine"\n')
    assert run_json("-C", "blood", "init") == {
        "workspace": str(tmp_path / "blood"),
        "model": "mine",
        "created": False,
    }
    assert run("-C", "blood", "init", "other").exit_code == 2


def test_the_variable_names_the_workspace(run_json, monkeypatch, tmp_path):
    """CANAL_WORKSPACE is used where -C is not given."""
    monkeypatch.setenv("CANAL_WORKSPACE", str(tmp_path / "there"))
    assert run_json("init")["workspace"] == str(tmp_path / "there")
    assert run_json("-C", "here", "init")["workspace"] == str(tmp_path / "here")


def test_config_shows_presets_that_can_be_edited(run, run_json, tmp_path):
    """What `config show` prints is a preset again, listed once it is in configs/."""
    Layout.init(tmp_path)
    (tmp_path / "configs/mine.toml").write_text(run("config", "show", "canal").stdout)
    listed = run_json("config", "list")
    assert listed["default"] == "compact"
    assert listed["presets"]["mine"]["source"].endswith("mine.toml")
    assert run_json("config", "show", "mine") == run_json("config", "show", "canal")
    assert "unit" in run("config", "list").stdout or "compact" in run("config", "list").stdout


def test_config_list_names_a_broken_preset(run_json, tmp_path):
    """One broken file does not hide the others."""
    Layout.init(tmp_path)
    (tmp_path / "configs/bad.toml").write_text("= 3")
    presets = run_json("config", "list")["presets"]
    assert "not valid TOML" in presets["bad"]["description"]
    assert "compact" in presets


def test_version(run, run_json):
    """`version` prints one."""
    from canal import __version__

    assert run_json("version")["canal"] == __version__
    assert __version__ in run("version").stdout


def test_a_command_opens_the_workspace_that_is_meant(run, tmp_path):
    """Without a workspace, every reader says how to make one."""
    for line in ("stage list", "stage show 1", "bank show", "evaluate --data x --labels y", "ui"):
        result = run("-C", tmp_path / "none", line)
        assert result.exit_code == 2, line
        assert "canal init" in result.stderr
    assert not (tmp_path / "none").exists()


def test_a_bad_file_leaves_a_new_folder_empty(run, tmp_path):
    """`stage add` makes a workspace of an empty folder, but not for a file that cannot be read."""
    for folder in (tmp_path, tmp_path / "new"):
        result = run("-C", folder, "stage add --data missing.h5ad")
        assert result.exit_code == 2
        assert "missing.h5ad" in result.stderr
    assert not list(tmp_path.iterdir())


def test_stage_add_takes_no_folder_with_other_things(run, tmp_path):
    """A home folder does not become a workspace by accident."""
    (tmp_path / "thesis.doc").touch()
    result = run("stage add --data missing.h5ad")
    assert result.exit_code == 2
    assert "canal init" in result.stderr


def test_sessions_open_real_workspaces(tmp_path):
    """The session opens what -C names."""
    Layout.init(tmp_path)
    assert Session(Layout(tmp_path)).workspace().root == tmp_path
