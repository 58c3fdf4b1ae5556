"""How much each training cell counts."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

Group = tuple[int, str]  # stage, type


def training_weights(
    stage: np.ndarray,
    labels: np.ndarray,
    drawn: np.ndarray,
    counts: Mapping[Group, int],
    *,
    balance: float,
    drawn_share: float,
) -> np.ndarray:
    """Weigh cells so that every stage counts the same, however few of its cells are left.

    Within a stage a type that had n cells weighs n^(1 - balance); within a type the cells of the bank and those drawn
    from the statistics share the weight, ``drawn_share`` of it for the drawn ones where there are both.

    Parameters
    ----------
    stage, labels, drawn
        Stage, type and whether the cell was drawn from statistics, each of shape (cells,).
    counts
        Cells that each type had in its stage; those present count where it is not known.
    balance
        0 weighs every cell the same (the paper's concatenation of bank and stage), 1 every type.
    drawn_share
        See above.

    Returns
    -------
    Float32 of shape (cells,), mean 1.
    """
    n = len(labels)
    if balance == 0 or n == 0:
        return np.ones(n, dtype=np.float32)
    keys = list(zip(stage.tolist(), labels.tolist(), drawn.tolist(), strict=True))
    present = Counter(keys)
    mass = {key: _share(present, key, drawn_share) * _weight(counts, present, key, balance) for key in present}
    whole: Counter[int] = Counter()
    for (number, _, _), value in mass.items():
        whole[number] += value  # type: ignore[assignment]
    weights = np.array([mass[key] / (present[key] * whole[key[0]]) for key in keys])
    return np.asarray(weights * (n / weights.sum()), dtype=np.float32)


def _share(present: Mapping[tuple[int, str, bool], int], key: tuple[int, str, bool], drawn_share: float) -> float:
    stage, name, drawn = key
    if (stage, name, not drawn) not in present:
        return 1.0
    return drawn_share if drawn else 1.0 - drawn_share


def _weight(
    counts: Mapping[Group, int],
    present: Mapping[tuple[int, str, bool], int],
    key: tuple[int, str, bool],
    balance: float,
) -> float:
    stage, name, _ = key
    n = counts.get((stage, name)) or present.get((stage, name, False), 1)
    return float(n ** (1.0 - balance))
