"""The folder of `canal novel find`: what is in it, and how it comes to be whole or not at all."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from canal.errors import DataError, StageError
from canal.report.novel_report import FORMAT, KIND, NovelReport

SUMMARY, NAMES, CELLS, NAMED = "novel.json", "names.csv", "novel.h5ad", "named.h5ad"
PAGE, MAP, DOTS = "index.html", "umap.png", "dotplot.png"
OURS = frozenset({SUMMARY, NAMES, CELLS, NAMED, PAGE, MAP, DOTS})
HEAD = ("cluster", "cells", "suggested name", "name")


def check_folder(out: Path) -> Path:
    """Return the folder if a result can be written there: new, empty, or with an earlier result that nobody named.

    Raises
    ------
    DataError
        If it is a file, its parent does not exist, or it holds anything else.
    StageError
        If the names of an earlier result would be lost.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - a link stays a link
    if out.exists() and not out.is_dir():
        message = f"{out} is a file; the result is a folder. Name a new folder with --out."
        raise DataError(message)
    if not out.parent.is_dir():
        message = f"There is no folder {out.parent} to make {out.name} in. Make it, or name another with --out."
        raise DataError(message)
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    strange = [name for name in found if name not in OURS]
    if strange or (found and SUMMARY not in found):
        message = (
            f"{out} is not empty and no earlier result of canal novel find: found {', '.join((strange or found)[:5])}. "
            "Name a new folder with --out."
        )
        raise DataError(message)
    if found and _has_names(out):
        message = f"{out} holds clusters that were named, which would be lost. Name a new folder with --out."
        raise StageError(message)
    return out


def write_folder(out: Path, report: NovelReport, files: dict[str, Callable[[Path], object]]) -> None:
    """Write the result beside its place, then move it there; an earlier one is replaced.

    Parameters
    ----------
    out
        As `check_folder` returned it.
    report
        For `novel.json` and `names.csv`.
    files
        What writes each further file, by name.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    fresh, old = (out.parent / f".{out.name}.{os.getpid()}.{kind}" for kind in ("tmp", "old"))
    try:
        fresh.mkdir()
        (fresh / SUMMARY).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        _write_names(fresh / NAMES, report)
        for name, write in files.items():
            write(fresh / name)
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    except OSError as error:
        message = f"{out} cannot be written: {error}. Check the free space and your rights there."
        raise DataError(message) from error
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)


def read_summary(folder: Path) -> dict[str, Any]:
    """Return what `novel.json` of a result says.

    Raises
    ------
    DataError
        If the folder holds no result, or a newer canal wrote it.
    """
    path = folder / SUMMARY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{folder} is no result of canal novel find ({path.name}: {error}). Name the folder of its --out."
        raise DataError(message) from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        message = f"{path} was not written by canal novel find. Name the folder of its --out."
        raise DataError(message)
    if found["format"] > FORMAT:
        message = f"{path} is of format {found['format']}, newer than {FORMAT}; update canal."
        raise DataError(message)
    return found


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a filled CSV with their line numbers; commas, semicolons or tabs stand between columns.

    Raises
    ------
    DataError
        If it is missing, no such text, or lacks a column.
    """
    if not path.is_file():
        message = f"There is no file {path}. Expected the filled {NAMES} of canal novel find; name it with --names."
        raise DataError(message)
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte-order mark
        first = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
        head = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = head
        rows = [
            (reader.line_num, {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}) for row in reader
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{path} is not a CSV text in UTF-8 ({error}). Save it as CSV (UTF-8)."
        raise DataError(message) from error
    missing = [name for name in ("cluster", "name") if name not in head]
    if missing:
        message = (
            f"{path} has no column {' and no column '.join(map(repr, missing))}; found {', '.join(head) or 'nothing'}. "
            f"Keep the columns of {NAMES}: {', '.join(HEAD)}."
        )
        raise DataError(message)
    return [(number, row) for number, row in rows if any(row.values())]


def _has_names(folder: Path) -> bool:
    if (folder / NAMED).exists():
        return True
    try:
        return any(row["name"] for _, row in read_table(folder / NAMES))
    except DataError:  # something is there that we cannot read: a person's work
        return (folder / NAMES).exists()


def _write_names(path: Path, report: NovelReport) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEAD)
        writer.writerows((c.name, c.cells, c.suggested, "") for c in report.clusters)
