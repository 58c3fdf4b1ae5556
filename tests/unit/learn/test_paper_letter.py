"""What the preset canal-paper takes from the paper: new classifier rows, the best epoch, the places of the bank."""

import numpy as np
import pytest
import torch

from canal.config import load_preset
from canal.data.cells import CellPool
from canal.data.stream import read_cells
from canal.errors import ConfigError
from canal.model.network import new_network
from canal.training.plugins import TrainingState, ValidationPlugin
from tests.learning import choose
from tests.make import make_adata

TINY = (
    "encoder.dim=8", "encoder.depth=2", "encoder.heads=2", "encoder.dim_head=4", "encoder.hidden=6",
    "encoder.representation=4",
)  # fmt: skip


def test_new_rows_are_as_a_new_layer_has_them() -> None:
    """Old rows are kept, new ones are random and not zero; the paper copies fc3 and leaves the rest as it is drawn."""
    network = new_network(load_preset("canal-paper", TINY), 10, 3, 0)
    before = network.classifier.weight.detach().clone()

    network.grow(10, 5, random_rows=True)

    assert torch.equal(network.classifier.weight[:3], before)
    assert (network.classifier.weight[3:].abs().sum(dim=1) > 0).all()
    assert network.classifier.weight.abs().max() <= 0.5  # uniform below 1 / sqrt(4), torch's default


@pytest.mark.parametrize(("by_loss", "best"), [(True, 3), (False, 2)])
def test_a_tie_in_accuracy_is_no_better_epoch(by_loss: bool, best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper takes the first epoch of the highest accuracy; ours lets the loss decide."""
    scores = iter([(0.5, 1.0), (0.9, 0.8), (0.9, 0.4), (0.7, 0.1)])
    state = TrainingState()
    plugin = ValidationPlugin(None, np.zeros(0, int), 11, state, lambda *_: None, by_loss=by_loss)  # type: ignore[arg-type]
    monkeypatch.setattr(plugin, "_score", lambda _strategy: next(scores))

    class Strategy:
        model = torch.nn.Linear(1, 1)

    for _ in range(4):
        plugin.losses = [torch.zeros(1)]
        plugin.after_training_epoch(Strategy())

    assert state.best_epoch == best


def test_the_bank_takes_the_highest_dot_products_with_the_types_own_row() -> None:
    """floor(L / types) a type by prototype, against numpy; a rare type leaves its places empty."""
    cells = read_cells(make_adata(60, 20, types=("B", "NK")), labels="cell_type")
    pool = CellPool.of(cells, 1).take(np.concatenate([np.flatnonzero(cells.labels == "B"), [1, 3, 5]]))
    rep = np.random.default_rng(0).normal(size=(33, 4)).astype(np.float32)
    rows = {"B": np.array([1.0, 0, 0, 0]), "NK": np.array([0, 1.0, 0, 0])}

    bank = choose(pool, rep, rows, size=15, selection="prototype", seed=0, quotas="floor")

    of_b = np.flatnonzero(pool.labels == "B")
    expected = of_b[np.argsort(-rep[of_b, 0])[:7]]
    assert set(bank.names[bank.labels == "B"]) == set(pool.names[expected])
    assert (bank.labels == "NK").sum() == 3


def test_the_preset_has_the_published_values() -> None:
    """Sizes, rates and bounds of the paper's code."""
    preset = load_preset("canal-paper")
    t = preset.training

    assert (t.batch_size, t.learning_rate, t.patience, t.label_smoothing, t.distillation) == (14, 2e-4, 11, 0.1, 0.1)
    assert (t.schedule, t.amsgrad, t.new_rows, t.best, t.sampling) == ("restarts", True, "random", "accuracy", "each")
    assert (preset.bank.size, preset.bank.selection, preset.bank.quotas) == (1000, "prototype", "floor")
    assert preset.encoder.kind == "performer"
    assert preset.encoder.trainable == "paper"


def test_ranking_and_table_go_together() -> None:
    """One clear message where one is there without the other."""
    with pytest.raises(ConfigError, match=r"type-specific and the table genes\.specific go together"):
        load_preset("compact", ("genes.ranking=type-specific",))
    with pytest.raises(ConfigError, match=r"genes\.specific\.markers = 0.*greater than or equal to 1"):
        load_preset("scannonet", ("genes.specific.markers=0",))
