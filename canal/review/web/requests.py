"""What a request brings: who sends it, the fields of its form, positions of cells."""

from typing import Annotated
from urllib.parse import parse_qsl

import numpy as np
from fastapi import Depends, Request

from canal.errors import DataError
from canal.review.web.site import Site

MOST_FIELDS = 50  # of a form


def _user(request: Request) -> str:
    """Return who sends it: `canal.review.web.security.Doorkeeper` has noted it."""
    return str(request.state.user)


def _site(request: Request) -> Site:
    site = request.app.state.site
    assert isinstance(site, Site)
    return site


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises
    ------
    DataError
        If it is no form, or holds a text that is no UTF-8.
    """
    body = await request.body()
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:
        message = "The request is no form of the page. Use the page of canal review itself."
        raise DataError(message) from error
    return dict(fields)


async def _rows(request: Request) -> np.ndarray:
    """Return positions of cells, sent as little-endian uint32.

    Raises
    ------
    DataError
        If there are none, or they are no cells of the file.
    """
    body = await request.body()
    cells = _site(request).review.cells
    if not body or len(body) % 4:
        message = f"Expected the positions of selected cells, 4 bytes each; found {len(body)} bytes."
        raise DataError(message)
    rows = np.unique(np.frombuffer(body, dtype="<u4")).astype(np.int64)
    if rows[-1] >= cells:
        message = f"Cell {rows[-1] + 1} was selected, the file has {cells}. Load the page anew."
        raise DataError(message)
    return rows


User = Annotated[str, Depends(_user)]
TheSite = Annotated[Site, Depends(_site)]
Form = Annotated[dict[str, str], Depends(_form)]
Rows = Annotated[np.ndarray, Depends(_rows)]
