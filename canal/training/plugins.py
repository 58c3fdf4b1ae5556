"""The loss of a stage, and the plugins that add a stage's concerns to Avalanche's training loop, one plugin a concern.

The loss is cross-entropy plus representation distillation (CANAL, Briefings in Bioinformatics 2024). Distillation,
learning rate, validation and progress are plugins here; checkpoints, several processes and scAnnoNet's gate have theirs
in `canal.training.train`, `canal.training.processes` and `canal.training.scannonet`.

Shapes: B cells, C types, D representation.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from canal.config import TrainingConfig
from canal.model.network import PanelCells
from canal.progress import Progress
from canal.training.avalanche import SupervisedPlugin
from canal.training.frozen import FrozenOutputs


def classification_loss(
    logits_BC: Tensor, types_B: Tensor, weights_B: Tensor, smoothing: float, meant_CC: Tensor | None = None
) -> Tensor:
    """Cross-entropy against ``(1 - eps) onehot + eps / C``, weighted mean over the batch.

    Parameters
    ----------
    logits_BC, types_B, weights_B
        Logits, index of the label and weight of each cell.
    smoothing
        eps.
    meant_CC
        Which types each label may mean, bool, where some label means several: the cross-entropy is then marginalised,
        ``-log`` of the probability of all of them together.
    """
    if meant_CC is None:
        losses_B = F.cross_entropy(logits_BC, types_B, label_smoothing=smoothing, reduction="none")
    else:
        log_p_BC = F.log_softmax(logits_BC, dim=1)
        own_B = -log_p_BC.masked_fill(~meant_CC[types_B], -math.inf).logsumexp(dim=1)
        losses_B = (1 - smoothing) * own_B - smoothing * log_p_BC.mean(dim=1)
    return (losses_B * weights_B).sum() / weights_B.sum()


def distillation_loss(rep_BD: Tensor, previous_BD: Tensor) -> Tensor:
    """Mean squared difference to the previous model's representation, over batch and dimensions."""
    return F.mse_loss(rep_BD, previous_BD)


def distillation_weight(strength: float, n_old: int, n_all: int) -> float:
    """Return lambda * |old types| / |old and new types|: the more types are new, the freer the representation."""
    return strength * n_old / n_all if n_all else 0.0


@dataclass
class TrainingState:
    """Progress of a training: what a checkpoint keeps besides weights, optimizer and generators.

    Attributes
    ----------
    epoch
        Epochs done.
    best_epoch, best_score
        Best epoch so far (from 1) and its (accuracy, -loss) on the validation cells.
    best_weights
        Weights of the best epoch.
    history
        One dict an epoch: training loss, validation loss and accuracy.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: tuple[float, float] = (-1.0, -math.inf)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class DistillationPlugin(SupervisedPlugin):
    """Penalise the distance of the representation to the previous model's (CANAL, representation distillation).

    Parameters
    ----------
    previous
        The previous model's representation of every training cell, computed once a stage, in evaluation mode.
    weight
        Lambda, already scaled by the share of old types.
    """

    def __init__(self, previous: Tensor, weight: float) -> None:
        super().__init__()
        self.previous, self.weight = previous, weight

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Add the distillation loss of the batch."""
        target = self.previous[strategy.mb_rows]
        distance = distillation_loss(strategy.mb_representation, target) * strategy.cell_share
        strategy.loss = strategy.loss + self.weight * distance


class SchedulePlugin(SupervisedPlugin):
    """Set the learning rate of each epoch, and the training mode that validation left.

    Parameters
    ----------
    config
        Rate and schedule.
    state
        Progress of the training.
    epochs
        Most epochs of the training.
    batches
        Mini-batches of an epoch.
    """

    def __init__(self, config: TrainingConfig, state: TrainingState, epochs: int, batches: int) -> None:
        super().__init__()
        self.config, self.state, self.epochs, self.batches = config, state, epochs, batches
        self.step = 0

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Return to training mode after validation, and to the step at which this epoch begins."""
        strategy.model.train()
        self.step = self.state.epoch * self.batches

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Set the learning rate of the step."""
        epoch, done = self.state.epoch, self.step / (self.epochs * self.batches)
        for group in strategy.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, epoch, done, self.step)
        self.step += 1


# One-cycle: share of the steps that warm up; first and last rate as shares of the highest.
WARM_UP = 0.15
FIRST_RATE = 0.04
LAST_RATE = 1e-3
# The paper's restarts, as in its published code: epochs, a rate, and the highest rate of a cycle by that of the last.
FIRST_CYCLE = 15
CYCLE_WARM_UP = 5
LOWEST_RATE = 1e-6
CYCLE_DECAY = 0.9
# scAnnoNet's decay, as in its published code.
DECAY = 0.99
BATCHES_A_DECAY = 20


