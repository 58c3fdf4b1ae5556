"""Training the network of one stage, from cells to the best epoch's weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from canal.config import TrainingConfig
from canal.errors import ConfigError
from canal.learn.batches import Batches, Hiding, PanelCells
from canal.learn.checkpoint import CheckpointPlugin
from canal.learn.device import best_device, seeded
from canal.learn.gate import encoder_plugins
from canal.learn.halfway import Halfway
from canal.learn.network import Network
from canal.learn.plugins import (
    DistillationPlugin,
    ProgressPlugin,
    SchedulePlugin,
    TrainingState,
    ValidationPlugin,
)
from canal.learn.processes import Processes
from canal.learn.progress import Progress
from canal.learn.sharing import SharingPlugin
from canal.learn.strategy import StageStrategy
from canal.seeds import torch_generator


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The previous model's representation of the training cells, (cells, D), and lambda as scaled."""

    previous: Tensor
    weight: float


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a network is trained and scored on: cells, the index of each cell's type, how much it counts.

    ``halfway`` holds what frozen layers make of them, where it can be kept.
    """

    cells: PanelCells
    types: np.ndarray
    weights: np.ndarray
    validation: PanelCells
    validation_types: np.ndarray
    halfway: Halfway | None = None
    validation_halfway: Halfway | None = None


def train_network(
    network: Network,
    data: TrainingData,
    config: TrainingConfig,
    *,
    seed: int,
    stage: int,
    distillation: Distillation | None,
    progress: Progress,
    checkpoint: tuple[Path, str] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda _epoch, _figures: None,
    processes: Processes | None = None,
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
    seed
        The stage's recorded seed; order, hiding and dropout draw from generators named after it.
    stage
        Number of the stage.
    distillation
        Target and weight, or ``None`` at the first stage.
    progress
        Told about every batch.
    checkpoint
        File and key of a checkpoint to go on from and to write.
    on_epoch
        Told about every epoch.
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
    draw = torch_generator(seed, "batches")
    hiding = Hiding(gene_dropout=config.gene_dropout, gene_set_masking=config.gene_set_masking)
    batches = Batches(data.cells, data.types, data.weights, config.batch_size, hiding, draw, config.sampling)
    epochs = max(config.epochs, -(-config.min_steps // len(batches)))
    plugins = [
        SchedulePlugin(config, state, epochs, len(batches)),
        ValidationPlugin(
            data.validation,
            data.validation_types,
            config.patience,
            state,
            on_epoch,
            by_loss=config.best == "accuracy-loss",
            halfway=data.validation_halfway,
        ),
        ProgressPlugin(progress, state),
    ]
    own = encoder_plugins(network, data.cells, data.types, batches)
    if own and processes is not None:
        message = "This encoder has losses over whole batches, which processes cannot share. Leave out --devices."
        raise ConfigError(message)
    plugins += own
    if distillation is not None and distillation.weight > 0:
        plugins.append(DistillationPlugin(distillation.previous.to(device), distillation.weight))
    if processes is not None:
        plugins.append(SharingPlugin(processes))
    if checkpoint is not None:
        plugins.append(CheckpointPlugin(*checkpoint, state, draw, write=processes is None or processes.rank == 0))
    progress.start(len(batches) * epochs, f"stage {stage}")
    with seeded(seed, "training", device):
        strategy = StageStrategy(
            network=network,
            optimizer=_optimizer(network, config),
            epochs=epochs,
            label_smoothing=config.label_smoothing,
            plugins=plugins,
            device=device,
            precision=_precision(config, device),
            halfway=data.halfway,
            processes=processes,
        )
        strategy.fit(stage, batches)
    progress.close()
    network.load_state_dict(state.best_weights)
    network.to("cpu").eval()
    return state.history


def _optimizer(network: Network, config: TrainingConfig) -> torch.optim.Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
        fused=True,
    )


def _precision(config: TrainingConfig, device: torch.device) -> torch.dtype:
    if config.precision == "bfloat16":
        return torch.bfloat16
    if config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32
