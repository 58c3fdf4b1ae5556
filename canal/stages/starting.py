"""What a stage starts from: its preset, and pre-trained weights where they are asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.config import PerformerConfig, Preset, load_preset
from canal.errors import StageError, WeightsError
from canal.model.record import StageRecord
from canal.stages.layout import Layout
from canal.training.start import (
    FACTS,
    PretrainedGenes,
    PretrainedWeights,
    check_weights,
    digest_of,
    load_pretrained,
    read_facts,
)

if TYPE_CHECKING:
    pass


from canal.stages.request import StageRequest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(layout: Layout, name: str) -> str:
    """Return the name if new weights may have it.

    Raises
    ------
    WeightsError
        If it is no name of a folder, or is taken.
    """
    if not NAME.fullmatch(name):
        message = (
            f"{name!r} is no name for weights; expected letters, digits, '.', '_' and '-'. Choose one with --name."
        )
        raise WeightsError(message)
    if (layout.weights / name).exists():
        message = f"There are weights named {name} already. Choose another name with --name, or remove their folder."
        raise WeightsError(message)
    return name


def list_weights(layout: Layout) -> list[dict[str, Any]]:
    """Return what the workspace's weights are, by name."""
    folders = sorted(path.parent for path in layout.weights.glob(f"*/{FACTS}") if not path.parent.name.startswith("."))
    found = []
    for folder in folders:
        table = read_facts(folder)
        rest = {k: v for k, v in table.items() if k not in {"format", "files"}}
        found.append({"name": folder.name, "digest": digest_of(table), **rest})
    return found


def find_weights(layout: Layout, name: str) -> PretrainedWeights:
    """Read weights by their name in the workspace, or by the path of their folder; hashes are checked.

    Raises
    ------
    WeightsError
        If there are none, or a file was changed.
    """
    return load_pretrained(weights_folder(layout, name))


def weights_folder(layout: Layout, name: str) -> Path:
    """Return the folder of weights by their name in the workspace, or by its path.

    Raises
    ------
    WeightsError
        If there are none.
    """
    inside, elsewhere = layout.weights / name, Path(name)
    if NAME.fullmatch(name) and (inside / FACTS).is_file():
        return inside
    if (elsewhere / FACTS).is_file():
        return elsewhere
    known = ", ".join(found["name"] for found in list_weights(layout)) or "none"
    message = (
        f"There are no weights {name!r}. The workspace has: {known}. Import some with `canal weights import`, make "
        "some with `canal pretrain`, or give the path of a folder of weights."
    )
    raise WeightsError(message)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The preset of a stage with every value, its weights, and the folder they were found in."""

    preset: Preset
    weights: PretrainedWeights | None = None
    folder: str = ""

    @property
    def digest(self) -> str:
        """Digest of the weights, ``""`` without any."""
        return self.weights.digest if self.weights else ""

    def note(self, taken: PretrainedGenes | None) -> dict[str, Any]:
        """Return what goes into the record's notes."""
        if self.weights is None or taken is None:
            return {}
        facts = {"name": self.weights.name, "digest": self.digest, "folder": self.folder}
        return {"weights": facts | {"genes": taken.genes, "genes_without_row": taken.without_row}}


def find_start(layout: Layout, request: StageRequest) -> Start:
    """Read preset and weights of a request; the encoder takes the sizes of the weights.

    Raises
    ------
    ConfigError, WeightsError, StageError
        If there is no such preset or weights, or they do not fit.
    """
    preset = load_preset(request.preset, tuple(request.overrides), layout.configs)
    if request.weights is None:
        return Start(preset=preset)
    weights = find_weights(layout, request.weights)
    if isinstance(preset.encoder, PerformerConfig):
        sizes = tuple(f"encoder.{k}={v}" for k, v in weights.sizes.encoder_keys().items())
        preset = load_preset(request.preset, (*sizes, *request.overrides), layout.configs)
    check_weights(weights, preset)
    return Start(preset=preset, weights=weights, folder=str(weights_folder(layout, request.weights).absolute()))


def check_lineage(start: Start, records: Sequence[StageRecord], parent: StageRecord | None) -> None:
    """Refuse weights that the stages before were not trained from.

    Raises
    ------
    StageError
        If the network goes on from a stage of other weights or of none.
    """
    if start.weights is None or parent is None or start.preset.training.start == "fresh":
        return
    before = _weights_of(records, parent)
    if before.get("digest") == start.digest:
        return
    found = f"from the weights {before['name']}" if before else "without pre-trained weights"
    message = (
        f"Stage {parent.number} ({parent.name}) was trained {found}, and its network is what this stage goes on from. "
        "Leave --weights out, or start the network anew with --set training.start=fresh."
    )
    raise StageError(message)


def _weights_of(records: Sequence[StageRecord], record: StageRecord) -> dict[str, Any]:
    """Return the note of the nearest stage of a line that took weights; empty where none did."""
    by_number = {r.number: r for r in records}
    at: StageRecord | None = record
    while at is not None:
        note: dict[str, Any] = at.notes.get("weights") or {}
        if note:
            return note
        fresh = at.preset.get("training", {}).get("start") == "fresh"
        at = None if fresh or at.parent is None else by_number.get(at.parent)
    return {}


def weights_warnings(record: StageRecord) -> tuple[str, ...]:
    """Return a sentence where genes of a stage have no row in the table of its weights."""
    note = record.notes.get("weights") or {}
    missing = note.get("genes_without_row", 0)
    if not missing:
        return ()
    return (
        f"{missing} of the {missing + note['genes']} genes that came into the panel have no vector in the weights "
        f"{note['name']}; they start from random vectors of the same spread.",
    )
