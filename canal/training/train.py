"""Training the network of one stage, from cells to the best epoch's weights, and the checkpoints of it.

A checkpoint is written after every epoch, so that a killed stage goes on from there, bit for bit. It is one safetensors
file: weights, best weights, optimizer and generators as tensors, the rest as JSON in its header.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from canal.config import TrainingConfig
from canal.errors import ConfigError
from canal.files import tensors_written
from canal.model.network import Network, PanelCells, best_device, seeded
from canal.seeds import torch_generator
from canal.training.avalanche import SupervisedPlugin
from canal.training.batches import Batches, Hiding
from canal.training.frozen import FrozenOutputs
from canal.training.plugins import DistillationPlugin, ProgressPlugin, SchedulePlugin, TrainingState, ValidationPlugin
from canal.training.processes import GradientSumPlugin, ProcessGroup
from canal.training.run import Draft, Run
from canal.training.strategy import StageStrategy

CHECKPOINT = "checkpoint.safetensors"


def tensors_under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of every parameter, by ``optimizer.<number>.<name>``."""
    tensors = {}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer.{number}.{name}"] = value
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the state that `optimizer_tensors` returned into an optimizer."""
    table = optimizer.state_dict()
    for name, value in tensors_under(tensors, "optimizer.").items():
        number, _, key = name.partition(".")
        table["state"].setdefault(int(number), {})[key] = value
    optimizer.load_state_dict(table)


def read_checkpoint(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and facts of a checkpoint, or ``None`` where there is none with this key."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            if facts["key"] != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError):
        return None  # half-written by a kill before the first rename: the training starts anew


class CheckpointPlugin(SupervisedPlugin):
    """Write the checkpoint after every epoch; read it before the first.

    Parameters
    ----------
    draft
        Folder of the checkpoint, and the key of all that decides the outcome: a checkpoint with another key is of
        another training and is not read.
    state
        Progress of the training; filled from the checkpoint.
    draw
        Generator of the batches.
    write
        Whether this process writes the checkpoint, or only reads it.
    """

    def __init__(self, draft: Draft, state: TrainingState, draw: torch.Generator, *, write: bool = True) -> None:
        super().__init__()
        self.write = write
        self.path, self.key = draft.folder / CHECKPOINT, draft.key
        self.state, self.draw = state, draw

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Go on from the checkpoint, if there is one."""
        checkpoint = read_checkpoint(self.path, self.key)
        if checkpoint is None:
            return
        tensors, facts = checkpoint
        # Network, optimizer and generators are as they were after the last epoch.
        strategy.model.load_state_dict(tensors_under(tensors, "model."))
        load_optimizer(strategy.optimizer, tensors)
        self.draw.set_state(tensors["draw"])
        torch.set_rng_state(tensors["torch"])
        # So is the record of the epochs so far.
        self.state.epoch, self.state.best_epoch = facts["epoch"], facts["best_epoch"]
        self.state.best_score = (facts["best_score"][0], facts["best_score"][1])
        self.state.history[:] = facts["history"]
        self.state.best_weights = tensors_under(tensors, "best.")
        # The epochs that are left.
        strategy.train_epochs -= self.state.epoch

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Write the checkpoint: whole or not at all."""
        if not self.write:
            return
        state = self.state
        # Weights, optimizer and generators.
        tensors = {f"model.{name}": value for name, value in strategy.model.state_dict().items()}
        for name, value in state.best_weights.items():
            tensors[f"best.{name}"] = value
        tensors |= optimizer_tensors(strategy.optimizer)
        tensors |= {"draw": self.draw.get_state(), "torch": torch.get_rng_state()}
        # The record of the epochs so far.
        facts = {
            "key": self.key,
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_score": state.best_score,
            "history": state.history,
        }
        # Copies: safetensors refuses tensors that share memory.
        copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        new = self.path.with_suffix(".new")
        with tensors_written(new):
            save_file(copies, new, metadata={"facts": json.dumps(facts)})
        new.replace(self.path)


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The previous model's representation of the training cells, (cells, D), and lambda as scaled."""

    previous: Tensor
    weight: float


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a network is trained and scored on.

    Attributes
    ----------
    cells
        Training cells.
    types, weights
        Index of the type of each training cell, and its weight in the loss, (cells,).
    validation, validation_types
        Cells that score the epochs, and the index of the type of each.
    frozen_outputs, validation_frozen_outputs
        Outputs of the encoder's frozen layers for both, where they can be kept.
    meant
        Which types each label may mean, bool (types, types), where some label means several.
    """

    cells: PanelCells
    types: np.ndarray
    weights: np.ndarray
    validation: PanelCells
    validation_types: np.ndarray
    frozen_outputs: FrozenOutputs | None = None
    validation_frozen_outputs: FrozenOutputs | None = None
    meant: np.ndarray | None = None


def train_network(
    network: Network,
    data: TrainingData,
    config: TrainingConfig,
    run: Run,
    *,
    distillation: Distillation | None = None,
    processes: ProcessGroup | None = None,
) -> list[dict[str, float]]:
    """Train a network in place and leave it with the weights of its best epoch.

    Parameters
    ----------
    network
        The network, already grown to the stage's genes and types.
    data
        Training and validation cells.
    config
        How to train.
    run
        Number of the stage, its seed, its checkpoint and who watches.
    distillation
        Target and weight, or ``None`` at the first stage.
    processes
        The group that shares the training; all its processes call this with the same arguments.

    Returns
    -------
    One dict of figures an epoch.

    Raises
    ------
    ConfigError
        If several processes are to share an encoder whose losses need whole batches.
    """
    device = best_device() if processes is None else processes.fabric.device
    state = TrainingState()
    # Order of the cells and what is hidden of them draw from one generator, dropout from another below.
    draw = torch_generator(run.seed, "batches")
    hiding = Hiding(gene_dropout=config.gene_dropout, gene_set_masking=config.gene_set_masking)
    batches = Batches(data.cells, data.types, data.weights, config.batch_size, hiding, draw, config.sampling)
    # A small stage gets more epochs, so that every stage takes the least number of steps.
    epochs = max(config.epochs, -(-config.min_steps // len(batches)))
    # The plugins that every stage has.
    plugins = [
        SchedulePlugin(config, state, epochs, len(batches)),
        ValidationPlugin(
            data.validation,
            data.validation_types,
            config.patience,
            state,
            run.log_epoch,
            by_loss=config.best == "accuracy-loss",
            frozen_outputs=data.validation_frozen_outputs,
        ),
        ProgressPlugin(run.progress, state),
        *_encoder_plugins(network, data, batches, processes),
    ]
    # Those that a later stage, several processes or a working folder add.
    if distillation is not None and distillation.weight > 0:
        plugins.append(DistillationPlugin(distillation.previous.to(device), distillation.weight))
    if processes is not None:
        plugins.append(GradientSumPlugin(processes))
    if run.draft is not None:
        plugins.append(CheckpointPlugin(run.draft, state, draw, write=processes is None or processes.rank == 0))
    # Train; the checkpoint plugin goes on from where a killed run was.
    run.progress.start(len(batches) * epochs, f"stage {run.number}")
    with seeded(run.seed, "training", device):
        strategy = StageStrategy(
            network=network,
            config=config,
            epochs=epochs,
            plugins=plugins,
            device=device,
            frozen_outputs=data.frozen_outputs,
            processes=processes,
        )
        strategy.meant = None if data.meant is None else torch.from_numpy(data.meant).to(device)
        strategy.fit(run.number, batches)
    run.progress.close()
    # The weights of the best epoch stay.
    network.load_state_dict(state.best_weights)
    network.to("cpu").eval()
    return state.history


def _encoder_plugins(
    network: Network, data: TrainingData, batches: Batches, processes: ProcessGroup | None
) -> list[SupervisedPlugin]:
    """Return the plugins that the encoder itself needs, and refuse several processes where it needs any."""
    from canal.training.scannonet import encoder_plugins

    plugins = encoder_plugins(network, data.cells, data.types, batches)
    if plugins and processes is not None:
        message = "This encoder has losses over whole batches, which processes cannot share. Leave out --devices."
        raise ConfigError(message)
    return plugins
