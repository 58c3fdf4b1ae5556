"""`canal stage promote`, `rollback`, `canal registry verify` and `gc`, on real registries of unlearned stages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from canal.cli.main import app
from canal.registry.registry import Registry
from tests.integration.registry.conftest import OpenRegistry, add
from tests.unit.registry.make import fill

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def registry(open_registry: OpenRegistry) -> Registry:
    """Three stages in a line; the third is a candidate."""
    opened = open_registry()
    for number in (1, 2, 3):
        add(opened, number, promote=number < 3)
    return opened


@pytest.fixture
def run(registry: Registry) -> Run:
    """Run a command line in the workspace; gives exit code and JSON."""
    root = registry.root.parent
    uri = "" if registry.uri.startswith("sqlite") else f'registry = "{registry.uri}"\n'
    (root / "canal.toml").write_text(f'name = "{registry.name}"\n{uri}')

    def answer(*words: str) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, ["-C", str(root), *words, "--json"])
        return result.exit_code, json.loads(result.stdout)

    return answer


def test_promote_lets_another_stage_annotate(run: Run, registry: Registry) -> None:
    """The answer says which one did before."""
    code, found = run("stage", "promote", "3")

    assert code == 0
    assert found == {"champion": 3, "name": "toy3", "version": 3, "before": 2, "changed": True}
    assert registry.champion() == 3
    assert run("stage", "promote", "3")[1]["changed"] is False


def test_rollback_goes_to_the_parent(run: Run, registry: Registry) -> None:
    """Until there is none; then nothing is changed."""
    code, found = run("stage", "rollback")
    assert (code, found["champion"], found["before"]) == (0, 1, 2)

    code, found = run("stage", "rollback")
    assert code == 2
    assert "Stage 1 (toy1) is in use and the first of its line" in found["error"]
    assert registry.champion() == 1


def test_rollback_follows_the_line_not_the_numbers(run: Run, registry: Registry) -> None:
    """A stage that was learned from an earlier one goes back to that one."""
    add(registry, 4, parent=2)

    assert run("stage", "rollback")[1]["champion"] == 2


def test_rollback_to_a_removed_parent_is_refused(run: Run, registry: Registry) -> None:
    """It names the stages there are."""
    registry._store.client.delete_model_version(registry.name, "1")

    code, found = run("stage", "rollback")
    assert code == 2
    assert "came from stage 1, which does not exist any more. Stages: 2, 3" in found["error"]


def test_an_unknown_stage_is_not_promoted(run: Run, registry: Registry) -> None:
    """Exit code 2, and the stages there are."""
    code, found = run("stage", "promote", "9")

    assert code == 2
    assert "no stage 9. Stages: 1, 2, 3" in found["error"]
    assert registry.champion() == 2


def test_a_damaged_stage_is_not_promoted(run: Run, registry: Registry, stored: Callable[[str], Path]) -> None:
    """What cannot be loaded does not come into use."""
    (stored(registry.record(3).run_id) / "weights.safetensors").write_bytes(b"other")

    code, found = run("stage", "promote", "3")
    assert code == 2
    assert "weights.safetensors of stage 3 is altered" in found["error"]
    assert registry.champion() == 2


def test_verify_says_that_all_is_well(run: Run, registry: Registry) -> None:
    """Exit code 0."""
    code, found = run("registry", "verify")

    assert code == 0
    assert found == {"registry": registry.place, "healthy": True, "damaged_stages": [], "problems": []}


def test_verify_names_what_is_damaged(run: Run, registry: Registry, stored: Callable[[str], Path]) -> None:
    """Exit code 2; stage and file are named."""
    (stored(registry.record(2).run_id) / "bank.safetensors").write_bytes(b"other")
    (stored(registry.record(1).run_id) / "types.json").unlink()

    code, found = run("registry", "verify")
    assert code == 2
    assert not found["healthy"]
    assert found["damaged_stages"] == [1, 2]
    assert [(p["stage"], p["what"], p["kind"]) for p in found["problems"]] == [
        (1, "types.json", "missing"),
        (2, "bank.safetensors", "altered"),
    ]


def test_gc_deletes_what_killed_runs_left(run: Run, registry: Registry) -> None:
    """With --keep-drafts, what --resume needs stays."""
    fill(registry.draft("left"), 4)

    assert run("registry", "gc", "--keep-drafts") == (0, {"removed": [], "bytes": 0})
    code, found = run("registry", "gc")
    assert code == 0
    assert [(o["kind"], o["name"]) for o in found["removed"]] == [("draft", "left")]
    assert found["bytes"] == found["removed"][0]["size"] > 10_000
    assert registry.verify() == []


@pytest.mark.parametrize(
    "words", [("registry", "verify"), ("registry", "gc"), ("stage", "promote", "1"), ("stage", "rollback")]
)
def test_a_folder_without_a_registry_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Exit code 2; nothing is made."""
    result = CliRunner().invoke(app, ["-C", str(tmp_path), *words])
    assert result.exit_code == 2

    (tmp_path / "canal.toml").write_text('name = "lab"\n')
    result = CliRunner().invoke(app, ["-C", str(tmp_path), *words, "--json"])
    assert result.exit_code == 2
    assert "no registry yet" in json.loads(result.stdout)["error"]
    assert [p.name for p in tmp_path.iterdir()] == ["canal.toml"]
