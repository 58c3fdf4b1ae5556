"""What a stage is tested on: a reference to labelled cells in a file, never the cells themselves.

The reference holds path, rows, reading options and a digest of exactly these cells. Whoever reads them later gets the
same cells or an error that says why not.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from canal.data.cells import Cells
from canal.data.formats import open_file
from canal.data.labels import LabelOptions, TakenLabels, take_labels
from canal.data.stream import CellStream, collect
from canal.errors import DataError
from canal.seeds import numpy_generator

if TYPE_CHECKING:
    pass


MOST_HELD_OUT = 2000  # cells of a stage's own held-out share that later stages are tested on
MOST_FILE = 10_000  # cells of a file that was given with --test


class ReadingOptions(BaseModel):
    """How labels and genes of a file are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: str
    label_map: str | None = None
    gene_key: str | None = None

    def taken(self) -> LabelOptions:
        """Return how labels are taken for a test: also those of types with a single cell."""
        label_map = None if self.label_map is None else Path(self.label_map)
        return LabelOptions(column=self.labels, label_map=label_map, keep_rare=True)


class HeldOut(BaseModel):
    """A reference to the cells a stage is tested on.

    Attributes
    ----------
    kind
        ``"share"`` of the stage's own cells, a ``"file"`` of its own, or ``"memory"``: cells that were in no file.
    path
        Absolute path of the file.
    digest
        Of exactly these cells: values, genes, names and labels.
    rows
        Rows of the file, ascending; ``None`` for all that have a label.
    cells
        Number of cells.
    in_bank
        How many of them are in the stage's example bank, because their types have no others.
    options
        How the file is read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["share", "file", "memory"]
    path: str
    digest: str
    rows: tuple[int, ...] | None
    cells: int
    in_bank: int = 0
    options: ReadingOptions


def read_held_out(held: HeldOut) -> Cells:
    """Read the cells of a reference.

    Raises
    ------
    DataError
        If they were in no file, or the file is gone, cannot be read or holds other cells now.
    """
    if held.kind == "memory":
        message = "The cells were given in memory and stand in no file."
        raise DataError(message)
    cells = _read(Path(held.path), held.options, held.rows)
    if cells.report.digest != held.digest:
        message = f"{held.path} was changed: expected cells with {held.digest}, found {cells.report.digest}."
        raise DataError(message)
    return cells


def from_file(path: Path, options: ReadingOptions) -> tuple[HeldOut, Cells]:
    """Take the labelled cells of a file, `MOST_FILE` of them at most.

    Raises
    ------
    DataError
        If the file cannot be used, or has no label.
    """
    with open_file(path) as source:
        labels = take_labels(source.obs, options.taken(), str(path)).labels
    labelled = np.flatnonzero(labels != "")
    chosen = chosen_rows(labels[labelled], MOST_FILE)
    rows = None if len(chosen) == len(labelled) else tuple(labelled[chosen].tolist())
    cells = _read(path, options, rows)
    held = HeldOut(
        kind="file",
        path=str(path.absolute()),
        digest=cells.report.digest,
        rows=rows,
        cells=len(cells),
        options=options,
    )
    return held, cells


def from_share(
    path: Path | None, options: ReadingOptions, cells: Cells, rows: np.ndarray, in_bank: np.ndarray
) -> tuple[HeldOut, Cells]:
    """Take the cells of a stage that were held out, `MOST_HELD_OUT` of them at most.

    Cells that went into the example bank are left out, because later stages train on them; a type that has no others
    keeps them.

    Parameters
    ----------
    path
        The stage's file; ``None`` where its cells are in memory only.
    options
        How it was read.
    cells
        Labelled cells of the stage, which know their rows of the file.
    rows
        Those held out.
    in_bank
        Whether each of these is in the bank, bool (held out,).
    """
    assert cells.labels is not None
    labels = cells.labels[rows]
    kept = _outside(labels, in_bank)
    chosen = kept[chosen_rows(labels[kept], MOST_HELD_OUT)]
    held_cells = cells.take(rows[chosen])
    if path is None:
        # Nothing to read them from: the reference names the stage's cells as a whole.
        place, digest, file_rows = "", cells.report.digest, rows[chosen]
    else:
        assert cells.rows is not None
        place, digest, file_rows = str(path.absolute()), held_cells.digest(), cells.rows[rows[chosen]]
    held = HeldOut(
        kind="memory" if path is None else "share",
        path=place,
        digest=digest,
        rows=tuple(file_rows.tolist()),
        cells=len(chosen),
        in_bank=int(in_bank[chosen].sum()),
        options=options,
    )
    return held, held_cells


def chosen_rows(labels: np.ndarray, most: int) -> np.ndarray:
    """Return ascending positions of about ``most`` cells, the same share of every type and one cell at least."""
    share = min(1.0, most / max(len(labels), 1))
    draw = numpy_generator(0, "held-out cells")  # the same cells, the same choice
    chosen = []
    for name in sorted(set(labels.tolist())):
        of_type = np.flatnonzero(labels == name)
        chosen.append(draw.permutation(of_type)[: max(1, int(share * len(of_type)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def _outside(labels: np.ndarray, in_bank: np.ndarray) -> np.ndarray:
    """Return the positions of cells outside the bank, and all cells of a type that has none outside."""
    covered = np.isin(labels, list(set(labels[~in_bank].tolist())))
    return np.flatnonzero(~in_bank | ~covered)


def _read(path: Path, options: ReadingOptions, rows: tuple[int, ...] | None) -> Cells:
    """Read rows of a file: blocks pass through, and only the wanted cells are normalised, digested and kept."""
    with open_file(path) as source:
        taken = take_labels(source.obs, options.taken(), str(path))
        if rows is not None:
            if rows and rows[-1] >= len(taken.labels):
                message = f"{path} was changed: expected row {rows[-1]}, found {len(taken.labels)} cells."
                raise DataError(message)
            # A cell without a label does not pass.
            wanted = np.isin(np.arange(len(taken.labels)), rows)
            taken = TakenLabels(labels=np.where(wanted, taken.labels, ""), unlabelled=0)
        return collect(CellStream(source, gene_key=options.gene_key, taken=taken, keep_unlabelled=False))
