"""Symbols of Ensembl ids and ids of symbols, by the tables of GENCODE that come with canal.

An id has one symbol, which is a fact and no guess. Where several ids of one file come to the same symbol, or a symbol
belongs to several ids, nothing is translated: which of them is meant cannot be told.
"""

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

HUMAN, MOUSE = "human", "mouse"
PREFIXES = {HUMAN: "ENSG", MOUSE: "ENSMUSG"}
DIGITS = 11  # of an Ensembl id
RELEASE = re.compile(r"^# Ensembl gene ids and symbols: \w+, (.+)\.$")


@dataclass(frozen=True, kw_only=True)
class SymbolTable:
    """The genes of a species.

    Attributes
    ----------
    release
        Of the table, such as ``"GENCODE 48"``.
    symbols
        Symbol of each Ensembl id, as GENCODE writes it.
    """

    release: str
    symbols: dict[str, str]

    def unambiguous(self) -> dict[str, str]:
        """Return the Ensembl id of each symbol that one id has, by the symbol in upper case."""
        counts = Counter(symbol.upper() for symbol in self.symbols.values())
        ids = {}
        for identifier, symbol in self.symbols.items():
            if counts[symbol.upper()] == 1:
                ids[symbol.upper()] = identifier
        return ids


@cache
def symbol_table(species: str) -> SymbolTable:
    """Return the table of ``"human"`` or ``"mouse"``; it is read once."""
    return read_symbols((resources.files("canal.data.symbols") / f"{species}.tsv.gz").read_bytes(), species)


def read_symbols(table: bytes, species: str) -> SymbolTable:
    """Return a table from the bytes of its file."""
    lines = gzip.decompress(table).decode().splitlines()
    release, symbols, number = "", {}, 0
    for line in lines:
        if line.startswith("#"):
            match = RELEASE.match(line)
            release = match[1] if match else release
            continue
        # The number is told as the difference to that of the line before.
        difference, symbol = line.split("\t")
        number += int(difference)
        symbols[f"{PREFIXES[species]}{number:0{DIGITS}d}"] = symbol
    return SymbolTable(release=release, symbols=symbols)


def species_of_ids(ids: Sequence[str]) -> str:
    """Return the species that most of these Ensembl ids are of: ``"human"``, ``"mouse"``, or ``""``."""
    for species, prefix in PREFIXES.items():
        if 2 * sum(identifier.startswith(prefix) for identifier in ids) > len(ids):
            return species
    return ""


def table_for(ids: Sequence[str]) -> SymbolTable | None:
    """Return the table of the species that most of these Ensembl ids are of; ``None`` where there is none."""
    species = species_of_ids(ids)
    return symbol_table(species) if species else None


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Gene names with symbols in place of Ensembl ids.

    Attributes
    ----------
    names
        As many as were given; an id that was not translated stands as it was.
    translated, ambiguous, unknown
        Numbers of ids that became symbols, that share their symbol with another gene of the list, and that the table
        does not have.
    release
        Of the table; ``""`` where there is none for the species.
    """

    names: list[str]
    translated: int = 0
    ambiguous: int = 0
    unknown: int = 0
    release: str = ""


def symbols_for(names: Sequence[str]) -> Translation:
    """Translate the Ensembl ids among gene names to symbols.

    Parameters
    ----------
    names
        Canonical names of the genes of a file, most of them ids without versions.
    """
    table = table_for(names)
    if table is None:
        return Translation(names=list(names))
    # What each gene would be called; a symbol that several would get is given to none.
    proposed = [table.symbols.get(name, name) for name in names]
    counts = Counter(symbol.upper() for symbol in proposed)
    result, translated, ambiguous, unknown = [], 0, 0, 0
    prefixes = tuple(PREFIXES.values())
    for name, symbol in zip(names, proposed, strict=True):
        if name not in table.symbols:
            unknown += name.startswith(prefixes)
            result.append(name)
        elif counts[symbol.upper()] > 1:
            ambiguous += 1
            result.append(name)
        else:
            translated += 1
            result.append(symbol)
    return Translation(names=result, translated=translated, ambiguous=ambiguous, unknown=unknown, release=table.release)


def columns_by_symbol(ids: Sequence[str], names: Sequence[str]) -> tuple[dict[int, int], int]:
    """Find genes that are named by Ensembl ids among genes that are named by symbols.

    Parameters
    ----------
    ids
        Of the genes to find; most are Ensembl ids, or nothing is found.
    names
        Canonical names of the genes to find them among.

    Returns
    -------
    By position among ``ids`` the position among ``names``; and how many were not looked for because other ids have
    their symbol, too.
    """
    table = table_for(ids)
    if table is None:
        return {}, 0
    unambiguous = table.unambiguous()
    column_of_id = {}
    for column, name in enumerate(names):
        if name in unambiguous:
            column_of_id[unambiguous[name]] = column
    columns, ambiguous = {}, 0
    for position, identifier in enumerate(ids):
        if identifier in column_of_id:
            columns[position] = column_of_id[identifier]
        elif identifier in table.symbols and table.symbols[identifier].upper() not in unambiguous:
            ambiguous += 1
    return columns, ambiguous


def translation_note(translation: Translation, source: str) -> str | None:
    """Return a sentence on what was translated, ``None`` where nothing was."""
    if not translation.translated:
        return None
    total = translation.translated + translation.ambiguous + translation.unknown
    note = (
        f"{source}: {translation.translated:,} of {total:,} Ensembl ids were read as gene symbols by the table of "
        f"{translation.release}"
    )
    left = []
    if translation.unknown:
        left.append(f"{translation.unknown:,} that have no symbol there")
    if translation.ambiguous:
        left.append(f"{translation.ambiguous:,} that share a symbol")
    return f"{note}; {' and '.join(left)} keep their ids." if left else f"{note}."
