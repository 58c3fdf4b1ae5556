"""A lab's own names for cell types, mapped to ours by a CSV file of two columns.

The cell types that a file gives its cells.

New type names that may be known types under another name.
"""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from canal.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from canal.data.source import StoredTable


DONOR_COLUMNS = ("donor_id", "donor")  # the first that a file has says whose cells they are
UNKNOWN_DONORS = frozenset({"", "nan", "na", "none", "unknown", "pooled"})  # words that stand for no one donor
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
    """Return line number and values of every row that is not empty, without a header.

    Values are parted by commas, semicolons or tabs: by whichever the first row that has any of them has most of.
    ``.tsv`` is split at tabs.

    Raises
    ------
    DataError
        If the file is no CSV text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte-order mark
            text = file.read()
            reader = csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(text, path))
            rows = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{path} is not a CSV text in UTF-8 ({error}). Save it as CSV (UTF-8)."
        raise DataError(message) from error
    rows = [(number, row) for number, row in rows if any(row)]
    if rows and rows[0][1][0].lower().replace("-", " ") in headers:
        return rows[1:]
    return rows


def _delimiter(text: str, path: Path) -> str:
    """Return what parts the values of a CSV text; what stands in quotes parts nothing."""
    if path.suffix == ".tsv":
        return "\t"
    for line in re.sub(r'"[^"]*"', "", text).splitlines():
        if any(mark in line for mark in DELIMITERS):
            return max(DELIMITERS, key=line.count)  # of equally many the first: a comma
    return ","


DELIMITERS = ",;\t"

NO_LABEL = frozenset(
    {"", "-", "?", "na", "n/a", "<na>", "nan", "none", "null", "not available", "unknown"}
    | {"unassigned", "unlabelled", "unlabeled", "unannotated", "undefined", "undetermined"}
)
# Labels of cells that are of no single type, or of none that anybody could tell: in lower case, words alone.
# They are left out like missing labels, but counted by name; a lab whose type is really called so keeps it.
NO_TYPE = frozenset(
    {"doublet", "multiplet", "heterotypic doublet", "homotypic doublet", "low quality", "lowquality", "poor quality"}
    | {"bad quality", "low quality cell", "debris", "empty droplet", "ambient", "artifact", "artefact", "contaminant"}
    | {"contamination", "contaminated", "dead", "dying", "dead cell", "dying cell"}
    | {"not determined", "notdetermined", "nd", "n d", "to be determined", "tbd", "not assigned", "unclassified"}
    | {"unclear", "uncertain", "unresolved", "unidentified", "not identified", "other", "ambiguous", "mixed"}
    | {"outlier", "filtered", "removed", "exclude", "excluded", "unknown cell", "other cell", "unassigned cell"}
)
FEWEST = 2
SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class TakenLabels:
    """Cell types of a file's cells.

    Attributes
    ----------
    labels
        Cell type of each cell of the file, ``""`` where it is left out; object of shape (cells in
        the file,).
    unlabelled
        Cells without a label, those of ``dropped_labels`` among them.
    dropped_types
        Types left out because they have too few cells, and their number of cells.
    dropped_labels
        Labels that name no type ("doublet"), were asked to be left out, or are mapped to nothing, as the file spells
        them, and their number of cells.
    """

    labels: np.ndarray
    unlabelled: int
    dropped_types: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    dropped_labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Which column holds the cell types, and how they are taken.

    Attributes
    ----------
    column
        Column of ``obs``.
    label_map
        CSV of two columns: their name, our name; or the same as a mapping. Cells of a name mapped to nothing are left
        out.
    drop
        Labels to leave out, in the file's own spelling or in ours.
    keep
        Types although they are called "other", "doublet" or whatever else names no type; ``"*"`` stands for all such.
    drop_must_occur
        Refuse a label to leave out that the file does not have.
    drop_rare
        Leave out types with a single cell instead of refusing the file.
    require_two
        Refuse a file with one type only.
    keep_rare
        Take types with a single cell as they are, where nothing is trained.
    """

    column: str
    label_map: Path | Mapping[str, str] | None = None
    drop: Sequence[str] = ()
    keep: Sequence[str] = ()
    drop_must_occur: bool = False
    drop_rare: bool = False
    require_two: bool = False
    keep_rare: bool = False


