"""Avalanche's strategies on our encoder: genes and types grow, and each remembers what its rule lets it."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from canal.benchmark.methods.compared import ComparedStrategy
from canal.benchmark.methods.recipes import ABSENT, STRATEGIES, RowCells, RowNetwork
from canal.config import load_preset
from canal.data.stream import read_cells
from canal.model.network import PanelCells
from canal.training.batches import Hiding
from tests.make import make_adata

SMALL = ("encoder.hidden=16", "encoder.dim=8", "training.epochs=4", "training.min_steps=36", "bank.size=40")
PRESET = load_preset("compact", (*SMALL, "genes.per_stage=40", "training.batch_size=20", "training.learning_rate=0.01"))
REMEMBER = ("cumulative", "replay", "der++", "slda")


def stream():
    """Return two stages: the second has a new type, lacks two, and measures genes that the first does not."""
    first = make_adata(60, 60, types=("B", "CD4 T", "CD8 T"))
    second = make_adata(40, 70, types=("NK", "B"), prefix="x", seed=1)
    return [read_cells(a, labels="cell_type") for a in (first, second)]


def taught(name, seed=0):
    """Return a strategy after both stages, and its accuracy on the types that the second lacks before and after."""
    strategy = ComparedStrategy(name, PRESET, n_types=4, seed=seed)
    first, second = stream()
    strategy.learn(first)
    gone = first.take(np.flatnonzero(first.labels != "B"))
    before = np.mean(strategy.predict(gone) == gone.labels)
    strategy.learn(second)
    return strategy, before, np.mean(strategy.predict(gone) == gone.labels)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_takes_new_genes_and_types(name):
    """All learn the first stage; what keeps something of it still knows it after the second, where types are new."""
    strategy, before, after = taught(name)
    second = stream()[1]
    assert before > 0.9
    assert strategy.types == ("B", "CD4 T", "CD8 T", "NK")
    assert len(strategy.panel) > 40
    if name != "slda":
        assert np.mean(strategy.predict(second) == second.labels) > 0.9
    if name in REMEMBER:
        assert after > 0.7
    if name == "naive":
        assert after < 0.5


def test_the_same_seed_gives_the_same_answers():
    """Order, hiding, buffers and dropout all follow from the seed."""
    first = stream()[0]
    answers = [taught("der++", seed)[0] for seed in (3, 3)]
    logits = [s._model.network.classifier.weight.detach() for s in answers]
    assert torch.equal(*logits)
    assert (answers[0].predict(first) == answers[1].predict(first)).all()


def test_types_to_come_score_nothing():
    """Outputs have one width from the start, and no cell can be called a type that no stage has had."""
    strategy = ComparedStrategy("naive", PRESET, n_types=4, seed=0)
    first = stream()[0]
    strategy.learn(first)
    logits = strategy._model(torch.arange(4))
    assert logits.shape == (4, 4)
    assert (logits[:, 3:] == ABSENT).all()
    assert set(strategy.predict(first)) <= {"B", "CD4 T", "CD8 T"}


def test_a_cell_is_shown_through_the_files_of_its_batch_only():
    """What a strategy does not rehearse any more does not lend its gene set either."""
    rows = RowCells(Hiding(gene_dropout=(0.0, 0.0), gene_set_masking=1.0))
    values = sp.csr_matrix(np.ones((4, 60), dtype=np.float32))
    measured = np.ones((2, 60), dtype=bool)
    measured[1, 30:] = False
    rows.cells = PanelCells(values=values, measured=measured, source=np.array([0, 0, 1, 1]))
    draw = torch.Generator().manual_seed(0)
    alone = rows.hide_genes(torch.tensor([0, 1]), draw)
    both = torch.cat([rows.hide_genes(torch.tensor([0, 1, 2]), draw) for _ in range(20)])
    assert not alone.isnan().any()
    assert both.isnan().any()


def test_a_copy_of_the_model_shares_the_cells():
    """Strategies copy their model as a teacher; the cells are not copied with it."""
    strategy = ComparedStrategy("naive", PRESET, n_types=4, seed=0)
    strategy.learn(stream()[0])
    model: RowNetwork = strategy._model
    assert copy.deepcopy(model).cells is model.cells
