"""`canal demo` from an empty folder to a picture, as a newcomer runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from canal.data.example_cells import HELD_OUT, LABELS, STAGES, held_out_rows
from canal.demo.demo import Scores, run_demo
from canal.errors import ConfigError


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a demonstration and its JSON; it is run once."""
    folder = tmp_path_factory.mktemp("newcomer")
    done = subprocess.run(
        [sys.executable, "-m", "canal.cli.main", "demo", "--json"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder / "canal-demo", json.loads(done.stdout)


@pytest.mark.slow
def test_the_demonstration_shows_what_it_promises(demo):
    """New types at every stage, figures after every stage, little forgetting, references beside it."""
    folder, found = demo
    assert Path(found["workspace"]).name == folder.name
    assert found["stages"] == list(STAGES)
    assert [len(row) for row in found["canal"]["accuracy"]] == [1, 2, 3]
    assert found["canal"]["forgetting"] < 0.05
    assert found["naive_fine_tuning"]["forgetting"] > 0.3
    assert found["canal"]["mean_accuracy"] > found["naive_fine_tuning"]["mean_accuracy"] + 0.3
    assert found["canal"]["mean_accuracy"] > found["joint_logistic_regression"]["mean_accuracy"] - 0.05
    assert json.loads((folder / "demo.json").read_text()) == found


@pytest.mark.slow
def test_the_demonstration_leaves_a_workspace(demo):
    """Annotated cells, a picture and three stages that the other commands know."""
    folder, _ = demo
    annotated = ad.read_h5ad(folder / "annotated.h5ad")
    assert {"canal_cell_type", "canal_confidence", LABELS} <= set(annotated.obs)
    assert annotated.uns["canal"]["stage"] == len(STAGES)
    right = annotated.obs["canal_cell_type"].astype(str) == annotated.obs[LABELS].astype(str)
    assert right.mean() > 0.75
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    done = subprocess.run(
        [sys.executable, "-m", "canal.cli.main", "-C", str(folder), "stage", "list", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    stages = json.loads(done.stdout)["stages"]
    assert [s["name"] for s in stages] == list(STAGES)
    assert all(s["new_types"] for s in stages)


def test_foreign_folders_are_left_alone(tmp_path):
    """A folder with anything else in it is refused."""
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(ConfigError, match="--out"):
        run_demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_quarter_of_each_type_is_held_out():
    """At least one cell of every type, the same cells for the same seed."""
    labels = np.array(["a"] * 40 + ["b"] * 2, dtype=object)
    rows = held_out_rows(labels, 0)
    assert (labels[rows] == "a").sum() == 40 * HELD_OUT
    assert (labels[rows] == "b").sum() == 1
    np.testing.assert_array_equal(rows, held_out_rows(labels, 0))
    assert not np.array_equal(rows, held_out_rows(labels, 1))


def test_forgetting_is_the_loss_since_the_best_time():
    """The last stage cannot be forgotten yet; one stage alone forgets nothing."""
    scores = Scores(accuracy=[[0.8], [0.9, 0.5], [0.7, 0.6, 1.0]])
    assert scores.forgetting == pytest.approx(((0.9 - 0.7) + (0.5 - 0.6)) / 2)
    assert Scores(accuracy=[[0.8]]).forgetting == 0.0
