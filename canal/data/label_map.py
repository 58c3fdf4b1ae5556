"""A lab's own names for cell types, mapped to ours by a CSV file of two columns."""

import csv
from pathlib import Path

from canal.errors import DataError

HEADERS = frozenset(
    {
        "their",
        "theirs",
        "their name",
        "their_name",
        "their label",
        "their_label",
        "from",
        "old",
        "source",
        "original",
    }
    | {"label", "labels", "cell_type", "cell type", "celltype", "name", "author"}
)


def read_label_map(path: Path) -> dict[str, str]:
    """Read a label map: their name, our name; a header is optional; ``.tsv`` is split at tabs.

    Raises
    ------
    DataError
        If the file is missing, a row has not two columns, or one name is mapped to two.
    """
    path = Path(path)
    if not path.is_file():
        message = f"There is no label map {path}. Expected a CSV file with two columns: their name, our name."
        raise DataError(message)
    mapped: dict[str, str] = {}
    for number, row in rows_of_csv(path):
        if len(row) != 2 or not row[0]:
            message = (
                f"{path}, line {number}: found {len(row)} columns ({', '.join(map(repr, row))}), "
                "expected two: their name, our name. Put names that hold a comma in double quotes."
            )
            raise DataError(message)
        theirs, ours = row
        if mapped.setdefault(theirs, ours) != ours:
            message = (
                f"{path}, line {number}: {theirs!r} is mapped to {ours!r} and, further up, to "
                f"{mapped[theirs]!r}. Keep one of the two rows."
            )
            raise DataError(message)
    if not mapped:
        message = f"The label map {path} is empty. Expected rows of two columns: their name, our name."
        raise DataError(message)
    return mapped


def rows_of_csv(path: Path, headers: frozenset[str] = HEADERS) -> list[tuple[int, list[str]]]:
    """Return line number and values of every row that is not empty, without a header; ``.tsv`` is split at tabs.

    Raises
    ------
    DataError
        If the file is no CSV text.
    """
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte-order mark
            reader = csv.reader(file, delimiter=delimiter)
            rows = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{path} is not a CSV text in UTF-8 ({error}). Save it as CSV (UTF-8)."
        raise DataError(message) from error
    rows = [(number, row) for number, row in rows if any(row)]
    if rows and rows[0][1][0].lower().replace("-", " ") in headers:
        return rows[1:]
    return rows
