"""Which stage is in use, while several machines change it at once: no slow one takes back what a quicker one did."""

from collections.abc import Callable
from typing import Any

import pytest

from canal.registry.registry import Registry
from tests.integration.registry.conftest import Machine, OpenRegistry, add, server_only


def alias(registry: Registry) -> int:
    """Return the version that MLflow's own tools take."""
    return registry._store.snapshot().aliases["champion"]


def meanwhile(registry: Registry, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let another machine act between this one's look at who is in use and its moving of the alias."""
    move = registry._store.set_alias

    def slowly(*args: Any) -> None:
        monkeypatch.setattr(registry._store, "set_alias", move)
        act()
        move(*args)

    monkeypatch.setattr(registry._store, "set_alias", slowly)


@pytest.mark.slow
@server_only
def test_a_slow_commit_does_not_move_the_alias_back(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage that was committed later stays in use, for canal and for MLflow's own tools."""
    slow, quick = machine("a"), machine("b")
    add(slow, 1)
    seen: list[int | None] = []

    def another() -> None:
        add(quick, 3)
        seen.append(quick.champion())

    meanwhile(slow, monkeypatch, another)
    add(slow, 2)

    assert seen == [3]
    assert [slow.champion(), quick.champion()] == [3, 3]
    assert alias(quick) == quick.record(3).version
    assert quick.verify() == []


@pytest.mark.slow
@server_only
def test_a_slow_commit_does_not_undo_a_roll_back(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who saw the new stage and went back to the old one has the last word."""
    slow, quick = machine("a"), machine("b")
    add(slow, 1)
    meanwhile(slow, monkeypatch, lambda: quick.set_champion(1))
    add(slow, 2)

    assert quick.champion() == 1
    assert alias(quick) == quick.record(1).version


def test_an_alias_that_a_killed_machine_moved_back_is_mended(open_registry: OpenRegistry) -> None:
    """Readers do not follow it, and the next writer puts it right."""
    registry = open_registry()
    for number in (1, 2, 3):
        add(registry, number)
    store = registry._store
    store.client.delete_model_version_tag(registry.name, "2", "canal.settled")  # its machine was killed here
    store.set_alias("champion", 2)

    assert registry.champion() == 3
    with registry.writing():
        pass
    assert alias(registry) == 3
    assert registry.champion() == 3


def test_the_alias_is_what_counts(open_registry: OpenRegistry) -> None:
    """Somebody moved it with MLflow's own tools; the next stage comes into use all the same."""
    registry = open_registry()
    for number in (1, 2):
        add(registry, number)
    registry._store.set_alias("champion", 1)

    assert registry.champion() == 1
    add(registry, 3, promote=False)
    assert registry.champion() == 1
    add(registry, 4, parent=1)
    assert registry.champion() == 4
    assert alias(registry) == 4


def test_a_registry_of_an_older_canal_goes_on(open_registry: OpenRegistry) -> None:
    """Its versions do not say when they came into use; a promotion from now on does."""
    registry = open_registry()
    for number in (1, 2):
        add(registry, number)
    client = registry._store.client
    for number in (1, 2):
        client.delete_model_version_tag(registry.name, str(number), f"canal.use.{number}")

    assert registry.champion() == 2
    registry.set_champion(1)
    assert registry.champion() == 1
    add(registry, 3)
    assert [registry.champion(), alias(registry)] == [3, 3]
