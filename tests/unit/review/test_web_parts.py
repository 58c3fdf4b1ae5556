"""Bodies of the map, the port, and the file that leads the browser to the link."""

import json
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canal.errors import ConfigError
from canal.review.values import Colour, Decision, MapPoints
from canal.review.web.binary import CATEGORIES, NOTHING, STEPS, packed_colour, packed_points
from canal.review.web.serve import BrowserDoor, listening
from canal.review.web.site import decision_text


def unpacked(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return head and arrays of a body, as the page reads it."""
    (length,) = struct.unpack_from("<I", body)
    start = -(-(4 + length) // 4) * 4
    return json.loads(body[4 : 4 + length]), body[start:]


def test_points_are_read_as_they_were() -> None:
    """x of all cells, then y, whatever the length of the head."""
    coordinates = np.array([[0.5, -1], [1, 0.25], [-1, 1]], dtype=np.float32)
    for note in ("", "a", "ab", "abc", "umap ✓"):
        head, rest = unpacked(packed_points(MapPoints(coordinates=coordinates, basis="X_umap", note=note)))

        assert head == {"cells": 3, "basis": "X_umap", "note": note}
        np.testing.assert_array_equal(np.frombuffer(rest, "<f4").reshape(2, 3).T, coordinates)


def test_the_commonest_categories_have_the_most_different_colours() -> None:
    """Colours go by the number of cells; cells without a value are grey and called none."""
    codes = np.array([0, 1, 1, 1, 2, 2, 3], dtype=np.uint16)
    colour = Colour(kind="category", values=codes, title="type", names=("B", "NK", "T", ""))

    head, rest = unpacked(packed_colour(colour))

    assert head["names"] == ["B", "NK", "T", "none"]
    assert head["counts"] == [1, 3, 2, 1]
    assert head["palette"] == [CATEGORIES[2], CATEGORIES[0], CATEGORIES[1], NOTHING]
    np.testing.assert_array_equal(np.frombuffer(rest, "<u2"), codes)


def test_numbers_become_steps_of_a_scale() -> None:
    """The smallest is the first step, the largest the last; what is no number has the grey of code 0."""
    values = np.array([0, 1, 2, np.nan], dtype=np.float32)

    head, rest = unpacked(packed_colour(Colour(kind="number", values=values, title="MS4A1", low=0, high=2)))

    assert np.frombuffer(rest, "<u2").tolist() == [1, 1 + (STEPS - 1) // 2, STEPS, 0]
    assert len(head["palette"]) == 1 + STEPS
    assert head["palette"][0] == NOTHING
    assert head["range"] == ["0", "2"]
    # All values alike divide by nothing.
    flat = Colour(kind="number", values=np.zeros(2, dtype=np.float32), title="x")
    assert np.frombuffer(unpacked(packed_colour(flat))[1], "<u2").tolist() == [1, 1]


def test_a_port_in_use_is_refused_with_a_way_out() -> None:
    """The message names the port and what to do; without a port, a free one is taken."""
    with listening(None) as first:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match=f"Port {port} of 127.0.0.1 cannot be used.*--port"):
            listening(port)
        with listening(None) as second:
            assert second.getsockname()[1] != port


def test_the_link_is_no_word_of_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser is told a file that only its owner may read, and which is gone afterwards."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    door = BrowserDoor()

    assert door.open("http://127.0.0.1:1/enter?token=secret")

    page = Path(opened[0].removeprefix("file://"))
    assert "secret" not in opened[0]
    assert "token=secret" in page.read_text(encoding="utf-8")
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    door.close()
    assert not page.exists()


@pytest.mark.parametrize(
    ("action", "payload", "text"),
    [
        ("name", {"name": "B"}, "name: B"),
        ("reject", {}, "no type of its own"),
        ("low_quality", {}, "low quality"),
        ("comment", {"text": "<b>"}, "comment: <b>"),
        ("split", {"cells": ["a", "b"]}, "split: 2 cells"),
        ("split", {"cells": ["a"], "name": "B"}, "split: 1 cells as B"),
        ("merge", {"groups": ["x", "y"]}, "merge: x, y"),
        ("approve", {}, "approve"),
    ],
)
def test_decisions_are_told_in_words(action: str, payload: dict[str, Any], text: str) -> None:
    """Every action has words of its own."""
    assert decision_text(Decision(id="1", user="ann", time="", action=action, payload=payload)) == text
