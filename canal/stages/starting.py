"""What a stage starts from: its preset, and pre-trained weights where they are asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canal.config import PerformerConfig, Preset, load_preset
from canal.errors import StageError, WeightsError
from canal.model.record import StageRecord
from canal.stages.layout import Layout
from canal.stages.request import StageRequest
from canal.training.start import (
    FACTS,
    PretrainedGenes,
    PretrainedWeights,
    check_weights,
    digest_of,
    load_pretrained,
    read_facts,
)

_WEIGHTS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # valid as the name of a folder on every system


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a stage starts from.

    Attributes
    ----------
    preset
        Every value of its configuration.
    weights
        Pre-trained weights, ``None`` without any.
    folder
        Absolute path of the folder of the weights, ``""`` without any.
    """

    preset: Preset
    weights: PretrainedWeights | None = None
    folder: str = ""

    @property
    def digest(self) -> str:
        """Digest of the weights, ``""`` without any."""
        return self.weights.digest if self.weights else ""

    def note(self, taken: PretrainedGenes | None) -> dict[str, Any]:
        """Return the note on the weights for the stage's record, given which of their genes the network took."""
        if self.weights is None or taken is None:
            return {}
        facts = {"name": self.weights.name, "digest": self.digest, "folder": self.folder}
        return {"weights": facts | {"genes": taken.genes, "genes_without_row": taken.without_row}}


def find_start(layout: Layout, request: StageRequest) -> Start:
    """Read preset and weights of a request; the encoder gets the sizes of the weights.

    Raises
    ------
    ConfigError, WeightsError, StageError
        If there is no such preset or weights, or they do not fit.
    """
    preset = load_preset(request.preset, tuple(request.overrides), layout.configs)
    if request.weights is None:
        return Start(preset=preset)
    weights = find_weights(layout, request.weights)
    # The sizes of the weights come before the preset's, but not before those that the request names: if it asks for
    # other sizes, the check refuses them.
    if isinstance(preset.encoder, PerformerConfig):
        sizes = [f"encoder.{key}={value}" for key, value in weights.sizes.encoder_keys().items()]
        preset = load_preset(request.preset, (*sizes, *request.overrides), layout.configs)
    check_weights(weights, preset)
    return Start(preset=preset, weights=weights, folder=str(weights_folder(layout, request.weights).absolute()))


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
    if _WEIGHTS_NAME.fullmatch(name) and (inside / FACTS).is_file():
        return inside
    if (elsewhere / FACTS).is_file():
        return elsewhere
    known = ", ".join(weights["name"] for weights in list_weights(layout)) or "none"
    message = (
        f"There are no weights {name!r}. The workspace has: {known}. Import some with `canal weights import`, make "
        "some with `canal pretrain`, or give the path of a folder of weights."
    )
    raise WeightsError(message)


def list_weights(layout: Layout) -> list[dict[str, Any]]:
    """Return name, digest and facts of each of the workspace's pre-trained weights, by name."""
    listed = []
    for path in sorted(layout.weights.glob(f"*/{FACTS}")):
        folder = path.parent
        # Hidden folders hold weights that are still being written.
        if folder.name.startswith("."):
            continue
        facts = read_facts(folder)
        digest = digest_of(facts)
        shown = {key: value for key, value in facts.items() if key not in {"format", "files"}}
        listed.append({"name": folder.name, "digest": digest, **shown})
    return listed


def check_weights_name(layout: Layout, name: str) -> str:
    """Return a name for new weights, if the workspace can keep weights under it.

    Raises
    ------
    WeightsError
        If it cannot be the name of a folder, or there are weights of that name.
    """
    if not _WEIGHTS_NAME.fullmatch(name):
        message = (
            f"{name!r} is no name for weights; expected letters, digits, '.', '_' and '-'. Choose one with --name."
        )
        raise WeightsError(message)
    if (layout.weights / name).exists():
        message = f"There are weights named {name} already. Choose another name with --name, or remove their folder."
        raise WeightsError(message)
    return name


def check_weights_lineage(start: Start, records: Sequence[StageRecord], parent: StageRecord | None) -> None:
    """Refuse weights other than those that the parent's network was trained from.

    Raises
    ------
    StageError
        If the network goes on from a stage that started from other weights or from none.
    """
    # Without weights, or with a new network, there is nothing that could contradict.
    if start.weights is None or parent is None or start.preset.training.start == "fresh":
        return
    parent_weights = _weights_note(records, parent)
    if parent_weights.get("digest") == start.digest:
        return
    origin = f"from the weights {parent_weights['name']}" if parent_weights else "without pre-trained weights"
    message = (
        f"Stage {parent.number} ({parent.name}) was trained {origin}, and its network is what this stage goes on from. "
        "Leave --weights out, or start the network anew with --set training.start=fresh."
    )
    raise StageError(message)


def _weights_note(records: Sequence[StageRecord], record: StageRecord) -> dict[str, Any]:
    """Return the note on the weights that a stage's network comes from; empty where it started without any."""
    by_number = {stage.number: stage for stage in records}
    # From parent to parent, as long as the network was handed on.
    stage: StageRecord | None = record
    while stage is not None:
        note: dict[str, Any] = stage.notes.get("weights") or {}
        if note:
            return note
        if stage.parent is None or stage.preset.get("training", {}).get("start") == "fresh":
            return {}
        stage = by_number.get(stage.parent)
    return {}


def weights_warnings(record: StageRecord) -> tuple[str, ...]:
    """Return a warning if genes of a stage have no vector in its pre-trained weights."""
    note = record.notes.get("weights") or {}
    missing = note.get("genes_without_row", 0)
    if not missing:
        return ()
    return (
        f"{missing} of the {missing + note['genes']} genes that came into the panel have no vector in the weights "
        f"{note['name']}; they start from random vectors of the same spread.",
    )
