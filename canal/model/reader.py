"""A model as seen through the genes of one file: what every block of its cells is put through.

Memory and novelty detector look at unit profiles over the same genes and are linear in them up to their first scores.
Their matrices stand side by side, so that a block is multiplied once, as sparse as it is; the network's genes alone
become dense. Nothing else of a file is touched: `GeneSetReader.columns` says which genes count.

Shapes: n cells, K columns that count, C types, D representation.
"""

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from canal.data.genes import Genes
from canal.model.encoders.compact_arrays import CompactArrays
from canal.model.memory import SolvedMemory
from canal.model.novelty.detector import NoveltyReader, NoveltyScores
from canal.model.novelty.neighbours import Neighbours

if TYPE_CHECKING:
    from canal.model.model import Model


# Blocks are filled up with empty cells to a multiple of this: matrix libraries treat the rows at the edge of a matrix
# by other code with other rounding, and a cell must get the same bits whatever block it comes in. So it does where the
# processor has AVX-512; OpenBLAS's older kernels round by a row's place, and there the last bits may differ.
ROWS = 64
DENSE = 1024  # cells that are made dense at a time


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model answers for some cells.

    Attributes
    ----------
    probabilities
        Calibrated probability of each type, float32 of shape (cells, types).
    representation
        Float32 of shape (cells, D).
    logits
        The network's, float32 of shape (cells, types).
    novelty, neighbours
        What the detector says and the nearest cells of the bank, where they were asked for.
    """

    probabilities: np.ndarray
    representation: np.ndarray
    logits: np.ndarray
    novelty: NoveltyScores | None = None
    neighbours: Neighbours | None = None

    def restricted_to(self, allowed: np.ndarray) -> "Prediction":
        """Return the prediction with the probability shared among some types, bool (types,)."""
        if allowed.all():
            return self
        kept = np.where(allowed, self.probabilities, 0.0)
        total = kept.sum(axis=1, keepdims=True)
        even = np.where(allowed, 1.0 / allowed.sum(), 0.0)
        shared = np.where(total > 1e-30, kept / np.maximum(total, 1e-30), even).astype(np.float32)
        return replace(self, probabilities=shared)


class GeneSetReader:
    """A model for files with one set of genes.

    Attributes
    ----------
    match
        The network's genes in the file.
    solved
        The memory for these genes, ``None`` where there is none.
    columns
        Columns of the file that any part looks at, ascending, (K,).

    Parameters
    ----------
    model
        The model.
    genes
        Genes of the file, in the order of its columns.
    """

    def __init__(self, model: "Model", genes: Genes) -> None:
        self.model = model
        self._genes = genes
        self.match = model.panel.match(genes)
        self.solved: SolvedMemory | None = None
        wanted = [self.match.columns[self.match.measured]]
        if model.memory is not None:
            self.solved = model.memory.solved_for(genes, model.types)
            wanted.append(self.solved.columns)
        self.columns = np.unique(np.concatenate(wanted))
        self._network = _network(self)
        self._matrix: np.ndarray | None = None
        self._novelty: NoveltyReader | None = None
        self._fill_matrix()

    def novelty(self) -> NoveltyReader | None:
        """Return the novelty detector for these genes, or ``None`` where the model has no analytic memory."""
        if self.model.memory is None or not self.model.memory.statistics:
            return None
        return NoveltyReader(self.model.memory, self.model.novelty, self.model.bank, self._genes)

    @property
    def scores_novelty(self) -> bool:
        """Whether predictions hold novelty."""
        return self._novelty is not None

    def workers(self, cores: int) -> int:
        """Return how many threads may predict at a time: a torch network takes all cores for one block itself."""
        return cores if isinstance(self._network, _CompactNetwork) else 1

    def with_novelty(self, novelty: NoveltyReader) -> "GeneSetReader":
        """Return a reader that judges novelty too."""
        fresh = copy(self)
        fresh._novelty = novelty
        fresh._fill_matrix()
        return fresh

    def predict(self, expression: sp.csr_matrix) -> Prediction:
        """Annotate cells of shape (cells, genes of the file), natural ``log1p`` of values per 10,000."""
        return self.predict_columns(expression[:, self.columns])

    def predict_columns(self, kept: sp.csr_matrix, neighbors: int = 0) -> Prediction:
        """Annotate cells of shape (cells, K), a block at a time.

        Parameters
        ----------
        kept
            The ``columns`` of the file, natural ``log1p`` of values per 10,000 over all its genes.
        neighbors
            Nearest cells of the bank to find of each cell.

        Returns
        -------
        The prediction, the same bits for a cell whatever block it comes in.
        """
        n = kept.shape[0]
        padded = _padded(kept)
        logits, rep = self._network(padded, n)
        scores, projected = self._products(padded)
        known = None if scores is None else scores[:n]
        found = Prediction(probabilities=self.model.fusion.join(logits, known), representation=rep, logits=logits)
        if self._novelty is None or projected is None:
            return found
        novelty = self._novelty.score_projected(projected)
        near = self._novelty.neighbours_projected(projected, neighbors) if neighbors else None
        return replace(
            found,
            novelty=NoveltyScores(novelty=novelty.novelty[:n], p_value=novelty.p_value[:n]),
            neighbours=near and Neighbours(indices=near.indices[:n], distances=near.distances[:n]),
        )

    def best_types(self, expression: sp.csr_matrix) -> np.ndarray:
        """Return the name of the most probable type of each cell, (cells,)."""
        names = np.array(self.model.types, dtype=object)
        return np.asarray(names[self.predict(expression).probabilities.argmax(axis=1)])

    def network_outputs(self, expression: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Return the network's logits (cells, types) and representations (cells, D)."""
        n = expression.shape[0]
        return self._network(_padded(expression[:, self.columns]), n)

    def _fill_matrix(self) -> None:
        """Put the memory's weights and the detector's side by side, zero for genes that the memory does not know."""
        if self.solved is None:
            return
        parts = [self.solved.weights] + ([] if self._novelty is None else [self._novelty.weights])
        stacked = np.hstack(parts).astype(np.float32)
        self._matrix = np.zeros((len(self.columns), stacked.shape[1]), dtype=np.float32)
        self._counts = np.zeros(len(self.columns))
        place = np.searchsorted(self.columns, self.solved.columns)
        self._matrix[place], self._counts[place] = stacked, 1.0

    def _products(self, kept: sp.csr_matrix) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return the memory's scores (n, C) and what the detector starts from, both of unit profiles."""
        if self._matrix is None:
            return None, None
        squares = sp.csr_matrix((kept.data * kept.data, kept.indices, kept.indptr), shape=kept.shape)
        length = np.sqrt(squares @ self._counts)
        product = kept @ self._matrix
        product *= np.divide(1.0, length, out=np.zeros_like(length), where=length > 0).astype(np.float32)[:, None]
        c = len(self.model.types)
        return product[:, :c], product[:, c:] if self._novelty is not None else None


