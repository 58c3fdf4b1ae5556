"""What the server answers to requests that a page would not send, and to those of two people."""

import json
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from tests.integration.review.conftest import CELLS
from tests.integration.review.driver import Server
from tests.review_client import Client


def test_a_link_is_good_once(server: Server) -> None:
    """The second browser with the same link is refused, and told what to do; so is one without any."""
    first = server.client()
    token = parse_qs(urlsplit(server.links[0]).query)["token"][0]

    again = Client(server.address).enter(token)
    assert again.status == 403
    assert "used already" in again.text
    assert Client(server.address).get("/").status == 401
    assert first.get("/").status == 200


def test_who_is_in_invites_another(server: Server) -> None:
    """The link of an invitation lets one browser in, under the name that was given; markup in it is text."""
    answer = server.client().post("/invite", user="<b>eve</b>")
    assert "&lt;b&gt;eve" in answer.text
    link = answer.text[answer.text.index("http://") :].split("<")[0]

    guest = Client(server.address)
    assert guest.enter(parse_qs(urlsplit(link).query)["token"][0]).status == 200
    assert "&lt;b&gt;eve&lt;/b&gt;" in guest.get("/").text


def test_cookies_cannot_be_read_by_scripts(server: Server) -> None:
    """The cookie is for this server's pages alone."""
    answer = Client(server.address).enter(parse_qs(urlsplit(server.links[0]).query)["token"][0])

    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/decide", {"action": "name", "group": "novel-99", "name": "B"}, "novel-99"),
        ("/decide", {"action": "name", "group": "", "name": "B"}, ""),
        ("/decide", {"action": "fly", "group": "novel-1"}, "fly"),
        ("/decide", {"action": "name", "group": "novel-1", "name": " "}, "name is empty"),
        ("/decide", {"action": "merge", "group": "novel-1", "into": "novel-1"}, "two groups"),
        ("/decide", {"action": "undo", "decision": "none"}, "no such decision"),
        ("/invite", {"user": " "}, "Nobody was named"),
        ("/stages/promote", {"number": "one"}, "no number"),
        ("/stages/promote", {"number": "99"}, "99"),
        ("/teach", {}, ""),
        ("/teach/promote", {}, "Teach first"),
    ],
)
def test_what_is_not_possible_is_said(shared: Client, path: str, fields: dict[str, str], message: str) -> None:
    """Status 400 with one sentence; nothing is kept."""
    answer = shared.post(path, **fields)

    assert answer.status == 400, answer.text
    error = json.loads(answer.body)["error"]
    assert message in error
    assert "Traceback" not in error
    assert json.loads(shared.get("/export.json").body)["decisions"] == []


@pytest.mark.parametrize("body", [b"", b"abc", np.array([CELLS], "<u4").tobytes()])
def test_cells_that_are_not_there_are_refused(shared: Client, body: bytes) -> None:
    """No positions, half a position, a position behind the last cell."""
    assert shared.post("/select?action=split", body).status == 400


@pytest.mark.parametrize(
    "path", ["/evidence?group=nothing", "/map/colours?by=gene:NOTHING", "/map/colours?by=fly", "/map/group?row=x"]
)
def test_errors_are_pages_where_pages_are_asked_for(shared: Client, path: str) -> None:
    """A browser gets a page with the sentence, a script JSON."""
    page = shared.request("GET", path, headers={"Accept": "text/html"})
    assert page.status == 400
    assert '<p class="warning">' in page.text
    assert "error" in json.loads(shared.get(path).body)


def test_a_form_that_is_sent_twice_counts_once(server: Server) -> None:
    """A double click, or a request that is repeated after a lost answer, is one decision."""
    client = server.client()
    for _ in range(2):
        assert client.post("/decide", action="comment", text="twice", key="same").status == 200
    assert len(json.loads(client.get("/export.json").body)["decisions"]) == 1


def test_a_group_that_was_split_meanwhile_is_told(server: Server) -> None:
    """Who decides on a group that another person has just split is refused, and nothing is lost."""
    ann, bob = server.client(0), server.client(1)
    rows = np.frombuffer(ann.get("/map/rows", group="novel-1").body, "<u4")
    split = ann.post("/select?action=assign&into=half", rows[: len(rows) // 2].tobytes())
    assert split.status == 200, split.text

    late = bob.post("/decide", action="name", group="novel-1", name="DC")

    assert late.status == 400
    assert "novel-1" in json.loads(late.body)["error"]
    kept = [decision["action"] for decision in json.loads(bob.get("/export.json").body)["decisions"]]
    assert kept == ["split"]


def test_an_open_group_is_shown_anew_only_where_it_is_another(shared: Client) -> None:
    """What stands is sent in its place; all of it where it can be decided on again, or where there is none any more."""
    as_before = shared.get("/evidence/standing", group="novel-1", live="yes")
    assert "hx-retarget" not in as_before.headers
    assert 'id="remarks" hx-swap-oob="true"' in as_before.text
    assert 'id="name"' not in as_before.text  # the field that somebody may be writing in
    again = shared.get("/evidence/standing", group="novel-1", live="no")
    assert again.headers["hx-retarget"] == "#evidence"
    assert 'id="name"' in again.text
    gone = shared.get("/evidence/standing", group="novel-99", live="yes")
    assert gone.headers["hx-retarget"] == "#evidence"
    assert "novel-99 is no more" in gone.headers["hx-trigger"]
