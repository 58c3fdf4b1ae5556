"""What an annotation says of the cells that the voter answered, in a workspace that started from one.

The rule by which it answers is that of `canal.model.voter.VoterReader`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from canal.config import dump_preset, load_preset
from canal.data.cells import CellPool
from canal.data.panel import GenePanel
from canal.files import digest_file
from canal.model.bank import bank_contents, bank_digest
from canal.model.model import Fusion, Model
from canal.model.record import IMPORTED, StageRecord
from canal.model.voter import CANNOT, Voter, VoterReader
from canal.stages.layout import Layout, open_registry
from canal.stages.use import next_number

TAUGHT, VOTER = "taught", "voter"  # values of the column ``source``
# What holds for every cell that a voter answers.
NO_STATISTICS = (
    "A voter keeps no statistics of cells: whether a cell is novel cannot be told among its types (their status is "
    "uncertain), and they are neither rehearsed nor distilled when a stage is added"
)


def add_voter(layout: Layout, path: Path, *, number: int | None = None) -> StageRecord:
    """Make a voter a stage of its own, on which others are taught; the first stage of a registry annotates.

    Parameters
    ----------
    layout
        The workspace; an empty or new folder becomes one.
    path
        File of `canal models import-celltypist`.
    number
        Number of the stage; the next by default. Only a replay names one.

    Raises
    ------
    RegistryError
        If the file is no voter, or damaged; nothing is changed then.
    """
    layout.require(or_vacant=True)
    voter = Voter.load(path)
    digest = digest_file(path)
    # A model without types, genes and network: the voter alone answers.
    preset = load_preset("compact")
    model = Model(
        preset=preset,
        panel=GenePanel.empty(),
        types=(),
        weights={},
        memory=None,
        fusion=Fusion(memory=1.0, temperature=1.0),
        voter=voter,
    )
    layout = Layout.init(layout.root, layout.server)
    with open_registry(layout, create=True).writing() as registry:
        records = registry.records()
        origin = {
            "model": voter.name,
            "stage": 0,
            "name": voter.name,
            "digest": digest,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        record = StageRecord(
            number=next_number(records) if number is None else number,
            name=voter.name,
            seed=0,
            preset=dump_preset(preset),
            types=voter.named,
            new_types=voter.named,
            cells=0,
            genes=len(voter.genes),
            bank=bank_contents(CellPool.empty()) | {"digest": bank_digest(CellPool.empty())},
            notes={IMPORTED: origin, **model.voter_note},
        )
        draft = registry.draft(f"voter-{digest.removeprefix('sha256:')[:16]}")
        draft.clear()
        return draft.commit(record, model.save(draft.folder), promote=registry.champion() is None)


def voted_columns(voted: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return who answered each cell, and the verdict on novelty without one where that was the voter.

    Parameters
    ----------
    voted
        Whether the voter answers a cell, bool (cells,).
    columns
        Of the annotation so far.
    """
    source = {"source": np.where(voted, VOTER, TAUGHT).astype(object)}
    if "status" not in columns:
        return source
    # The memory says how unlike the taught types the cell is: of the voter's types that says nothing.
    return source | {"status": np.where(voted, "uncertain", columns["status"]).astype(object)}


def without_voted(columns: Mapping[str, np.ndarray], voted: np.ndarray) -> dict[str, np.ndarray]:
    """Return columns of text, empty where the voter answered: its types have no place in the Cell Ontology."""
    return {name: np.where(voted, "", values).astype(object) for name, values in columns.items()}


def voter_facts(reader: VoterReader) -> dict[str, Any]:
    """Return the facts of a voter that may answer; the keys are persisted in ``uns`` and JSON."""
    return {
        "name": reader.voter.name,
        "types": list(dict.fromkeys(reader.names)),
        "genes": len(reader.voter.genes),
        "measured_genes": int(reader.match.measured.sum()),
        "cannot": list(CANNOT),
    }


def voter_warnings(reader: VoterReader, voted: np.ndarray) -> list[str]:
    """Return a sentence where the voter answered some cells."""
    if not voted.any():
        return []
    return [
        f"{int(voted.sum())} cells have a type that nobody taught, answered by the voter {reader.voter.name}. "
        f"{NO_STATISTICS}."
    ]