class _CompactNetwork:
    """The compact network on the kept columns."""

    def __init__(self, reader: GeneSetReader) -> None:
        columns = reader.match.columns[reader.match.measured]
        order = np.argsort(columns)
        self._arrays = CompactArrays.of(reader.model.weights, np.flatnonzero(reader.match.measured)[order])
        self._place = np.searchsorted(reader.columns, columns[order])

    def __call__(self, kept: sp.csr_matrix, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and representations of the first n cells."""
        found = [
            self._arrays.outputs(kept[start : start + DENSE][:, self._place].toarray())
            for start in range(0, max(kept.shape[0], 1), DENSE)
        ]
        return np.concatenate([f[0] for f in found])[:n], np.concatenate([f[1] for f in found])[:n]


class _TorchNetwork:
    """Any other network on the kept columns."""

    def __init__(self, reader: GeneSetReader) -> None:
        match = reader.match
        columns = np.where(match.measured, np.searchsorted(reader.columns, match.columns), -1)
        names = tuple(match.file_genes[c] for c in reader.columns.tolist())
        self._match = replace(match, columns=columns, file_genes=names)
        self._model = reader.model

    def __call__(self, kept: sp.csr_matrix, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and representations of the first n cells."""
        from canal.model.network import PanelCells, run_network

        values = self._match.project(kept[:n])
        source = np.zeros(values.shape[0], dtype=np.int64)
        cells = PanelCells(values=values, measured=self._match.measured[None], source=source)
        return run_network(self._model.network, cells)


def _network(reader: GeneSetReader) -> _CompactNetwork | _TorchNetwork:
    compact = reader.model.preset.encoder.kind == "compact"
    return _CompactNetwork(reader) if compact else _TorchNetwork(reader)


def _padded(kept: sp.csr_matrix) -> sp.csr_matrix:
    """Return the cells with empty ones behind them, as many as make a multiple of `ROWS`."""
    n, genes = kept.shape
    more = -n % ROWS
    indptr = np.append(kept.indptr, np.full(more, kept.indptr[-1], dtype=kept.indptr.dtype))
    return sp.csr_matrix((kept.data, kept.indices, indptr), shape=(n + more, genes))
