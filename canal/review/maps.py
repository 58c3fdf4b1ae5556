"""Where the cells lie on the map, and by what they are coloured: arrays that a page takes as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canal.errors import DataError
from canal.review.expression import Expression
from canal.review.values import Colour, MapPoints
from canal.seeds import derived_seed
from canal.stages.clusters import principal_components, umap_coordinates

# Cells above which no UMAP is computed. Of cells with 850 expressed genes, 10,000 take 64 s and 0.7 GB, 20,000 take 90
# s and 1.1 GB, 40,000 take 112 s and 1.8 GB (two cores that others use, too; imports and compiling are half a minute).
# The exact neighbours grow with the square of the number.
MOST_UMAP = 100_000
MOST_POINTS = 1_000_000  # cells that a page can draw
MOST_CATEGORIES = 65_535  # of a column, as uint16 counts them

UMAP, PCA = "umap", "pca"


def check_size(cells: int, source: str) -> None:
    """Refuse more cells than a page can draw.

    Raises
    ------
    DataError
        If there are.
    """
    if cells > MOST_POINTS:
        message = (
            f"{source} has {cells} cells; a review shows {MOST_POINTS} at most. Review a part of them: one donor, one "
            "tissue, or the result of `canal novel find`, which holds the novel cells alone."
        )
        raise DataError(message)


def scaled(coordinates: np.ndarray) -> np.ndarray:
    """Return coordinates, (cells, 2), float32 within -1 ... 1 on both axes, with their proportions."""
    points = np.asarray(coordinates, dtype=np.float64)
    if not len(points):
        return np.zeros((0, 2), dtype=np.float32)
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(float((high - low).max()) / 2, 1e-12)
    return np.ascontiguousarray((points - (low + high) / 2) / half, dtype=np.float32)


def stored_bases(obsm: Any) -> list[str]:
    """Return the names in an open ``obsm`` that hold at least two numbers a cell."""
    names = []
    for name in obsm:
        element = obsm[name]
        if (
            hasattr(element, "shape")
            and len(element.shape) == 2
            and element.shape[1] >= 2
            and element.dtype.kind == "f"
        ):
            names.append(str(name))
    return sorted(names)


def stored_points(obsm: Any, name: str, cells: int, source: str) -> MapPoints:
    """Return the coordinates that stand in a file.

    Parameters
    ----------
    obsm
        Of the open file.
    name
        Of the coordinates.
    cells, source
        Number of cells, and the file for messages.

    Raises
    ------
    DataError
        If they are not there, are not of these cells, or are no numbers.
    """
    known = stored_bases(obsm)
    if name not in known:
        message = (
            f"{source} has no obsm[{name!r}] with two numbers a cell. It has {', '.join(known) or 'none'}. Name one of "
            "these, or leave it out to have a map computed."
        )
        raise DataError(message)
    points = np.asarray(obsm[name][:, :2], dtype=np.float64)
    if len(points) != cells or not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).any(axis=1).sum())
        message = (
            f"{source}: obsm[{name!r}] has {len(points)} rows, {bad} of them without a finite number; expected one "
            f"position for each of the {cells} cells. Compute it anew, or name another."
        )
        raise DataError(message)
    note = f"obsm[{name!r}] of the file" + ("" if obsm[name].shape[1] == 2 else ", its first two coordinates")
    return MapPoints(coordinates=scaled(points), basis=name, note=f"{note}.")


def computed_points(expression: Expression, representation: np.ndarray, seed: int, kept: Path) -> MapPoints:
    """Return a UMAP of the cells, or principal components where they are too many; computed once.

    Parameters
    ----------
    expression
        The cells.
    representation
        Of the cells by the model, (cells, D).
    seed
        Of the stage.
    kept
        Folder to keep the coordinates in.
    """
    cells = len(representation)
    small = cells <= MOST_UMAP
    basis = UMAP if small else PCA
    file = kept / f"map-{basis}.npy"
    if file.is_file() and (stored := np.load(file)).shape == (cells, 2):
        points = stored
    else:
        if small:
            # As `canal novel find` draws its map: principal components of variable genes, then UMAP.
            use = derived_seed(seed, "review")
            matrix = expression.all_cells()
            components = principal_components(matrix, use) if cells > 1 else np.zeros((cells, 1), np.float32)
            points = scaled(umap_coordinates(components, use))
        else:
            points = scaled(_leading_components(representation))
        np.save(file, points)
    if small:
        note = "A UMAP of the variable genes, computed here: the file has no X_umap."
    else:
        note = (
            f"Two principal components of the model's representation: the file has no X_umap, and of {cells} cells "
            f"(more than {MOST_UMAP}) none is computed here. Types lie over each other; add X_umap to the file for a "
            "map that parts them."
        )
    return MapPoints(coordinates=np.ascontiguousarray(points, dtype=np.float32), basis=basis, note=note)


def _leading_components(representation: np.ndarray) -> np.ndarray:
    """Return the two leading principal components of points, (cells, D); D x D is all that is decomposed."""
    centre = representation.mean(axis=0, dtype=np.float64)
    points = np.asarray(representation, dtype=np.float32) - centre.astype(np.float32)
    _, vectors = np.linalg.eigh((points.T @ points).astype(np.float64))
    leading = vectors[:, ::-1][:, :2]
    # Of a direction and its opposite, the one whose largest part is positive: the same map on each machine.
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), range(leading.shape[1])])
    flat = points @ leading.astype(np.float32)
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def category_colour(values: np.ndarray, title: str, order: Sequence[str] | None = None) -> Colour:
    """Return categories as positions in their names.

    Parameters
    ----------
    values
        Name of each cell's category, text (cells,); ``""`` where it has none.
    title
        What is shown.
    order
        Names in the order in which they are to stand; by size by default. ``""`` is always last.

    Raises
    ------
    DataError
        If there are more categories than can be shown.
    """
    import pandas as pd

    codes, categories = pd.factorize(values)
    names = [str(name) for name in categories]
    if len(names) > MOST_CATEGORIES:
        message = f"{title} has {len(names)} values; expected {MOST_CATEGORIES} at most. Choose another column."
        raise DataError(message)
    cells = np.bincount(codes, minlength=len(names))
    if order is None:
        wanted = sorted(range(len(names)), key=lambda k: (-cells[k], names[k]))
    else:
        rank = {name: place for place, name in enumerate(order)}
        wanted = sorted(range(len(names)), key=lambda k: (rank.get(names[k], len(rank)), names[k]))
    wanted.sort(key=lambda k: names[k] == "")
    place = np.empty(max(len(names), 1), dtype=np.uint16)
    place[wanted] = np.arange(len(names), dtype=np.uint16)
    listed = tuple(names[k] for k in wanted)
    return Colour(kind="category", values=np.ascontiguousarray(place[codes]), title=title, names=listed)


def number_colour(values: np.ndarray, title: str) -> Colour:
    """Return numbers, (cells,), with the range of those that are finite."""
    numbers = np.array(values, dtype=np.float32, order="C")
    finite = numbers[np.isfinite(numbers)]
    numbers[~np.isfinite(numbers)] = np.nan
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    return Colour(kind="number", values=numbers, title=title, low=low, high=high)
