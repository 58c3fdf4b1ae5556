"""A stage that was imported can be learned on: its own stage numbers are never taken for those of this registry."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import canal
from canal.compare.gather import compare_stages, read_stored_tests
from canal.compare.references import read_line
from canal.data.genes import Genes
from canal.errors import StageError
from canal.history.remove import remove_stage
from canal.history.replay import replay
from canal.model.bank import load_bank
from canal.model.memory import load_memory
from canal.model.model import Model
from canal.registry.registry import Registry
from canal.workspace import Workspace, load_model
from tests.labs import add, write
from tests.make import TYPES, make_adata

TAUGHT = (("B", "NK"), ("B", "CD4 T"), ("NK", "HSC"), ("B", "MK"), ("DC", "NK"))
# Files that hold nothing but the model; the others hold the number of the stage.
MODEL = ("weights.safetensors", "memory.safetensors", "bank.safetensors", "novelty.json", "genes.json")
GENES = {"other genes": lambda k: 10 * k, "as many other genes": lambda _: 20, "the same genes": lambda _: 0}


def cells(folder: Path, k: int, more: int = 0) -> Path:
    """Write the k-th file, with genes that no other file has."""
    genes = [f"GENE{g}" for g in range(60)] + [f"OWN{k}_{g}" for g in range(more)]
    return write(folder, f"file{k}", TAUGHT[k - 1], n=120, seed=k, n_genes=len(genes), genes=genes)


def files_of(workspace: Workspace, number: int) -> Path:
    """Return the folder with the files of a stage."""
    registry = Registry.open(workspace.layout.registry, workspace.layout.settings.name)
    return registry.artifacts(registry.record(number))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace of two stages, its second stage as a file, and further files of cells."""
    folder = tmp_path_factory.mktemp("origin")
    workspace = canal.open_workspace(folder / "ws", create=True)
    for k in (1, 2):
        add(workspace, cells(folder, k), name=f"own{k}")
    workspace.export(folder / "two.canal", 2)
    for k in (3, 4, 5):
        cells(folder, k)
    return folder


@pytest.fixture
def lab(origin: Path, tmp_path: Path) -> Path:
    """A copy of it; no test changes what another sees, and the files of cells stay where they were."""
    shutil.copytree(origin / "ws", tmp_path / "origin")
    return tmp_path


@pytest.fixture
def other(origin: Path, tmp_path: Path) -> Workspace:
    """A registry that imported the second stage and learned one on top of it: its own second stage."""
    workspace = canal.open_workspace(tmp_path / "other", create=True)
    workspace.import_stage(origin / "two.canal", name="taken")
    add(workspace, origin / "file3.h5ad", name="next")
    return workspace


@pytest.mark.parametrize("more", GENES.values(), ids=GENES)
def test_learning_goes_on_as_where_it_came_from(tmp_path: Path, more: Any) -> None:
    """Import and add: every file of the model is the one that its own registry would have learned, bit for bit."""
    home, away = (canal.open_workspace(tmp_path / name, create=True) for name in ("home", "away"))
    for k in (1, 2):
        add(home, cells(tmp_path, k, more(k)))
    home.export(tmp_path / "two.canal", 2)
    away.import_stage(tmp_path / "two.canal")
    third = cells(tmp_path, 3, more(3))

    here, there = add(home, third), add(away, third)

    assert (here.stage, there.stage) == (3, 2)
    expected, found = home.stage(3).artifacts, away.stage(2).artifacts
    assert {n: found[n] for n in MODEL} == {n: expected[n] for n in MODEL}
    assert there.champion


def test_stages_of_both_registries_with_the_same_numbers(lab: Path, origin: Path) -> None:
    """Where the importing registry has stages 1 and 2 of its own: the memory scores as where it came from."""
    busy = canal.open_workspace(lab / "busy", create=True)
    for k in (4, 5):
        add(busy, origin / f"file{k}.h5ad")
    busy.import_stage(origin / "two.canal")
    busy.promote(3)
    home = canal.open_workspace(lab / "origin")

    add(home, origin / "file3.h5ad")
    add(busy, origin / "file3.h5ad")

    expected, found = (load_memory(files_of(w, n) / "memory.safetensors") for w, n in ((home, 3), (busy, 4)))
    assert (list(expected.measured), list(found.measured)) == ([1, 2, 3], [1, 2, 4])
    query = make_adata(50, types=TYPES, seed=9)
    genes = Genes.of(query.var_names)
    weights = [m.solved_for(genes, home.stage(3).types).weights for m in (expected, found)]
    np.testing.assert_array_equal(*weights)
    assert busy.stage(4).notes["stage_keys"] == {"1": 3, "2": 3, "4": 4}
    assert set(busy.annotate(query, neighbors=3).columns["neighbor_1_stage"].tolist()) == {3, 4}


def test_an_import_of_an_import(lab: Path, origin: Path, other: Workspace) -> None:
    """Over two registries, each with numbers of its own: as if all had been learned in the first."""
    home, third = canal.open_workspace(lab / "origin"), canal.open_workspace(lab / "third", create=True)
    other.export(lab / "again.canal")
    third.import_stage(lab / "again.canal")
    for k in (3, 4):
        add(home, origin / f"file{k}.h5ad")

    add(third, origin / "file4.h5ad")

    expected, found = home.stage(4).artifacts, third.stage(2).artifacts
    assert {n: found[n] for n in MODEL} == {n: expected[n] for n in MODEL}
    assert third.stage(1).notes.get("stage_keys") is None
    assert third.stage(2).notes["stage_keys"] == {"1": 1, "2": 1, "3": 1, "4": 2}


