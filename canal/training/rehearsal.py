"""A network that is trained anew on what a model keeps: its example bank, and cells drawn from its statistics.

So a model gets a network that holds nothing of a stage that was taken out, or of cells that were never here.
"""

import numpy as np

from canal.config import Preset
from canal.data.cells import CellPool
from canal.errors import StageError
from canal.model.model import Model
from canal.model.network import new_network, weights_of
from canal.seeds import numpy_generator
from canal.training.fitting import NetworkSpec, draw_pseudo_cells, fit_network
from canal.training.run import Run
from canal.training.splits import stratified_split

PSEUDO_CELLS_PER_TYPE = 10  # at the least, where the bank alone is too small to train on


def rehearsed_network(base: Model, run: Run) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
    """Train a fresh network on the example bank of a model and on pseudo-cells of its memory.

    Parameters
    ----------
    base
        Preset, gene panel, types, memory and bank; its own network is not looked at.
    run
        Number of the stage, its seed, and who watches.

    Returns
    -------
    The weights by name, and one dict of figures an epoch.

    Raises
    ------
    StageError
        If there is neither bank nor memory to learn from.
    """
    network = new_network(base.preset, len(base.panel), len(base.types), run.seed)
    pool = _training_cells(base, run.seed)
    validation = _validation_rows(pool, base.preset, run.seed)
    spec = NetworkSpec(preset=_with_fresh_start(base.preset), panel=base.panel, types=base.types, kinds=base.kinds)
    history = fit_network(network, base, pool, validation, spec, run).history
    return weights_of(network), history


def _training_cells(base: Model, seed: int) -> CellPool:
    """Return the cells to train and validate on: the example bank, or pseudo-cells in its place if it is too small.

    Raises
    ------
    StageError
        If there is neither bank nor memory to draw pseudo-cells from.
    """
    bank = base.bank
    # Large enough where some type has two cells: one to train on, one to validate on.
    if len(bank) > len(set(bank.labels.tolist())):
        return bank
    if base.memory is None:
        message = (
            f"The example bank without this stage has {len(bank)} cells: too few to learn from. Add a stage first."
        )
        raise StageError(message)
    n = max(base.preset.analytic.pseudo_cells, PSEUDO_CELLS_PER_TYPE * len(base.types))
    return draw_pseudo_cells(base.memory, n, base.panel, numpy_generator(seed, "removal"))


def _validation_rows(pool: CellPool, preset: Preset, seed: int) -> np.ndarray:
    """Return rows of the training cells to validate on, none where `fit_network` finds some itself."""
    # It takes one of two cells that a stage has of one type.
    groups = set(zip(pool.stage.tolist(), pool.labels.tolist(), strict=True))
    if len(pool) > len(groups):
        return np.zeros(0, dtype=np.int64)
    share = preset.training.validation_share
    return stratified_split(pool.labels, share, numpy_generator(seed, "removal validation"))[1]


def _with_fresh_start(preset: Preset) -> Preset:
    """Return the preset for a network that starts from random weights: there is nothing to distil from."""
    return preset.model_copy(update={"training": preset.training.model_copy(update={"start": "fresh"})})
