"""Under which numbers a model keeps what it knows of its stages.

Memory, novelty calibration and example bank keep what came with a stage under a number, its *key*. Where every stage
was learned in this registry, the key is the number of the stage. An imported model brings the keys of the registry it
comes from, which mean other stages there: a stage that is learned on top of it gets a key that nothing has yet, and the
records of its line note which stage of this registry each key belongs to.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from canal.data.cells import CellPool
from canal.errors import RegistryError
from canal.model.record import IMPORTED, STAGE_KEYS, StageRecord

if TYPE_CHECKING:
    from canal.model.model import Model

LARGEST = 10**9  # keys above it are no stage of anybody


def used_keys(model: "Model | None") -> set[int]:
    """Return all keys under which a model keeps anything."""
    if model is None:
        return set()
    keys = set(model.bank.stage.tolist())
    for held_out in model.novelty.stages:
        keys.add(held_out.stage)
    if model.memory is not None:
        keys.update(model.memory.measured)
        for statistics in model.memory.statistics:
            keys.add(statistics.stage)
    return keys


def free_key(number: int, parent: "Model | None") -> int:
    """Return the key for a new stage: its number, or a larger one where a key is as large already.

    Keys ascend in the order of learning, so that a memory that is written and read again keeps its order.

    Parameters
    ----------
    number
        Number of the new stage.
    parent
        The model it is learned on top of.

    Raises
    ------
    RegistryError
        If the model holds a key that no stage can have.
    """
    keys = used_keys(parent)
    strange = sorted(key for key in keys if not 0 < key <= LARGEST)
    if strange:
        message = (
            f"The model in use keeps cells of a stage {strange[0]}; expected numbers from 1 to {LARGEST}. It is "
            "damaged: use another stage (canal stage promote N), or ask for a new export of it."
        )
        raise RegistryError(message)
    return max(number, 1 + max(keys, default=0))


def stages_by_key(record: StageRecord, keys: Iterable[int]) -> dict[int, int]:
    """Return the number of the stage in the record's registry that each key belongs to.

    All that an imported model holds belongs to the stage that it is here. Lines that an older canal learned on top of
    an import noted nothing: their keys are taken as numbers.

    Parameters
    ----------
    record
        The model's record.
    keys
        Keys that the model holds.
    """
    if IMPORTED in record.notes:
        return dict.fromkeys(keys, record.number)
    noted = {int(key): int(number) for key, number in record.notes.get(STAGE_KEYS, {}).items()}
    return {key: noted.get(key, key) for key in keys}


def has_noted(record: StageRecord) -> bool:
    """Tell whether keys of this model are numbers of another registry, and it is known which stages they are here."""
    return IMPORTED in record.notes or STAGE_KEYS in record.notes


def key_note(parent: StageRecord | None, stages: Mapping[int, int]) -> dict[str, dict[str, int]]:
    """Return what the record of a new stage is to note of its keys: nothing where they are numbers of this registry.

    Parameters
    ----------
    parent
        Record of the stage it was learned from.
    stages
        Number of the stage by key, of all that the new model holds.
    """
    if parent is None or not has_noted(parent):
        return {}
    return {STAGE_KEYS: {str(key): stages[key] for key in sorted(stages)}}


def bank_stages(bank: CellPool, stages: Mapping[int, int]) -> np.ndarray:
    """Return the number of the stage that each cell of a bank came with, int64 (cells,)."""
    return np.array([stages.get(key, key) for key in bank.stage.tolist()], dtype=np.int64)
