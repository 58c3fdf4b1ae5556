"""Each part of learning a stage does its work: these tests fail where the part is taken out."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from canal.data.cells import CellPool
from canal.data.stream import read_cells
from canal.model.model import Model
from canal.model.network import run_network
from canal.ontology.placement import Place, Placement
from canal.ontology.tree import cell_ontology
from canal.progress import Silent
from canal.training import fitting, stage
from canal.training.plugins import DistillationPlugin, SchedulePlugin
from canal.training.run import Run
from canal.training.stage import learn_stage
from canal.training.train import TrainingData
from tests.learning import learn, quick, toy
from tests.make import make_adata


def rows_of(cells: Any) -> set[bytes]:
    """Return the expression of cells on a panel, a text of bytes each."""
    dense = cells.values.toarray().astype(np.float32)
    return {row.tobytes() for row in dense}


def test_distillation_is_added_to_the_loss() -> None:
    """The plugin adds lambda times the distance of the batch's own rows to their target."""
    previous = torch.arange(12.0).reshape(4, 3)
    strategy = SimpleNamespace(
        mb_rows=torch.tensor([2, 0]), mb_representation=previous[[2, 0]] + 2.0, loss=torch.tensor(1.0), cell_share=1.0
    )

    DistillationPlugin(previous, 0.5).before_backward(strategy)

    assert strategy.loss.item() == pytest.approx(1.0 + 0.5 * 4.0)


def test_distillation_holds_the_representation() -> None:
    """With a strong lambda old cells are represented as before; without one they move."""
    first, new, query = learn(toy()), toy(("CD4 T", "HSC"), prefix="b"), toy(seed=7)
    before = first.model.reader(query.genes).predict(query.expression).representation

    moved = []
    for strength in (0.0, 1000.0):
        second = learn(new, first, quick(f"training.distillation={strength:g}", "training.epochs=8"))
        after = second.model.reader(query.genes).predict(query.expression).representation
        moved.append(float(((after - before) ** 2).mean()))

    assert moved[1] < 0.5 * moved[0]


def test_no_held_out_cell_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the stage's own nor those of the bank; all others are."""
    seen: list[TrainingData] = []
    train = fitting.train_on_devices

    def spy(network: Any, data: TrainingData, *rest: Any) -> Any:
        seen.append(data)
        return train(network, data, *rest)

    monkeypatch.setattr(fitting, "train_on_devices", spy)
    preset = quick("training.epochs=1", "analytic.pseudo_cells=0")
    first = learn(toy(), preset=preset)
    second = learn(toy(("B", "HSC"), prefix="b", seed=1), first, preset)

    for data, cells in zip(seen, (60, 60 + len(first.model.bank)), strict=True):
        assert not rows_of(data.cells) & rows_of(data.validation)
        assert len(data.cells) + len(data.validation) == cells
    assert len(seen[0].validation) == len(first.held_out)
    assert len(seen[1].validation) > len(second.held_out)


