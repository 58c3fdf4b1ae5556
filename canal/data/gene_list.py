"""Lists of genes and vectors of genes, as they come with pre-trained weights."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canal.errors import WeightsError

SHOWN = 5  # names in a message


@dataclass(frozen=True, kw_only=True)
class GeneVectors:
    """Vectors of genes, such as gene2vec's.

    Attributes
    ----------
    vectors
        Float64 of shape (genes, size).
    genes
        Their names where the file has them; ``None`` where the rows follow a list of genes.
    source
        The file, for messages.
    """

    vectors: np.ndarray
    genes: tuple[str, ...] | None
    source: str

    def in_order(self, genes: tuple[str, ...]) -> np.ndarray:
        """Return the vectors in the order of a list of genes, (genes, size).

        Raises
        ------
        WeightsError
            If the file has another number of rows, or lacks one of the genes.
        """
        if self.genes is None:
            if len(self.vectors) != len(genes):
                message = (
                    f"{self.source} has vectors of {len(self.vectors)} genes; the gene list has {len(genes)}. They "
                    "must come from the same place, a vector for each gene of the list in its order."
                )
                raise WeightsError(message)
            return self.vectors
        # The row of each gene of the list, by name.
        row_of = {name: row for row, name in enumerate(self.genes)}
        missing = [name for name in genes if name not in row_of]
        if missing:
            message = (
                f"{self.source} has no vector for {len(missing)} of the {len(genes)} genes of the list "
                f"({', '.join(missing[:SHOWN])}). Take the vectors that the weights were trained with."
            )
            raise WeightsError(message)
        return np.asarray(self.vectors[[row_of[name] for name in genes]])


def read_gene_list(path: Path) -> tuple[str, ...]:
    """Read the names of genes in their order.

    Parameters
    ----------
    path
        ``.json`` (a list, or an object of name and position), ``.h5ad`` (its ``var_names``), or text, a name a line.

    Raises
    ------
    WeightsError
        If there is no such file, it is no list of names, or a name occurs twice.
    """
    if not path.is_file():
        message = f"There is no gene list {path}. Expected a text file with a gene a line, .json or .h5ad."
        raise WeightsError(message)
    try:
        names = _names(path)
    except (ValueError, KeyError, OSError, TypeError) as error:
        message = (
            f"{path} is no list of genes ({error}). Expected text with a gene a line, a JSON list, a JSON object of "
            "name and position (0, 1, 2, ...), or an .h5ad file."
        )
        raise WeightsError(message) from error
    # Every gene once: a row of the weights' table has one name.
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        content = f"{', '.join(repeated[:SHOWN])} more than once"
    elif not names:
        content = "nothing"
    elif "" in names:
        content = "an empty name"
    else:
        return tuple(names)
    message = f"{path} holds {content}; expected every gene once, in the order of the rows of the weights' table."
    raise WeightsError(message)


def read_gene_vectors(path: Path) -> GeneVectors:
    """Read vectors of genes.

    Parameters
    ----------
    path
        ``.npy`` of shape (genes, size), or text: a name and its numbers a line, after word2vec's line of sizes or
        without it.

    Raises
    ------
    WeightsError
        If there is no such file, or it is neither.
    """
    if not path.is_file():
        message = f"There is no file {path}. Expected gene2vec's vectors, .npy or text; check the spelling."
        raise WeightsError(message)
    try:
        vectors, genes = _npy(path) if path.suffix == ".npy" else _word2vec(path)
    except (ValueError, OSError, EOFError) as error:
        message = (
            f"{path} does not hold vectors of genes ({error}). Expected .npy with a row a gene, or text with a name "
            "and its numbers a line."
        )
        raise WeightsError(message) from error
    return GeneVectors(vectors=vectors, genes=genes, source=str(path))


def _names(path: Path) -> list[str]:
    """Return the names in a file as they stand there."""
    if path.suffix == ".h5ad":
        import h5py
        from anndata.io import read_elem

        with h5py.File(path, "r") as file:
            return list(map(str, read_elem(file["var"]).index))
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return _from_json(json.loads(text))
    # Text: the first column of a table with tabs or commas, or a name a line.
    names = []
    for line in text.strip().splitlines():
        names.append(line.split("\t")[0].split(",")[0].strip())
    return names


def _from_json(value: Any) -> list[str]:
    """Return the names of a JSON list, or of an object of name and position in the order of the positions."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: int(value[name]))
        if sorted(map(int, value.values())) != list(range(len(names))):
            message = "its positions are not 0, 1, 2, ... without a gap"
            raise ValueError(message)
        return names
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        message = f"it is a JSON {type(value).__name__}"
        raise ValueError(message)
    return value


def _npy(path: Path) -> tuple[np.ndarray, None]:
    vectors = np.load(path, allow_pickle=False)
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
        message = f"an array of shape {vectors.shape} and type {vectors.dtype}"
        raise ValueError(message)
    return vectors.astype(np.float64), None


def _word2vec(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return vectors and names of a text file in the format of word2vec."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    # word2vec's first line says how many vectors of which size follow; it is no vector.
    if lines and len(lines[0]) == 2 and "".join(lines[0]).isdigit():
        lines = lines[1:]
    lengths = set(map(len, lines))
    if len(lengths) != 1 or lengths == {1}:
        message = f"lines of {', '.join(map(str, sorted(lengths)[:SHOWN])) or 'no'} words"
        raise ValueError(message)
    vectors = np.array([line[1:] for line in lines], dtype=object).astype(np.float64)
    if not np.isfinite(vectors).all():
        message = "numbers that are not finite"
        raise ValueError(message)
    return vectors, tuple(line[0] for line in lines)
