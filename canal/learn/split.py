"""Training and validation cells."""

import numpy as np


def stratified_split(labels: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split cells so that every type has its share held out.

    Parameters
    ----------
    labels
        Anything that tells types apart, of shape (cells,).
    share
        Share of each type that is held out, rounded to the nearest cell; a type with two cells or more keeps at least
        one cell on each side.
    rng
        Draws the cells.

    Returns
    -------
    Ascending positions of the training and of the held-out cells.
    """
    held: list[np.ndarray] = []
    for name in sorted(set(labels.tolist())):
        of_type = np.flatnonzero(labels == name)
        n = min(max(round(share * len(of_type)), 1), len(of_type) - 1)
        held.append(rng.permutation(of_type)[:n])
    held_rows = np.sort(np.concatenate(held)) if held else np.zeros(0, dtype=np.int64)
    return np.setdiff1d(np.arange(len(labels)), held_rows), held_rows