def take_labels(obs: "pd.DataFrame | StoredTable", options: LabelOptions, source: str) -> TakenLabels:
    """Take the cell types of a column of ``obs``.

    Parameters
    ----------
    obs
        Annotations of the cells.
    options
        Which column, and how.
    source
        Name of the data, for messages.

    Raises
    ------
    DataError
        If there is no such column, it holds no text, no cell has a label, a type has a single cell,
        or there is one type where two are needed.
    """
    column = options.column
    values = original = _column(obs, column, source)
    warnings: list[str] = []
    if options.label_map is not None:
        values = _mapped(values, options.label_map, source, warnings)
    labels = np.array(["" if v.lower() in NO_LABEL and v not in options.keep else v for v in values], dtype=object)
    dropped_labels = _drop_labels(labels, original, options, source)
    counts = Counter(labels.tolist())
    unlabelled = counts.pop("", 0)
    if dropped_labels:
        warnings.append(_dropped(dropped_labels, column, source))
    if not counts:
        message = (
            f"{source}: all {len(labels)} labels in {column!r} are missing or unknown. Choose "
            f"another column{_likely(obs, besides=column)}."
        )
        raise DataError(message)
    rare = {name: n for name, n in sorted(counts.items()) if n < FEWEST and not options.keep_rare}
    if rare and not options.drop_rare:
        message = (
            f"{source}: {len(rare)} types in {column!r} have a single cell: {_listed(list(rare))}. "
            f"A type needs {FEWEST} cells at least: add cells, map the type to another one with "
            "--label-map, or leave such types out with --drop-rare."
        )
        raise DataError(message)
    labels[np.isin(labels, list(rare))] = ""
    if all(name.isdigit() for name in counts):
        warnings.append(
            f"The labels in {column!r} of {source} look like cluster numbers, not names: {_listed(list(counts))}."
        )
    _require_types(
        len(counts) - len(rare),
        sorted(set(counts) - set(rare)),
        column,
        source,
        require_two=options.require_two,
    )
    return TakenLabels(
        labels=labels,
        unlabelled=unlabelled,
        dropped_types=rare,
        warnings=tuple(warnings),
        dropped_labels=dropped_labels,
    )


def names_no_type(label: str) -> bool:
    """Tell whether a label says that a cell is of no single type, or of none that anybody could tell."""
    words = " ".join(re.findall(r"[^\W_]+", label.lower()))
    return words in NO_TYPE or words.removesuffix("s") in NO_TYPE


def _drop_labels(labels: np.ndarray, original: list[str], options: LabelOptions, source: str) -> dict[str, int]:
    """Empty the labels that are left out by name; return their names in the file and numbers of cells.

    Raises
    ------
    DataError
        If a label that is to be left out does not occur.
    """
    given = dict.fromkeys([*labels.tolist(), *original])
    absent = [name for name in options.drop if name not in given]
    if absent and options.drop_must_occur:
        known = _listed(sorted(name for name in given if name))
        message = (
            f"{source}: {', '.join(map(repr, absent))} is no label in {options.column!r}. Its labels are {known}. "
            "Name some of these with --drop-label."
        )
        raise DataError(message)
    out = set(options.drop)
    for name in given:
        if name and names_no_type(name) and name not in options.keep and "*" not in options.keep:
            out.add(name)
    dropped: Counter[str] = Counter()
    for place, (label, before) in enumerate(zip(labels.tolist(), original, strict=True)):
        # Of a mapped name the new one decides; one that is mapped to nothing is empty already.
        unmapped = not label and bool(before) and before.lower() not in NO_LABEL
        if unmapped or (label and (label in out or before in options.drop)):
            dropped[before] += 1
            labels[place] = ""
    return dict(dropped.most_common())


def _dropped(dropped: Mapping[str, int], column: str, source: str) -> str:
    listed = _listed([f"{name} ({n})" for name, n in dropped.items()])
    return (
        f"{sum(dropped.values())} cells of {source} were left out for their label in {column!r}, which names no cell "
        f"type or was to be left out: {listed}. Keep one that is a type with --keep-label."
    )


def _require_types(n: int, names: list[str], column: str, source: str, *, require_two: bool) -> None:
    if n == 0:
        message = f"{source}: every type in {column!r} has a single cell. Expected types with {FEWEST} cells at least."
        raise DataError(message)
    if n == 1 and require_two:
        message = (
            f"{source}: all labelled cells in {column!r} are of one type, {names[0]!r}. The first "
            "stage needs two types at least: add cells of another type, or choose another column."
        )
        raise DataError(message)


