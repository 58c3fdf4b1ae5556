"""Copies of what a server keeps: one file where one is enough, checked, and not without bound."""

import os
from pathlib import Path

import pytest

from canal.compare.gather import compare_stages
from canal.errors import RegistryError
from canal.files import digest_file
from canal.registry import cache
from canal.registry.registry import Registry
from canal.stages.layout import Layout
from canal.stages.testing.tests import TESTS_FILE
from tests.integration.registry.conftest import OpenRegistry, add
from tests.integration.test_compare_many import kept_of
from tests.unit.registry.make import fill, make_record

server_only = pytest.mark.parametrize("backend", ["server"], indirect=True)


def copies(registry: Registry) -> list[str]:
    """Return the copies of a registry."""
    return [path.relative_to(registry.root / "cache").as_posix() for path in cache.entries(registry.root / "cache")]


def test_one_file_of_a_stage(open_registry: OpenRegistry) -> None:
    """It is the file of the record; one that the stage has not is none."""
    registry = open_registry()
    record = add(registry, 1)

    path = registry.file(record, "types.json")
    assert path is not None
    assert digest_file(path) == record.artifacts["types.json"]
    assert registry.file(record, "no.json") is None


def test_an_altered_file_is_told(open_registry: OpenRegistry, stored) -> None:
    """Wherever it is kept."""
    registry = open_registry()
    record = add(registry, 1)
    (stored(record.run_id) / "types.json").write_text("other")
    with pytest.raises(RegistryError, match=r"types\.json of stage 1 was altered: expected sha256:"):
        registry.file(record, "types.json")
    (stored(record.run_id) / "types.json").unlink()
    with pytest.raises(RegistryError, match=r"types\.json is missing; expected types\.json of stage 1"):
        registry.file(record, "types.json")


@pytest.mark.slow
@server_only
def test_a_server_sends_that_file_alone(open_registry: OpenRegistry) -> None:
    """The weights stay where they are; an altered copy is fetched again; a whole copy serves, too."""
    registry = open_registry()
    record = add(registry, 1)
    path = registry.file(record, "types.json")
    assert path is not None
    assert [p.name for p in (registry.root / "cache").rglob("*") if p.is_file()] == ["types.json"]

    path.write_text("other")
    again = registry.file(record, "types.json")
    assert again is not None
    assert digest_file(again) == record.artifacts["types.json"]
    registry.artifacts(record)
    assert registry.file(record, "weights.safetensors") == registry.artifacts(record) / "weights.safetensors"


@pytest.mark.slow
@server_only
def test_compare_fetches_what_it_shows(open_registry: OpenRegistry) -> None:
    """Tests of every stage; no weights, no bank."""
    registry = open_registry()
    for number in (1, 2):
        draft = registry.draft(f"key{number}")
        files = fill(draft, number)
        tests = kept_of(number).write(draft.folder)
        draft.commit(make_record(number), files | tests)
    root = registry.root.parent
    (root / "canal.toml").write_text(f'name = "{registry.name}"\nregistry = "{registry.uri}"\n')

    assert compare_stages(Layout(root)).stages[-1].average == pytest.approx(0.9)
    assert [p.name for p in (registry.root / "cache").rglob("*") if p.is_file()] == [TESTS_FILE, TESTS_FILE]


@pytest.mark.slow
@server_only
def test_gc_bounds_what_was_fetched(open_registry: OpenRegistry) -> None:
    """Beyond the limit the copies that were not used for longest go; they are fetched again when they are needed."""
    registry = open_registry()
    records = [add(registry, number) for number in (1, 2)]
    for record in records:
        registry.artifacts(record)
    registry.artifacts(records[0])  # used last

    assert registry.collect_garbage() == []
    gone = registry.collect_garbage(cache_limit=20_000)
    assert [(o.kind, o.name) for o in gone] == [("copy", records[1].run_id)]
    assert copies(registry) == [records[0].run_id]
    assert registry.artifacts(records[1]).is_dir()
    assert {o.kind for o in registry.collect_garbage(cache_limit=0)} == {"copy"}
    assert copies(registry) == []
    assert registry.verify() == []


def test_what_nobody_used_for_months_goes(tmp_path: Path) -> None:
    """Whatever room there is; what is used stays."""
    for name in ("files/old", "files/new", "computed"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "computed" / "key.json").write_text("{}")
    for name in ("files/old", "computed/key.json"):
        os.utime(tmp_path / name, (0, 0))

    found = [path.name for path, _ in cache.too_much(tmp_path)]
    assert sorted(found) == ["key.json", "old"]