def test_later_stages_rehearse_pseudo_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second stage trains on cells drawn from the memory of the first."""
    seen: list[TrainingData] = []
    monkeypatch.setattr(fitting, "train_on_devices", lambda _network, data, *_rest: seen.append(data))
    first = learn(toy())
    seen.clear()

    pool = first.model.bank
    spec = fitting.NetworkSpec(preset=quick(), panel=first.model.panel, types=first.model.types)
    run = SimpleNamespace(seed=0, kept_under=2, draft=None, progress=Silent())
    fitting.fit_network(first.model.network, first.model, pool, np.zeros(0, dtype=np.int64), spec, run)

    assert len(seen[0].cells) > len(pool)


def test_a_coarse_label_means_its_kinds_and_never_itself() -> None:
    """Every other label means itself; where none is coarse there is no table."""
    panel = learn(toy()).model.panel
    types = ("T cell", "CD4 T", "B", "CD8 T")
    spec = fitting.NetworkSpec(preset=quick(), panel=panel, types=types, kinds={"T cell": ("CD4 T", "CD8 T")})
    expected = np.eye(4, dtype=bool)
    expected[0] = [False, True, False, True]
    assert spec.meant is not None
    np.testing.assert_array_equal(spec.meant, expected)
    assert fitting.NetworkSpec(preset=quick(), panel=panel, types=types).meant is None


def test_a_coarse_label_teaches_the_network_its_kinds() -> None:
    """Cells of one lab's "T cell" are learned as kinds that another lab taught, never as a type of their own."""
    ids = {"T cell": "CL:0000084", "CD4 T": "CL:0000624", "CD8 T": "CL:0000625", "B": "CL:0000236"}
    places = {name: Place(name, term, "", "exact") for name, term in ids.items()}
    placement = Placement(cell_ontology().release, places)
    coarse = dict.fromkeys(("CD4 T", "CD8 T"), "T cell")
    adata = make_adata(90, types=("CD4 T", "CD8 T", "B"), prefix="b", seed=3)
    fine = adata.obs["cell_type"].astype(str).to_numpy()
    adata.obs["cell_type"] = [coarse.get(name, name) for name in fine]
    preset = quick("analytic.enabled=false", "training.epochs=12")
    first = learn(toy(("CD4 T", "CD8 T", "B"), n=90), preset=preset)
    cells = read_cells(adata, labels="cell_type")

    run = Run(number=2, seed=0)
    second = learn_stage(first.model, cells, preset, run, placement=placement).model

    def of_network(model: Model) -> np.ndarray:
        """Return what the network alone answers, whose coarse types nobody shares among their kinds."""
        logits = run_network(model.network, fitting.on_panel(CellPool.of(cells, 2), model.panel))[0]
        return np.array(model.types)[logits.argmax(axis=1)]

    assert np.mean(of_network(second) == fine) > 0.9
    # The labels alone, without a place: a type of its own.
    apart = learn_stage(first.model, cells, preset, run).model
    assert "T cell" in of_network(apart)


def test_held_out_cells_stay_out_of_the_bank() -> None:
    """As long as there are others: later stages are tested on them."""
    cells = toy(n=100)
    learned = learn(cells, preset=quick("training.epochs=1", "bank.size=40"))

    assert len(learned.model.bank) == 40
    assert not set(learned.model.bank.names.tolist()) & set(cells.names[learned.held_out].tolist())


def test_calibration_is_by_a_memory_that_has_not_seen_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory takes the held-out cells in after they have calibrated it."""
    judged: list[Model] = []
    calibrate, novelty = stage.calibrate, stage._novelty

    def spy(fitted: Model, *rest: Any) -> Any:
        judged.append(fitted)
        return calibrate(fitted, *rest)

    def spy_novelty(parent: Model | None, fitted: Model, *rest: Any) -> Any:
        judged.append(fitted)
        return novelty(parent, fitted, *rest)

    monkeypatch.setattr(stage, "calibrate", spy)
    monkeypatch.setattr(stage, "_novelty", spy_novelty)
    cells = toy(n=100)
    learned = learn(cells, preset=quick("training.epochs=1"))

    assert [sum(model.memory.counts().values()) for model in judged] == [100 - len(learned.held_out)] * 2
    assert sum(learned.model.memory.counts().values()) == 100


def test_validation_leaves_the_training_mode_behind() -> None:
    """Dropout is on again in the next epoch."""
    strategy = SimpleNamespace(model=torch.nn.Dropout().eval())
    state = SimpleNamespace(epoch=0)

    SchedulePlugin(quick().training, state, 1, 1).before_training_epoch(strategy)

    assert strategy.model.training


def test_the_weights_of_the_best_epoch_stay() -> None:
    """The figures of the model are those of its best epoch, by accuracy and then by loss."""
    learned = learn(toy(n=100), preset=quick("training.epochs=12", "training.learning_rate=0.3"))
    history = learned.history
    best = max(history, key=lambda epoch: (epoch["validation_accuracy"], -epoch["validation_loss"]))
    held = toy(n=100).take(learned.held_out)

    logits = learned.model.reader(held.genes).predict(held.expression).logits
    right = np.array(learned.model.types, dtype=object)[logits.argmax(axis=1)] == held.labels

    assert history[-1] != best
    assert right.mean() == pytest.approx(best["validation_accuracy"])
    loss = -torch.log_softmax(torch.from_numpy(logits), 1)[
        np.arange(len(held)), [learned.model.types.index(name) for name in held.labels]
    ].mean()
    assert float(loss) == pytest.approx(best["validation_loss"], rel=1e-3)


def test_patience_ends_a_training() -> None:
    """As many epochs without a gain as the patience, and no more."""
    learned = learn(toy(), preset=quick("training.epochs=60", "training.patience=2", "training.learning_rate=1e-9"))

    assert len(learned.history) < 60
