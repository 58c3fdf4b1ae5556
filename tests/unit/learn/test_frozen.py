"""What frozen layers make of the cells, kept for a stage: the same training, cheaper."""

import numpy as np
import pytest
import torch

from canal.config import Preset, load_preset
from canal.data.cells import CellPool
from canal.model.network import new_network
from canal.training import fitting
from canal.training.frozen import FrozenOutputs, can_precompute
from canal.training.stage import LearnedStage
from tests.learning import learn, toy, weights_of

SMALL = (
    "encoder.dim=20", "encoder.depth=3", "encoder.heads=2", "encoder.dim_head=16", "encoder.hidden=12",
    "encoder.representation=8", "encoder.trainable=paper", "training.epochs=2", "training.batch_size=8",
    "training.learning_rate=1e-2", "training.schedule=constant", "training.precision=float32", "genes.per_stage=30",
    "bank.size=8", "genes.ranking=variance",
)  # fmt: skip


def paper(*sets: str) -> Preset:
    """Return the paper's preset, made small."""
    return load_preset("canal", (*SMALL, *sets))


def two_stages(preset: Preset) -> LearnedStage:
    """Learn two stages."""
    first = learn(toy(n=20), preset=preset)
    return learn(toy(("B", "HSC"), n=20, prefix="b"), first, preset)


def test_training_from_frozen_outputs_is_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, figures and bank are those of a training that runs all layers at every step."""
    kept = two_stages(paper())
    monkeypatch.setattr(fitting, "can_precompute", lambda *_: False)
    long = two_stages(paper())

    for name, value in weights_of(long).items():
        torch.testing.assert_close(weights_of(kept)[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert kept.history[-1]["training_loss"] == pytest.approx(long.history[-1]["training_loss"], rel=1e-4)
    np.testing.assert_array_equal(kept.model.bank.labels, long.model.bank.labels)


def test_the_bank_is_chosen_from_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cells as by a pass through all layers, which is not made."""
    long = fitting.run_network
    kept = two_stages(paper())
    monkeypatch.setattr(fitting.Fitted, "representation", lambda _, *pool_and_progress: long(*pool_and_progress)[1])
    expected = two_stages(paper())
    assert (kept.model.bank.expression != expected.model.bank.expression).nnz == 0

    monkeypatch.undo()
    monkeypatch.setattr(fitting, "run_network", None)
    two_stages(paper())


@pytest.mark.parametrize(
    "sets",
    [("encoder.trainable=all",), ("training.gene_dropout=[0.1, 0.2]",), ("training.gene_set_masking=0.5",)],
    ids=lambda sets: sets[0],
)
def test_nothing_is_kept_where_the_frozen_outputs_change(sets: tuple[str, ...]) -> None:
    """Trained layers, or genes hidden anew in every epoch, are computed every time."""
    assert can_precompute(new_network(paper(), 30, 2, 0), paper().training)
    preset = paper(*sets)
    assert not can_precompute(new_network(preset, 30, 2, 0), preset.training)


def test_the_file_is_nobodys_rubbish(tmp_path) -> None:
    """The kept outputs lie in a file without a name: a killed run leaves nothing."""
    pool = CellPool.of(toy(), 1)
    network = new_network(paper(), pool.expression.shape[1], 2, 0)
    cells = fitting.PanelCells(values=pool.expression, measured=pool.measured, source=pool.source)

    kept = FrozenOutputs.of(network, cells, torch.device("cpu"), tmp_path)

    assert list(tmp_path.iterdir()) == []
    rows = np.array([5, 0, 59])
    with torch.no_grad():
        expected = network.encoder.frozen_outputs(*cells.dense(rows))
    torch.testing.assert_close(kept.rows(rows), expected, rtol=1e-5, atol=1e-6)
