"""Whether the parts of a model fit together: the gate of every model that is read.

Hashes tell that a file is the one that was written, not that whoever wrote it meant well. What passes here can be
annotated with: positions lie inside the panel, shapes agree, numbers are finite, names are of types that are known.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from canal.errors import RegistryError
from canal.ontology.tree import cell_ontology

if TYPE_CHECKING:
    from canal.model.memory import AnalyticMemory, TypeStatistics
    from canal.model.model import Model

# Far beyond what any laboratory has, and little enough that no model takes minutes to be refused.
MOST_TYPES, MOST_GENES, LONGEST_NAME = 20_000, 500_000, 1_000
ROUNDING = 1e-4  # below zero, of a variance that is a difference of rounded numbers
# Parts of the compact network with their shapes by G genes, H hidden units, D of the representation, C types.
COMPACT_SHAPES = {
    "encoder.fc1.weight": "HG",
    "encoder.fc1.bias": "H",
    "encoder.norm1.weight": "H",
    "encoder.norm1.bias": "H",
    "encoder.fc2.weight": "DH",
    "encoder.fc2.bias": "D",
    "encoder.norm2.weight": "D",
    "encoder.norm2.bias": "D",
    "classifier.weight": "CD",
    "classifier.bias": "C",
}


def check_model(model: "Model", *, network: bool = True) -> None:
    """Refuse a model whose parts do not fit together.

    Parameters
    ----------
    model
        As it was read.
    network
        Whether it has to have a network.

    Raises
    ------
    RegistryError
        Which says the first part that does not fit; whoever reads the model adds which file it is.
    """
    # A voter checks itself where it is read; one that nothing was taught beside has no types, genes and network.
    if model.is_taught or model.voter is None:
        _check_names(model.types, "cell types", MOST_TYPES)
        _check_names(model.panel.genes.names, "genes", MOST_GENES)
        if network:
            _check_weights(model)
    fusion = model.fusion
    _require(
        np.isfinite(fusion.temperature) and fusion.temperature > 0 and np.isfinite(fusion.memory) and fusion.stages > 0,
        f"its calibration has temperature {fusion.temperature}, weight {fusion.memory} and {fusion.stages} stages",
    )
    if model.memory is not None:
        _check_memory(model.memory, set(model.types))
    for held_out in model.novelty.stages:
        _require(held_out.novelty.ndim == 1, f"the novelties of stage {held_out.stage} are not one of each cell")
        numbers = np.array([held_out.low, held_out.high, float(held_out.novelty.sum())])
        _require(np.isfinite(numbers).all(), f"the novelties of stage {held_out.stage} are not finite")
    if model.sure is not None:
        for stage, values in model.sure.stages.items():
            _require(values.ndim == 1 and _is_finite(values), f"its sure thresholds of stage {stage} are no numbers")
        for place in model.sure.placement.places.values():
            _require(not place.id or place.id in cell_ontology(), f"its type {place.name[:40]!r} has no known term")
    for name, finer in model.split.items():
        _require({name, *finer} <= set(model.types), f"{str(name)[:40]!r} was split into or from what is no type of it")
    _require(_is_finite(model.bank.expression.data), "the expression of its example bank is not finite")
    unknown = sorted(set(model.bank.labels.tolist()) - set(model.types))
    _require(not unknown, f"its example bank has cells of {unknown[:1]}, which is none of its types")


def _check_names(names: Iterable[str], what: str, most: int) -> None:
    """Refuse names that are no text, too long, too many, empty or there twice."""
    listed = list(names)
    _require(0 < len(listed) <= most, f"it has {len(listed)} {what}; expected 1 to {most}")
    for name in listed:
        _require(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME, f"{str(name)[:40]!r} is no name for {what}")
    _require(len(set(listed)) == len(listed), f"one of its {what} is there twice")


def _check_weights(model: "Model") -> None:
    """Refuse weights that are not finite, or a compact network of other sizes than panel and types.

    The sizes of other networks are compared when torch takes their weights.
    """
    for name, values in model.weights.items():
        _require(values.dtype.kind != "f" or _is_finite(values), f"its weights {name[:60]} are not finite")
    if model.preset.encoder.kind == "compact":
        config = model.preset.encoder
        sizes = {"G": len(model.panel), "H": config.hidden, "D": config.dim, "C": len(model.types)}
        _check_compact(model.weights, sizes)


def _check_compact(weights: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> None:
    for name, letters in COMPACT_SHAPES.items():
        expected = tuple(sizes[letter] for letter in letters)
        shape = weights[name].shape if name in weights else None
        _require(shape == expected, f"its weights {name} have the shape {shape}; expected {expected}")


def _check_memory(memory: "AnalyticMemory", types: set[str]) -> None:
    """Refuse statistics of unknown types, of genes outside the panel, or that are not finite."""
    _require(np.isfinite(memory.ridge) and memory.ridge > 0, f"the ridge of its memory is {memory.ridge}")
    _check_names(memory.panel.genes.names, "genes of the memory", MOST_GENES)
    for stage, positions in memory.measured.items():
        # Ascending positions are unique; they index the rows of every type of the stage.
        ascending = positions.ndim == 1 and positions.dtype.kind in "iu" and bool((np.diff(positions) > 0).all())
        inside = ascending and (not len(positions) or (positions[0] >= 0 and positions[-1] < len(memory.panel)))
        _require(bool(inside), f"the genes of stage {stage} in its memory are no positions in a panel of that size")
    keys = set()
    for statistics in memory.statistics:
        _require(
            statistics.name in types, f"its memory knows {str(statistics.name)[:40]!r}, which is none of its types"
        )
        _require(statistics.stage in memory.measured, f"its memory has no genes of stage {statistics.stage}")
        _check_statistics(statistics, len(memory.measured[statistics.stage]))
        keys.add((statistics.stage, statistics.name))
    _require(len(keys) == len(memory.statistics), "its memory knows a type of a stage twice")


def _check_statistics(statistics: "TypeStatistics", genes: int) -> None:
    where = f"the statistics of {statistics.name[:40]!r} of stage {statistics.stage}"
    factors = statistics.factors
    shapes = statistics.mean.shape == (genes,) and statistics.rest.shape == (genes,)
    _require(shapes and factors.ndim == 2 and factors.shape[1] == genes, f"{where} are not of {genes} genes")
    count = isinstance(statistics.n, int) and statistics.n > 0
    _require(count, f"{where} are of {statistics.n} cells")
    finite = _is_finite(statistics.mean) and _is_finite(statistics.rest) and _is_finite(factors)
    _require(
        finite and bool((statistics.rest >= -ROUNDING).all()), f"{where} are not finite, or a variance is negative"
    )


def _is_finite(values: np.ndarray) -> bool:
    """Tell whether all numbers are finite, in one pass without a copy."""
    return bool(np.isfinite(values.sum(dtype=np.float64)))


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise RegistryError(otherwise)
