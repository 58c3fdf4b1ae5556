"""Where the types of a stage stand in the Cell Ontology: what its record says, and what the lab accepted since."""

from canal.model.record import StageRecord
from canal.ontology.placement import Placement, read_placement
from canal.ontology.tree import cell_ontology
from canal.stages.layout import Layout

ONTOLOGY = "ontology"  # in the notes of a stage's record: the places of its types, with the release


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
