"""Continual-learning strategies of Avalanche on our encoder, to be compared with a stage of ours.

All train the same network on the same cells and the same growing gene panel, with the optimiser, schedule, loss and
gene hiding of the preset; what differs is how they remember. They train on every cell of a stage: none is held out.
The buffers of those that keep cells are as large as the example bank.

Avalanche's continual-learning strategies on our encoder, cells, genes and training.
"""

import warnings
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canal.benchmark.method import Context, Learn, Method, Predict
from canal.benchmark.methods.recipes import (
    SLDA,
    STRATEGIES,
    RowCells,
    RowNetwork,
    WeightedLoss,
    counts_of,
    naive,
    new_optimizer,
)
from canal.config import Preset
from canal.data.cells import CellPool, Cells
from canal.data.panel import GenePanel
from canal.data.variable_genes import rank_by_variance
from canal.model.network import PanelCells, best_device, new_network, run_network, seeded
from canal.training import avalanche
from canal.training.batches import Hiding
from canal.training.fitting import on_panel


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
        self.panel = GenePanel.empty()
        self.types: tuple[str, ...] = ()
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
        self.panel = self.panel.extended(cells.genes.take(columns), self.stage)
        self.types += tuple(sorted(set(cells.labels.tolist()) - set(self.types)))
        self._rows.cells = on_panel(self._pool, self.panel)
        self._grow()
        at = {name: i for i, name in enumerate(self.types)}
        rows = torch.arange(first, len(self._pool))
        targets = torch.tensor([at[name] for name in cells.labels.tolist()])
        experience = avalanche.CLExperience(self.stage - 1, None)
        experience.dataset = avalanche.make_dataset(rows, targets, task_labels=0)
        with warnings.catch_warnings(), seeded(self.seed, f"strategy:{self.stage}", best_device()):
            warnings.simplefilter("ignore")  # Avalanche calls what it has deprecated itself
            self._fit(experience, targets)

    def predict(self, cells: Cells) -> np.ndarray:
        """Return the type of each cell, (cells,)."""
        assert self._model is not None
        genes = np.arange(self._model.network.encoder.n_genes)  # an encoder that is fixed has those of its first stage
        match = self.panel.subset(genes).match(cells.genes)
        values = match.project(cells.expression)
        seen = PanelCells(
            values=values, measured=match.measured[None], source=np.zeros(values.shape[0], dtype=np.int64)
        )  # fmt: skip
        logits, rep = run_network(self._model.network, seen)
        if isinstance(self._strategy, SLDA) and self._strategy.num_updates:
            logits = self._strategy.predict(torch.from_numpy(rep)).numpy()[:, : len(self.types)]
        return np.asarray(np.array(self.types, dtype=object)[logits.argmax(axis=1)])

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
            self._train(naive(self._model, self._loss, self.preset, self.seed), experience, targets)
        self._strategy.train(experience, eval_streams=[])

    def _train(self, strategy: Any, experience: Any, targets: Tensor) -> None:
        training = self.preset.training
        self._loss.balance(counts_of(strategy, targets), self._width, training.balance)
        n = len(strategy.dataset or ()) + len(targets) if isinstance(strategy, avalanche.Cumulative) else len(targets)
        strategy.train_epochs = max(training.epochs, -(-training.min_steps // -(-n // training.batch_size)))
        strategy.optimizer = new_optimizer(strategy.model, self.preset)
        strategy.optimized_param_id = None  # parameters that grew are other tensors now
        strategy.train(experience, eval_streams=[])


def strategy(name: str) -> Learn:
    """Return the method of a strategy, a key of `canal.benchmark.methods.recipes.STRATEGIES`."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:

        compared = ComparedStrategy(name, context.preset, n_types=context.n_types, seed=context.seed)
        for cells in stages:
            compared.learn(cells)
            yield compared.predict

    return learn


def _row(name: str, title: str, keeps: str, reference: str, *, sees_all: bool = False) -> Method:
    return Method(
        name=name, title=title, group="strategies", keeps=keeps, reference=f"{reference}; Avalanche 0.6",
        learn=strategy(name), sees_all=sees_all,
    )  # fmt: skip


METHODS = (
    _row("naive", "naive fine-tuning", "nothing", "the network is trained on"),
    _row("cumulative", "joint training (cumulative)", "all cells", "upper reference", sees_all=True),
    _row("replay", "replay", "bank", "class-balanced reservoir"),
    _row("ewc", "EWC", "weights and importances", "Kirkpatrick et al. 2017"),
    _row("lwf", "LwF", "the last network", "Li and Hoiem 2017"),
    _row("der++", "DER++", "bank with logits", "Buzzega et al. 2020"),
    _row("slda", "SLDA on the first stage's encoder", "means and one covariance", "Hayes and Kanan 2020"),
)
