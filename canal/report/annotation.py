"""What the model said of some cells, and how it is written beside the cells themselves."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.errors import ConfigError, DataError
from canal.files import write_file_whole
from canal.text import csv_text, shown

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


KEY = "canal"
TARGETS = (".h5ad", ".csv")
MOST_SHOWN = 12  # types that are listed where an annotation is printed


@dataclass(frozen=True, kw_only=True, repr=False)
class Annotation:
    """The answer for some cells.

    Attributes
    ----------
    cell_names
        Names of the cells in the order of their file, of shape (cells,).
    cell_type
        Type of each cell, of shape (cells,).
    confidence
        Probability of that type, in [0, 1], of shape (cells,).
    representation
        Position of each cell, float32 of shape (cells, D).
    facts
        Model, stage, digest and gene overlap; plain values.
    columns
        Further columns by name, each of shape (cells,), such as the answer before majority voting.
    probabilities
        Of every type of the model, float32 of shape (cells, types), where they were asked for; the facts name the types
        in order, as ``probability_types``.
    """

    cell_names: np.ndarray
    cell_type: np.ndarray
    confidence: np.ndarray
    representation: np.ndarray
    facts: Mapping[str, Any]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    probabilities: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.cell_names)
        parts = {"cell_type": self.cell_type, "confidence": self.confidence, **self.columns}
        for name, values in parts.items():
            assert values.shape == (n,), (name, values.shape, n)
        assert self.representation.shape[:1] == (n,), (self.representation.shape, n)
        if self.probabilities is not None:
            expected = (n, len(self.facts["probability_types"]))
            assert self.probabilities.shape == expected, (self.probabilities.shape, expected)

    def __len__(self) -> int:
        return len(self.cell_names)

    def __repr__(self) -> str:
        """Return a few lines: how many cells of which types, and what to do next."""
        made_by = f"{self.facts.get('model', 'canal')}, stage {self.facts.get('stage', '?')}"
        facts = [f"Annotation of {len(self)} cells by {made_by}"]
        facts += [f"  {name}: {cells}" for name, cells in self._commonest()]
        if self.facts.get("sanity"):
            facts.append(f"  {self.facts['sanity']}")
        facts.append("to_frame(), to_adata(adata), cell_type, confidence, columns, facts")
        return shown("\n".join(facts))

    def _repr_html_(self) -> str:
        """Return a small table for notebooks: the types, their cells and mean confidence."""
        from html import escape

        rows = []
        for name, cells in self._commonest():
            rows.append(f"<tr><td>{escape(name)}</td><td>{cells}</td></tr>")
        made_by = escape(f"{self.facts.get('model', 'canal')}, stage {self.facts.get('stage', '?')}")
        title = f"{len(self)} cells, {made_by}"
        sanity = escape(str(self.facts.get("sanity", "")))
        head = "<thead><tr><th>cell type</th><th>cells</th></tr></thead>"
        return f"<p>{title}</p><table>{head}<tbody>{''.join(rows)}</tbody></table><p>{sanity}</p>"

    def _commonest(self) -> list[tuple[str, int]]:
        """Return the commonest types and their numbers of cells, and the rest as one line."""
        counts = Counter(self.cell_type.tolist()).most_common()
        shown = [(str(name), cells) for name, cells in counts[:MOST_SHOWN]]
        if len(counts) > MOST_SHOWN:
            others = sum(cells for _, cells in counts[MOST_SHOWN:])
            shown.append((f"{len(counts) - MOST_SHOWN} other types", others))
        return shown

    def to_frame(self) -> "pd.DataFrame":
        """Return a table with one row a cell.

        Its columns are ``cell_type`` (categorical), ``confidence`` (float32) and the further ones.
        """
        import pandas as pd

        frame = pd.DataFrame(index=pd.Index(self.cell_names.astype(object), name="cell"))
        frame["cell_type"] = pd.Categorical(self.cell_type.astype(object))
        frame["confidence"] = self.confidence.astype(np.float32)
        for name, values in self.columns.items():
            text = values.dtype.kind in "OUS"
            frame[name] = pd.Categorical(values.astype(object)) if text else values
        return frame

    def to_probabilities(self) -> "pd.DataFrame":
        """Return the probability of every type of the model, a column each and one row a cell.

        Raises
        ------
        ConfigError
            If the probabilities were not asked for.
        """
        import pandas as pd

        if self.probabilities is None:
            message = (
                "The annotation holds the probabilities of the best two types only. Annotate with scores='all' "
                "(--scores all) to have those of every type."
            )
            raise ConfigError(message)
        index = pd.Index(self.cell_names.astype(object), name="cell")
        return pd.DataFrame(np.asarray(self.probabilities), index=index, columns=list(self.facts["probability_types"]))

    def matrices(self, key: str = KEY) -> dict[str, np.ndarray]:
        """Return what is stored in ``obsm``, by name."""
        from canal.report.h5ad import probability_place

        stored = {f"X_{key}": self.representation}
        if self.probabilities is not None:
            stored[probability_place(key)] = self.probabilities
        return stored

    def to_adata(self, adata: "ad.AnnData", *, key: str = KEY, copy: bool = True) -> "ad.AnnData":
        """Add the answer to the AnnData that was annotated.

        Parameters
        ----------
        adata
            The cells, in the same order.
        key
            Begins every name that is added: ``obs[key_cell_type]``, ``obs[key_confidence]``,
            ``obsm[X_key]``, ``uns[key]``; with all probabilities ``obsm[key_probabilities]``.
        copy
            Return a copy and leave ``adata`` as it is.

        Raises
        ------
        DataError
            If these are other cells, or a name is taken by something that canal did not write.
        """
        if not np.array_equal(adata.obs_names.to_numpy(str), self.cell_names.astype(str)):
            message = (
                f"The annotation is of {len(self)} cells; the AnnData has {adata.n_obs}, or other "
                "names or another order. Give the AnnData that was annotated."
            )
            raise DataError(message)
        frame = self.to_frame()
        from canal.report.h5ad import check_names_free, columns_left, probability_place, storable
        from canal.report.written import stored_name

        check_names_free(frame.columns, key, obs=adata.obs.columns, obsm=adata.obsm, uns=adata.uns)
        adata = adata.copy() if copy else adata
        # What an earlier answer had and this one has not does not belong to it.
        for name in columns_left(adata.obs.columns, key, frame.columns, adata.uns):
            del adata.obs[name]
        for name in frame.columns:
            adata.obs[stored_name(key, name)] = frame[name].array
        # Probabilities of an earlier answer do not belong to this one.
        if probability_place(key) in adata.obsm:
            del adata.obsm[probability_place(key)]
        for name, matrix in self.matrices(key).items():
            adata.obsm[name] = np.asarray(matrix)  # anndata writes no mapped array
        adata.uns[key] = storable(self.facts)
        return adata


def check_key(key: str) -> str:
    """Return what begins the names that are added, if a file can hold such names.

    Raises
    ------
    ConfigError
        If it is empty, or holds a slash, which parts folders in an h5ad file.
    """
    if isinstance(key, str) and key.strip() and not set(key) & {"/", "\0"}:
        return key
    message = (
        f"The names that are added cannot begin with {key!r}: h5ad files have no names with a slash, and none that are "
        "empty. Choose another --key-added, such as canal."
    )
    raise ConfigError(message)


def check_target(out: Path, *, overwrite: bool = True) -> Path:
    """Return where an annotation is to be written, if it can be.

    Parameters
    ----------
    out
        The file to write.
    overwrite
        Whether it may be there already.

    Raises
    ------
    DataError
        If the ending is none of ours, there is no such folder, or the file is there and must not be replaced.
    """
    out = Path(out)
    if out.suffix not in TARGETS:
        message = f"{out} does not end in .h5ad or .csv, and an annotation is one of these."
    elif not out.parent.is_dir():
        message = f"There is no folder {out.parent} for {out.name}. Make it, or name another."
    elif out.is_dir():
        message = f"{out} is a folder; the annotation is one file. Name a file."
    elif out.exists() and not overwrite:
        message = f"{out} is there already. Name another file, or replace it with --overwrite."
    else:
        return out
    raise DataError(message)


def write_annotation(source: "Path | str | ad.AnnData", annotation: Annotation, out: Path, key: str = KEY) -> None:
    """Write an annotation as the ending of ``out`` says: a copy of the cells with it, or a CSV.

    Raises
    ------
    DataError
        As `check_target` and `write_h5ad`.
    """
    if check_target(out).suffix == ".csv":
        write_csv(annotation, out)
    else:
        write_h5ad(source, annotation, out, key)


def write_csv(annotation: Annotation, out: Path) -> None:
    """Write the columns ``cell``, ``cell_type``, ``confidence`` and any further ones.

    With all probabilities, a column ``probability_TYPE`` for each type of the model stands behind them.
    """
    frame = annotation.to_frame()
    if annotation.probabilities is not None:
        frame = frame.join(annotation.to_probabilities().add_prefix("probability_").set_axis(frame.index))
    write_file_whole(Path(out), spreadsheet_frame(frame).to_csv)


def spreadsheet_frame(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table whose texts, names of rows among them, no spreadsheet takes for formulas; see `csv_text`."""
    safe = frame.copy(deep=False)
    for name in frame.columns:
        values = frame[name]
        if values.dtype.name == "category":
            safe[name] = values.cat.rename_categories(csv_text)
        elif values.dtype.kind == "O":
            safe[name] = [csv_text(value) if isinstance(value, str) else value for value in values]
    # Last: columns are put in by the names of their rows.
    if frame.index.dtype.kind == "O":
        safe.index = frame.index.map(csv_text)
    return safe


