"""Training a stage: old rows kept, the best epoch kept, bit for bit, gone on with after a kill."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from canal.model.model import Model
from canal.seeds import numpy_generator
from canal.training.splits import stratified_split
from tests.learning import ToyDraft, learn, quick, same, toy


def test_two_stages_learn_all_types_and_keep_old_rows() -> None:
    """After a stage with other types both are annotated; the type list grows at its end."""
    first = learn(toy(("B", "NK")), preset=quick("training.epochs=20"))
    second = learn(toy(("CD4 T", "HSC"), prefix="b"), first, preset=quick("training.epochs=20"))

    assert second.model.types == ("B", "NK", "CD4 T", "HSC")
    for cells in (toy(("B", "NK"), seed=5), toy(("CD4 T", "HSC"), seed=6)):
        p = second.model.reader(cells.genes).predict(cells.expression)
        names = np.array(second.model.types, dtype=object)[p.probabilities.argmax(axis=1)]
        assert (names == cells.labels).mean() > 0.9


def test_growing_changes_nothing_by_itself() -> None:
    """Old cells keep logits of old types and representation when genes and types are added."""
    network = learn(toy()).model.network
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

    with pytest.raises(Killed):
        learn(toy(), draft=ToyDraft(tmp_path, on_epoch=kill))

    epochs: list[int] = []
    resumed = learn(toy(), draft=ToyDraft(tmp_path, on_epoch=lambda epoch, _figures: epochs.append(epoch)))

    assert epochs == [3, 4]
    assert same(resumed, learn(toy()))


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    """With another key the training begins anew."""
    learn(toy(), draft=ToyDraft(tmp_path, "one"))
    epochs: list[int] = []

    learn(toy(), draft=ToyDraft(tmp_path, "two", lambda epoch, _figures: epochs.append(epoch)))

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
    files = stage.model.save(tmp_path)
    again = Model.load(tmp_path)

    expected = stage.model.reader(query.genes).predict(query.expression)
    got = again.reader(query.genes).predict(query.expression)

    np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=5e-3)
    np.testing.assert_array_equal(got.representation, expected.representation)
    assert {p.suffix for p in files.values()} <= {".safetensors", ".json", ".toml"}


def test_a_cell_alone_is_annotated_as_in_company() -> None:
    """The answer for a cell does not depend on the other cells."""
    stage, query = learn(toy()), toy(seed=4)
    reader = stage.model.reader(query.genes)

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

    assert second.model.types == ("B", "NK", "HSC")
    assert len(second.model.bank) == preset.bank.size
    assert dataclasses.is_dataclass(second)
