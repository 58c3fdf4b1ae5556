"""Canonical gene names: upper-case symbols, with Ensembl ids where the file has them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, overload

import numpy as np

from canal.data.reading_rules import NEWEST, ReadingRules
from canal.data.symbols.orthologues import human_names, other_names, species_by_names
from canal.data.symbols.translation import MOUSE, species_of_ids, symbols_for, translation_note
from canal.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


ENSEMBL = re.compile(r"^(ENS[A-Z]{0,6}G\d{6,})(\.\d+)?$", re.IGNORECASE)
MOUSE_SYMBOL = re.compile(r"^[A-Z][a-z0-9.-]*[a-z][A-Za-z0-9.-]*$")
SYMBOL_COLUMNS = (
    "feature_name",
    "gene_symbols",
    "gene_symbol",
    "gene_name",
    "gene_names",
    "symbol",
    "gene_short_name",
)
SHOWN = 5
EXPRESSION = "Gene Expression"  # as Cell Ranger calls the rows that are genes
TYPE_COLUMNS = ("feature_types", "feature_type")

# Spellings that name a gene, but not as others name it.
SYMBOL_AND_ID = re.compile(r"^(?P<symbol>[^|]+?)[_|.:-](?P<id>ENS[A-Z]{0,6}G\d{6,})(\.\d+)?$", re.IGNORECASE)
ID_AND_SYMBOL = re.compile(r"^(?P<id>ENS[A-Z]{0,6}G\d{6,})(\.\d+)?[_|:-](?P<symbol>[^|]+)$", re.IGNORECASE)
GENOME = re.compile(r"^((?:GRC[hm]\d+|hg\d+|mm\d+)(?:_p\d+)?_+)(?=.)", re.IGNORECASE)
FROM_R = re.compile(r"^(HLA|MT|H2)\.", re.IGNORECASE)  # genes with a dash that every genome has
CLONE = re.compile(r"^[A-Z]{1,2}\d{5,6}\.\d+$")  # AC012345.1 has its dot by right
CLONE_IN_LIBRARY = re.compile(r"^(RP\d+|CT[A-D]|LL\w+|KB|GS\d*|XX\w*)\.(.+)\.(\d+)$")  # RP11-34P13.7 has one of its two


@dataclass(frozen=True)
class Genes(Sequence[str]):
    """Genes in an order: a sequence of canonical names that knows their Ensembl ids.

    Attributes
    ----------
    names
        Canonical names: upper-case symbols, or Ensembl ids without version where a file has no symbols.
    ensembl
        Ensembl id of each gene, ``""`` where unknown; as many as names.
    other
        Another symbol that each gene goes by: its former or present one, or that of the mouse; ``""`` where none is
        known. As many as names, or empty.
    """

    names: tuple[str, ...] = ()
    ensembl: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.ensembl), (len(self.names), len(self.ensembl))
        assert len(self.other) in {0, len(self.names)}, (len(self.names), len(self.other))

    @classmethod
    def of(cls, names: Iterable[str], ensembl: Iterable[str] | None = None) -> Self:
        """Return genes by their names; without ids, none is known."""
        listed = tuple(map(str, names))
        return cls(listed, ("",) * len(listed) if ensembl is None else tuple(map(str, ensembl)))

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...
    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        """Return one name, or the names of a slice."""
        return self.names[place]

    def take(self, places: Iterable[int] | np.ndarray) -> "Genes":
        """Return the genes at these positions, in this order."""
        chosen = [int(place) for place in places]
        other = tuple(self.other[p] for p in chosen) if self.other else ()
        return Genes(tuple(self.names[p] for p in chosen), tuple(self.ensembl[p] for p in chosen), other)


@dataclass(frozen=True, kw_only=True)
class GeneNames:
    """Names of the genes of a file.

    Attributes
    ----------
    genes
        The genes that are kept.
    columns
        Its position in the file, ascending, of shape (genes,).
    kind, key
        ``"symbol"`` or ``"ensembl"``, and the column the names stand in (``"var_names"`` for the
        index).
    translated
        How many Ensembl ids were read as symbols.
    species
        ``"human"`` or ``"mouse"``; ``""`` where the names do not tell.
    orthologues
        How many mouse genes were named as human ones that have another symbol.
    """

    genes: Genes
    columns: np.ndarray
    kind: Literal["symbol", "ensembl"]
    key: str
    warnings: tuple[str, ...] = ()
    translated: int = 0
    species: str = ""
    orthologues: int = 0


def name_genes(
    var: "pd.DataFrame",
    *,
    source: str,
    gene_key: str | None = None,
    weights: np.ndarray | None = None,
    rules: ReadingRules = NEWEST,
) -> GeneNames:
    """Find the gene names of a file and bring them to one spelling.

    Parameters
    ----------
    var
        Table of the genes.
    gene_key
        Column of ``var`` that holds the names; found without help where this is ``None``.
    weights
        Expression of each gene over some cells, of shape (genes in the file,): of several columns
        that come to the same name the most expressed stays.
    rules
        By `ReadingRules.SPELLING` ``CD79A_ENSG00000105369``, ``GRCh38_CD3D`` and R's ``HLA.DRA`` are recognised, and
        Ensembl ids are read as symbols where the file has no symbols; by `ReadingRules.ORTHOLOGUES` mouse genes are
        named as their human orthologues.

    Raises
    ------
    DataError
        If there is no such column, or two genes of ``var_names`` have exactly the same
        name.
    """
    index = _texts(var.index)
    _refuse_duplicates(index, source)
    names, key = _chosen(var, index, gene_key, source)
    respell = rules >= ReadingRules.SPELLING
    names, ids_in_names, respelled = _respelled(names, source) if respell else (names, {}, [])
    ids = _ensembl_ids(var, index, names)
    for place, identifier in ids_in_names.items():
        ids[place] = ids[place] or identifier
    share = np.mean([ENSEMBL.match(name) is not None for name in names])
    kind: Literal["symbol", "ensembl"] = "ensembl" if share > 0.5 else "symbol"
    canonical = [_canonical(name) for name in names]
    translated = 0
    if kind == "ensembl" and respell:
        translation = symbols_for(canonical)
        translated, note = translation.translated, translation_note(translation, source)
        canonical = [name.upper() for name in translation.names]
        respelled += [note] if note else []
    species = _species(names, kind, canonical)
    named, other = canonical, [""] * len(canonical)
    if rules >= ReadingRules.ORTHOLOGUES and species == MOUSE:
        named = human_names(canonical)
        other = [own if name != own else "" for name, own in zip(named, canonical, strict=True)]
    elif rules >= ReadingRules.ORTHOLOGUES:
        other = other_names(canonical)
    orthologues = sum(name != own for name, own in zip(named, canonical, strict=True))
    columns, collisions = _first_of_each(named, weights)
    warnings = [
        *respelled,
        _mouse(names, source, orthologues, by_ids=kind == "ensembl", translated=translated, rules=rules)
        if species == MOUSE
        else None,
        _collided(collisions, key, source),
    ]
    return GeneNames(
        genes=Genes(tuple(named), tuple(ids), tuple(other) if any(other) else ()).take(columns),
        columns=np.array(columns, dtype=np.int64),
        kind=kind,
        key=key,
        warnings=tuple(w for w in warnings if w),
        translated=translated,
        species=species,
        orthologues=orthologues,
    )


def _species(names: list[str], kind: str, canonical: list[str]) -> str:
    """Return the species of a file's genes: by their ids, by names that one species alone has, or by their spelling.

    Parameters
    ----------
    names, canonical
        As the file has them, and in upper case with symbols in place of ids.
    """
    if kind == "ensembl":
        return species_of_ids([name.upper() for name in names])
    found = species_by_names(canonical)
    spelt_as_mouse = sum(MOUSE_SYMBOL.match(name) is not None for name in names) > 0.5 * len(names)
    return found or (MOUSE if spelt_as_mouse else "")


def expression_rows(var: "pd.DataFrame", own: "pd.DataFrame", source: str) -> tuple[np.ndarray, str | None]:
    """Return which rows of a table of genes are gene expression, bool (rows,), and a sentence on what is left out.

    Parameters
    ----------
    var
        Table of the genes of the matrix that is used; that of ``raw`` often lacks the column with the kinds.
    own
        The file's own ``var``: it tells the kinds of rows that the other table names.
    """
    column = next((name for name in TYPE_COLUMNS if name in own.columns), None)
    kinds = np.array([], dtype=object) if column is None else np.asarray(own[column].astype(str), dtype=object)
    if not (kinds == EXPRESSION).any():
        return np.ones(len(var), dtype=bool), None
    other = {str(name): kind for name, kind in zip(own.index, kinds, strict=True) if kind != EXPRESSION}
    keep = np.array([str(name) not in other for name in var.index], dtype=bool)
    if keep.all():
        return keep, None
    # Counted by kind, the commonest first.
    counts = Counter(other[str(name)] for name in var.index[~keep])
    listed = ", ".join(f"{n} {kind}" for kind, n in counts.most_common())
    note = (
        f"{source}: {int((~keep).sum())} of {len(keep)} rows of var[{column!r}] are no {EXPRESSION} and were left out"
    )
    return keep, f"{note}: {listed}."


def _respelled(names: list[str], source: str) -> tuple[list[str], dict[int, str], list[str]]:
    """Bring names that hold more than a symbol, or another letter in place of a dash, to the symbol.

    Returns
    -------
    The names; the Ensembl id that stood in each name that had one, by position; a sentence on each kind of spelling.
    """
    plain, ids, warnings = list(names), {}, []
    # 1. A genome in front of every name; where two genomes are mixed, that of most genes.
    prefixes = Counter(match[1] for name in plain if (match := GENOME.match(name)))
    prefix, count = prefixes.most_common(1)[0] if prefixes else ("", 0)
    if count > 0.5 * len(plain):
        example = next(name for name in plain if name.startswith(prefix))
        plain = [name.removeprefix(prefix) for name in plain]
        warnings.append(_respelling(source, count, example, example.removeprefix(prefix)))
    # 2. Symbol and Ensembl id in one name.
    shown, count = "", 0
    for place, name in enumerate(plain):
        match = SYMBOL_AND_ID.match(name) or ID_AND_SYMBOL.match(name)
        if match is not None:
            plain[place], ids[place] = match["symbol"], match["id"].upper()
            shown, count = shown or name, count + 1
    if count:
        first = min(ids)
        warnings.append(_respelling(source, count, shown, plain[first]))
    # 3. R turns dashes into dots: in a file without any dash whose HLA genes have dots.
    example = next((name for name in plain if FROM_R.match(name)), "")
    if example and not any("-" in name for name in plain):
        dashed = [_with_dashes(name) for name in plain]
        count = sum(before != after for before, after in zip(plain, dashed, strict=True))
        warnings.append(_respelling(source, count, example, _with_dashes(example)))
        plain = dashed
    return plain, ids, warnings


def _with_dashes(name: str) -> str:
    """Return a name with the dashes that R took for dots; an accession keeps the dot before its version."""
    if "." not in name or CLONE.match(name) or ENSEMBL.match(name):
        return name
    clone = CLONE_IN_LIBRARY.match(name)
    return f"{clone[1]}-{clone[2]}.{clone[3]}" if clone else name.replace(".", "-")


def _respelling(source: str, count: int, example: str, plain: str) -> str:
    return f"{source}: {count} gene names were read as symbols without what was added to them: {example} as {plain}."


def _texts(values: "Sequence[object] | pd.Index | pd.Series") -> list[str]:
    """Return values as text, ``""`` for what is missing."""
    import pandas as pd

    series = pd.Series(np.asarray(values, dtype=object))
    return [str(v).strip() for v in series.where(series.notna(), "")]


def _refuse_duplicates(index: list[str], source: str) -> None:
    seen: set[str] = set()
    twice = sorted({name for name in index if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if twice:
        message = (
            f"{source}: {len(twice)} gene names occur more than once in var_names: "
            f"{', '.join(twice[:SHOWN])}. Gene names must be unique: call "
            "adata.var_names_make_unique(), or name the genes by Ensembl id and keep the symbols "
            "in a column."
        )
        raise DataError(message)


def _chosen(var: "pd.DataFrame", index: list[str], gene_key: str | None, source: str) -> tuple[list[str], str]:
    if gene_key not in {None, "var_names"}:
        if gene_key not in var.columns:
            message = (
                f"{source} has no gene column {gene_key!r}. Columns of var: "
                f"{', '.join(map(str, var.columns)) or 'none'}; leave --gene-key out to use "
                "var_names."
            )
            raise DataError(message)
        return _filled(_texts(var[gene_key]), index), str(gene_key)
    if gene_key is None and _mostly(index):
        for column in SYMBOL_COLUMNS:
            if column in var.columns and not _mostly(names := _texts(var[column])):
                return _filled(names, index), column
    if gene_key is None and _numbered(index):
        for column in SYMBOL_COLUMNS:
            if column in var.columns:
                return _filled(_texts(var[column]), index), column
        message = (
            f"{source}: var_names are row numbers ({', '.join(index[:SHOWN])}), not gene names. "
            "Name the column of var that holds them with --gene-key; columns: "
            f"{', '.join(map(str, var.columns)) or 'none'}."
        )
        raise DataError(message)
    return index, "var_names"


def _mostly(names: list[str]) -> bool:
    return sum(ENSEMBL.match(name) is not None for name in names) > 0.5 * len(names)


def _numbered(index: list[str]) -> bool:
    return all(name.isdigit() for name in index)


def _filled(names: list[str], index: list[str]) -> list[str]:
    return [name if name and name.lower() != "nan" else other for name, other in zip(names, index, strict=True)]


def _canonical(name: str) -> str:
    match = ENSEMBL.match(name)
    return (match.group(1) if match else name).upper()


def _ensembl_ids(var: "pd.DataFrame", index: list[str], names: list[str]) -> list[str]:
    candidates = [
        index,
        names,
        *(_texts(var[c]) for c in var.columns if var[c].dtype.kind not in "fiub"),
    ]
    found = next((values for values in candidates if _mostly(values)), index)
    return [_canonical(value) if ENSEMBL.match(value) else "" for value in found]


def _first_of_each(canonical: list[str], weights: np.ndarray | None) -> tuple[list[int], list[str]]:
    best: dict[str, int] = {}
    collisions: set[str] = set()
    for column, name in enumerate(canonical):
        if name not in best:
            best[name] = column
            continue
        collisions.add(name)
        if weights is not None and weights[column] > weights[best[name]]:
            best[name] = column
    return sorted(best.values()), sorted(collisions)


def _collided(collisions: list[str], key: str, source: str) -> str | None:
    if not collisions:
        return None
    return (
        f"{source}: {len(collisions)} gene names of {key} come to the same upper-case symbol "
        f"({', '.join(collisions[:SHOWN])}); of each the most expressed column was kept."
    )


def _mouse(
    names: list[str], source: str, orthologues: int, *, by_ids: bool, translated: int, rules: ReadingRules
) -> str:
    """Return a sentence on how the genes of a mouse file are compared with human ones."""
    if by_ids and not translated:
        return (
            f"{source} names its genes by mouse Ensembl ids without symbols; they match mouse "
            "files only. Add a column of symbols (feature_name) to match human ones."
        )
    how = (
        f"{source} names its genes by mouse Ensembl ids"
        if by_ids
        else f"{source} holds mouse gene symbols ({', '.join(names[:3])})"
    )
    if rules < ReadingRules.ORTHOLOGUES:
        return f"{how}; they were mapped to human ones by upper case alone, as when the stage was learned first."
    return (
        f"{how}; {orthologues:,} were named as their human orthologues, which have another symbol, and the others by "
        "their symbol in upper case."
    )
