"""Avalanche's strategies with our loss and training recipe, on cells that stay in one place.

Avalanche's buffers and data sets copy and concatenate what they are given. They are given row numbers, which cost
nothing: a cell that is replayed after the gene panel has grown is looked up on the current panel, as the cells of the
example bank are. `canal.benchmark.methods.compared` teaches these strategies stage after stage.

Shapes: B cells, G genes of the current panel, C types so far, W types of the whole stream, D representation.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canal.config import Preset
from canal.model.network import Network, PanelCells, best_device
from canal.seeds import torch_generator
from canal.training import avalanche
from canal.training.batches import Hiding
from canal.training.plugins import classification_loss, learning_rate
from canal.training.strategy import silent_evaluator

ABSENT = -1000.0  # logit of a type that no stage has taught yet, as in Avalanche's own growing classifier
EWC_LAMBDA = 1e8  # importances are squared gradients of batches after convergence, near 1e-4: docs/benchmark.md
LWF_ALPHA, LWF_TEMPERATURE = 1.0, 2.0  # Li and Hoiem 2017
DER_ALPHA, DER_BETA = 0.1, 0.5  # Buzzega et al. 2020, and Avalanche's defaults


class RowCells:
    """The cells of all stages so far; a strategy sees those whose row numbers its data set or its buffer holds.

    Parameters
    ----------
    hiding
        Which genes training hides of a cell.
    """

    def __init__(self, hiding: Hiding) -> None:
        self.hiding = hiding
        self.cells: PanelCells | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> "RowCells":
        return self  # a strategy's copy of its model looks at the same cells

    def all_genes(self, rows: Tensor) -> Tensor:
        """Return cells (B, G) with all their genes; NaN where a gene was not measured."""
        assert self.cells is not None
        values, measured = self.cells.dense(rows.cpu().numpy())
        return values.masked_fill(~measured, torch.nan)

    def hide_genes(self, rows: Tensor, draw: torch.Generator) -> Tensor:
        """Return cells (B, G) as training shows them; NaN where a gene is hidden or was not measured."""
        assert self.cells is not None
        numbers = rows.cpu().numpy()
        # A cell may be masked to the genes of a file in its batch; the strategy no longer has the genes of other files.
        sources, source = np.unique(self.cells.source[numbers], return_inverse=True)
        batch = PanelCells(values=self.cells.values[numbers], measured=self.cells.measured[sources], source=source)
        values, measured = self.hiding.apply(batch, np.arange(len(numbers)), draw)
        return values.masked_fill(~measured, torch.nan)


class RowNetwork(nn.Module):
    """A network as Avalanche's strategies call it: one input, one output of a width that never changes.

    Parameters
    ----------
    network
        Encoder and classifier; it grows by genes and types between stages.
    cells
        Where row numbers are looked up.
    width
        W, the outputs; types that are still to come score `ABSENT`.
    """

    def __init__(self, network: Network, cells: RowCells, width: int) -> None:
        super().__init__()
        self.network, self.cells, self.width = network, cells, width

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, W) of cells (B, G) or of row numbers (B,)."""
        logits = self.network(*self._inputs(x))[1]
        return nn.functional.pad(logits, (0, self.width - logits.shape[1]), value=ABSENT)

    def representation(self, x: Tensor) -> Tensor:
        """Return the representation (B, D) of cells (B, G) or of row numbers (B,)."""
        representation: Tensor = self.network(*self._inputs(x))[0]
        return representation

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and which genes are measured, each (B, G), of what a strategy gives the network."""
        dense = x if x.is_floating_point() else self.cells.all_genes(x)
        # Genes enter at the end: a copy of the model from an earlier stage reads the first ones.
        dense = dense[:, : self.network.encoder.n_genes].to(next(self.network.parameters()).device)
        measured = ~dense.isnan()
        return dense.nan_to_num(0.0), measured


class Representations(nn.Module):
    """The encoder of a `RowNetwork`, for a strategy that classifies by itself."""

    def __init__(self, network: RowNetwork) -> None:
        super().__init__()
        self.rows = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the representation (B, D)."""
        return self.rows.representation(x)


