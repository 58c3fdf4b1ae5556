"""`canal site genes`: the genes that all files measure, on which sites can agree before anybody exports."""

from collections.abc import Sequence
from pathlib import Path

from canal.data.gene_list import read_gene_list
from canal.data.stream import open_stream
from canal.errors import DataError
from canal.files import check_new, write_text_whole

LISTS = (".txt", ".json")  # endings of lists of genes; anything else is a file of cells


def common_genes(paths: Sequence[Path], gene_key: str | None = None) -> tuple[str, ...]:
    """Return the names of the genes that all files have, sorted.

    Parameters
    ----------
    paths
        Files of cells, of which the genes alone are looked at, and lists that other sites wrote.
    gene_key
        Column of ``var`` with the gene names.

    Raises
    ------
    DataError, WeightsError
        If a file cannot be read, or the files have no gene in common.
    """
    common: set[str] | None = None
    for path in paths:
        names = set(_names(path, gene_key))
        if common is not None and not names & common:
            message = (
                f"{path} has no gene in common with {', '.join(str(p) for p in paths[: paths.index(path)])}: its genes "
                f"are named {', '.join(sorted(names)[:3])}, theirs {', '.join(sorted(common)[:3])}. Name the column of "
                "var that holds the same kind of names with --gene-key, or check the species."
            )
            raise DataError(message)
        common = names if common is None else common & names
    return tuple(sorted(common or ()))


def _names(path: Path, gene_key: str | None) -> Sequence[str]:
    if path.suffix in LISTS:
        return read_gene_list(path)
    with open_stream(path, gene_key=gene_key) as stream:
        return stream.genes.names


def write_genes(out: Path, genes: Sequence[str]) -> None:
    """Write a list of genes, a name a line.

    Raises
    ------
    DataError
        If the file is there already, or cannot be written.
    """
    check_new(out, DataError)
    write_text_whole(out, "".join(f"{name}\n" for name in genes))
