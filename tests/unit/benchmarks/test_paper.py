"""CANAL's experiments: declarations that fit, clear messages, and a run on cells like the authors'."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from benchmarks.paper import run, table
from benchmarks.paper_cells import Experiment, read_experiment, split
from canal.config import load_preset
from canal.errors import ConfigError, DataError
from tests.make import make_adata

ROOT = Path(__file__).parents[3]
DECLARED = sorted((ROOT / "stages/paper").glob("*.toml"))
SMALL = (
    "encoder.dim=8", "encoder.depth=2", "encoder.heads=2", "encoder.dim_head=8", "encoder.hidden=8",
    "encoder.representation=4", "genes.per_stage=20", "training.epochs=2", "bank.size=30",
)  # fmt: skip
TEXT = """
schema = 1
name = "toy"
preset = "canal-paper"
seed = 1
source = "dataset_name"
labels = "cell_type"
min_genes = 5
cells = "data/toy.h5ad"
[rename]
"CD4 T" = "CD4"
[[stage]]
name = "one"
contains = "One"
types = ["B", "NK"]
hold_out = { cells = 20, seed = 1 }
printed_cells = 40
[[stage]]
name = "two"
contains = "Two"
types = ["B", "CD4"]
hold_out = { cells = 20, seed = 2 }
[[stage]]
name = "three"
contains = ["Three"]
tested_only = true
[[test]]
name = "all"
stages = ["one", "two", "three"]
printed = { cells = 60, accuracy = 0.9 }
"""


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    """Return a declaration and its file."""
    parts = [
        make_adata(80, 40, types=types, prefix=name, seed=i)
        for i, (name, types) in enumerate([("One", ("B", "NK")), ("Two", ("B", "CD4 T")), ("Three", ("NK", "HSC"))])
    ]
    cells = ad.concat(parts)
    cells.obs["dataset_name"] = np.repeat(["One_2016", "Two_2017", "Three_2018"], 80)
    (tmp_path / "data").mkdir()
    cells.write_h5ad(tmp_path / "data/toy.h5ad")
    path = tmp_path / "toy.toml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("path", DECLARED, ids=lambda p: p.stem)
def test_the_three_experiments_say_which_files_are_missing(path: Path) -> None:
    """They fit the format; without the authors' files the message names each of them."""
    assert len(DECLARED) == 3
    with pytest.raises(ConfigError, match=r"files that are not here.*h5ad.*--data"):
        read_experiment(path)


def test_the_split_is_the_authors(declared: Path) -> None:
    """The first cells of NumPy's legacy permutation are tested on, before types are left out; none is in both."""
    parts = split(read_experiment(declared))

    train, test = parts["one"]
    first = np.random.RandomState(1).permutation(80)[:20]
    assert sorted(test.obs_names) == sorted(f"One{i}" for i in first)
    assert not set(train.obs_names) & set(test.obs_names)
    assert set(parts["two"][0].obs["cell_type"]) == {"B", "CD4"}  # renamed
    assert parts["three"][0] is None
    assert set(parts["three"][1].obs["cell_type"]) == {"NK"}  # HSC was never taught


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('source = "dataset_name"', 'source = "batch_id"', "no column 'batch_id'"),
        ('contains = "One"', 'contains = "Muraro"', "no cell of stage one.*One_2016"),
        ('types = ["B", "NK"]', 'types = ["B", "alpha"]', "no cell of alpha; it has B, NK"),
    ],
)
def test_a_file_that_does_not_fit_says_what_to_mend(declared: Path, old: str, new: str, says: str) -> None:
    """What was found, what was expected, where to mend it."""
    declared.write_text(TEXT.replace(old, new))

    with pytest.raises(DataError, match=says):
        split(read_experiment(declared))


def test_an_unknown_key_is_refused(declared: Path) -> None:
    """A declaration with a slip of the pen is no declaration."""
    declared.write_text(TEXT.replace("tested_only", "test_only"))

    with pytest.raises(ConfigError, match="test_only"):
        read_experiment(declared)


def test_two_stages_run_and_stand_beside_the_printed_figures(declared: Path, tmp_path: Path) -> None:
    """The preset canal-paper learns the stages; the table has our figures and the paper's."""
    experiment: Experiment = read_experiment(declared)

    found = run(experiment, tmp_path / "out", SMALL)

    assert [s["cells"] for s in found["stages"]] == [60, 60]
    assert found["tests"][0]["ours"]["cells"] == 80  # 20 + 20 + 40
    assert found["tests"][0]["printed"] == {"cells": 60, "accuracy": 0.9}
    assert "| all | 80 | 60 |" in table(found)
    assert "| one | 60 | 40 |" in table(found)
    with pytest.raises(ConfigError, match="holds a workspace already"):
        run(experiment, tmp_path / "out", SMALL)


def test_the_papers_bank_leaves_places_empty() -> None:
    """Pancreas, first stage: 7 types share 1,000 places, 142 each; types with 76 and 59 cells fill no more (845)."""
    from canal.training.examples import balanced_quotas, floor_quotas

    cells = dict(zip("abcdefg", (168, 613, 352, 153, 177, 76, 59), strict=True))

    assert load_preset("canal-paper").bank.quotas == "floor"
    assert sum(floor_quotas(cells, 1000).values()) == 845
    assert sum(balanced_quotas(cells, 1000).values()) == 1000
