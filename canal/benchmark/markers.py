"""Marker genes: a CSV of type and gene, for methods that know types by their markers and by no cells."""

from pathlib import Path

from canal.data.label_map import HEADERS, rows_of_csv
from canal.errors import DataError

TITLES = HEADERS | {"type", "cell.type"}


def read_markers(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a marker table: type and gene, one marker a row; a header is optional.

    Raises
    ------
    DataError
        If the file is missing or a row has not two columns.
    """
    if not path.is_file():
        message = f"There is no marker table {path}. Expected a CSV file with two columns: cell type, gene."
        raise DataError(message)
    markers: dict[str, list[str]] = {}
    for number, row in rows_of_csv(path, TITLES):
        if len(row) != 2 or not all(row):
            message = f"{path}, line {number}: expected two columns, cell type and gene; found {row}."
            raise DataError(message)
        markers.setdefault(row[0], []).append(row[1].upper())
    if not markers:
        message = f"The marker table {path} is empty. Expected rows of two columns: cell type, gene."
        raise DataError(message)
    return {name: tuple(dict.fromkeys(genes)) for name, genes in markers.items()}
