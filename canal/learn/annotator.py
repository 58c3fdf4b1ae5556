"""What one stage leaves behind to annotate with: gene panel, types, network, analytic memory and how they are joined.

Files of an annotator, none of them pickled: ``weights.safetensors``, ``memory.safetensors``, ``genes.json``,
``types.json``, ``calibration.json``, ``novelty.json``, ``config.toml``.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tomli_w
from safetensors.numpy import load_file, save_file

from canal.config import Preset, dump_preset, parse_preset
from canal.data.panel import GenePanel
from canal.detect.calibration import NoveltyCalibration
from canal.learn.fusion import Fusion
from canal.learn.memory import AnalyticMemory
from canal.learn.memory_file import load_memory, save_memory

if TYPE_CHECKING:
    from canal.learn.batches import PanelCells
    from canal.learn.network import Network
    from canal.learn.reader import GeneSetReader


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """The model of one stage.

    Attributes
    ----------
    preset
        Configuration it was trained with.
    panel
        Genes of the network, in the order of its inputs.
    types
        Cell types in the order of the classifier.
    weights
        Of encoder and classifier, by the names of the network's state; see `network`.
    memory
        Analytic memory, or ``None`` where the preset has none.
    fusion
        How network and memory are joined and calibrated.
    novelty
        Novelties of the cells held out at each stage.
    """

    preset: Preset
    panel: GenePanel
    types: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    memory: AnalyticMemory | None
    fusion: Fusion
    novelty: NoveltyCalibration = field(default_factory=NoveltyCalibration)

    @cached_property
    def network(self) -> "Network":
        """Encoder and classifier in torch, made when first asked for: not every use needs torch."""
        import torch

        network = new_network(self.preset, len(self.panel), len(self.types), seed=0)
        network.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in self.weights.items()})
        return network.eval()

    def reader(self, genes: Sequence[str], ensembl: Sequence[str]) -> "GeneSetReader":
        """Return the annotator as seen through the genes of one file; the memory is solved for them once.

        The last one is kept: the tests of a stage look through the same genes again and again.
        """
        from canal.learn.reader import GeneSetReader

        key = (tuple(genes), tuple(ensembl))
        if key not in self._readers:
            self._readers.clear()
            self._readers[key] = GeneSetReader(self, *key)
        return self._readers[key]

    @cached_property
    def _readers(self) -> dict[tuple[tuple[str, ...], tuple[str, ...]], "GeneSetReader"]:
        return {}


def weights_of(network: "Network") -> dict[str, np.ndarray]:
    """Return a copy of a network's weights, by the names of its state."""
    return {name: np.array(v.detach().cpu().numpy()) for name, v in network.state_dict().items()}


def run_network(network: "Network", cells: "PanelCells") -> tuple[np.ndarray, np.ndarray]:
    """Return logits (cells, types) and representations (cells, D) in evaluation mode, a block at a time."""
    import torch

    from canal.learn.device import best_device

    device = best_device()
    network.to(device).eval()
    size = network.encoder.block
    logits, reps = [], []
    with torch.no_grad():
        for rows in cells.blocks(size):
            values, measured = (t.to(device) for t in cells.dense(rows))
            rep, logit = network(values, measured)
            logits.append(logit.float().cpu().numpy())
            reps.append(rep.float().cpu().numpy())
    network.to("cpu")
    if not logits:
        return np.zeros((0, network.classifier.out_features), np.float32), np.zeros(
            (0, network.encoder.dim), np.float32
        )
    return np.concatenate(logits), np.concatenate(reps)


def new_network(preset: Preset, n_genes: int, n_types: int, seed: int) -> "Network":
    """Return a freshly initialised network; its weights follow from the seed."""
    from canal.encoders.factory import build_encoder
    from canal.learn.device import product_numbers, seeded
    from canal.learn.network import Network

    with seeded(seed, "weights"):
        network = Network(build_encoder(preset.encoder, n_genes), n_types)
    network.encoder.numbers = product_numbers(preset.training.precision)
    return network


def save_annotator(annotator: Annotator, folder: Path) -> dict[str, Path]:
    """Write the annotator's files into a folder and return them by name."""
    weights = {name: np.ascontiguousarray(values) for name, values in annotator.weights.items()}
    save_file(weights, folder / "weights.safetensors")
    _write_json(folder / "genes.json", annotator.panel.to_dict())
    _write_json(folder / "types.json", {"types": list(annotator.types)})
    _write_json(folder / "calibration.json", annotator.fusion.to_dict())
    _write_json(folder / "novelty.json", annotator.novelty.to_dict())
    (folder / "config.toml").write_text(tomli_w.dumps(dump_preset(annotator.preset)), encoding="utf-8")
    names = ["weights.safetensors", "genes.json", "types.json", "calibration.json", "novelty.json", "config.toml"]
    if annotator.memory is not None:
        save_memory(annotator.memory, folder / "memory.safetensors")
        names.append("memory.safetensors")
    return {name: folder / name for name in names}


def load_annotator(folder: Path) -> Annotator:
    """Read an annotator from the files of `save_annotator`, whose hashes were checked by whoever opened the folder."""
    preset = parse_preset(tomllib.loads((folder / "config.toml").read_text(encoding="utf-8")), str(folder))
    panel = GenePanel.from_dict(_read_json(folder / "genes.json"))
    types = tuple(_read_json(folder / "types.json")["types"])
    memory, novelty = folder / "memory.safetensors", folder / "novelty.json"
    return Annotator(
        preset=preset,
        panel=panel,
        types=types,
        weights=load_file(folder / "weights.safetensors"),
        memory=load_memory(memory) if memory.is_file() else None,
        fusion=Fusion.from_dict(_read_json(folder / "calibration.json")),
        novelty=NoveltyCalibration.from_dict(_read_json(novelty)) if novelty.is_file() else NoveltyCalibration(),
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _read_json(path: Path) -> dict[str, list[str]]:
    value: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return value
