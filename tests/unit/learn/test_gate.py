"""scAnnoNet's index and losses against the published matrices, and what training does with them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from canal.config import load_preset
from canal.data.stream import read_cells
from canal.model.network import PanelCells
from canal.seeds import torch_generator
from canal.training.batches import Batches, Hiding, Sampling, cell_weights
from canal.training.plugins import learning_rate
from canal.training.scannonet import collinearity_loss, discriminative_index, gate_loss
from tests.learning import ToyDraft, learn, weights_of
from tests.make import make_adata

QUICK = ("training.epochs=3", "encoder.gate_epochs=3", "bank.size=20", "encoder.gate_weight=10")

LONGER = ("genes.specific.min_correlation=0.6", "training.epochs=40", "training.batch_size=32")


def published_index(x: np.ndarray, types: np.ndarray, beta: float) -> np.ndarray:
    """Return the index by the published n x n matrices: W, L = I - W, S_w = diag(X'LX), S_b = diag(X'X) - S_w."""
    x = x - x.mean(axis=0)
    same = types[:, None] == types[None, :]
    w = same / same.sum(axis=1)[:, None]
    s_w = np.diag(x.T @ (np.eye(len(x)) - w) @ x)
    s_b = np.diag(x.T @ x) - s_w
    score = s_b / (s_w + beta * 2 * s_w)
    return np.asarray((score - score.min()) / (score.max() - score.min()))


def on_genes(x: np.ndarray, measured: np.ndarray | None = None, source: np.ndarray | None = None) -> PanelCells:
    """Return cells on a panel."""
    return PanelCells(
        values=sp.csr_matrix(x.astype(np.float32)),
        measured=np.ones((1, x.shape[1]), dtype=bool) if measured is None else measured,
        source=np.zeros(len(x), dtype=np.int64) if source is None else source,
    )


@pytest.mark.parametrize("beta", [0.0, 0.1, 3.0])
def test_the_index_is_the_published_one_whatever_beta(beta: float) -> None:
    """The closed form equals the dense matrices; beta cancels in the scaling."""
    rng = np.random.default_rng(0)
    types = rng.integers(3, size=80)
    x = rng.poisson(1.0 + types[:, None] * rng.random(15)[None, :]).astype(np.float64)

    found = discriminative_index(on_genes(x), types)

    np.testing.assert_allclose(found, published_index(x, types, beta), atol=1e-6)


def test_a_gene_counts_over_the_cells_that_measured_it() -> None:
    """Cells of a file without the gene do not stand for zeros; a gene that never varies has no weight."""
    rng = np.random.default_rng(1)
    types, source = np.arange(60) % 3, np.repeat([0, 1], 30)
    x = rng.random((60, 4)) + types[:, None] * np.array([0.0, 0.5, 1.0, 2.0])
    x[:, 0] = 1.0
    measured = np.ones((2, 4), dtype=bool)
    measured[1, 3] = False
    x[30:, 3] = 0.0

    found = discriminative_index(on_genes(x, measured, source), types)

    half = published_index(x[:30, [1, 3]], types[:30], 0.0)
    full = published_index(x[:, [1, 2]], types, 0.0)
    assert found[0] == 0.0
    assert half.argmax() == 1
    assert found[3] == 1.0
    assert full.argmax() == 1
    assert found[1] < found[2] < 1.0


def test_a_gene_that_only_types_decide_does_not_drown_the_others() -> None:
    """No spread within types: the index is 1, and the others keep their scale (published: 1e5 puts them to zero)."""
    rng = np.random.default_rng(1)
    types = np.arange(60) % 2
    x = np.stack([types, types + rng.random(60), types + 2 * rng.random(60), rng.random(60)], axis=1).astype(float)

    found = discriminative_index(on_genes(x), types)

    assert found[0] == found[1] == 1.0
    assert 0.05 < found[2] < 1.0


def test_gate_loss_is_the_mean_over_measured_genes() -> None:
    """Against numpy; a gene that was not measured says nothing of the gate."""
    draw = torch.Generator().manual_seed(0)
    gate, index = torch.rand(5, 7, generator=draw), torch.rand(7, generator=draw)
    measured = torch.rand(5, 7, generator=draw) > 0.3

    expected = ((gate.numpy() - index.numpy()) ** 2)[measured.numpy()].mean()

    assert gate_loss(gate, index, measured).item() == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("b", [2, 5, 8, 256])
def test_collinearity_divides_by_entries_and_cells(b: int) -> None:
    """|sum of off-diagonal Z'Z| / (D^2 - D) / B, also for 8 cells and for fewer, where the published one fails."""
    z = torch.randn(b, 64, generator=torch.Generator().manual_seed(b), dtype=torch.float64)
    gram = z.numpy().T @ z.numpy()

    expected = abs(gram.sum() - np.trace(gram)) / (64**2 - 64) / b

    assert collinearity_loss(z).item() == pytest.approx(expected, rel=1e-9)


