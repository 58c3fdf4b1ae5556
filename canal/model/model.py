"""The model of a stage: gene panel, types, network, analytic memory, example bank, calibration, and its files.

The network gives probabilities, the memory discriminants among its ridge scores. The weighted sum of the latter and the
logarithm of the former decides; divided by a temperature and put through a softmax it is the confidence. The
temperature is learned on cells of the stage that neither was fitted to; it never changes which type is best. `Fusion`
says which rule a model answers by: older ones add ridge scores to probabilities.

Files of a model, none of them pickled: ``weights.safetensors``, ``memory.safetensors``, ``bank.safetensors``,
``genes.json``, ``types.json``, ``calibration.json``, ``novelty.json``, ``config.toml``, ``sure.json``,
``voter.safetensors``.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tomli_w
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax, softmax

from canal.config import Preset, dump_preset, parse_preset
from canal.data.cells import CellPool, Cells
from canal.data.genes import Genes
from canal.data.panel import GenePanel
from canal.errors import CanalError, RegistryError
from canal.files import tensors_written
from canal.model.bank import BANK, load_bank, save_bank
from canal.model.checks import check_model
from canal.model.kinds import coarse_kinds
from canal.model.memory import AnalyticMemory, load_memory, save_memory
from canal.model.novelty.calibration import NoveltyCalibration
from canal.model.record import VOTER_NOTE
from canal.model.stage_keys import stages_by_key, used_keys
from canal.model.sure import SureCalibration, SureNodes, sure_nodes
from canal.model.voter import CANNOT, Voter

if TYPE_CHECKING:
    from canal.model.network import Network
    from canal.model.reader import GeneSetReader
    from canal.model.record import StageRecord

GET_ANOTHER = "Restore it from a backup, use another stage, or ask for a new export."  # ends a message
WEIGHTS, MEMORY, SURE = "weights.safetensors", "memory.safetensors", "sure.json"
VOTER = "voter.safetensors"
Rule = Literal["sum", "discriminants"]
# Between which the temperature of a stage is sought: a sum is a few units wide, discriminants are some dozens of nats.
TEMPERATURES: Mapping[Rule, tuple[float, float]] = {"sum": (0.02, 2.0), "discriminants": (0.5, 100.0)}
# What is added to the network's probabilities before their logarithm, so that it can doubt but not forbid: where it is
# wrong it is surely wrong. Between .001 and .03 the answers are the same.
LEAST_VOTE = 0.01
# What the temperature of discriminants is drawn to, for a memory of weight 1, and how hard (of its logarithm): a stage
# of few or all too easy cells says little of it. Without this a stage without any error asks for .5 and one with three
# errors for 33. Set on the held-out cells of the immune and pancreas streams, whose other stages lie between 8 and 14.
USUAL_TEMPERATURE, TEMPERATURE_SPREAD = 4.5, 0.3
# Share of the held-out cells whose label may be wrong: a single one that is surely answered otherwise must not decide.
MISLABELLED = 0.01
FUSION_FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How the network's probabilities and what the memory says become one calibrated answer.

    Attributes
    ----------
    memory
        Weight of what the memory says beside the network.
    temperature
        Of their sum: the geometric mean of the temperatures that fit each stage. A stage of types that are easy to
        tell apart must not make the model sure of those that are not.
    stages
        Number of stages in the mean.
    rule
        ``sum``: the memory's ridge scores are added to the network's probabilities, as every model did before there
        were rules. ``discriminants``: its discriminants to the logarithm of them; see `canal.model.discriminants`.
    """

    memory: float
    temperature: float
    stages: int = 1
    rule: Rule = "sum"

    def evidence(self, logits: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
        """Return the weighted sum (cells, types) that decides.

        Parameters
        ----------
        logits
            Of the network, (cells, types).
        memory
            What the memory says, (cells, types): ridge scores or discriminants, as the rule asks for; ``None`` without.
        """
        total = softmax(logits, axis=1)
        if self.rule == "discriminants":
            total = np.log(total + LEAST_VOTE)
        if memory is not None:
            total = total + self.memory * memory
        return np.asarray(total, dtype=np.float32)

    def join(self, logits: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
        """Return calibrated probabilities (cells, types) from logits and what the memory says; see `evidence`."""
        probabilities = softmax(self.evidence(logits, memory) / self.temperature, axis=1)
        return np.asarray(probabilities, dtype=np.float32)

    def calibrated(self, logits: np.ndarray, memory: np.ndarray | None, types: np.ndarray) -> "Fusion":
        """Return the fusion with the temperature of highest likelihood on held-out cells.

        Parameters
        ----------
        logits, memory
            Of the held-out cells, as for `evidence`.
        types
            Index of each cell's type, (cells,).
        """
        from scipy.optimize import minimize_scalar

        evidence, rows = self.evidence(logits, memory), np.arange(len(types))

        def loss(log_temperature: float) -> float:
            return -float(log_softmax(evidence / np.exp(log_temperature), axis=1)[rows, types].mean())

        def robust_loss(log_temperature: float) -> float:
            probability = softmax(evidence / np.exp(log_temperature), axis=1)[rows, types]
            allowing = (1.0 - MISLABELLED) * probability + MISLABELLED / evidence.shape[1]
            away = (log_temperature - np.log(USUAL_TEMPERATURE * (self.memory or 1.0))) / TEMPERATURE_SPREAD
            return -float(np.log(allowing).mean()) + 0.5 * float(away) ** 2 / len(types)

        least, most = TEMPERATURES[self.rule]
        optimum = minimize_scalar(
            loss if self.rule == "sum" else robust_loss, bounds=(np.log(least), np.log(most)), method="bounded"
        )
        return replace(self, temperature=float(np.exp(optimum.x)), stages=1)

    def averaged(self, before: "Fusion") -> "Fusion":
        """Return the fusion with the temperature averaged over the stages so far.

        Temperatures of another rule are of another scale: then the mean begins anew with this stage.
        """
        if before.rule != self.rule:
            return self
        n = before.stages
        log_mean = (n * np.log(before.temperature) + np.log(self.temperature)) / (n + 1)
        return replace(self, temperature=float(np.exp(log_mean)), stages=n + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        The sum is written as it was before there were rules, so that an old stage that is built again has its old file.
        """
        values = asdict(self)
        if self.rule == "sum":
            del values["rule"]
            return {"format": 1, **values}
        return {"format": FUSION_FORMAT, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fusion":
        """Return the fusion of `to_dict`'s values.

        Raises
        ------
        RegistryError
            If a later version wrote them.
        """
        rule = values.get("rule", "sum")
        if values.get("format", 1) > FUSION_FORMAT or rule not in TEMPERATURES:
            message = (
                f"The calibration of this stage has format {str(values.get('format'))[:20]} and rule "
                f"{str(rule)[:20]!r}; this version of canal reads formats up to {FUSION_FORMAT} with "
                f"{' or '.join(TEMPERATURES)}. Install a newer canal."
            )
            raise RegistryError(message)
        return cls(
            memory=float(values["memory"]),
            temperature=float(values["temperature"]),
            stages=int(values.get("stages", 1)),
            rule=rule,
        )


@dataclass(frozen=True, kw_only=True)
class Model:
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
        Calibration of novelty: the novelties of the cells held out at each stage.
    bank
        The example bank; empty where the preset keeps none.
    sure
        Where the types stand in the Cell Ontology and when a node is sure; ``None`` where it was not asked for.
    record
        Record of the stage in the registry; ``None`` before it is committed.
    name
        Name of the registered model; it is written beside annotated cells.
    split
        Finer types by the type that was split into them.
    voter
        What the workspace started from, where that was a voter: it answers for its types that nobody taught. A model
        that was taught nothing yet is the voter alone; see `is_taught`.
    """

    preset: Preset
    panel: GenePanel
    types: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    memory: AnalyticMemory | None
    fusion: Fusion
    novelty: NoveltyCalibration = field(default_factory=NoveltyCalibration)
    bank: CellPool = field(default_factory=CellPool.empty)
    record: "StageRecord | None" = None
    name: str = "canal"
    sure: SureCalibration | None = None
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    voter: Voter | None = None

    @property
    def is_taught(self) -> bool:
        """Whether any type was taught: a voter alone has neither network nor memory."""
        return bool(self.types)

    @property
    def answers(self) -> tuple[str, ...]:
        """All types that can be answered: the taught ones, then those that are left to the voter."""
        return self.types + (() if self.voter is None else self.voter.untaught(self.types))

    @property
    def voter_note(self) -> dict[str, dict[str, Any]]:
        """What the record of a stage notes of the voter and of the types that are left to it; empty without one."""
        if self.voter is None:
            return {}
        left = list(self.voter.untaught(self.types))
        digest = str(self.voter.description.get("source_digest", ""))
        note = {"name": self.voter.name, "digest": digest, "types": left, "alone": not self.is_taught}
        return {VOTER_NOTE: note | {"cannot": list(CANNOT)}}

    @property
    def stage(self) -> "StageRecord":
        """The record of a committed model."""
        assert self.record is not None, "the model was not committed"
        return self.record

    @cached_property
    def stage_of_key(self) -> dict[int, int]:
        """Number of the stage in its registry that each key of the model belongs to; see `canal.model.stage_keys`."""
        return stages_by_key(self.stage, used_keys(self))

    @cached_property
    def nodes(self) -> SureNodes | None:
        """The nodes that a sure answer can be, ``None`` where the types have no places."""
        if self.sure is None:
            return None
        return sure_nodes(self.types, self.sure.placement, self.taught_together, self.kinds)

    @cached_property
    def kinds(self) -> dict[str, tuple[str, ...]]:
        """Kinds of each type that is a term above others, which answers as one of them; see `canal.model.kinds`.

        Those of a type that was split are what it was split into. A model without places, or of before coarse labels
        taught their kinds, has no others.
        """
        placement = self.sure.placement if self.sure is not None and self.sure.kinds else None
        return coarse_kinds(self.types, placement, self.taught_together, self.split)

    @cached_property
    def taught_together(self) -> list[frozenset[str]]:
        """The types of each stage that the memory knows."""
        together: dict[int, set[str]] = {}
        for stage, name in () if self.memory is None else self.memory.counts():
            together.setdefault(stage, set()).add(name)
        return [frozenset(names) for names in together.values()]

    def as_labelled(self, labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Return the answers, and the label itself where a cell's label is coarse and the answer one of its kinds.

        So answers can be counted against labels: the label says no more of such a cell.

        Parameters
        ----------
        labels, answers
            Given and answered type of each cell, (cells,).
        """
        if not self.kinds:
            return answers
        agreeing = answers.copy()
        for coarse, kinds in self.kinds.items():
            agreeing[(labels == coarse) & np.isin(answers, kinds)] = coarse
        return agreeing

    @cached_property
    def network(self) -> "Network":
        """Encoder and classifier in torch, made on first use: not every use needs torch."""
        import torch

        from canal.model.network import new_network

        network = new_network(self.preset, len(self.panel), len(self.types), seed=0)
        try:
            network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in self.weights.items()})
        except (RuntimeError, TypeError) as error:
            message = f"The weights are of another network than the preset says: {str(error)[:400]}. {GET_ANOTHER}"
            raise RegistryError(message) from error
        return network.eval()

    def reader(self, genes: Genes) -> "GeneSetReader":
        """Return the model prepared for the genes of one file; the memory is solved for them once.

        The last one is remembered: the tests of a stage ask for the same genes again and again.
        """
        from canal.model.reader import GeneSetReader

        if genes not in self._readers:
            self._readers.clear()
            self._readers[genes] = GeneSetReader(self, genes)
        return self._readers[genes]

    def types_of(self, cells: Cells) -> np.ndarray:
        """Return the name of the most probable type of each cell, (cells,)."""
        reader = self.reader(cells.genes)
        return reader.answered(reader.predict(cells.expression))[0]

    @cached_property
    def _readers(self) -> dict[Genes, "GeneSetReader"]:
        return {}

    def save(self, folder: Path) -> dict[str, Path]:
        """Write the model's files into a folder and return them by name; a bank without cells has no file."""
        # Every model has these.
        weights = {name: np.ascontiguousarray(values) for name, values in self.weights.items()}
        with tensors_written(folder / WEIGHTS):
            save_file(weights, folder / WEIGHTS)
        _write_json(folder / "genes.json", self.panel.to_dict())
        split = {name: list(finer) for name, finer in self.split.items()}
        _write_json(folder / "types.json", {"types": list(self.types)} | ({"split": split} if split else {}))
        _write_json(folder / "calibration.json", self.fusion.to_dict())
        _write_json(folder / "novelty.json", self.novelty.to_dict())
        (folder / "config.toml").write_text(tomli_w.dumps(dump_preset(self.preset)), encoding="utf-8")
        names = [WEIGHTS, "genes.json", "types.json", "calibration.json", "novelty.json", "config.toml"]
        # These depend on the preset.
        if self.memory is not None:
            save_memory(self.memory, folder / MEMORY)
            names.append(MEMORY)
        if len(self.bank):
            save_bank(self.bank, folder / BANK)
            names.append(BANK)
        if self.sure is not None:
            _write_json(folder / SURE, self.sure.to_dict())
            names.append(SURE)
        if self.voter is not None:
            self.voter.save(folder / VOTER)
            names.append(VOTER)
        return {name: folder / name for name in names}

    @classmethod
    def load(
        cls, folder: Path, record: "StageRecord | None" = None, name: str = "canal", *, network: bool = True
    ) -> "Model":
        """Read a model from the files of `save`; their hashes must have been checked before.

        Parameters
        ----------
        folder
            Where the files are.
        record, name
            Record of the stage; name of the registered model.
        network
            Whether the network's weights are read; without them the model cannot annotate.

        Raises
        ------
        RegistryError
            If a file is missing, damaged or of a newer canal, or the parts do not fit together.
        """
        try:
            model = cls._read(folder, record, name, network)
            check_model(model, network=network)
        except (CanalError, MemoryError) as error:
            # What a part says of itself names its file; what does not fit together is of the whole model.
            if isinstance(error, CanalError) and str(folder) in str(error):
                raise
            message = f"The model in {folder} cannot be used: {str(error)[:400]}. {GET_ANOTHER}"
            raise RegistryError(message) from error
        except ModuleNotFoundError:  # a library that is not installed is no fault of the file
            raise
        except Exception as error:  # whatever a file that somebody made up brings forth
            message = f"The model in {folder} is damaged ({type(error).__name__}: {str(error)[:200]}). {GET_ANOTHER}"
            raise RegistryError(message) from error
        return model

    @classmethod
    def _read(cls, folder: Path, record: "StageRecord | None", name: str, network: bool) -> "Model":
        preset = parse_preset(tomllib.loads((folder / "config.toml").read_text(encoding="utf-8")), str(folder))
        # Models without a memory or a bank lack their files; those of early versions lack the novelty calibration.
        memory, novelty, bank = folder / MEMORY, folder / "novelty.json", folder / BANK
        sure, voter = folder / SURE, folder / VOTER
        types = _read_json(folder / "types.json")
        return cls(
            preset=preset,
            panel=GenePanel.from_dict(_read_json(folder / "genes.json")),
            types=tuple(types["types"]),
            weights=load_file(folder / WEIGHTS) if network else {},
            memory=load_memory(memory) if memory.is_file() else None,
            fusion=Fusion.from_dict(_read_json(folder / "calibration.json")),
            novelty=NoveltyCalibration.from_dict(_read_json(novelty)) if novelty.is_file() else NoveltyCalibration(),
            bank=load_bank(bank) if bank.is_file() else CellPool.empty(),
            record=record,
            name=name,
            sure=SureCalibration.from_dict(_read_json(sure)) if sure.is_file() else None,
            split={name: tuple(finer) for name, finer in types.get("split", {}).items()},
            voter=Voter.load(voter) if voter.is_file() else None,
        )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value
