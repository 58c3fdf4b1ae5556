"""SOMA experiments on this machine (TileDB-SOMA), whole or the cells that a filter chooses.

An experiment is read into memory, as 10x files are: its obs, the genes and matrices of one measurement, and those of
the measurement ``raw`` where there is one, under the names that `tiledbsoma.io.from_h5ad` gives them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.data.source import CellSource, from_adata
from canal.errors import ConfigError, DataError

if TYPE_CHECKING:
    import anndata as ad

MARKS = ("__tiledb_group.tdb", "__group")  # what a folder of TileDB holds
MAIN, RAW = "RNA", "raw"
# Layers by the names of `from_h5ad` and of CELLxGENE's Census, and where AnnData has them.
IN_X, IN_COUNTS = "data", "raw"
COUNTS = "counts"


def is_soma(path: Path) -> bool:
    """Tell whether a folder is one of TileDB."""
    return path.is_dir() and any((path / mark).exists() for mark in MARKS)


def open_soma(path: Path) -> CellSource:
    """Read an experiment as a source of cells; its matrices are held in memory.

    Raises
    ------
    DataError
        As `read_soma`.
    """
    return from_adata(read_soma(path), str(path))


def chosen_cells(data: "str | Path | ad.AnnData", where: str | None) -> "str | Path | ad.AnnData":
    """Return the cells of an experiment that a filter chooses; what was given where there is no filter.

    Parameters
    ----------
    data
        Folder of an experiment.
    where
        Condition on columns of obs, such as ``tissue == 'blood' and n_genes > 500``.

    Raises
    ------
    ConfigError
        If the cells are in no experiment.
    DataError
        As `read_soma`.
    """
    if where is None:
        return data
    if not isinstance(data, str | Path) or not is_soma(Path(data)):
        shown = data if isinstance(data, str | Path) else "An AnnData"
        message = f"{shown} is no SOMA experiment; a filter chooses cells of one. Leave it out, or cut the file before."
        raise ConfigError(message)
    return read_soma(Path(data), where)


def read_soma(path: Path, where: str | None = None) -> "ad.AnnData":
    """Read the cells of an experiment.

    Parameters
    ----------
    path
        Its folder.
    where
        As for `chosen_cells`; all cells by default.

    Returns
    -------
    Cells in the order of the experiment. The layer ``data`` is `X`, the layer ``raw`` is ``layers["counts"]``.

    Raises
    ------
    DataError
        If tiledbsoma is not installed, the folder is no experiment, it holds no matrix, the filter is none, or it
        chooses no cell.
    """
    try:
        import tiledbsoma
    except ModuleNotFoundError as error:
        message = (
            f"{path} is a SOMA experiment, and reading one needs tiledbsoma, which is not installed. Install it with "
            "pip install 'canal[soma]', or write the experiment as .h5ad where it is: tiledbsoma.io.to_h5ad."
        )
        raise DataError(message) from error

    try:
        opened = tiledbsoma.Experiment.open(str(path))
    except (tiledbsoma.SOMAError, TypeError, KeyError) as error:
        message = f"{path} is a folder of TileDB and no SOMA experiment ({_first_line(error)}). Name the experiment."
        raise DataError(message) from error
    with opened as experiment:
        name = _measurement(experiment, path)
        cells = _read_measurement(experiment, path, name, where)
        # The matrix before genes were filtered, where the experiment has one.
        if RAW in experiment.ms and name != RAW and "X" in experiment.ms[RAW]:
            cells.raw = _read_measurement(experiment, path, RAW, where)
        _take_log_base(experiment.ms[name], cells)
    if cells.n_obs == 0:
        message = f"{path} holds no cells. Expected some."
        if where is not None:
            message = f"{path}: the filter {where!r} chooses no cell. Expected cells; check the column and its values."
        raise DataError(message)
    return cells


def _measurement(experiment: Any, path: Path) -> str:
    """Return the name of the measurement that is read.

    Raises
    ------
    DataError
        If there is none, or several of which none is called RNA.
    """
    names = []
    if "ms" in experiment:
        names = sorted(str(name) for name in experiment.ms if name != RAW)
    if MAIN in names:
        return MAIN
    if len(names) == 1:
        return names[0]
    message = (
        f"{path} holds the measurements {', '.join(names) or 'none'}; expected {MAIN}, or one alone. Write the one you "
        "want as .h5ad: tiledbsoma.io.to_h5ad."
    )
    raise DataError(message)


def _read_measurement(experiment: Any, path: Path, name: str, where: str | None) -> "ad.AnnData":
    """Return the cells of one measurement with all of its layers."""
    import tiledbsoma

    measurement = experiment.ms[name]
    layers = list(measurement.X) if "X" in measurement else []
    if not layers:
        message = (
            f"{path}: the measurement {name} holds no matrix; expected counts in ms['{name}'].X. Write them there: "
            "tiledbsoma.io.from_h5ad."
        )
        raise DataError(message)
    # AnnData has one matrix as X: that of `from_h5ad`, else the first; the others are layers.
    main = IN_X if IN_X in layers else layers[0]
    others = [layer for layer in layers if layer != main]
    chosen = tiledbsoma.AxisQuery() if where is None else tiledbsoma.AxisQuery(value_filter=where)
    try:
        with experiment.axis_query(name, obs_query=chosen) as query:
            cells = query.to_anndata(X_name=main, X_layers=others)
    except (tiledbsoma.SOMAError, ValueError) as error:
        message = f"{path} cannot be read ({_first_line(error)}). It is damaged: copy it again or write it anew."
        if where is not None:
            message = (
                f"{path}: the filter {where!r} cannot be followed ({_first_line(error)}). Expected a condition on "
                "columns of obs, such as tissue == 'blood'."
            )
        raise DataError(message) from error
    cells.obs = cells.obs.drop(columns="soma_joinid", errors="ignore")
    cells.var = cells.var.drop(columns="soma_joinid", errors="ignore")
    # Counts where they are looked for.
    if IN_COUNTS in cells.layers and COUNTS not in cells.layers:
        cells.layers[COUNTS] = cells.layers.pop(IN_COUNTS)
    return cells


def _take_log_base(measurement: Any, cells: "ad.AnnData") -> None:
    """Keep the base of the logarithm that the file stated which the experiment was written from."""
    if "uns" in measurement and "log1p" in measurement["uns"]:
        cells.uns["log1p"] = {"base": measurement["uns"]["log1p"].metadata.get("base")}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
