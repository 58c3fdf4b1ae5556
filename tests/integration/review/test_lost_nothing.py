"""No decision that was acknowledged is ever lost: two people at once, and a server that is killed."""

import http.client
import json
import random
import threading
from pathlib import Path

from tests.integration.review.driver import Server, serving
from tests.review_client import Client

ACTIONS = 200  # of two people together
KILLS = 5


def decisions(client: Client) -> list[dict[str, object]]:
    """Return all decisions."""
    found: list[dict[str, object]] = json.loads(client.get("/export.json").body)["decisions"]
    return found


def test_two_people_at_once(server: Server) -> None:
    """Two hundred actions of two browsers, one right after the other: every one is kept, by its user, once."""
    people = [server.client(user) for user in (0, 1)]
    group = json.loads(people[0].get("/export.json").body)["groups"][0]["id"]
    refused: list[str] = []

    def act(user: int) -> None:
        for k in range(ACTIONS // 2):
            fields = {"action": "comment", "text": f"{k}"} if k % 2 else {"action": "name", "name": f"type {k}"}
            answer = people[user].post("/decide", group=group, key=f"user{user}-{k}", **fields)
            if answer.status != 200:
                refused.append(answer.text)

    threads = [threading.Thread(target=act, args=(user,)) for user in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert refused == []
    kept = {decision["id"]: decision["user"] for decision in decisions(people[0])}
    assert len(kept) == ACTIONS
    for user, name in enumerate(("ann", "bob <i>b</i>")):
        for k in range(ACTIONS // 2):
            assert kept[f"user{user}-{k}"] == name


def test_a_killed_server_loses_nothing(lab: Path) -> None:
    """Killed at random moments amid decisions: whatever was acknowledged is there when it starts again."""
    chance = random.Random(0)
    acknowledged: list[str] = []
    for round_number in range(KILLS):
        with serving(lab / "ws", lab / "query.h5ad") as server:
            client = server.client()
            kept = [decision["id"] for decision in decisions(client)]
            assert [key for key in acknowledged if key not in kept] == []
            end = threading.Timer(chance.uniform(0.02, 0.5), server.kill)
            end.start()
            for k in range(10_000):
                key = f"round{round_number}-{k}"
                try:
                    answer = client.post("/decide", action="comment", text=f"{k} " + 300 * "x", key=key)
                except (OSError, http.client.HTTPException):
                    break  # the server is no more
                if answer.status == 200:
                    acknowledged.append(key)
            end.join()
    with serving(lab / "ws", lab / "query.h5ad") as server:
        kept = [decision["id"] for decision in decisions(server.client())]
    assert [key for key in acknowledged if key not in kept] == []
    assert len(set(kept)) == len(kept)
    assert len(acknowledged) > KILLS
