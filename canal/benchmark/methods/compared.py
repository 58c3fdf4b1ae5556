"""One of Avalanche's strategies on our encoder, over a stream of stages.

All train the same network on the same cells and the same growing gene panel, with the optimiser, schedule, loss and
gene hiding of the preset; what differs is how they remember. They train on every cell of a stage: none is held out.
The buffers of those that keep cells are as large as the example bank.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from canal.benchmark.methods.recipes import (
    SLDA,
    STRATEGIES,
    RowCells,
    RowNetwork,
    WeightedLoss,
    count_types,
    new_naive,
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
        Encoder, training and size of the example bank.
    n_types
        Number of types of the whole stream: for the width of stored arrays, never for learning.
    seed
        The recorded seed.
    """

    def __init__(self, name: str, preset: Preset, *, n_types: int, seed: int) -> None:
        self.preset, self.seed, self.stage = preset, seed, 0
        self.panel = GenePanel.empty()
        self.types: tuple[str, ...] = ()
        # All cells so far, and where the strategy looks their row numbers up.
        training = preset.training
        hiding = Hiding(gene_dropout=training.gene_dropout, gene_set_masking=training.gene_set_masking)
        self._pool = CellPool.empty()
        self._rows = RowCells(hiding)
        # Network and strategy are made at the first stage, when the numbers of genes and types are known.
        self._loss = WeightedLoss(training.label_smoothing)
        self._width, self._new_strategy = n_types, STRATEGIES[name]
        self._model: RowNetwork | None = None
        self._strategy: Any = None

    def learn(self, cells: Cells) -> None:
        """Learn the labelled cells of the next stage."""
        assert cells.labels is not None
        self.stage += 1
        # Panel and types grow as those of our own stages do.
        first = len(self._pool)
        self._pool = self._pool.joined(CellPool.of(cells, self.stage))
        columns = rank_by_variance(cells)[: self.preset.genes.per_stage]
        self.panel = self.panel.extended(cells.genes.take(columns), self.stage)
        self.types += tuple(sorted(set(cells.labels.tolist()) - set(self.types)))
        self._rows.cells = on_panel(self._pool, self.panel)
        self._grow()
        # The data set holds row numbers in the place of cells.
        position = {name: i for i, name in enumerate(self.types)}
        rows = torch.arange(first, len(self._pool))
        targets = torch.tensor([position[name] for name in cells.labels.tolist()])
        experience = avalanche.CLExperience(self.stage - 1, None)
        experience.dataset = avalanche.make_dataset(rows, targets, task_labels=0)
        with warnings.catch_warnings(), seeded(self.seed, f"strategy:{self.stage}", best_device()):
            warnings.simplefilter("ignore")  # Avalanche uses what it has deprecated itself
            self._fit(experience, targets)

    def predict(self, cells: Cells) -> np.ndarray:
        """Return the type of each cell, (cells,)."""
        assert self._model is not None
        # A fixed encoder has the genes of its first stage.
        genes = np.arange(self._model.network.encoder.n_genes)
        match = self.panel.subset(genes).match(cells.genes)
        values = match.project(cells.expression)
        one_file = np.zeros(values.shape[0], dtype=np.int64)
        panel_cells = PanelCells(values=values, measured=match.measured[None], source=one_file)
        logits, representation = run_network(self._model.network, panel_cells)
        # SLDA classifies by itself once it has seen cells; the network's classifier is then of no account.
        if isinstance(self._strategy, SLDA) and self._strategy.num_updates:
            logits = self._strategy.predict(torch.from_numpy(representation)).numpy()[:, : len(self.types)]
        return np.asarray(np.array(self.types, dtype=object)[logits.argmax(axis=1)])

    def _grow(self) -> None:
        """Make network and strategy at the first stage; add genes and types to the network at later ones."""
        n_genes, n_types = len(self.panel), len(self.types)
        if self._model is None:
            network = new_network(self.preset, n_genes, n_types, self.seed)
            self._model = RowNetwork(network, self._rows, self._width)
            self._strategy = self._new_strategy(self._model, self._loss, self.preset, self.seed)
        elif not isinstance(self._strategy, SLDA):  # its encoder is fixed after the first stage
            self._model.network.grow(n_genes, n_types)
        self._model.to(best_device())

    def _fit(self, experience: Any, targets: Tensor) -> None:
        """Let the strategy learn the stage; SLDA needs an encoder first, which the first stage trains."""
        assert self._model is not None
        if not isinstance(self._strategy, SLDA):
            self._train(self._strategy, experience, targets)
            return
        if self.stage == 1:
            self._train(new_naive(self._model, self._loss, self.preset, self.seed), experience, targets)
        self._strategy.train(experience, eval_streams=[])

    def _train(self, strategy: Any, experience: Any, targets: Tensor) -> None:
        """Train by gradients, with the loss, number of steps and optimizer of our own stages."""
        training = self.preset.training
        self._loss.set_weights(count_types(strategy, targets), self._width, training.balance)
        # As many epochs as the preset says, more where they have too few steps; both numbers are rounded up.
        n_cells = len(targets)
        if isinstance(strategy, avalanche.Cumulative):
            n_cells += len(strategy.dataset or ())
        steps_per_epoch = -(-n_cells // training.batch_size)
        strategy.train_epochs = max(training.epochs, -(-training.min_steps // steps_per_epoch))
        strategy.optimizer = new_optimizer(strategy.model, self.preset)
        strategy.optimized_param_id = None  # parameters that grew are other tensors now
        strategy.train(experience, eval_streams=[])
