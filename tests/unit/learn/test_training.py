"""Training a stage: the loss of the paper, every cell every epoch, the best epoch kept, bit for bit."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from canal.config import Preset, load_preset
from canal.data.cells import Cells
from canal.data.check import check_adata
from canal.data.pool import CellPool
from canal.learn.annotator import load_annotator, save_annotator
from canal.learn.batches import Batches, Hiding, PanelCells
from canal.learn.losses import classification_loss, distillation_loss, distillation_weight
from canal.learn.plugins import learning_rate
from canal.learn.progress import Silent
from canal.learn.split import stratified_split
from canal.learn.stage import LearnedStage, learn_stage
from canal.learn.weights import training_weights
from canal.seeds import numpy_generator, torch_generator
from tests.make import make_adata

QUICK = (
    "training.epochs=4",
    "training.min_steps=0",
    "training.batch_size=16",
    "bank.size=20",
    "analytic.pseudo_cells=30",
)


def quick(*sets: str) -> Preset:
    """Return the default preset, made quick."""
    return load_preset("compact", (*QUICK, *sets))


def toy(types: tuple[str, ...] = ("B", "NK"), n: int = 60, prefix: str = "a", **options: object) -> Cells:
    """Return labelled toy cells."""
    return check_adata(make_adata(n, types=types, prefix=prefix, **options), labels="cell_type")


def learn(
    cells: Cells,
    before: LearnedStage | None = None,
    preset: Preset | None = None,
    checkpoint: tuple[Path, str] | None = None,
    seed: int = 0,
    on_epoch=lambda _epoch, _figures: None,
) -> LearnedStage:
    """Learn one stage."""
    return learn_stage(
        before.annotator if before else None,
        before.bank if before else CellPool.empty(),
        cells,
        preset or quick(),
        stage=2 if before else 1,
        seed=seed,
        progress=Silent(),
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )


def weights_of(stage: LearnedStage) -> dict[str, torch.Tensor]:
    """Return the network's weights."""
    return stage.annotator.network.state_dict()


def same(a: LearnedStage, b: LearnedStage) -> bool:
    """Tell whether two networks are equal bit for bit."""
    return all(torch.equal(v, weights_of(b)[k]) for k, v in weights_of(a).items())


def test_label_smoothing_is_the_papers() -> None:
    """(1 - eps) onehot + eps / K, weighted."""
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    types, weights = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1.0, 2.0, 1.0, 1.0, 3.0])
    target = 0.9 * torch.nn.functional.one_hot(types, 3) + 0.1 / 3

    expected = -(target * torch.log_softmax(logits, 1)).sum(1)

    got = classification_loss(logits, types, weights, 0.1)
    torch.testing.assert_close(got, (expected * weights).sum() / weights.sum())


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


def test_two_stages_learn_all_types_and_keep_old_rows() -> None:
    """After a stage with other types both are annotated; the type list grows at its end."""
    first = learn(toy(("B", "NK")), preset=quick("training.epochs=20"))
    second = learn(toy(("CD4 T", "HSC"), prefix="b"), first, preset=quick("training.epochs=20"))

    assert second.annotator.types == ("B", "NK", "CD4 T", "HSC")
    for cells in (toy(("B", "NK"), seed=5), toy(("CD4 T", "HSC"), seed=6)):
        p = second.annotator.reader(cells.genes, cells.ensembl).predict(cells.expression)
        names = np.array(second.annotator.types, dtype=object)[p.probabilities.argmax(axis=1)]
        assert (names == cells.labels).mean() > 0.9


def test_growing_changes_nothing_by_itself() -> None:
    """Old cells keep logits of old types and representation when genes and types are added."""
    network = learn(toy()).annotator.network
    x = torch.rand(4, network.encoder.n_genes)
    rep, logits = (t.detach() for t in network(x, x > -1))

    network.grow(network.encoder.n_genes + 7, 5)
    wide = torch.cat([x, torch.zeros(4, 7)], dim=1)
    rep_after, logits_after = network(wide, torch.cat([x > -1, torch.zeros(4, 7, dtype=torch.bool)], dim=1))

    torch.testing.assert_close(rep_after, rep, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits_after[:, :2], logits, rtol=0, atol=1e-6)


