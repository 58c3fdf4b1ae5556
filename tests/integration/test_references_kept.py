"""References are trained once for the same cells and settings, and again for others."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import canal
from canal.compare import references as compare_references
from canal.compare.gather import compare_stages
from canal.compare.report import ReferenceMethod
from canal.registry.registry import Registry
from canal.stages.layout import Layout
from tests.labs import QUICK
from tests.make import make_adata


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Note whose files each training had, instead of training."""
    calls: list[list[int]] = []

    def train(stored, readable, _progress) -> tuple[ReferenceMethod, ...]:
        calls.append(sorted(readable.cells))
        none = (None,) * (len(stored.sets) - 1)
        return (ReferenceMethod(name="one", how=f"call {len(calls)}", accuracy=(0.5, *none), macro_f1=(0.1, *none)),)

    monkeypatch.setattr(compare_references, "train_references", train)
    return calls


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two files and a workspace that learned them."""
    folder = tmp_path_factory.mktemp("references")
    workspace = canal.open_workspace(folder / "ws", create=True)
    for seed, name in enumerate(("first", "second")):
        make_adata(60, types=("B", "NK"), prefix=name, seed=seed).write_h5ad(folder / f"{name}.h5ad")
        workspace.add_stage(folder / f"{name}.h5ad", labels="cell_type", overrides=QUICK)
    return folder


@pytest.fixture
def folder(learned: Path) -> Iterator[Path]:
    """The same; the files are put back afterwards, and nothing is kept of the references."""
    contents = {path: path.read_bytes() for path in learned.glob("*.h5ad")}
    yield learned
    for path, content in contents.items():
        path.write_bytes(content)
    shutil.rmtree(learned / "ws" / "registry" / "cache", ignore_errors=True)


@pytest.fixture
def lab(folder: Path) -> Layout:
    """The workspace."""
    return Layout(folder / "ws")


def ask(layout: Layout, *numbers: int) -> str:
    """Compare with references; return which training they come from."""
    return compare_stages(layout, numbers, references=True).references[0].how


def test_the_second_time_nothing_is_read_or_trained(lab, trained, monkeypatch):
    """Not even after the workspace was closed; the answer is the same object for object."""
    first = compare_stages(lab, references=True).references
    monkeypatch.setattr(compare_references, "read_line", lambda *_: pytest.fail("files were read"))

    assert compare_stages(Layout(lab.root), references=True).references == first
    assert len(trained) == 1


def test_a_file_that_was_only_touched_is_read_again(lab, trained, folder):
    """Its cells are what they were: nothing is trained; a copy in its place is the same, too."""
    assert ask(lab) == "call 1"
    os.utime(folder / "first.h5ad", (1, 1))
    assert ask(lab) == "call 1"
    shutil.copy(folder / "second.h5ad", folder / "copy")
    (folder / "copy").replace(folder / "second.h5ad")
    assert ask(lab) == "call 1"


def test_changed_cells_are_trained_again(lab, trained, folder):
    """Also where size and time of writing were set back; with the old cells the old answer is back."""
    path = folder / "first.h5ad"
    before, stat = path.read_bytes(), path.stat()
    ask(lab)
    make_adata(60, types=("B", "NK"), prefix="first", seed=7).write_h5ad(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert ask(lab) == "call 2"
    path.write_bytes(before)
    assert ask(lab) == "call 1"
    assert trained == [[1, 2], [2]]


def test_a_file_that_went_or_came_back(lab, trained, folder):
    """Each state has its own answer."""
    (folder / "first.h5ad").rename(folder / "away")
    assert ask(lab) == "call 1"
    (folder / "away").rename(folder / "first.h5ad")
    assert ask(lab) == "call 2"
    (folder / "first.h5ad").unlink()
    assert ask(lab) == "call 1"
    assert trained == [[2], [1, 2]]


def test_another_stage_has_other_references(lab, trained):
    """They are put beside one stage: the one in use, or the last of those that were named."""
    assert [ask(lab), ask(lab, 1), ask(lab, 2), ask(lab)] == ["call 1", "call 2", "call 1", "call 1"]
    assert trained == [[1, 2], [1]]


def test_a_damaged_or_deleted_answer_is_computed_again(lab, trained):
    """What is kept beside the registry is no place to trust, and gc may delete it."""
    ask(lab)
    for path in (lab.registry / "cache" / "computed").iterdir():
        path.write_text(path.read_text().replace("call 1", "call 9"))
    assert ask(lab) == "call 2"

    gone = Registry.open(lab.registry, lab.settings.name).collect_garbage(cache_limit=0)
    assert {o.kind for o in gone} == {"copy"}
    assert ask(lab) == "call 3"
