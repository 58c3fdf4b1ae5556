"""What one stage leaves behind to annotate with: gene panel, types, network, analytic memory and how they are joined.

Files of an annotator, none of them pickled: ``weights.safetensors``, ``memory.safetensors``, ``genes.json``,
``types.json``, ``calibration.json``, ``novelty.json``, ``config.toml``.
"""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import tomli_w
import torch
from safetensors.torch import load_file, save_file

from canal.config import Preset, dump_preset, parse_preset
from canal.data.panel import GenePanel
from canal.data.pool import CellPool
from canal.detect.calibration import NoveltyCalibration
from canal.encoders.factory import build_encoder
from canal.learn.batches import PanelCells
from canal.learn.device import best_device, product_numbers, seeded
from canal.learn.fusion import Fusion
from canal.learn.memory import AnalyticMemory, SolvedMemory
from canal.learn.memory_file import load_memory, save_memory
from canal.learn.network import Network
from canal.learn.novelty import NoveltyReader


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the annotator says of some cells.

    Attributes
    ----------
    probabilities
        Calibrated probability of each type, float32 of shape (cells, types).
    representation
        Float32 of shape (cells, D).
    """

    probabilities: np.ndarray
    representation: np.ndarray


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
    network
        Encoder and classifier.
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
    network: Network
    memory: AnalyticMemory | None
    fusion: Fusion
    novelty: NoveltyCalibration = field(default_factory=NoveltyCalibration)

    def reader(self, genes: Sequence[str], ensembl: Sequence[str]) -> "GeneSetReader":
        """Return the annotator as seen through the genes of one file; the memory is solved for them once."""
        return GeneSetReader(self, genes, ensembl)


class GeneSetReader:
    """An annotator for files with one set of genes.

    Parameters
    ----------
    annotator
        The model.
    genes, ensembl
        Genes of the file, in the order of its columns.
    """

    def __init__(self, annotator: Annotator, genes: Sequence[str], ensembl: Sequence[str]) -> None:
        self.annotator = annotator
        self._genes, self._ensembl = genes, ensembl
        self.match = annotator.panel.match(genes, ensembl)
        self.solved: SolvedMemory | None = None
        if annotator.memory is not None:
            self.solved = annotator.memory.solved_for(genes, ensembl, annotator.types)

    def novelty(self, bank: CellPool) -> NoveltyReader | None:
        """Return the novelty detector for these genes, or ``None`` where the model has no analytic memory."""
        model = self.annotator
        if model.memory is None or not model.memory.statistics:
            return None
        return NoveltyReader(model.memory, model.novelty, bank, self._genes, self._ensembl)

    def predict(self, expression: sp.csr_matrix) -> Prediction:
        """Annotate cells of shape (cells, genes of the file), natural ``log1p`` of values per 10,000."""
        logits, rep = self.network_outputs(expression)
        scores = None if self.solved is None else self.solved.scores(expression)
        return Prediction(probabilities=self.annotator.fusion.join(logits, scores), representation=rep)

    def best_types(self, expression: sp.csr_matrix) -> np.ndarray:
        """Return the name of the most probable type of each cell, (cells,)."""
        names = np.array(self.annotator.types, dtype=object)
        return np.asarray(names[self.predict(expression).probabilities.argmax(axis=1)])

    def network_outputs(self, expression: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Return the network's logits (cells, types) and representations (cells, D)."""
        values = self.match.project(expression)
        cells = PanelCells(
            values=values,
            measured=self.match.measured[None],
            source=np.zeros(values.shape[0], dtype=np.int64),
        )
        return run_network(self.annotator.network, cells)


def run_network(network: Network, cells: PanelCells) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (cells, types) and representations (cells, D) in evaluation mode, a block at a time."""
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


def new_network(preset: Preset, n_genes: int, n_types: int, seed: int) -> Network:
    """Return a freshly initialised network; its weights follow from the seed."""
    with seeded(seed, "weights"):
        network = Network(build_encoder(preset.encoder, n_genes), n_types)
    network.encoder.numbers = product_numbers(preset.training.precision)
    return network


def save_annotator(annotator: Annotator, folder: Path) -> dict[str, Path]:
    """Write the annotator's files into a folder and return them by name."""
    weights = {k: v.detach().cpu().contiguous() for k, v in annotator.network.state_dict().items()}
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
    network = new_network(preset, len(panel), len(types), seed=0)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    memory, novelty = folder / "memory.safetensors", folder / "novelty.json"
    return Annotator(
        preset=preset,
        panel=panel,
        types=types,
        network=network.eval(),
        memory=load_memory(memory) if memory.is_file() else None,
        fusion=Fusion.from_dict(_read_json(folder / "calibration.json")),
        novelty=NoveltyCalibration.from_dict(_read_json(novelty)) if novelty.is_file() else NoveltyCalibration(),
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _read_json(path: Path) -> dict[str, list[str]]:
    value: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return value