def _column(obs: "pd.DataFrame | StoredTable", column: str, source: str) -> list[str]:
    if column not in obs.columns:
        message = f"{source} has no column {column!r} in obs{_likely(obs)}. Name the column with the cell types."
        raise DataError(message)
    if (obs.columns == column).sum() > 1:
        message = f"{source} has several columns named {column!r} in obs. Rename all but one."
        raise DataError(message)
    plain = obs[column].astype(object)
    present = plain[plain.notna()]
    if len(present) and not all(isinstance(value, str) for value in present.unique()):
        found = ", ".join(repr(v) for v in present.unique()[:3].tolist())
        message = (
            f"{source}: the labels in {column!r} are numbers or other values ({found}), not names. "
            f"Choose a column of names{_likely(obs, besides=column)}, or turn it into text first: "
            f"adata.obs[{column!r}] = adata.obs[{column!r}].astype(str)."
        )
        raise DataError(message)
    return [value.strip() for value in plain.where(plain.notna(), "")]


def _mapped(values: list[str], label_map: Path | Mapping[str, str], source: str, warnings: list[str]) -> list[str]:
    mapping = checked_map(label_map)
    named = "the label map" if isinstance(label_map, Mapping) else f"the label map {label_map}"
    unused = sorted(set(mapping) - set(values))
    if unused:
        text = f"{len(unused)} names in {named} do not occur in {source}: {_listed(unused)}."
        first = next(iter(mapping))
        if first in unused and not isinstance(label_map, Mapping):
            text += f" Its first row, {first!r} to {mapping[first]!r}, may be a header: it changes nothing."
        warnings.append(text)
    return [mapping.get(value, value) for value in values]


def checked_map(label_map: object) -> dict[str, str]:
    """Return a label map that was given as a file or as a mapping, as names to names.

    Raises
    ------
    DataError
        If it is neither, or has other things than names; ``None`` stands for an empty name.
    """
    if isinstance(label_map, str | Path):
        return read_label_map(Path(label_map))
    if not isinstance(label_map, Mapping) or not label_map:
        message = (
            f"The label map is {type(label_map).__name__}; expected a CSV file of two columns, or a dict with their "
            "names and our names, and at least one."
        )
        raise DataError(message)
    mapping = {}
    for theirs, ours in label_map.items():
        if not isinstance(theirs, str) or not (ours is None or isinstance(ours, str)):
            message = f"The label map maps {theirs!r} to {ours!r}; expected a name and a name, or None to leave it out."
            raise DataError(message)
        mapping[theirs.strip()] = (ours or "").strip()
    return mapping


def _likely(obs: "pd.DataFrame | StoredTable", besides: str = "") -> str:
    """Return a clause that lists the columns of 2 to 200 texts, which may be cell types."""
    found = []
    for name in obs.columns:
        series = obs[name]
        if name == besides or getattr(series, "ndim", 2) != 1 or series.dtype.kind in "fiubmMc":
            continue
        present = series.astype(object).dropna()
        if 2 <= present.nunique() <= 200 and all(isinstance(v, str) for v in present.unique()):
            found.append(str(name))
    return f"; columns that may hold cell types: {', '.join(found)}" if found else "; no column looks like cell types"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "μ": "mu"}  # noqa: RUF001
CELL = re.compile(r"cells?$")


@dataclass(frozen=True, kw_only=True)
class LabelWarning:
    """A new type that may be a known one.

    Attributes
    ----------
    new, known
        The two names.
    reason
        ``"name"``: they are spelt alike; ``"cells"``: the model calls the new type's cells so; ``"coarse"``: it calls
        them by several known types, whose names ``known`` lists.
    share
        Share of the new type's cells that are called ``known``, of those that look known; ``None`` for names.
    message
        A sentence for the person who adds the file.
    """

    new: str
    known: str
    reason: Literal["name", "cells", "coarse"]
    share: float | None
    message: str


def similar_names(new: Sequence[str], known: Sequence[str]) -> list[LabelWarning]:
    """Return the new names that differ from a known one only in spelling.

    Case, plural, punctuation, spaces, word order and "cell" do not count, so that "B cells",
    "b-cell" and "B" are alike; digits and every other letter do, so that "CD4 T" and "CD8 T" are
    not.
    """
    by_spelling = {spelling: name for name in sorted(known, reverse=True) if (spelling := _spelling(name))}
    found = []
    for name in sorted(set(new) - set(known)):
        match = by_spelling.get(_spelling(name))
        if match is not None:
            message = (
                f"The new type {name!r} is spelt like the known type {match!r}. If they are the "
                f"same, map it with --label-map (a row: {name},{match}); otherwise they stay two "
                "types."
            )
            found.append(LabelWarning(new=name, known=match, reason="name", share=None, message=message))
    return found


NOVEL = ""  # in place of a prediction: the model does not take the cell for one of a known type
LEAST_KNOWN = 0.5  # of a new type's cells: where fewer look known, its name stands for something new


