"""Avalanche's strategies, each with our loss and training recipe; see `canal.learn.comparison`."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from canal.config import Preset
from canal.learn import _avalanche_strategies as avalanche
from canal.learn.device import best_device
from canal.learn.losses import classification_loss
from canal.learn.plugins import learning_rate
from canal.learn.rows import ABSENT, Representations, RowNetwork
from canal.learn.strategy import silent_evaluator
from canal.seeds import torch_generator

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


class TrainingRecipe(avalanche.SupervisedPlugin):  # type: ignore[misc]
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


class DarkReplay(avalanche.DER):  # type: ignore[misc]
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


class Replay(avalanche.ReplayPlugin):  # type: ignore[misc]
    """Avalanche's replay, by the hook that its buffers do not warn of."""

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Take cells of the stage into the buffer."""
        self.storage_policy.post_adapt(strategy, strategy.experience)


class SLDA(avalanche.StreamingLDA):  # type: ignore[misc]
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
