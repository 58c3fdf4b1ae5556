"""What the map shows of the cells, and the names and genes that are offered while somebody types."""

import numpy as np
from fastapi import APIRouter, Response

from canal.review.web.binary import packed_colour, packed_points
from canal.review.web.requests import TheSite, User

router = APIRouter()
MOST_OFFERS = 12  # of the type-ahead
BINARY = "application/octet-stream"


# Type-ahead.


@router.get("/names")
def names(site: TheSite, q: str = "") -> list[dict[str, str]]:
    """Return names that begin with a text or resemble it."""
    sources = {"known": "known type", "review": "given here", "ontology": "Cell Ontology"}
    offers = []
    for offer in site.review.suggest_names(q, most=MOST_OFFERS):
        offers.append({"name": offer.name, "from": " ".join([sources[offer.source], offer.term]).strip()})
    return offers


@router.get("/genes")
def genes(site: TheSite, q: str = "") -> list[dict[str, str]]:
    """Return genes that begin with a text or contain it."""
    return [{"name": name} for name in site.review.find_genes(q, most=MOST_OFFERS)]


# The map.


@router.get("/map/points")
def points(site: TheSite) -> Response:
    """Return where the cells lie."""
    return Response(packed_points(site.review.map()), media_type=BINARY)


@router.get("/map/progress")
def progress(site: TheSite) -> dict[str, str]:
    """Return how far the drawing of the map is, in words; an empty text where none is being drawn."""
    wait = site.review.map_progress()
    return {"told": "" if wait is None else str(wait)}


@router.get("/map/colours")
def colours(site: TheSite, by: str) -> Response:
    """Return a colour for each cell; ``by`` is a kind, ``obs:COLUMN`` or ``gene:NAME``."""
    kind, _, name = by.partition(":")
    kinds = {"decision": "review"}  # what the page calls otherwise
    return Response(packed_colour(site.review.colour(kinds.get(kind, kind), name)), media_type=BINARY)


@router.get("/map/rows")
def rows(site: TheSite, user: User, group: str) -> Response:
    """Return positions of the cells of a group, as uint32."""
    cells = site.cells(group, user)
    positions = site.review.group(cells).group.rows if isinstance(cells, str) else cells
    return Response(positions.astype("<u4").tobytes(), media_type=BINARY)


@router.get("/map/group")
def group_of(site: TheSite, row: int) -> dict[str, str]:
    """Return the group of the queue that a cell is in; an empty text where it is in none."""
    for state in site.review.queue().groups:
        where = int(np.searchsorted(state.group.rows, row))
        if where < len(state.group.rows) and state.group.rows[where] == row:
            return {"group": state.group.id}
    return {"group": ""}
