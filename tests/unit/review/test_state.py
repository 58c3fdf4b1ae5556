"""What holds after decisions of several people."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from canal.errors import DataError
from canal.review.state import ReviewState, check_name
from tests.unit.review.make import NAMES, TYPES, Desk, group, state


@pytest.fixture
def desk() -> Desk:
    return Desk()


def seen(states: ReviewState) -> list[dict[str, Any]]:
    return [told.to_dict() for told in states.live]


def test_a_name_decides_and_a_second_person_approves(desk: Desk) -> None:
    """One person names, another approves; who did what is told."""
    assert desk.state.group("novel-1").status == "open"
    desk("anna", "name", "novel-1", name="DC")
    told = desk.state.group("novel-1")
    assert (told.status, told.name, told.author, told.approver) == ("decided", "DC", "anna", "")
    desk("ben", "approve", "novel-1", decision="d0")
    told = desk.state.group("novel-1")
    assert (told.status, told.author, told.approver, told.approved_at) == ("approved", "anna", "ben", "td1")


def test_nobody_approves_their_own_decision(desk: Desk) -> None:
    """The second person is another one."""
    desk("anna", "name", "novel-1", name="DC")
    with pytest.raises(DataError, match="a second person has to approve"):
        desk("anna", "approve", "novel-1", decision="d0")
    assert desk.state.group("novel-1").status == "decided"


def test_two_who_say_the_same_agree(desk: Desk) -> None:
    """Saying the same is approving; of verdicts without a name, too."""
    desk("anna", "doublet", "novel-1")
    desk("ben", "doublet", "novel-1")
    told = desk.state.group("novel-1")
    assert (told.status, told.verdict, told.approver) == ("approved", ("doublet", ""), "ben")


def test_two_who_differ_are_a_conflict_until_one_gives_way(desk: Desk) -> None:
    """Who said what is shown; nothing holds meanwhile."""
    desk("anna", "name", "novel-1", name="DC")
    desk("ben", "name", "novel-1", name="MK")
    told = desk.state.group("novel-1")
    assert (told.status, told.name, told.verdict) == ("conflict", "", None)
    assert {user: vote.verdict for user, vote in told.votes.items()} == {"anna": ("name", "DC"), "ben": ("name", "MK")}
    desk("ben", "name", "novel-1", name="DC")
    assert desk.state.group("novel-1").status == "approved"


def test_a_third_person_settles_a_conflict(desk: Desk) -> None:
    """They say which decision is right; those who made it cannot."""
    desk("anna", "name", "novel-1", name="DC")
    desk("ben", "reject", "novel-1")
    with pytest.raises(DataError, match="Say which decision"):
        desk("cleo", "approve", "novel-1")
    with pytest.raises(DataError, match="a second person"):
        desk("anna", "approve", "novel-1", decision="d0")
    desk("cleo", "approve", "novel-1", decision="d0")
    told = desk.state.group("novel-1")
    assert (told.status, told.name, told.author, told.approver) == ("approved", "DC", "anna", "cleo")
    # Whoever sees it otherwise after all opens it again.
    desk("ben", "name", "novel-1", name="MK")
    assert desk.state.group("novel-1").status == "conflict"


def test_an_approved_group_is_not_approved_again(desk: Desk) -> None:
    """There is nothing to approve where nobody decided, or where it is done."""
    with pytest.raises(DataError, match="Nobody has decided"):
        desk("ben", "approve", "novel-1")
    desk("anna", "name", "novel-1", name="DC")
    desk("ben", "approve", "novel-1", decision="d0")
    with pytest.raises(DataError, match="approved already, by ben"):
        desk("cleo", "approve", "novel-1", decision="d0")


def test_a_person_undoes_their_own_decisions_alone(desk: Desk) -> None:
    """What was before holds again; the line stays in the history."""
    desk("anna", "name", "novel-1", name="DC")
    second = desk("anna", "name", "novel-1", name="MK")
    with pytest.raises(DataError, match="own decisions alone"):
        desk("ben", "undo", decision=second)
    desk("anna", "undo", decision=second)
    assert desk.state.group("novel-1").name == "DC"
    assert [line.action for line in desk.state.lines] == ["name", "name", "undo"]
    with pytest.raises(DataError, match="undone already"):
        desk("anna", "undo", decision=second)
    with pytest.raises(DataError, match="cannot be undone"):
        desk("anna", "undo", decision="d2")
    with pytest.raises(DataError, match="no such decision"):
        desk("anna", "undo", decision="other")


def test_an_approval_of_what_was_undone_is_gone(desk: Desk) -> None:
    """Nobody agrees with a decision that is not there any more."""
    first = desk("anna", "name", "novel-1", name="DC")
    desk("ben", "approve", "novel-1", decision=first)
    desk("anna", "undo", decision=first)
    assert desk.state.group("novel-1").status == "open"


def test_a_split_makes_two_groups_of_one(desk: Desk) -> None:
    """The chosen cells and the rest are open again, whatever was said of both together."""
    desk("anna", "name", "novel-1", name="DC")
    split = desk("ben", "split", "novel-1", rows=[1, 3])
    chosen, rest = desk.state.group(f"{split}-a"), desk.state.group(f"{split}-b")
    assert chosen.group.rows.tolist() == [1, 3]
    assert rest.group.rows.tolist() == [0, 2, 4, 5, 6, 7, 8, 9]
    assert (chosen.status, rest.status, chosen.group.kind, rest.group.kind) == ("open", "open", "part", "novel")
    assert not desk.state.group("novel-1").live
    with pytest.raises(DataError, match="is gone: ben took its cells with a split"):
        desk("anna", "name", "novel-1", name="DC")
    desk("ben", "undo", decision=split)
    assert desk.state.group("novel-1").name == "DC"
    assert [told.group.id for told in desk.state.live] == ["novel-1", "uncertain-1", "label-1"]


def test_a_selection_takes_cells_of_several_groups_and_of_none(desk: Desk) -> None:
    """Cells of two groups and known ones become a group, which can be named at once."""
    split = desk("anna", "split", rows=[0, 10, 29], sources=["novel-1", "uncertain-1"], name="MK")
    made = desk.state.group(f"{split}-a")
    assert (made.group.rows.tolist(), made.group.kind, made.name) == ([0, 10, 29], "selection", "MK")
    assert desk.state.group(f"{split}-b").group.rows.tolist() == list(range(1, 10))
    assert desk.state.group(f"{split}-b2").group.rows.tolist() == list(range(11, 16))


def test_a_merge_makes_one_group_of_several(desk: Desk) -> None:
    """Its cells are those of all."""
    merge = desk("anna", "merge", groups=["novel-1", "label-1"], name="DC")
    made = desk.state.group(merge)
    assert (made.group.rows.tolist(), made.name) == ([*range(10), *range(16, 20)], "DC")
    assert [told.group.id for told in desk.state.live] == [merge, "uncertain-1"]


def test_a_change_is_not_undone_under_what_was_decided_since(desk: Desk) -> None:
    """A verdict on a part would be lost with it."""
    split = desk("anna", "split", "novel-1", rows=[1, 3])
    verdict = desk("ben", "name", f"{split}-a", name="DC")
    with pytest.raises(DataError, match="decided on since \\(name by ben\\)"):
        desk("anna", "undo", decision=split)
    desk("ben", "undo", decision=verdict)
    desk("anna", "undo", decision=split)
    assert desk.state.group("novel-1").live


@pytest.mark.parametrize(
    ("action", "group_id", "payload", "message"),
    [
        ("paint", "novel-1", {}, "no action 'paint'"),
        ("name", "novel-9", {"name": "DC"}, "no group 'novel-9'"),
        ("name", "novel-1", {"name": "  "}, "The name is empty"),
        ("comment", "novel-1", {"text": " "}, "The comment is empty"),
        ("comment", "", {"text": "x" * 6000}, "6000 letters"),
        ("split", "novel-1", {"rows": []}, "No cell is selected"),
        ("split", "novel-1", {"rows": list(range(10))}, "nothing is split off"),
        ("merge", "", {"groups": ["novel-1", "novel-1"]}, "a merge needs two groups"),
    ],
)
def test_what_is_not_possible_is_refused(
    desk: Desk, action: str, group_id: str, payload: dict[str, Any], message: str
) -> None:
    """Each refusal says what was found and what to do; nothing changes."""
    before = seen(desk.state)
    known = "novel-1" if group_id == "novel-9" else group_id
    made = replace(desk.made("anna", action, known, **payload))
    with pytest.raises(DataError, match=message):
        desk.state.check(made if action in {"split", "merge"} else replace(made, group=group_id))
    assert seen(desk.state) == before


def test_nobody_decides_without_a_name(desk: Desk) -> None:
    """Who said it is part of what was said."""
    with pytest.raises(DataError, match="name of the person is empty"):
        desk(" ", "name", "novel-1", name="DC")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "empty"),
        ("x" * 501, "501 letters"),
        ("two\nlines", "line break"),
        ("Unknown", "not known"),
        ("doublets", "names no cell type"),
        ("b-cells", "spelt like 'B cell'"),
    ],
)
def test_names_that_are_none_are_refused(name: str, message: str) -> None:
    """The rules are those of labels that are taught."""
    with pytest.raises(DataError, match=message):
        check_name(name, TYPES)


@pytest.mark.parametrize("name", ["B cell", "<script>alert(1)</script>", "x" * 500, "خلية", 'HLA "A"', "a/b", "=1+1"])
def test_any_text_can_be_a_name(name: str) -> None:
    """What is markup, formula or long to others is text here."""
    assert check_name(f" {name} ", TYPES) == name


def test_decisions_on_other_cells_count_for_nothing(desk: Desk) -> None:
    """A line whose digest is not that of the group is set aside and said."""
    made = desk.made("anna", "name", "novel-1", name="DC")
    desk.state.add([replace(made, digest="sha256:0")])
    assert desk.state.group("novel-1").status == "open"
    assert "counts for nothing" in desk.state.notes[0]


def test_lines_of_a_newer_canal_count_for_nothing(desk: Desk) -> None:
    """What this version does not know is said, and the rest holds."""
    desk.state.add([replace(desk.made("anna", "comment", "novel-1", text="x"), action="vote")])
    desk("anna", "name", "novel-1", name="DC")
    assert "does not know what 'vote' means" in desk.state.notes[0]
    assert desk.state.group("novel-1").name == "DC"


def test_the_queue_shows_what_is_worth_a_look_first() -> None:
    """Novel groups by worth, then what people made, then uncertain ones and disagreements by size."""
    groups = [
        group("uncertain-1", [0], "uncertain"),
        group("label-1", [1], "label"),
        group("uncertain-2", [2, 3], "uncertain"),
        group("novel-2", [4, 5, 6], rank=1),
        group("novel-1", [7, 8], rank=0),
        group("label-2", [9, 10], "label"),
    ]
    ids = [told.group.id for told in ReviewState(groups, NAMES).live]
    assert ids == ["novel-1", "novel-2", "uncertain-2", "uncertain-1", "label-2", "label-1"]


def test_the_same_lines_give_the_same_state() -> None:
    """After 300 actions of three people, many of them refused, a fresh reading of the lines gives the same state.

    Every cell stays in one group at most, and no cell is lost.
    """
    desk, rng = Desk(), random.Random(0)
    cells = sorted(row for told in desk.state.live for row in told.group.rows.tolist())
    for _ in range(300):
        live = [told.group for told in desk.state.live]
        chosen = rng.choice(live)
        some = rng.sample(chosen.rows.tolist(), rng.randint(1, len(chosen.rows)))
        lines = [line.id for line in desk.state.lines] or ["none"]
        votes = [vote.id for vote in desk.state.group(chosen.id).votes.values()] or ["none"]
        action, payload = rng.choice(
            [
                ("name", {"name": rng.choice(["DC", "MK", "HSC"])}),
                ("reject", {}),
                ("comment", {"text": "seen"}),
                ("approve", {"decision": rng.choice(votes)}),
                ("undo", {"decision": rng.choice(lines)}),
                ("split", {"rows": some}),
                ("merge", {"groups": [part.id for part in rng.sample(live, min(2, len(live)))]}),
            ]
        )
        user = rng.choice(["anna", "ben", "cleo"])
        try:
            desk(user, action, "" if action in {"merge", "undo"} else chosen.id, **payload)
        except DataError:
            continue
        rows = np.concatenate([told.group.rows for told in desk.state.live])
        assert sorted(rows.tolist()) == cells
    assert len(desk.state.lines) > 80
    assert {line.action for line in desk.state.lines} >= {"undo", "split", "merge", "approve"}
    fresh = state()
    fresh.add(desk.state.lines)
    assert seen(fresh) == seen(desk.state)
    assert fresh.notes == desk.state.notes == []
