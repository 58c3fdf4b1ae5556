"""The cells a stage is tested on, now and by every later stage: a reference to a file, never the cells themselves.

The reference holds path, rows, reading options and a digest of exactly these cells. Reading it later gives the same
cells or an error that says why not.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from canal.data.cells import Cells
from canal.data.formats import open_file
from canal.data.labels import LabelOptions, TakenLabels, take_labels
from canal.data.reading_rules import NEWEST, ReadingRules
from canal.data.stream import CellStream, collect
from canal.errors import DataError
from canal.seeds import numpy_generator

# Every later stage is tested on these cells again, so that their number bounds the time that adding a stage takes.
MOST_HELD_OUT_CELLS = 2000  # of the share of its own cells that a stage held out
MOST_TEST_FILE_CELLS = 10_000  # of a file that was given with --test


class ReadingOptions(BaseModel):
    """How labels and genes of a file of test cells are read; part of ``tests.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: str
    label_map: str | dict[str, str] | None = None
    gene_key: str | None = None
    drop_labels: tuple[str, ...] = ()
    keep_labels: tuple[str, ...] = ()

    def label_options(self, *, rules: ReadingRules = NEWEST) -> LabelOptions:
        """Return the options for reading labels; types with a single cell are kept, as nothing is trained on them.

        Parameters
        ----------
        rules
            By the first, every label is a type.
        """
        label_map = Path(self.label_map) if isinstance(self.label_map, str) else self.label_map
        first_rules = rules == ReadingRules.FIRST or "keep_labels" not in self.model_fields_set
        keep = ("*",) if first_rules else self.keep_labels
        return LabelOptions(column=self.labels, label_map=label_map, drop=self.drop_labels, keep=keep, keep_rare=True)

    @model_serializer(mode="wrap")
    def _as_first_version(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write what reads as the first version did as that wrote it, so that an old stage is replayed bit for bit."""
        values: dict[str, Any] = serialize(self)
        if "keep_labels" not in self.model_fields_set:
            del values["keep_labels"], values["drop_labels"]
        return values


class HeldOutReference(BaseModel):
    """A reference to the cells a stage is tested on; part of ``tests.json``.

    Attributes
    ----------
    kind
        ``"share"`` of the stage's own cells, a ``"file"`` given with ``--test``, or ``"memory"``: a share of cells that
        were in no file.
    path
        Absolute path of the file, ``""`` for cells in memory.
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


def read_held_out(reference: HeldOutReference) -> Cells:
    """Read the cells of a reference.

    Raises
    ------
    DataError
        If they were in no file, or the file is gone, cannot be read or holds other cells now.
    """
    if reference.kind == "memory":
        message = "The cells were given in memory and stand in no file."
        raise DataError(message)
    digests = []
    for rules in sorted(ReadingRules, reverse=True):
        # A reference of an older record holds the cells as they were read then.
        cells = _read_rows(Path(reference.path), reference.options, reference.rows, rules=rules)
        digests.append(cells.report.digest)
        if digests[-1] == reference.digest:
            return cells
    message = f"{reference.path} was changed: expected cells with {reference.digest}, found {digests[0]}."
    raise DataError(message)


def reference_to_file(
    path: Path, options: ReadingOptions, rules: ReadingRules = NEWEST
) -> tuple[HeldOutReference, Cells]:
    """Choose test cells among the labelled cells of a file, `MOST_TEST_FILE_CELLS` of them at most.

    Returns
    -------
    The reference to the cells, and the cells.

    Raises
    ------
    DataError
        If the file cannot be used, or has no label.
    """
    # 1. Which rows: chosen by the labels alone, before any expression is read.
    with open_file(path) as source:
        labels = take_labels(source.obs, options.label_options(rules=rules), str(path)).labels
    labelled = np.flatnonzero(labels != "")
    chosen = chosen_rows(labels[labelled], MOST_TEST_FILE_CELLS)
    rows = None if len(chosen) == len(labelled) else tuple(labelled[chosen].tolist())
    # 2. Read as every later stage will read them, so that the digest is the same.
    cells = _read_rows(path, options, rows, rules=rules)
    reference = HeldOutReference(
        kind="file",
        path=str(path.absolute()),
        digest=cells.report.digest,
        rows=rows,
        cells=len(cells),
        options=options,
    )
    return reference, cells


def reference_to_share(
    path: Path | None, options: ReadingOptions, cells: Cells, rows: np.ndarray, in_bank: np.ndarray
) -> tuple[HeldOutReference, Cells]:
    """Choose test cells among the cells that a stage held out, `MOST_HELD_OUT_CELLS` of them at most.

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
        Positions of the held-out cells among them, (held out,).
    in_bank
        Whether each of these is in the bank, bool (held out,).

    Returns
    -------
    The reference to the cells, and the cells.
    """
    assert cells.labels is not None
    # 1. Which of the held-out cells.
    labels = cells.labels[rows]
    candidates = _outside_bank(labels, in_bank)
    chosen = candidates[chosen_rows(labels[candidates], MOST_HELD_OUT_CELLS)]
    test_cells = cells.take(rows[chosen])
    # 2. How to get them again.
    if path is None:
        # There is no file to read them from: the digest is that of all of the stage's cells.
        file, digest, file_rows = "", cells.report.digest, rows[chosen]
    else:
        assert cells.rows is not None
        file, digest, file_rows = str(path.absolute()), test_cells.digest(), cells.rows[rows[chosen]]
    reference = HeldOutReference(
        kind="memory" if path is None else "share",
        path=file,
        digest=digest,
        rows=tuple(file_rows.tolist()),
        cells=len(chosen),
        in_bank=int(in_bank[chosen].sum()),
        options=options,
    )
    return reference, test_cells


def chosen_rows(labels: np.ndarray, most: int) -> np.ndarray:
    """Return ascending positions of about ``most`` cells, the same share of every type and one cell at least."""
    share = min(1.0, most / max(len(labels), 1))
    # A fixed seed, not the stage's: the same cells give the same choice.
    draw = numpy_generator(0, "held-out cells")
    chosen = []
    for name in sorted(set(labels.tolist())):
        positions = np.flatnonzero(labels == name)
        chosen.append(draw.permutation(positions)[: max(1, int(share * len(positions)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def _outside_bank(labels: np.ndarray, in_bank: np.ndarray) -> np.ndarray:
    """Return the positions of cells outside the bank, and all cells of a type that has none outside."""
    has_cells_outside = np.isin(labels, list(set(labels[~in_bank].tolist())))
    return np.flatnonzero(~in_bank | ~has_cells_outside)


def _read_rows(
    path: Path, options: ReadingOptions, rows: tuple[int, ...] | None, *, rules: ReadingRules = NEWEST
) -> Cells:
    """Read labelled cells of a file, all of them or those of some rows, ascending.

    The file passes by blocks; only the wanted cells are normalised, digested and kept. By the first rules labels,
    genes and matrix are chosen as the first version did; see `ReadingRules`.
    """
    with open_file(path) as source:
        labels = take_labels(source.obs, options.label_options(rules=rules), str(path))
        if rows is not None:
            n = len(labels.labels)
            if rows and rows[-1] >= n:
                message = f"{path} was changed: expected row {rows[-1]}, found {n} cells."
                raise DataError(message)
            # Cells without a label do not pass: so the others are left out.
            wanted = np.isin(np.arange(n), rows)
            labels = TakenLabels(labels=np.where(wanted, labels.labels, ""), unlabelled=0)
        stream = CellStream(source, gene_key=options.gene_key, taken=labels, keep_unlabelled=False, rules=rules)
        return collect(stream)
