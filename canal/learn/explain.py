"""Which genes a model looks at in the cells of each group: attention to genes, or what genes add to a memory's score.

Shapes: n cells, G genes explained, K groups, C types.
"""

from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch

from canal.data.variance import unit_rows
from canal.encoders.gene_attention import attention_to_genes, has_attention
from canal.errors import StageError
from canal.learn.batches import PanelCells
from canal.learn.device import best_device
from canal.learn.reader import GeneSetReader

ATTENTION, MEMORY = "attention", "memory"
BLOCK = 8  # cells whose features of all tokens are in memory at a time


class Explainer(Protocol):
    """Collects cells of groups and says of each gene how much it counts.

    Attributes
    ----------
    method
        What the scores are.
    genes
        The genes that are explained: those of the model that the file measures.
    """

    method: str
    genes: tuple[str, ...]

    def add(self, expression: sp.csr_matrix, groups: np.ndarray) -> None:
        """Take cells (n, genes of the file) and the index of each one's group, (n,)."""

    def scores(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean score of each gene in the cells of a group and in all others, each (G,)."""


def explainer_of(reader: GeneSetReader, groups: tuple[str, ...]) -> Explainer:
    """Return what explains a model: its encoder's attention, else its analytic memory.

    Parameters
    ----------
    reader
        The model for the genes of a file.
    groups
        Names of the groups; a memory knows those only that are types of the model.

    Raises
    ------
    StageError
        If the model has neither attention nor memory, or a group is no type of the memory.
    """
    if has_attention(reader.annotator.network.encoder):
        return AttentionExplainer(reader, len(groups))
    if reader.solved is None:
        message = (
            f"This stage cannot be explained: the encoder of preset {reader.annotator.preset.name!r} has no attention, "
            "and there is no analytic memory. Use a stage of preset 'canal' or 'compact'."
        )
        raise StageError(message)
    return MemoryExplainer(reader, groups)


class _Sums:
    """Sums of rows by group."""

    def __init__(self, groups: int, genes: int) -> None:
        self.sums, self.counts = np.zeros((groups, genes)), np.zeros(groups)

    def add(self, rows: np.ndarray | sp.csr_matrix, groups: np.ndarray) -> None:
        """Add rows (n, G) to the sums of their groups (n,)."""
        n = len(self.counts)
        of = sp.csr_matrix((np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(n, len(groups)))
        total = of @ rows
        self.sums += total.toarray() if sp.issparse(total) else np.asarray(total)
        self.counts += np.bincount(groups, minlength=n)

    def means(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean row of a group and that of all others, zero where there are none."""
        rest = self.counts.sum() - self.counts[group]
        others = (self.sums.sum(axis=0) - self.sums[group]) / max(rest, 1)
        return self.sums[group] / max(self.counts[group], 1), others


class AttentionExplainer:
    """The share of attention that goes to each gene, averaged over cells."""

    method = ATTENTION

    def __init__(self, reader: GeneSetReader, groups: int) -> None:
        self._reader = reader
        self._seen = np.flatnonzero(reader.match.measured)
        self.genes = tuple(reader.annotator.panel.genes[i] for i in self._seen.tolist())
        self._sums = _Sums(groups, len(self._seen))

    def add(self, expression: sp.csr_matrix, groups: np.ndarray) -> None:
        """Take cells and their groups."""
        values = self._reader.match.project(expression)
        source = np.zeros(values.shape[0], dtype=np.int64)
        cells = PanelCells(values=values, measured=self._reader.match.measured[None], source=source)
        device = best_device()
        encoder = self._reader.annotator.network.encoder.to(device).eval()
        for rows in cells.blocks(BLOCK):
            share = attention_to_genes(encoder, *(t.to(device) for t in cells.dense(rows)))
            self._sums.add(share.double().cpu().numpy()[:, self._seen], groups[rows])
        encoder.to(torch.device("cpu"))

    def scores(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean share of attention in a group and elsewhere."""
        return self._sums.means(group)


class MemoryExplainer:
    """What each gene adds to the memory's score of a type: the scores are linear, so that the parts are exact.

    The score of a cell x (a unit profile) for a type is ``sum_g x_g W[g, type]``; a gene's part is its summand.
    """

    method = MEMORY

    def __init__(self, reader: GeneSetReader, groups: tuple[str, ...]) -> None:
        solved = reader.solved
        assert solved is not None
        strange = sorted(set(groups) - set(solved.types))
        if strange:
            message = (
                f"The model does not know {', '.join(map(repr, strange))}, and its analytic memory can explain its own "
                f"types only: {', '.join(solved.types)}."
            )
            raise StageError(message)
        self._match, self._weights = solved.match, solved.weights
        self._column = [solved.types.index(name) for name in groups]
        self._seen = np.flatnonzero(solved.match.measured)
        self.genes = tuple(solved.match.panel_genes[i] for i in self._seen.tolist())
        self._sums = _Sums(len(groups), len(self._seen))

    def add(self, expression: sp.csr_matrix, groups: np.ndarray) -> None:
        """Take cells and their groups."""
        self._sums.add(unit_rows(self._match.project(expression)[:, self._seen]), groups)

    def scores(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean part of each gene in the score for the group's type, in its cells and in all others."""
        weights = self._weights[:, self._column[group]]
        here, others = self._sums.means(group)
        return here * weights, others * weights