def called_known(
    labels: np.ndarray, predictions: np.ndarray, known: Sequence[str], floor: float = 0.8
) -> list[LabelWarning]:
    """Return the new types most of whose cells the current model calls one known type.

    Only cells that look known speak, and they must be `LEAST_KNOWN` of the type's cells: a type that is truly new lies
    nearest to some known type, which is no reason to merge them.

    Parameters
    ----------
    labels, predictions
        Given and predicted type of each cell, both of shape (cells,).
    known
        Types of the model; predictions that are none of them (`NOVEL`) speak for no type.
    floor
        Share of the new type's cells that look known above which it is named.
    """
    assert labels.shape == predictions.shape, (labels.shape, predictions.shape)
    named = []
    for name, votes, total in _votes(labels, predictions, known):
        match, share = votes[0][0], votes[0][1] / total
        if share <= floor:
            continue
        message = (
            f"{share:.0%} of the {total} cells of the new type {name!r} that look known are called {match!r} "
            "by the current model. If they are the same, map it with --label-map (a row: "
            f"{name},{match}); otherwise ignore this."
        )
        named.append(LabelWarning(new=name, known=match, reason="cells", share=share, message=message))
    return named


MOST_FINER = 4  # known types that one coarser name may stand for
LEAST_FINER = 0.1  # of the cells, for a known type to be one of them


def coarser_names(
    labels: np.ndarray, predictions: np.ndarray, known: Sequence[str], floor: float = 0.9
) -> list[LabelWarning]:
    """Return the new types whose cells the current model calls by a few known types: the name may be a coarser one.

    Parameters
    ----------
    labels, predictions, known
        As for `called_known`.
    floor
        Share of the new type's cells that look known which the few types have to make up.
    """
    named = []
    for name, votes, total in _votes(labels, predictions, known):
        finer = [(match, n) for match, n in votes[:MOST_FINER] if n >= LEAST_FINER * total]
        share = sum(n for _, n in finer) / total
        # One type alone is the matter of `called_known`.
        if len(finer) < 2 or share < floor or votes[0][1] > 0.8 * total:
            continue
        names = sorted(match for match, _ in finer)
        listed = f"{', '.join(names[:-1])} or {names[-1]}"
        message = (
            f"{share:.0%} of the {total} cells of the new type {name!r} that look known are called {listed} by the "
            "current model: a coarser name? Then label them by the finer types, or leave them out: two names for one "
            "cell cannot both be right."
        )
        named.append(LabelWarning(new=name, known=listed, reason="coarse", share=share, message=message))
    return named


def _votes(
    labels: np.ndarray, predictions: np.ndarray, known: Sequence[str]
) -> list[tuple[str, list[tuple[str, int]], int]]:
    """Return the votes of each new type that mostly looks known: cells by known type, most first, and cells in all.

    Parameters
    ----------
    labels, predictions, known
        As for `called_known`.
    """
    names = set(known)
    votes = []
    for name in sorted(set(labels.tolist()) - names):
        called = predictions[labels == name].tolist()
        by_type = Counter(p for p in called if p in names)
        total = by_type.total()
        if total and total >= LEAST_KNOWN * len(called):
            votes.append((name, by_type.most_common(), total))
    return votes


def _spelling(name: str) -> str:
    """Return what is left of a name without case, plural, punctuation, word order and "cell"."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(GREEK.get(letter, letter) for letter in text)
    words = [CELL.sub("", _singular(word).lower()) for word in re.findall(r"[^\W_]+", text)]
    return "".join(sorted(word for word in words if word))


def _singular(word: str) -> str:
    acronym = re.fullmatch(r"[A-Z0-9]{2,}s", word)  # DCs, HSCs
    plural = len(word) > 4 and word.lower().endswith("s") and not word.lower().endswith(("ss", "us", "is"))
    return word[:-1] if acronym or plural else word


def donors_by_type(labels: np.ndarray, donors: np.ndarray) -> dict[str, int]:
    """Return of how many donors the cells of each type are.

    Parameters
    ----------
    labels
        Type of each cell, ``""`` where there is none, object (cells,).
    donors
        Donor of each cell, (cells,); a cell whose donor is not known counts for none.

    Returns
    -------
    By name of the type, in the order of the names; types none of whose donors is known are missing.
    """
    of_type: dict[str, set[str]] = {}
    for label, donor in zip(labels.astype(str).tolist(), donors.astype(str).tolist(), strict=True):
        if label and donor.strip().casefold() not in UNKNOWN_DONORS:
            of_type.setdefault(label, set()).add(donor)
    return {name: len(of_type[name]) for name in sorted(of_type)}