def write_h5ad(source: "Path | str | ad.AnnData", annotation: Annotation, out: Path, key: str = KEY) -> None:
    """Write the cells with their annotation as h5ad.

    An h5ad file is copied byte for byte and added to, a zarr store element by element, so that nothing of it is lost
    and memory stays flat whatever its size; anything else is written by AnnData.

    Parameters
    ----------
    source
        The file or AnnData that was annotated.
    annotation
        The answer for all its cells, in its order.
    out
        The file to write; it is there whole or not at all, and may be the source itself.
    key
        Begins every name that is added.

    Raises
    ------
    DataError
        If a name is taken by something that canal did not write, or the file cannot be written.
    """
    from canal.report.h5ad import copier, copy_and_add

    copy = copier(Path(source)) if isinstance(source, str | Path) else None
    if copy is not None:
        add = partial(
            copy_and_add,
            copy,
            columns=annotation.to_frame(),
            matrices=annotation.matrices(key),
            facts=annotation.facts,
            key=key,
        )
        write_file_whole(Path(out), add)
        return
    annotated = _annotated(source, annotation, key)
    write_file_whole(Path(out), partial(_write_annotated, annotated, annotation, key))


def _write_annotated(annotated: "ad.AnnData", annotation: Annotation, key: str, target: Path) -> None:
    """Write cells with their annotation, and read both back."""
    import h5py

    from canal.report.h5ad import storable, write_adata
    from canal.report.written import check_added, hdf5_errors

    write_adata(annotated, target)
    with hdf5_errors(), h5py.File(target, "r") as file:
        check_added(file, annotation.to_frame(), annotation.matrices(key), storable(annotation.facts), key)


def _annotated(source: "Path | str | ad.AnnData", annotation: Annotation, key: str) -> "ad.AnnData":
    from canal.data.formats import read_adata

    if isinstance(source, str | Path):
        return annotation.to_adata(read_adata(source), key=key, copy=False)
    return annotation.to_adata(source, key=key)
