"""Which stages are there, and which is in use, also between a commit and its end."""

import pytest

from canal.errors import RegistryError
from canal.registry.commit import check_place
from canal.registry.snapshot import ALIAS, CANDIDATE, CHAMPION, SETTLED, STAGE, USE, Snapshot
from canal.registry.snapshot import StoredVersion as Stored
from tests.unit.registry.make import make_record


def _version(version: int, stage: int | str, *, settled: bool = True, alias: str = CHAMPION) -> Stored:
    tags = {STAGE: str(stage), ALIAS: alias} | ({SETTLED: "true"} if settled else {})
    return Stored(version=version, run_id=f"run{version}", tags=tags)


def test_versions_of_others_are_left_out() -> None:
    """Somebody may register a version by hand; it is no stage."""
    foreign = Stored(version=1, run_id="x", tags={})
    odd = Stored(version=2, run_id="x", tags={STAGE: "first"})
    found = Snapshot.of([foreign, odd, _version(4, 2), _version(3, 1)], {})

    assert [v.stage for v in found.versions] == [1, 2]


def test_the_alias_names_the_champion() -> None:
    """The newest stage need not be in use."""
    found = Snapshot.of([_version(1, 1), _version(2, 2)], {CHAMPION: 1, CANDIDATE: 2})

    assert found.champion == 1
    assert found.unsettled == []


def test_a_stage_is_champion_from_its_commit_on() -> None:
    """The alias is moved after it; a kill between the two changes nothing for a reader."""
    found = Snapshot.of([_version(1, 1), _version(2, 2, settled=False)], {CHAMPION: 1})

    assert found.champion == 2
    assert [v.stage for v in found.unsettled] == [2]


def test_a_candidate_is_never_champion() -> None:
    """Settled or not."""
    late = _version(2, 2, settled=False, alias=CANDIDATE)

    assert Snapshot.of([_version(1, 1), late], {CHAMPION: 1}).champion == 1


def test_there_is_no_champion_without_stages() -> None:
    """Nor where the alias points to a version that is gone."""
    assert Snapshot().champion is None
    assert Snapshot.of([_version(1, 1)], {CHAMPION: 9}).champion is None


def test_the_first_version_of_a_stage_is_the_stage() -> None:
    """Of two machines that took a number at once; all readers agree, whatever order they read in."""
    first, later, other = _version(2, 2), _version(3, 2, settled=False), _version(1, 1)
    for order in ([first, later, other], [later, other, first]):
        found = Snapshot.of(order, {CHAMPION: 2})

        assert found.versions == [other, first]
        assert found.late == [later]
        assert found.unsettled == []
        assert found.champion == 2


def _used(version: int, *counts: int, settled: bool = True) -> Stored:
    plain = _version(version, version, settled=settled)
    return Stored(version=version, run_id=plain.run_id, tags=plain.tags | {f"{USE}{n}": "true" for n in counts})


def test_what_came_into_use_last_is_in_use() -> None:
    """Not the newest stage, nor the one that did so most often; an odd tag of somebody else's counts nothing."""
    odd = Stored(version=4, run_id="run4", tags=_version(4, 4).tags | {f"{USE}always": "true"})
    found = Snapshot.of([_used(1, 1, 12), _used(2, 2, 5, 9), _used(3), odd], {CHAMPION: 1})

    assert found.in_use == _used(1, 1, 12)
    assert found.next_use == 13
    assert Snapshot().in_use is None
    assert Snapshot().next_use == 1


def test_of_two_at_the_same_moment_the_later_commit_is_in_use() -> None:
    """All readers agree, whatever order they read in."""
    two, three = _used(2, 7), _used(3, 7)
    for order in ([two, three], [three, two]):
        assert Snapshot.of(order, {CHAMPION: 2}).in_use == three


def test_a_slower_machines_alias_does_not_count_while_it_commits() -> None:
    """Stage 2 was committed before stage 3, and its machine moved the alias after stage 3's did."""
    found = Snapshot.of([_used(1, 1), _used(2, 2, settled=False), _used(3, 3)], {CHAMPION: 2})

    assert found.champion == 3


def test_the_moments_of_use_are_numbers() -> None:
    """The tenth is after the ninth."""
    assert _used(1, 9, 10).last_use == 10


def test_a_number_is_given_once_and_a_parent_is_there() -> None:
    """Two who begin at once: the second is refused, whether its number was taken or its parent removed."""
    check_place(make_record(3), {1, 2})
    for record, numbers, match in (
        (make_record(2), {1, 2}, "exists already; the next number is 3"),
        (make_record(3), {1}, "starts from stage 2, which does not exist"),
    ):
        with pytest.raises(RegistryError, match=match):
            check_place(record, numbers)