def learning_rate(config: TrainingConfig, epoch: int, done: float, step: int = 0) -> float:
    """Return the rate at an epoch, counted from 0, when a share of all steps is done.

    ``one-cycle`` rises from 1/25 over the first 15 % of the steps and falls to almost nothing, both along a cosine
    (Smith and Topin 2019). ``restarts`` is the paper's, an epoch at a time: linear warm-up over 5 epochs, cosine down
    to 1e-6, cycles of 15, 25, 45, ... epochs, each starting at 0.9 of the one before. ``decay`` is scAnnoNet's: 0.99
    times the rate after every 20 batches, ``step`` being the batches done.
    """
    top = config.learning_rate
    if config.schedule == "constant":
        return top
    if config.schedule == "decay":
        return top * float(DECAY ** (step // BATCHES_A_DECAY))
    if config.schedule == "one-cycle":
        if done < WARM_UP:
            return top * (FIRST_RATE + (1 - FIRST_RATE) * 0.5 * (1 - math.cos(math.pi * done / WARM_UP)))
        return 0.5 * top * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) + LAST_RATE * top
    # Restarts: the cycle that the epoch is in. The cosine of each is twice as long as that of the one before.
    length, warm, low = FIRST_CYCLE, CYCLE_WARM_UP, LOWEST_RATE
    while epoch >= length:
        epoch -= length
        length = (length - warm) * 2 + warm
        top *= CYCLE_DECAY
    # The place in the cycle: warm-up, then cosine.
    if epoch < warm:
        return low + (top - low) * epoch / warm
    return low + 0.5 * (top - low) * (1 + math.cos(math.pi * (epoch - warm) / (length - warm)))


GPU_BLOCK = 64  # most validation cells that a GPU takes at a time, in the memory that training leaves


class ValidationPlugin(SupervisedPlugin):
    """Score the validation cells after every epoch, keep the best weights, stop when they no longer improve.

    Parameters
    ----------
    cells, types
        Validation cells on the panel and the index of their types, int (cells,).
    patience
        Epochs without improvement after which to stop.
    state
        Progress of the training.
    on_epoch
        Called with the epoch's figures.
    by_loss
        Whether the loss decides among epochs of the same accuracy; else the first of them is the best.
    frozen_outputs
        Of the validation cells, where the encoder has frozen layers and their outputs are kept.
    """

    def __init__(
        self,
        cells: PanelCells,
        types: np.ndarray,
        patience: int,
        state: TrainingState,
        on_epoch: Callable[[int, dict[str, float]], None],
        *,
        by_loss: bool = True,
        frozen_outputs: FrozenOutputs | None = None,
    ) -> None:
        super().__init__()
        self.cells, self.types = cells, torch.from_numpy(types)
        self.patience, self.state, self.on_epoch = patience, state, on_epoch
        self.by_loss = by_loss
        self.frozen_outputs = frozen_outputs
        self.losses: list[Tensor] = []

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Stop where the patience has run out, also in a training that goes on from a checkpoint."""
        if self.state.epoch - self.state.best_epoch >= self.patience:
            strategy.stop_training()

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Keep the loss without waiting for the device."""
        self.losses.append(strategy.loss.detach())

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Score the validation cells, record the epoch's figures, keep the weights if they are the best so far."""
        # The figures of the epoch.
        accuracy, loss = self._score(strategy)
        state = self.state
        state.epoch += 1
        figures = {
            "training_loss": float(torch.cat(self.losses).mean()),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
        }
        self.losses = []
        state.history.append(figures)
        # Are its weights the best so far?
        score = (accuracy, -loss if self.by_loss else 0.0)
        if score > state.best_score:
            state.best_score, state.best_epoch = score, state.epoch
            state.best_weights = copy.deepcopy(strategy.model.state_dict())
        self.on_epoch(state.epoch, figures)

    @torch.no_grad()
    def _score(self, strategy: Any) -> tuple[float, float]:
        """Return accuracy and mean loss of the validation cells."""
        strategy.model.eval()
        device, processes = strategy.device, strategy.processes
        block = strategy.model.encoder.block
        blocks = self.cells.blocks(block if device.type == "cpu" else min(block, GPU_BLOCK))
        # Of several processes each scores every so many blocks.
        if processes is not None:
            blocks = islice(blocks, processes.rank, None, processes.count)
        right, loss = 0, 0.0
        for rows in blocks:
            values, measured = self.cells.dense(rows)
            outputs = strategy.outputs(
                values.to(device), measured.to(device), torch.from_numpy(rows), self.frozen_outputs
            )
            logits = outputs[1].float()
            types = self.types[rows].to(device)
            answers = logits.argmax(dim=1)
            if strategy.meant is None:
                right += int((answers == types).sum())
                loss += float(F.cross_entropy(logits, types, reduction="sum"))
            else:
                # A kind of a coarse label is as good an answer as the label says.
                right += int(strategy.meant[types, answers].sum())
                every = torch.ones(len(rows), device=device)
                loss += float(classification_loss(logits, types, every, 0.0, strategy.meant)) * len(rows)
        # Their sums are those of all cells.
        if processes is not None:
            right, loss = processes.sum(torch.tensor([right, loss], dtype=torch.float64)).tolist()
        return right / len(self.cells), loss / len(self.cells)


class ProgressPlugin(SupervisedPlugin):
    """Report every batch and epoch to whoever watches.

    Parameters
    ----------
    progress
        Who watches.
    state
        Progress of the training.
    """

    def __init__(self, progress: Progress, state: TrainingState) -> None:
        super().__init__()
        self.progress, self.state = progress, state

    def after_training_iteration(self, *_: Any, **__: Any) -> None:
        """Advance by one batch."""
        self.progress.advance(1)

    def after_training_epoch(self, *_: Any, **__: Any) -> None:
        """Report the epoch's figures."""
        history = self.state.history
        accuracy = history[-1]["validation_accuracy"] if history else float("nan")
        self.progress.advance(0, f"epoch {self.state.epoch}, validation accuracy {accuracy:.3f}")
