"""Where the cells lie on the map, and by what they are coloured: arrays that a page takes as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.errors import DataError
from canal.progress import Progress
from canal.review.expression import Expression
from canal.review.values import Colour, MapPoints
from canal.seeds import derived_seed, numpy_generator
from canal.stages.clusters import components_of, umap_coordinates

# Cells above which no UMAP is computed: all of them are in memory for it, 0.8 GB for 100,000 of 1,000 expressed genes.
MOST_UMAP = 100_000
# Cells above which a sample is laid out, and the others are placed beside the sampled cells that they are nearest to.
# Of 100,000 cells the layout of all takes three minutes of a core, that of the sample a quarter of a minute.
MOST_LAID_OUT = 20_000
PLACED_BY = 3  # sampled cells that another cell stands between
PLACED_AT_ONCE = 4_000  # cells
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


def computed_basis(cells: int) -> str:
    """Return what is computed of so many cells: ``"umap"``, or ``"pca"`` where they are too many."""
    return UMAP if cells <= MOST_UMAP else PCA


def computed_note(cells: int) -> str:
    """Return a sentence on the map that is computed of so many cells."""
    if cells > MOST_UMAP:
        return (
            f"Two principal components of the model's representation: the file has no X_umap, and of {cells} cells "
            f"(more than {MOST_UMAP}) none is computed here. Types lie over each other; add X_umap to the file for a "
            "map that parts them."
        )
    if cells > MOST_LAID_OUT:
        return (
            f"A UMAP of the variable genes, computed here of {MOST_LAID_OUT} cells that stand for all: the file has no "
            "X_umap. Each other cell stands between those of them that it is nearest to."
        )
    return "A UMAP of the variable genes, computed here: the file has no X_umap."


def computed_points(
    expression: Expression, representation: np.ndarray, seed: int, kept: Path, progress: Progress
) -> MapPoints:
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
    progress
        Told about every step.

    Raises
    ------
    DataError
        If they cannot be kept.
    """
    cells = len(representation)
    basis = computed_basis(cells)
    file = kept / f"map-{basis}.npy"
    if file.is_file() and (stored := np.load(file)).shape == (cells, 2):
        points = stored
    else:
        if basis == UMAP:
            points = scaled(_umap(expression, cells, derived_seed(seed, "review"), progress))
        else:
            points = scaled(_leading_components(representation))
        try:
            np.save(file, points)
        except OSError as error:
            message = f"{file} cannot be written: {error.strerror}. Check the free space and your rights there."
            raise DataError(message) from error
    points = np.ascontiguousarray(points, dtype=np.float32)
    return MapPoints(coordinates=points, basis=basis, note=computed_note(cells))


def _umap(expression: Expression, cells: int, seed: int, progress: Progress) -> np.ndarray:
    """Return the coordinates, (cells, 2), as `canal novel find` draws its map: components of variable genes, UMAP."""
    if cells < 2:
        return np.zeros((cells, 2))
    # Of the whole time reading takes a tenth, the components three tenths, the layout half of it.
    progress.start(10, "drawing the map")
    blocks = expression.blocks()
    progress.advance(1)
    # 1. The cells that are laid out: all, or a sample.
    rows = np.arange(cells)
    if cells > MOST_LAID_OUT:
        rows = np.sort(numpy_generator(seed, "laid out").choice(cells, MOST_LAID_OUT, replace=False))
    sampled, start = [], 0
    for block in blocks:
        inside = rows[(rows >= start) & (rows < start + block.shape[0])]
        sampled.append(block[inside - start])
        start += block.shape[0]
    points, components = components_of(sp.vstack(sampled, format="csr"), seed)
    progress.advance(3)
    layout = umap_coordinates(points, seed)
    progress.advance(5)
    # 2. The others stand between the nearest of them.
    if len(rows) < cells:
        everywhere = np.concatenate([components.of(block) for block in blocks])
        layout = placed(layout, points, rows, everywhere)
    progress.advance(1)
    progress.close()
    return layout


def placed(layout: np.ndarray, points: np.ndarray, rows: np.ndarray, everywhere: np.ndarray) -> np.ndarray:
    """Return where all cells stand, (cells, 2), given where some of them do.

    Parameters
    ----------
    layout, points
        Coordinates on the map, (m, 2), and in the space of the components, (m, d), of those that were laid out.
    rows
        Their positions among all cells, ascending, (m,).
    everywhere
        All cells in the space of the components, (cells, d).
    """
    from sklearn.neighbors import NearestNeighbors

    result = np.empty((len(everywhere), 2))
    result[rows] = layout
    others = np.setdiff1d(np.arange(len(everywhere)), rows, assume_unique=True)
    index: Any = NearestNeighbors(n_neighbors=min(PLACED_BY, len(rows)), algorithm="brute").fit(points)
    for start in range(0, len(others), PLACED_AT_ONCE):
        part = others[start : start + PLACED_AT_ONCE]
        distances, nearest = index.kneighbors(everywhere[part])
        # The nearest weighs most, so that a cell between two types stands with one of them.
        distances = np.maximum(distances, 1e-12)
        weights = (distances[:, :1] / distances) ** 4
        weights /= weights.sum(axis=1, keepdims=True)
        result[part] = (weights[:, :, None] * layout[nearest]).sum(axis=1)
    return result


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