def test_every_answer_names_the_stages_of_this_registry(lab: Path, origin: Path, other: Workspace) -> None:
    """Neighbours, bank, false alarms, figures and references; an export names them where there is no registry."""
    query = make_adata(60, types=("B", "NK", "CD4 T", "HSC"), seed=9)
    answer = other.annotate(query, neighbors=1)
    kind, stage = answer.columns["neighbor_1_type"], answer.columns["neighbor_1_stage"]
    assert set(stage[kind == "HSC"].tolist()) == {2}
    assert set(stage[kind == "CD4 T"].tolist()) == {1}
    size = other.bank(2)["size"]
    assert set(other.bank(2)["per_stage"]) == {"1", "2"}
    assert sum(other.bank(2)["per_stage"].values()) == size
    assert other.bank(1)["per_stage"] == {"1": other.bank(1)["size"]}

    report = compare_stages(other.layout)
    assert [(c.stage, c.name) for c in report.alarms] == [
        (1, "taken, its stage 1"),
        (1, "taken, its stage 2"),
        (2, "next"),
    ]
    assert report.accuracy[0][0] is not None  # the imported stage on its own cells, as its registry measured it
    assert report.accuracy[0][1] is None  # and not on ours: its outcome of "stage 2" is of its own stage 2
    assert report.stages[1].forgetting is not None
    assert sorted(k for k in other.stage(1).metrics if k.startswith("test/")) == ["test/1/accuracy", "test/1/macro_f1"]
    changed = other.diff(1, 2).metrics
    assert changed.get("test/1/accuracy", (1, 1))[0] is not None

    registry = Registry.open(other.layout.registry, other.layout.settings.name)
    records = {r.number: r for r in registry.records()}
    bank = read_line(registry, read_stored_tests(registry, records, [2]), 2).bank
    assert dict(zip(*np.unique(bank.stage, return_counts=True), strict=True)) == {
        int(k): n for k, n in other.bank(2)["per_stage"].items()
    }

    other.export(lab / "next.canal")
    alone = load_model(lab / "next.canal").annotate(query, neighbors=1)
    np.testing.assert_array_equal(alone.columns["neighbor_1_stage"], stage)


def test_the_next_stage_is_tested_on_the_imported_one(origin: Path, other: Workspace) -> None:
    """On its own cells, whose file is here: beside what its registry measured on them."""
    found = add(other, origin / "file4.h5ad").tested

    assert [t["stage"] for t in found] == [1, 2]
    assert all(t["accuracy"] is not None and t["before"] is not None for t in found)


@pytest.mark.parametrize(("removed", "keys"), [(2, {1, 2}), (1, {3})], ids=["own stage", "imported stage"])
def test_either_can_be_taken_out(origin: Path, other: Workspace, removed: int, keys: set[int]) -> None:
    """The model is without it exactly, and the other one is all there; learning goes on."""
    before = load_memory(files_of(other, 2) / "memory.safetensors")

    result = remove_stage(other.layout, removed)

    folder = files_of(other, 3)
    after, bank = load_memory(folder / "memory.safetensors"), load_bank(folder / "bank.safetensors")
    left = [s for s in before.statistics if s.stage in keys]
    assert [(s.stage, s.name, s.n) for s in after.statistics] == [(s.stage, s.name, s.n) for s in left]
    for ours, theirs in zip(after.statistics, left, strict=True):
        np.testing.assert_array_equal(ours.factors, theirs.factors)
    assert set(bank.stage.tolist()) == keys
    assert {s.stage for s in Model.load(folder).novelty.stages} == keys
    assert [t["stage"] for t in result.tested] == [3 - removed]
    assert set(other.bank(3)["per_stage"]) == {str(3 - removed)}
    with pytest.raises(StageError, match="without it already"):
        remove_stage(other.layout, removed)
    add(other, origin / "file4.h5ad")
    assert other.stage(4).notes["stage_keys"] == {str(k): 3 - removed for k in sorted(keys)} | {"4": 4}


def test_a_line_of_an_older_canal_is_not_taken_apart(lab: Path, origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It noted nothing, and its cells may bear the number of imported ones: nothing must be taken for them."""
    old = canal.open_workspace(lab / "old", create=True)
    old.import_stage(origin / "two.canal")
    monkeypatch.setattr("canal.stages.add.key_note", lambda *_: {})
    add(old, origin / "file3.h5ad")

    for number in (1, 2):
        with pytest.raises(StageError, match=rf"Stage {number} .* cannot be removed: stage 1 was imported"):
            remove_stage(old.layout, number)
    assert [c.name for c in compare_stages(old.layout).alarms] == ["", "", ""]


def test_replay_builds_such_a_registry_again(lab: Path, origin: Path, other: Workspace) -> None:
    """The import, what was learned on it, a removal and what follows: bit for bit."""
    remove_stage(other.layout, 1)
    add(other, origin / "file4.h5ad")
    shutil.copy(origin / "two.canal", other.layout.stages / "two.canal")

    found = replay(other.layout.stages, lab / "again")

    assert found.identical, json.dumps(found.to_dict(), indent=1)
    again = canal.open_workspace(lab / "again")
    assert [r.notes.get("stage_keys") for r in again.stages()] == [r.notes.get("stage_keys") for r in other.stages()]
