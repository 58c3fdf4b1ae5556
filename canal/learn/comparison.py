"""Continual-learning strategies of Avalanche on our encoder, to be compared with a stage of ours.

All train the same network on the same cells and the same growing gene panel, with the optimiser, schedule, loss and
gene hiding of the preset; what differs is how they remember. They train on every cell of a stage: none is held out.
The buffers of those that keep cells are as large as the example bank.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canal.config import Preset
from canal.data.cells import Cells
from canal.data.panel import GenePanel
from canal.data.pool import CellPool
from canal.data.variance import rank_by_variance
from canal.learn import _avalanche_strategies as avalanche
from canal.learn.annotator import new_network, run_network
from canal.learn.batches import Hiding, PanelCells
from canal.learn.device import best_device, seeded
from canal.learn.fitting import on_panel
from canal.learn.losses import classification_loss
from canal.learn.plugins import learning_rate
from canal.learn.rows import ABSENT, Representations, RowCells, RowNetwork
from canal.seeds import torch_generator

EWC_LAMBDA = 1e4  # chosen on held-out cells of the training files: see docs/benchmark.md
LWF_ALPHA, LWF_TEMPERATURE = 1.0, 2.0  # Li and Hoiem 2017
DER_ALPHA, DER_BETA = 0.1, 0.5  # Buzzega et al. 2020, and Avalanche's defaults


class ComparedStrategy:
    """One strategy over a stream of stages.

    Parameters
    ----------
    name
        A key of `STRATEGIES`.
    preset
        Encoder, training and size of the memory.
    n_types
        Types of the whole stream, which decides the width of stored arrays and nothing else.
    seed
        The recorded seed.
    """

    def __init__(self, name: str, preset: Preset, *, n_types: int, seed: int) -> None:
        self.preset, self.seed, self.stage = preset, seed, 0
        self.panel, self.types = GenePanel.empty(), ()  # type: tuple[GenePanel, tuple[str, ...]]
        self._pool = CellPool.empty()
        training = preset.training
        self._rows = RowCells(
            Hiding(gene_dropout=training.gene_dropout, gene_set_masking=training.gene_set_masking)
        )  # fmt: skip
        self._loss = WeightedLoss(training.label_smoothing)
        self._width, self._make = n_types, STRATEGIES[name]
        self._model: RowNetwork | None = None
        self._strategy: Any = None

    def learn(self, cells: Cells) -> None:
        """Learn the labelled cells of the next stage."""
        assert cells.labels is not None
        self.stage += 1
        first = len(self._pool)
        self._pool = self._pool.joined(CellPool.of(cells, self.stage))
        columns = rank_by_variance(cells)[: self.preset.genes.per_stage]
        self.panel = self.panel.extended(
            [cells.genes[c] for c in columns], [cells.ensembl[c] for c in columns], self.stage
        )
        self.types += tuple(sorted(set(cells.labels.tolist()) - set(self.types)))
        self._rows.cells = on_panel(self._pool, self.panel)
        self._grow()
        at = {name: i for i, name in enumerate(self.types)}
        rows = torch.arange(first, len(self._pool))
        targets = torch.tensor([at[name] for name in cells.labels.tolist()])
        experience = avalanche.CLExperience(self.stage - 1, None)
        experience.dataset = avalanche.make_dataset(rows, targets, task_labels=0)
        with seeded(self.seed, f"strategy:{self.stage}", best_device()):
            self._fit(experience, targets)

    def predict(self, cells: Cells) -> np.ndarray:
        """Return the type of each cell, (cells,)."""
        assert self._model is not None
        genes = np.arange(self._model.network.encoder.n_genes)  # an encoder that is fixed has those of its first stage
        match = self.panel.subset(genes).match(cells.genes, cells.ensembl)
        values = match.project(cells.expression)
        seen = PanelCells(
            values=values, measured=match.measured[None], source=np.zeros(values.shape[0], dtype=np.int64)
        )  # fmt: skip
        logits, rep = run_network(self._model.network, seen)
        if isinstance(self._strategy, SLDA) and self._strategy.num_updates:
            logits = self._strategy.predict(torch.from_numpy(rep)).numpy()[:, : len(self.types)]
        return np.array(self.types, dtype=object)[logits.argmax(axis=1)]

    def _grow(self) -> None:
        n_genes, n_types = len(self.panel), len(self.types)
        if self._model is None:
            network = new_network(self.preset, n_genes, n_types, self.seed)
            self._model = RowNetwork(network, self._rows, self._width)
            self._strategy = self._make(self._model, self._loss, self.preset, self.seed)
        elif not isinstance(self._strategy, SLDA):  # its encoder is fixed after the first stage
            self._model.network.grow(n_genes, n_types)
        self._model.to(best_device())

    def _fit(self, experience: Any, targets: Tensor) -> None:
        assert self._model is not None
        if not isinstance(self._strategy, SLDA):
            self._train(self._strategy, experience, targets)
            return
        if self.stage == 1:
            self._train(_naive(self._model, self._loss, self.preset, self.seed), experience, targets)
        self._strategy.train(experience, eval_streams=[])

    def _train(self, strategy: Any, experience: Any, targets: Tensor) -> None:
        training = self.preset.training
        self._loss.balance(_counts(strategy, targets), self._width, training.balance)
        n = len(strategy.dataset or ()) + len(targets) if isinstance(strategy, avalanche.Cumulative) else len(targets)
        strategy.train_epochs = max(training.epochs, -(-training.min_steps // -(-n // training.batch_size)))
        strategy.optimizer = _optimizer(strategy.model, self.preset)
        strategy.optimized_param_id = None  # parameters that grew are other tensors now
        strategy.train(experience, eval_streams=[])


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
        self.batch_logits = torch.where(self.batch_logits > ABSENT, self.batch_logits, current)


class SLDA(avalanche.StreamingLDA):  # type: ignore[misc]
    """Streaming linear discriminant analysis on the representation that the first stage has learned."""

    def criterion(self) -> Tensor:
        """Return nothing: no weight is trained."""
        return torch.zeros(1)


def _counts(strategy: Any, targets: Tensor) -> Counter[int]:
    """Count the cells of each type that a strategy trains on at a stage."""
    counts = Counter(targets.tolist())
    if isinstance(strategy, avalanche.Cumulative) and strategy.dataset is not None:
        counts.update(int(t) for t in strategy.dataset.targets)
    for plugin in strategy.plugins:
        if isinstance(plugin, avalanche.ReplayPlugin) and len(plugin.storage_policy.buffer):
            counts.update(int(t) for t in plugin.storage_policy.buffer.targets)
    return counts


def _optimizer(model: torch.nn.Module, preset: Preset) -> torch.optim.Optimizer:
    training = preset.training
    return torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, amsgrad=training.amsgrad
    )


def _common(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int, *more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "optimizer": _optimizer(model, preset),
        "criterion": loss,
        "train_mb_size": preset.training.batch_size,
        "train_epochs": preset.training.epochs,
        "device": best_device(),
        "plugins": [*more, TrainingRecipe(preset, seed)],
        "evaluator": avalanche.EvaluationPlugin(loggers=[]),
    }


def _naive(model: Any, loss: WeightedLoss, preset: Preset, seed: int, *more: Any) -> Any:
    return avalanche.Naive(**_common(model, loss, preset, seed, *more))


def _replay(model: RowNetwork, loss: WeightedLoss, preset: Preset, seed: int) -> Any:
    size = preset.bank.size
    plugin = avalanche.ReplayPlugin(mem_size=size, storage_policy=avalanche.ClassBalancedBuffer(size))
    return _naive(model, loss, preset, seed, plugin)


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
        evaluator=avalanche.EvaluationPlugin(loggers=[]),
    )


STRATEGIES: dict[str, Callable[[RowNetwork, WeightedLoss, Preset, int], Any]] = {
    "naive": _naive,
    "cumulative": lambda m, l, p, s: avalanche.Cumulative(**_common(m, l, p, s)),
    "replay": _replay,
    "ewc": lambda m, l, p, s: _naive(m, l, p, s, avalanche.EWCPlugin(EWC_LAMBDA)),
    "lwf": lambda m, l, p, s: _naive(m, l, p, s, avalanche.LwFPlugin(LWF_ALPHA, LWF_TEMPERATURE)),
    "der++": _der,
    "slda": _slda,
}
