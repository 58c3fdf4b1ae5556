"""Cells for Avalanche's own strategies: their data sets hold row numbers, the cells stay in one place.

Avalanche's buffers and data sets copy and concatenate what they are given. Row numbers cost nothing, and a cell that is
replayed after the gene panel has grown is looked up on the panel of today, as the example bank's cells are.

Shapes: B cells, G genes of the panel today, C types so far, W types of the whole stream.

Avalanche's strategies, each with our loss and training recipe; see `canal.benchmark.methods.strategies`.
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

ABSENT = -1000.0  # logit of a type that no stage has had yet, as Avalanche's own growing classifier has it


class RowCells:
    """The cells of all stages so far; a strategy sees those whose rows its data set or its buffer holds.

    Parameters
    ----------
    hiding
        What training hides of a cell.
    """

    def __init__(self, hiding: Hiding) -> None:
        self.hiding = hiding
        self.cells: PanelCells | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> "RowCells":
        return self  # a strategy's copy of its model looks at the same cells

    def whole(self, rows: Tensor) -> Tensor:
        """Return cells (B, G) as they are; NaN where a gene was not measured."""
        assert self.cells is not None
        values, measured = self.cells.dense(rows.cpu().numpy())
        return values.masked_fill(~measured, torch.nan)

    def shown(self, rows: Tensor, draw: torch.Generator) -> Tensor:
        """Return cells (B, G) as training shows them; NaN where a gene is hidden or was not measured."""
        assert self.cells is not None
        at = rows.cpu().numpy()
        # A cell may be shown through the genes of the files in its batch; others the strategy does not have any more.
        sources, source = np.unique(self.cells.source[at], return_inverse=True)
        batch = PanelCells(values=self.cells.values[at], measured=self.cells.measured[sources], source=source)
        values, measured = self.hiding.apply(batch, np.arange(len(at)), draw)
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
        found: Tensor = self.network(*self._inputs(x))[0]
        return found

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dense = x if x.is_floating_point() else self.cells.whole(x)
        # Genes enter at the end: a copy of the model from an earlier stage reads the first ones.
        dense = dense[:, : self.network.encoder.n_genes].to(next(self.network.parameters()).device)
        measured = ~dense.isnan()
        return dense.nan_to_num(0.0), measured


class Representations(nn.Module):
    """The representation half of a `RowNetwork`, as strategies want it that classify by themselves."""

    def __init__(self, network: RowNetwork) -> None:
        super().__init__()
        self.rows = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the representation (B, D)."""
        return self.rows.representation(x)


EWC_LAMBDA = 1e8  # importances are squared gradients of batches after convergence, near 1e-4: docs/benchmark.md
LWF_ALPHA, LWF_TEMPERATURE = 1.0, 2.0  # Li and Hoiem 2017
DER_ALPHA, DER_BETA = 0.1, 0.5  # Buzzega et al. 2020, and Avalanche's defaults


