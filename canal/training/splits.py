"""How labelled cells are split; nothing else of the training is needed for it."""

import numpy as np


def stratified_split(labels: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split cells so that a share of every type is held out.

    Parameters
    ----------
    labels
        Type of each cell, of shape (cells,).
    share
        Share of each type that is held out, rounded to the nearest cell; a type with two cells or more keeps at least
        one cell on each side.
    rng
        Draws the cells.

    Returns
    -------
    Ascending positions of the training and of the held-out cells.
    """
    held = [np.zeros(0, dtype=np.int64)]
    for name in sorted(set(labels.tolist())):
        of_type = np.flatnonzero(labels == name)
        n = min(max(round(share * len(of_type)), 1), len(of_type) - 1)
        held.append(rng.permutation(of_type)[:n])
    held_rows = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_rows), held_rows