class WeightedLoss:
    """The loss of our own stages: label smoothing over the types so far, a type of n cells weighs n^(1 - balance).

    Parameters
    ----------
    smoothing
        Epsilon of the target distribution.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing, self.weights = smoothing, torch.ones(0)

    def set_weights(self, counts: Counter[int], width: int, balance: float) -> None:
        """Weigh the types by their numbers of cells."""
        weights = [1.0] * width
        for t in range(width):
            if counts[t]:
                weights[t] = counts[t] ** -balance
        self.weights = torch.tensor(weights)

    def __call__(self, logits: Tensor, types: Tensor) -> Tensor:
        """Return the loss of logits (B, W) and types (B,)."""
        known = logits[:, logits.detach()[0] > ABSENT]
        return classification_loss(known, types, self.weights.to(types.device)[types], self.smoothing)


class TrainingRecipe(avalanche.SupervisedPlugin):
    """The preset's learning rate schedule, and the cells of each batch with the genes that training hides.

    Parameters
    ----------
    preset
        Learning rate schedule.
    seed
        Seed of which genes are hidden.
    """

    def __init__(self, preset: Preset, seed: int) -> None:
        super().__init__()
        self.config, self.draw = preset.training, torch_generator(seed, "strategy batches")
        self.step = self.epoch = 0

    def before_training_exp(self, *_: Any, **__: Any) -> None:
        """Start the schedule of a stage."""
        self.step = self.epoch = 0

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Set the learning rate."""
        done = min(self.step / (strategy.train_epochs * len(strategy.dataloader)), 1.0)
        for group in strategy.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.epoch, done)
        self.step += 1

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Look the rows up, after a strategy has added replayed cells to the batch; `DarkReplay` does so later."""
        if not isinstance(strategy, avalanche.DER):
            self.look_up_cells(strategy)

    def look_up_cells(self, strategy: Any) -> None:
        """Put cells in the place of row numbers."""
        rows = strategy.mbatch[0]
        strategy.mbatch[0] = strategy.model.cells.hide_genes(rows, self.draw).to(strategy.device)

    def after_training_epoch(self, *_: Any, **__: Any) -> None:
        """Count the epoch."""
        self.epoch += 1


class DarkReplay(avalanche.DER):
    """DER++ that keeps stored logits only of types that were known when they were stored.

    Avalanche adds the replayed cells after the plugins' hook, so that they are looked up here; and it would hold the
    logits of later types at what they were before those types existed.
    """

    def _before_forward(self, **kwargs: Any) -> None:
        super()._before_forward(**kwargs)
        for plugin in self.plugins:
            if isinstance(plugin, TrainingRecipe):
                plugin.look_up_cells(self)

    def _after_forward(self, **kwargs: Any) -> None:
        super()._after_forward(**kwargs)
        if self.replay_loader is None:
            return
        # For a type that came later the stored logit is replaced by the current one, which costs nothing.
        current = self.mb_output[: self.batch_size_mem].detach()
        stored: Tensor = self.batch_logits
        self.batch_logits: Tensor = torch.where(stored > ABSENT, stored, current)


class Replay(avalanche.ReplayPlugin):
    """Avalanche's replay, through the hook for which its buffers give no warning."""

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Put cells of the stage into the buffer."""
        self.storage_policy.post_adapt(strategy, strategy.experience)


class SLDA(avalanche.StreamingLDA):
    """Streaming linear discriminant analysis on the representation that the first stage has learned."""

    def criterion(self) -> Tensor:
        """Return nothing: no weight is trained."""
        return torch.zeros(1)


def count_types(strategy: Any, targets: Tensor) -> Counter[int]:
    """Count the cells of each type that a strategy trains on at a stage: those of the stage, and those it kept."""
    counts = Counter(targets.tolist())
    if isinstance(strategy, avalanche.Cumulative) and strategy.dataset is not None:
        counts.update(int(t) for t in strategy.dataset.targets)
    for plugin in strategy.plugins:
        if isinstance(plugin, avalanche.ReplayPlugin) and len(plugin.storage_policy.buffer):
            counts.update(int(t) for t in plugin.storage_policy.buffer.targets)
    return counts


def new_optimizer(model: torch.nn.Module, preset: Preset) -> torch.optim.Optimizer:
    """Return the preset's optimiser for a model."""
    training = preset.training
    return torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, amsgrad=training.amsgrad
    )


def _arguments(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int, *plugins: Any) -> dict[str, Any]:
    """Return the arguments that Avalanche's strategies have in common."""
    return {
        "model": model,
        "optimizer": new_optimizer(model, preset),
        "criterion": loss,
        "train_mb_size": preset.training.batch_size,
        "train_epochs": preset.training.epochs,
        "device": best_device(),
        "plugins": [*plugins, TrainingRecipe(preset, seed)],
        "evaluator": silent_evaluator(),
    }


def new_naive(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int, *plugins: Any) -> Any:
    """Return the strategy that goes on training; with plugins, the strategy that these make of it."""
    return avalanche.Naive(**_arguments(model, loss, preset, seed, *plugins))


def _new_cumulative(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    return avalanche.Cumulative(**_arguments(model, loss, preset, seed))


def _new_replay(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    size = preset.bank.size
    return new_naive(
        model, loss, preset, seed, Replay(mem_size=size, storage_policy=avalanche.ClassBalancedBuffer(size))
    )


def _new_ewc(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    return new_naive(model, loss, preset, seed, avalanche.EWCPlugin(EWC_LAMBDA))


def _new_lwf(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    return new_naive(model, loss, preset, seed, avalanche.LwFPlugin(LWF_ALPHA, LWF_TEMPERATURE))


def _new_der(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    arguments = _arguments(model, loss, preset, seed)
    return DarkReplay(mem_size=preset.bank.size, alpha=DER_ALPHA, beta=DER_BETA, **arguments)


def _new_slda(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    del seed
    return SLDA(
        slda_model=Representations(model),
        criterion=loss,
        input_size=model.network.encoder.dim,
        num_classes=model.width,
        train_mb_size=preset.training.batch_size,
        device=best_device(),
        evaluator=silent_evaluator(),
    )


STRATEGIES: dict[str, Callable[[RowNetwork, WeightedLoss, Preset, int], Any]] = {
    "naive": new_naive,
    "cumulative": _new_cumulative,
    "replay": _new_replay,
    "ewc": _new_ewc,
    "lwf": _new_lwf,
    "der++": _new_der,
    "slda": _new_slda,
}
