"""Under which keys a model keeps its stages, and which stage of this registry each is."""

from dataclasses import replace

import numpy as np
import pytest

from canal.config import load_preset
from canal.data.cells import CellPool
from canal.errors import RegistryError
from canal.model.model import Fusion, Model
from canal.model.stage_keys import free_key, key_note, stages_by_key
from tests.unit.registry.make import make_record


def model_with(*keys: int) -> Model:
    """Return a model whose bank has one cell a key and no gene."""
    many = CellPool.empty()
    none = np.zeros(0)
    bank = replace(
        many,
        expression=many.expression.__class__((len(keys), 0)),
        source=np.zeros(len(keys), dtype=np.int64),
        stage=np.array(keys, dtype=np.int64),
        labels=np.array(["B"] * len(keys), dtype=object),
        names=np.array([str(k) for k in keys], dtype=object),
        measured=none.reshape(1, 0).astype(bool),
    )
    fusion = Fusion(memory=1.0, temperature=1.0)
    return Model(
        preset=load_preset("compact"), panel=bank.panel, types=("B",), weights={}, memory=None, fusion=fusion, bank=bank
    )


@pytest.mark.parametrize(
    ("number", "keys", "expected"),
    [(1, (), 1), (3, (1, 2), 3), (7, (1, 2), 7), (2, (1, 2), 3), (1, (5,), 6)],
    ids=["first", "own line", "own line with gaps", "as many in the import", "more in the import"],
)
def test_a_new_key_is_the_number_where_it_can_be(number, keys, expected):
    """Where no key is as large; then it is one that nothing has."""
    assert free_key(number, model_with(*keys)) == expected


@pytest.mark.parametrize("key", [0, -1, 2**62])
def test_a_key_that_no_stage_has_is_told(key):
    """Only a damaged or crafted model has one."""
    with pytest.raises(RegistryError, match=f"cells of a stage {key}; expected numbers from 1"):
        free_key(2, model_with(1, key))


def test_all_of_an_import_is_one_stage():
    """Whatever its own registry noted."""
    record = make_record(4, notes={"imported": {"stage": 2}, "stage_keys": {"1": 1, "2": 2}})

    assert stages_by_key(record, [1, 2, 9]) == {1: 4, 2: 4, 9: 4}


def test_notes_are_written_above_an_import_alone():
    """Nothing changes in a registry of its own stages."""
    own, imported = make_record(1), make_record(1, notes={"imported": {"stage": 2}})
    above = make_record(2, notes=key_note(imported, {1: 1, 2: 1, 3: 2}))

    assert key_note(None, {1: 1}) == key_note(own, {1: 1, 2: 2}) == {}
    assert above.notes == {"stage_keys": {"1": 1, "2": 1, "3": 2}}
    assert stages_by_key(above, [1, 2, 3]) == {1: 1, 2: 1, 3: 2}
    assert key_note(above, {3: 2, 4: 3}) == {"stage_keys": {"3": 2, "4": 3}}
    assert stages_by_key(own, [1, 2]) == {1: 1, 2: 2}