def test_decay_is_a_percent_every_twenty_batches() -> None:
    """The published schedule counts batches, not epochs."""
    config = load_preset("scannonet").training

    rates = [learning_rate(config, 0, 0.0, step) / config.learning_rate for step in (0, 19, 20, 100)]

    assert rates == pytest.approx([1.0, 1.0, 0.99, 0.99**5])


def test_oversampling_fills_every_type_and_keeps_every_cell() -> None:
    """Each type comes up as often as the largest, and no cell is left out."""
    types = np.array([0] * 30 + [1] * 7 + [2] * 2)
    sampling = Sampling("oversample", types)

    rows = sampling.order(torch_generator(0, "x")).numpy()

    assert len(rows) == sampling.epoch_size == 90
    assert np.bincount(types[rows]).tolist() == [30, 30, 30]
    assert set(rows.tolist()) == set(range(39))
    assert np.bincount(rows[types[rows] == 0]).max() == 1


def test_weights_of_cells_follow_the_size_of_their_type() -> None:
    """1 / n; its root where one type is over a hundred times another."""
    np.testing.assert_allclose(cell_weights(np.array([0] * 4 + [1])), [0.25] * 4 + [1.0])
    np.testing.assert_allclose(cell_weights(np.array([0] * 121 + [1])), [1 / 11] * 121 + [1.0])


def test_weighted_drawing_makes_types_alike() -> None:
    """With replacement, as many as there are cells, every type as likely."""
    types = np.array([0] * 3800 + [1] * 200)

    rows = Sampling("weighted", types).order(torch_generator(0, "x")).numpy()

    assert len(rows) == 4000
    assert abs((types[rows] == 1).mean() - 0.5) < 0.03


def test_an_epoch_of_batches_is_as_long_as_its_sampling() -> None:
    """Batches of an oversampled epoch hold every row that was drawn."""
    cells = on_genes(np.random.default_rng(0).random((21, 30)))
    types = np.array([0] * 15 + [1] * 6)
    hiding = Hiding(gene_dropout=(0.0, 0.0), gene_set_masking=0.0)
    batches = Batches(cells, types, np.ones(21, np.float32), 8, hiding, torch_generator(0, "b"), "oversample")

    seen = list(batches)

    assert len(seen) == len(batches) == 4
    assert sum(len(b[0]) for b in seen) == 30


def test_two_stages_learn_and_new_types_bring_their_genes() -> None:
    """Markers of a later type join the panel behind the old ones; the gate is trained once; same seed, same bits."""

    def run() -> list:
        found = []
        for number, types in enumerate([("B", "CD4 T"), ("CD4 T", "HSC")], 1):
            data = make_adata(120, 200, types=types, prefix=str(number), seed=number)
            cells = read_cells(data, labels="cell_type")
            before = found[-1] if found else None
            found.append(learn(cells, before, load_preset("scannonet", (*QUICK, *LONGER))))
        return found

    first, second = run()
    again = run()[1].model.network.state_dict()

    hsc = {f"GENE{g}" for g in range(48, 56)}  # make.py: what type 6 raises
    assert not hsc <= set(first.model.panel.genes)
    assert hsc <= set(second.model.panel.genes)
    assert second.model.panel.genes[: len(first.model.panel)] == first.model.panel.genes.names
    assert bool(second.model.network.encoder.gate_ready)
    assert all(torch.equal(v, again[k]) for k, v in second.model.network.state_dict().items())
    test = read_cells(make_adata(90, 200, types=("B", "CD4 T", "HSC"), seed=9), labels="cell_type")
    assert (second.model.types_of(test) == test.labels).mean() > 0.9


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """The gate's own training and the draws of the batches are where they were."""
    cells = read_cells(make_adata(80, 100, types=("B", "NK")), labels="cell_type")

    def kill(epoch: int, _figures: Mapping[str, float]) -> None:
        if epoch == 2:
            raise Killed

    def run(draft: ToyDraft | None = None) -> dict[str, torch.Tensor]:
        return weights_of(learn(cells, preset=load_preset("scannonet", QUICK), draft=draft))

    with pytest.raises(Killed):
        run(ToyDraft(tmp_path, on_epoch=kill))
    resumed, whole = run(ToyDraft(tmp_path)), run()

    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())


def test_the_choice_of_genes_never_sees_held_out_cells() -> None:
    """With nothing left of the held-out cells, the panel is the same."""
    cells = read_cells(make_adata(120, 150, types=("B", "NK", "HSC")), labels="cell_type")
    preset = load_preset("scannonet", (*QUICK, "training.epochs=1", "encoder.gate_epochs=0"))
    first = learn(cells, preset=preset)
    kept = ~np.isin(np.arange(120), first.held_out)
    emptied = replace(cells, expression=sp.csr_matrix(cells.expression.multiply(kept[:, None]), dtype=np.float32))

    second = learn(emptied, preset=preset)

    assert second.model.panel.genes == first.model.panel.genes
