"""Points and colours of the map as one body each: length of the head, the head as JSON, then arrays.

Everything is little-endian; the arrays begin at a multiple of four bytes. `unpack` in `review.js` reads it.
"""

import json
import struct
from typing import Any

import numpy as np

from canal.review.values import Colour, MapPoints

# Okabe and Ito's colours and Tol's muted ones: told apart by people who see red and green alike, and seen on white and
# on black. The pale yellow and the near black ones of both sets are left out.
CATEGORIES = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#999933",
    "#aa4499",
    "#44aa99",
    "#cc6677",
    "#7a79d6",
    "#b8a44c",
    "#117f5f",
    "#a05a2c",
    "#8c8cff",
    "#c05080",
)
VERDICT_COLOURS = {"known": "#56b4e9", "uncertain": "#e69f00", "novel": "#d55e00"}
NOTHING = "#8a8f98"  # of cells that have no value
STEPS = 255  # of the scale of a number; code 0 stands for none


def pack(head: dict[str, Any], *arrays: np.ndarray) -> bytes:
    """Return one body of a head and arrays."""
    text = json.dumps(head).encode()
    start = struct.pack("<I", len(text)) + text
    padding = b" " * (-len(start) % 4)
    return b"".join([start, padding, *(array.tobytes() for array in arrays)])


def packed_points(points: MapPoints) -> bytes:
    """Return the body of ``/map/points``: x of all cells, then y, as float32."""
    coordinates = points.coordinates.astype("<f4", copy=False)
    head = {"cells": len(coordinates), "basis": points.basis, "note": points.note}
    return pack(head, np.ascontiguousarray(coordinates[:, 0]), np.ascontiguousarray(coordinates[:, 1]))


def packed_colour(colour: Colour) -> bytes:
    """Return the body of ``/map/colours``: a place in the palette for each cell, as uint16."""
    head: dict[str, Any] = {"cells": len(colour.values), "title": colour.title}
    if colour.kind == "number":
        codes = _steps(colour)
        head |= {"names": [], "palette": [NOTHING, *_scale()], "range": [f"{colour.low:.3g}", f"{colour.high:.3g}"]}
        return pack(head, codes)
    # The commonest categories get the colours that differ most.
    codes = colour.values.astype("<u2", copy=False)
    counts = np.bincount(codes, minlength=len(colour.names))
    palette = [NOTHING] * len(colour.names)
    place = 0
    for code in np.argsort(-counts, kind="stable").tolist():
        name = colour.names[code]
        if name in VERDICT_COLOURS and set(colour.names) <= {*VERDICT_COLOURS, ""}:
            palette[code] = VERDICT_COLOURS[name]
        elif name:
            palette[code] = CATEGORIES[place % len(CATEGORIES)]
            place += 1
    names = [name or "none" for name in colour.names]
    return pack(head | {"names": names, "counts": counts.tolist(), "palette": palette}, codes)


def _steps(colour: Colour) -> np.ndarray:
    """Return the place of each number in the scale, from 1 on; 0 where there is none."""
    values = colour.values.astype(np.float32, copy=False)
    spread = max(colour.high - colour.low, 1e-12)
    with np.errstate(invalid="ignore"):
        steps = 1 + np.clip((values - colour.low) / spread * (STEPS - 1), 0, STEPS - 1)
    codes: np.ndarray = np.where(np.isfinite(values), steps, 0).astype("<u2")
    return codes


def _scale() -> list[str]:
    """Return a scale that is read alike by everybody, and in grey, too: cividis."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["cividis"](np.linspace(0, 1, STEPS))]
