"""Continual-learning strategies of Avalanche on our encoder, to be compared with a stage of ours.

All train the same network on the same cells and the same growing gene panel, with the optimiser, schedule, loss and
gene hiding of the preset; what differs is how they remember. They train on every cell of a stage: none is held out.
The buffers of those that keep cells are as large as the example bank.
"""

import warnings
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
from canal.learn.rows import RowCells, RowNetwork
from canal.learn.strategies import SLDA, STRATEGIES, WeightedLoss, counts_of, naive, new_optimizer


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
        with warnings.catch_warnings(), seeded(self.seed, f"strategy:{self.stage}", best_device()):
            warnings.simplefilter("ignore")  # Avalanche calls what it has deprecated itself
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