class WeightedLoss:
    """The loss of our own stages: label smoothing over the types so far, a type of n cells weighs n^(1 - balance).

    Parameters
    ----------
    smoothing
        Epsilon of the target distribution.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing, self.weights = smoothing, torch.ones(0)

    def balance(self, counts: Counter[int], width: int, balance: float) -> None:
        """Weigh the types by their numbers of cells."""
        self.weights = torch.tensor([max(counts[t], 1) ** -balance if counts[t] else 1.0 for t in range(width)])

    def __call__(self, logits: Tensor, types: Tensor) -> Tensor:
        """Return the loss of logits (B, W) and types (B,)."""
        known = logits[:, logits.detach()[0] > ABSENT]
        return classification_loss(known, types, self.weights.to(types.device)[types], self.smoothing)


class TrainingRecipe(avalanche.SupervisedPlugin):
    """The preset's schedule, and the cells of each batch as training shows them.

    Parameters
    ----------
    preset, seed
        Schedule; seed of what is hidden.
    """

    def __init__(self, preset: Preset, seed: int) -> None:
        super().__init__()
        self.config, self.draw = preset.training, torch_generator(seed, "strategy batches")
        self.step = self.epoch = 0

    def before_training_exp(self, *_: Any, **__: Any) -> None:
        """Begin anew."""
        self.step = self.epoch = 0

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Set the rate."""
        done = min(self.step / (strategy.train_epochs * len(strategy.dataloader)), 1.0)
        for group in strategy.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.epoch, done)
        self.step += 1

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Look the rows up; strategies that add cells to the batch have done so."""
        if not isinstance(strategy, avalanche.DER):
            self.show(strategy)

    def show(self, strategy: Any) -> None:
        """Put cells in the place of row numbers."""
        strategy.mbatch[0] = strategy.model.cells.shown(strategy.mbatch[0], self.draw).to(strategy.device)

    def after_training_epoch(self, *_: Any, **__: Any) -> None:
        """Count."""
        self.epoch += 1


class DarkReplay(avalanche.DER):
    """DER++ whose stored logits say nothing of types that came later.

    Avalanche adds the replayed cells after the plugins' hook, so that they are looked up here; and it would hold the
    logits of later types at what they were before those types existed.
    """

    def _before_forward(self, **kwargs: Any) -> None:
        super()._before_forward(**kwargs)
        next(p for p in self.plugins if isinstance(p, TrainingRecipe)).show(self)

    def _after_forward(self, **kwargs: Any) -> None:
        super()._after_forward(**kwargs)
        if self.replay_loader is None:
            return
        current = self.mb_output[: self.batch_size_mem].detach()
        stored: Tensor = self.batch_logits
        self.batch_logits: Tensor = torch.where(stored > ABSENT, stored, current)


class Replay(avalanche.ReplayPlugin):
    """Avalanche's replay, by the hook that its buffers do not warn of."""

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Take cells of the stage into the buffer."""
        self.storage_policy.post_adapt(strategy, strategy.experience)


class SLDA(avalanche.StreamingLDA):
    """Streaming linear discriminant analysis on the representation that the first stage has learned."""

    def criterion(self) -> Tensor:
        """Return nothing: no weight is trained."""
        return torch.zeros(1)


def counts_of(strategy: Any, targets: Tensor) -> Counter[int]:
    """Count the cells of each type that a strategy trains on at a stage."""
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


def _common(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int, *more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "optimizer": new_optimizer(model, preset),
        "criterion": loss,
        "train_mb_size": preset.training.batch_size,
        "train_epochs": preset.training.epochs,
        "device": best_device(),
        "plugins": [*more, TrainingRecipe(preset, seed)],
        "evaluator": silent_evaluator(),
    }


def naive(model: Any, loss: WeightedLoss, preset: Preset, seed: int, *more: Any) -> Any:
    """Return the strategy that just trains on, with more plugins where another one is wanted."""
    return avalanche.Naive(**_common(model, loss, preset, seed, *more))


def _replay(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    size = preset.bank.size
    plugin = Replay(mem_size=size, storage_policy=avalanche.ClassBalancedBuffer(size))
    return naive(model, loss, preset, seed, plugin)


def _der(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    return DarkReplay(
        mem_size=preset.bank.size, alpha=DER_ALPHA, beta=DER_BETA, **_common(model, loss, preset, seed)
    )  # fmt: skip


def _slda(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
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


def _cumulative(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    return avalanche.Cumulative(**_common(model, loss, preset, seed))


def _ewc(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    return naive(model, loss, preset, seed, avalanche.EWCPlugin(EWC_LAMBDA))


def _lwf(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    return naive(model, loss, preset, seed, avalanche.LwFPlugin(LWF_ALPHA, LWF_TEMPERATURE))


STRATEGIES: dict[str, Callable[[RowNetwork, WeightedLoss, Preset, int], Any]] = {
    "naive": naive,
    "cumulative": _cumulative,
    "replay": _replay,
    "ewc": _ewc,
    "lwf": _lwf,
    "der++": _der,
    "slda": _slda,
}
