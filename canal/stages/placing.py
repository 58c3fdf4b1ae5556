"""Where the types of a stage stand in the Cell Ontology: what its record says, and what the lab accepted since.

`place_types` finds places for the types of a stage that is added with ``--ontology``.
"""

from collections.abc import Sequence
from pathlib import Path

from canal.model.record import StageRecord
from canal.ontology.matching import Context, matcher
from canal.ontology.placement import EXACT, Place, Placement, read_placement
from canal.ontology.tree import cell_ontology
from canal.stages.layout import Layout

ONTOLOGY = "ontology"  # in the notes of a stage's record: the places of its types, with the release
AUTO, OFF = "auto", "off"  # values of ``--ontology`` beside a file
MOST_NAMED = 6  # types without a place that a warning names


def kept_placement(layout: Layout) -> Placement:
    """Return the places that the workspace keeps.

    Raises
    ------
    DataError
        If its table was changed to something that cannot be used.
    """
    ontology = cell_ontology()
    if not layout.labels.is_file():
        return Placement(ontology.release)
    return read_placement(layout.labels, ontology)


def placement_of(layout: Layout, record: StageRecord) -> Placement:
    """Return where the types of a stage stand: as its record says, and as was accepted since."""
    noted = Placement.from_dict(record.notes.get(ONTOLOGY) or {})
    return noted.joined(kept_placement(layout))


def check_places(ontology: str | Path | None) -> None:
    """Refuse a table of places that cannot be used.

    Raises
    ------
    DataError
        If it cannot; see `read_placement`.
    """
    if ontology is not None and ontology != AUTO:
        read_placement(Path(ontology), cell_ontology())


def place_types(
    layout: Layout, ontology: str | Path, names: Sequence[str], before: Placement | None
) -> tuple[Placement, tuple[str, ...]]:
    """Return where types stand, and warnings about those that stand nowhere.

    Parameters
    ----------
    layout
        The workspace, whose accepted terms come before others.
    ontology
        ``"auto"``: terms that are as good as certain; else the table of somebody.
    names
        Types of the file.
    before
        Where the types of the model so far stand.

    Raises
    ------
    DataError
        If the table cannot be used.
    """
    known = before or Placement(cell_ontology().release)
    if ontology == AUTO:
        known = known.joined(kept_placement(layout))
        fresh = {}
        context = Context(siblings=tuple(names))
        for name in names:
            accepted = None if name in known.places else matcher().suggest(name, context).accepted
            if accepted is not None:
                fresh[name] = Place(name, accepted, cell_ontology()[accepted].label, EXACT)
        placement = known.joined(Placement(cell_ontology().release, fresh))
    else:
        placement = known.joined(read_placement(Path(ontology), cell_ontology()))
    without = [name for name in names if placement.node(name) is None]
    if not without:
        return placement, ()
    shown = ", ".join(map(repr, without[:MOST_NAMED])) + (", ..." if len(without) > MOST_NAMED else "")
    warning = (
        f"{len(without)} of {len(names)} types stand nowhere in the Cell Ontology ({shown}): `canal labels suggest` "
        "has candidates; name terms for them in a table and give it with --ontology."
    )
    return placement, (warning,)
