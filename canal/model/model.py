"""How network and analytic memory are joined into one calibrated probability.

The network gives probabilities, the memory ridge scores near 1 for the type and near 0 elsewhere. Their weighted sum
decides; divided by a temperature and put through a softmax it is the confidence. The temperature is learned on cells
of the stage that neither was fitted to; it never changes which type is best.

What one stage leaves behind to annotate with: gene panel, types, network, analytic memory and how they are joined.

Files of an annotator, none of them pickled: ``weights.safetensors``, ``memory.safetensors``, ``genes.json``,
``types.json``, ``calibration.json``, ``novelty.json``, ``config.toml``.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax, softmax

from canal.config import Preset, dump_preset, parse_preset
from canal.data.genes import Genes
from canal.data.panel import GenePanel
from canal.model.memory import AnalyticMemory, load_memory, save_memory
from canal.model.novelty.calibration import NoveltyCalibration

if TYPE_CHECKING:
    from canal.model.network import Network
    from canal.model.reader import GeneSetReader


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How the two are joined.

    Attributes
    ----------
    memory
        Weight of the memory's scores beside the network's probabilities.
    temperature
        Of their sum, the geometric mean of what fits each stage: a stage of types that are easy to tell apart must
        not make the model sure of those that are not.
    stages
        Number of stages in the mean.
    """

    memory: float
    temperature: float
    stages: int = 1

    def evidence(self, logits: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
        """Return the weighted sum (cells, types) that decides."""
        total = softmax(logits, axis=1)
        if scores is not None:
            total = total + self.memory * scores
        return np.asarray(total, dtype=np.float32)

    def join(self, logits: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
        """Return calibrated probabilities (cells, types) from logits and scores, each (cells, types)."""
        probabilities = softmax(self.evidence(logits, scores) / self.temperature, axis=1)
        return np.asarray(probabilities, dtype=np.float32)

    def calibrated(self, logits: np.ndarray, scores: np.ndarray | None, types: np.ndarray) -> "Fusion":
        """Return the fusion with the temperature of highest likelihood on held-out cells.

        Parameters
        ----------
        logits, scores
            Of the held-out cells, each (cells, types).
        types
            Index of each cell's type, (cells,).
        """
        from scipy.optimize import minimize_scalar

        evidence, rows = self.evidence(logits, scores), np.arange(len(types))

        def loss(log_temperature: float) -> float:
            return -float(log_softmax(evidence / np.exp(log_temperature), axis=1)[rows, types].mean())

        found = minimize_scalar(loss, bounds=(np.log(0.02), np.log(2.0)), method="bounded")
        return Fusion(memory=self.memory, temperature=float(np.exp(found.x)))

    def averaged(self, before: "Fusion") -> "Fusion":
        """Return the fusion with the temperature averaged over the stages so far."""
        n = before.stages
        log_mean = (n * np.log(before.temperature) + np.log(self.temperature)) / (n + 1)
        return Fusion(memory=self.memory, temperature=float(np.exp(log_mean)), stages=n + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"format": 1, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fusion":
        """Return the fusion of `to_dict`'s values."""
        return cls(
            memory=float(values["memory"]),
            temperature=float(values["temperature"]),
            stages=int(values.get("stages", 1)),
        )


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

        from canal.model.network import new_network

        network = new_network(self.preset, len(self.panel), len(self.types), seed=0)
        network.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in self.weights.items()})
        return network.eval()

    def reader(self, genes: Genes) -> "GeneSetReader":
        """Return the annotator as seen through the genes of one file; the memory is solved for them once.

        The last one is kept: the tests of a stage look through the same genes again and again.
        """
        from canal.model.reader import GeneSetReader

        if genes not in self._readers:
            self._readers.clear()
            self._readers[genes] = GeneSetReader(self, genes)
        return self._readers[genes]

    @cached_property
    def _readers(self) -> dict[Genes, "GeneSetReader"]:
        return {}


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
