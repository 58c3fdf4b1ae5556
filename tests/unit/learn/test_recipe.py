"""The parts of training: the loss of the paper, rates, batches, hiding, the split, weights."""

import math

import numpy as np
import pytest
import torch

from canal.config import load_preset
from canal.data.cells import CellPool
from canal.model.network import PanelCells
from canal.seeds import numpy_generator, torch_generator
from canal.training.batches import Batches, Hiding
from canal.training.fitting import training_weights
from canal.training.plugins import classification_loss, distillation_loss, distillation_weight, learning_rate
from canal.training.splits import stratified_split
from tests.learning import toy


def test_label_smoothing_is_the_papers() -> None:
    """(1 - eps) onehot + eps / K, weighted."""
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    types, weights = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1.0, 2.0, 1.0, 1.0, 3.0])
    target = 0.9 * torch.nn.functional.one_hot(types, 3) + 0.1 / 3

    expected = -(target * torch.log_softmax(logits, 1)).sum(1)

    got = classification_loss(logits, types, weights, 0.1)
    torch.testing.assert_close(got, (expected * weights).sum() / weights.sum())


def test_a_coarse_label_is_marginalised() -> None:
    """-log of the probability of all its kinds together; any other label counts as ever, smoothed as ever."""
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    types, weights = torch.tensor([3, 1, 3]), torch.tensor([1.0, 2.0, 3.0])
    meant = torch.eye(4, dtype=torch.bool)
    meant[3] = torch.tensor([True, True, False, False])

    p = torch.softmax(logits, 1)
    own = torch.stack([-(p[0, 0] + p[0, 1]).log(), -p[1, 1].log(), -(p[2, 0] + p[2, 1]).log()])
    expected = 0.9 * own - 0.1 * p.log().mean(1)

    got = classification_loss(logits, types, weights, 0.1, meant)
    torch.testing.assert_close(got, (expected * weights).sum() / weights.sum())
    plain = classification_loss(logits, types, weights, 0.1)
    torch.testing.assert_close(classification_loss(logits, types, weights, 0.1, torch.eye(4, dtype=torch.bool)), plain)


def test_distillation_is_scaled_by_the_share_of_old_types() -> None:
    """Pancreas of the paper: 0.1 at stage 2 without new types, 0.07 at stage 3 with 7 of 10 old."""
    assert distillation_weight(0.1, 7, 7) == pytest.approx(0.1)
    assert distillation_weight(0.1, 7, 10) == pytest.approx(0.07)
    assert distillation_loss(torch.ones(2, 4), torch.zeros(2, 4)).item() == 1.0


def test_restarts_follow_the_published_schedule() -> None:
    """Rate 1e-6 at epoch 1, the top at epoch 6, 1e-6 again at 16, 0.9 of the top at 21."""
    config = load_preset("canal").training

    rates = [learning_rate(config, epoch, 0.0) for epoch in range(41)]

    assert rates[0] == pytest.approx(1e-6)
    assert rates[5] == pytest.approx(2e-4)
    assert rates[14] == pytest.approx(5.9e-6, rel=0.02)
    assert rates[15] == pytest.approx(1e-6)
    assert rates[20] == pytest.approx(1.8e-4)
    assert rates[40] == pytest.approx(1e-6)


def test_one_cycle_rises_and_falls() -> None:
    """Low at both ends, the top after the warm-up."""
    config = load_preset("compact").training

    rates = [learning_rate(config, 0, done) for done in (0.0, 0.15, 0.999)]

    assert rates[0] < 0.1 * config.learning_rate
    assert rates[1] == pytest.approx(config.learning_rate, rel=0.01)
    assert rates[2] < 0.01 * config.learning_rate


def test_every_cell_is_seen_once_an_epoch() -> None:
    """Every row comes up exactly once, also where the last batch is one cell."""
    pool = CellPool.of(toy(n=33), 1)
    cells = PanelCells(values=pool.expression, measured=pool.measured, source=pool.source)
    hiding = Hiding(gene_dropout=(0.0, 0.0), gene_set_masking=0.0)
    batches = Batches(cells, np.zeros(33, int), np.ones(33, np.float32), 16, hiding, torch_generator(0, "batches"))

    for _ in range(2):
        seen = list(batches)
        assert sorted(torch.cat([b[4] for b in seen]).tolist()) == list(range(33))
        assert [len(b[0]) for b in seen] == [16, 17]
    values = torch.cat(
        [
            b[0][b[4].argsort()]
            for b in [
                next(
                    iter(
                        Batches(cells, np.zeros(33, int), np.ones(33, np.float32), 40, hiding, torch_generator(0, "x"))
                    )
                )
            ]
        ]
    )
    np.testing.assert_array_equal(values.numpy(), pool.expression.toarray())


def test_hidden_genes_are_unknown_and_nothing_else_changes() -> None:
    """What stays measured keeps its value; what is hidden is zero and not measured."""
    pool = CellPool.of(toy(), 1)
    cells = PanelCells(values=pool.expression, measured=pool.measured, source=pool.source)
    hiding = Hiding(gene_dropout=(0.3, 0.3), gene_set_masking=0.0)

    values, measured = hiding.apply(cells, np.arange(60), torch_generator(0, "x"))

    full = torch.from_numpy(pool.expression.toarray())
    assert torch.equal(values, full * measured)
    assert 0.65 < measured.float().mean() < 0.75


def test_the_split_is_stratified_and_keeps_a_cell_on_each_side() -> None:
    """A fifth of every type is held out; a type of two cells has one on each side."""
    labels = np.array(["a"] * 50 + ["b"] * 10 + ["c"] * 2, dtype=object)

    train, held = stratified_split(labels, 0.2, numpy_generator(0, "validation"))

    assert sorted([*train.tolist(), *held.tolist()]) == list(range(62))
    assert [int((labels[held] == t).sum()) for t in "abc"] == [10, 2, 1]


def test_weights_make_stages_equal() -> None:
    """An earlier stage of 4 bank and 8 drawn cells weighs as much as the new stage's 100."""
    stage = np.array([1] * 12 + [2] * 100)
    labels = np.array(["a"] * 12 + ["a"] * 90 + ["b"] * 10, dtype=object)
    drawn = np.array([False] * 4 + [True] * 8 + [False] * 100)

    w = training_weights(stage, labels, drawn, {(1, "a"): 500}, balance=0.5, drawn_share=0.75)

    assert w.mean() == pytest.approx(1.0)
    assert w[:12].sum() == pytest.approx(w[12:].sum(), rel=1e-5)
    assert w[4:12].sum() == pytest.approx(3 * w[:4].sum(), rel=1e-5)
    assert w[12:102].sum() / w[102:].sum() == pytest.approx(math.sqrt(90 / 10), rel=1e-4)


def test_types_of_the_bank_weigh_by_the_cells_that_taught_them() -> None:
    """An evenly filled bank stands for a stage whose types were not: 400 and 100 cells weigh two to one."""
    stage = np.ones(8, dtype=int)
    labels = np.array(["a"] * 4 + ["b"] * 4, dtype=object)

    w = training_weights(
        stage, labels, np.zeros(8, dtype=bool), {(1, "a"): 400, (1, "b"): 100}, balance=0.5, drawn_share=0.5
    )

    assert w[:4].sum() / w[4:].sum() == pytest.approx(2.0, rel=1e-5)
