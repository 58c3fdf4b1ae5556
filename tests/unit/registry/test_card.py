"""What a person reads of a stage on MLflow's pages."""

from canal.registry.flavour import LONGEST, model_card
from tests.unit.registry.make import make_record


def test_the_card_says_what_was_learned_from_what():
    """Data, figures, types, limits; what is new is marked."""
    card = model_card(make_record(2, metrics={"test/1/accuracy": 0.87654, "forgetting": 0.01, "test/1/macro_f1": 0.5}))

    for text in (
        "# Stage 2: toy2", "3 types, 1 of them new, on 100 genes", "100 cells on top of stage 1", "seed 7",
        "| /data/toy2.h5ad | 100 | sha256:", "| forgetting | 0.01 |", "| test/1/accuracy | 0.8765 |",
        "type 1, **type 2** (new)", "holds 10 real expression profiles",
    ):  # fmt: skip
        assert text in card
    assert "macro_f1" not in card
    assert "Candidate" not in card


def test_what_is_special_is_said():
    """A stage that was held back, one that took another out, one from no file."""
    card = model_card(make_record(3, data=(), notes={"held_back": "It falls.", "removed": [2]}))

    assert "**Candidate.** It falls." in card
    assert "Without the cells of stage 2." in card
    assert "No file." in card


def test_a_long_card_is_cut():
    """MLflow refuses more; the end says where all of it is."""
    card = model_card(make_record(1, types=tuple(f"a long name of type {k}" for k in range(900))))

    assert len(card) == LONGEST
    assert card.endswith("`canal stage show` has all of it.*")


def test_a_model_without_a_cell_says_so():
    """Statistics are not the data: nobody is told to treat them as that."""
    card = model_card(make_record(1, bank={"size": 0}))

    assert "No cell is kept" in card
    assert "treat the model as the data" not in card