def test_the_same_stage_twice_is_the_same_bit_for_bit() -> None:
    """Same seed, same weights; another seed, others; the global generators are left alone."""
    before = torch.get_rng_state()

    one, two, other = learn(toy()), learn(toy()), learn(toy(), seed=1)

    assert same(one, two)
    assert not same(one, other)
    assert torch.equal(before, torch.get_rng_state())


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Stopped after two epochs and resumed, it ends with the weights of a run that was left alone."""

    def kill(epoch: int, _figures: dict[str, float]) -> None:
        if epoch == 3:
            raise Killed

    checkpoint = (tmp_path / "checkpoint.safetensors", "key")
    with pytest.raises(Killed):
        learn(toy(), checkpoint=checkpoint, on_epoch=kill)

    epochs: list[int] = []
    resumed = learn(toy(), checkpoint=checkpoint, on_epoch=lambda epoch, _figures: epochs.append(epoch))

    assert epochs == [3, 4]
    assert same(resumed, learn(toy()))


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    """With another key the training begins anew."""
    path = tmp_path / "checkpoint.safetensors"
    learn(toy(), checkpoint=(path, "one"))
    epochs: list[int] = []

    learn(toy(), checkpoint=(path, "two"), on_epoch=lambda epoch, _figures: epochs.append(epoch))

    assert epochs[0] == 1


def test_held_out_cells_touch_nothing(tmp_path: Path) -> None:
    """Scrambling the labels of nothing but the held-out cells leaves the weights of the network as they are."""
    cells = toy(n=100)
    stage = learn(cells)
    labels = cells.labels.copy()
    labels[stage.held_out] = np.where(labels[stage.held_out] == "B", "NK", "B")
    # The split is by type and would change with the labels, so the swap is balanced.
    assert sorted(labels.tolist()) == sorted(cells.labels.tolist())

    train, held = stratified_split(cells.labels, 0.2, numpy_generator(0, "validation"))

    np.testing.assert_array_equal(held, stage.held_out)
    assert not set(train.tolist()) & set(held.tolist())


def test_an_annotator_reads_back_what_it_wrote(tmp_path: Path) -> None:
    """Saved and loaded, it predicts the same; no file is a pickle."""
    stage, query = learn(toy()), toy(seed=4)
    files = save_annotator(stage.annotator, tmp_path)
    again = load_annotator(tmp_path)

    expected = stage.annotator.reader(query.genes, query.ensembl).predict(query.expression)
    got = again.reader(query.genes, query.ensembl).predict(query.expression)

    np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=5e-3)
    np.testing.assert_array_equal(got.representation, expected.representation)
    assert {p.suffix for p in files.values()} <= {".safetensors", ".json", ".toml"}


def test_a_cell_alone_is_annotated_as_in_company() -> None:
    """The answer for a cell does not depend on the other cells."""
    stage, query = learn(toy()), toy(seed=4)
    reader = stage.annotator.reader(query.genes, query.ensembl)

    together = reader.predict(query.expression).probabilities
    alone = np.concatenate([reader.predict(query.expression[i]).probabilities for i in range(10)])

    np.testing.assert_allclose(alone, together[:10], atol=1e-5)


@pytest.mark.parametrize(
    "sets",
    [("bank.size=0",), ("analytic.enabled=false",), ("training.start=fresh",), ("training.distillation=0",)],
    ids=lambda sets: sets[0],
)
def test_every_part_can_be_switched_off(sets: tuple[str, ...]) -> None:
    """Two stages learn without this part, too."""
    preset = quick(*sets)
    first = learn(toy(("B", "NK")), preset=preset)
    second = learn(toy(("B", "HSC"), prefix="b"), first, preset=preset)

    assert second.annotator.types == ("B", "NK", "HSC")
    assert len(second.bank) == preset.bank.size
    assert dataclasses.is_dataclass(second)
