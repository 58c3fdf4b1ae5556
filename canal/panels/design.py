"""Which genes to add to a targeted panel so that it tells the taught types apart: greedy, from statistics alone.

For two types of a stage, genes that vary independently bound the error of telling them by the Bhattacharyya
coefficient, exp(-D), with D the sum over the panel's genes of (difference of the means)^2 / (4 (sum of the variances)).
The gene is added that lowers the sum of exp(-D / `TOGETHER`) over all pairs and stages most: pairs that are told apart
already ask for nothing more, so that genes go to those that are not.

Shapes: G genes of the memory, Q pairs of types of all stages.
"""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from canal.data.genes import Genes
from canal.errors import ConfigError, DataError
from canal.files import check_file, write_whole
from canal.model.memory import AnalyticMemory, TypeStatistics
from canal.model.model import Model
from canal.panels.check import memory_of

# Genes of a panel are not independent: so many say as much as one. Measured on left-out cells: between 2 and 8 the
# accuracy of a panel of 50 changes by less than a point.
TOGETHER = 4.0
LEAST_CELLS = 8  # of a type in a stage: the variance of fewer is not known
LEAST_VARIANCE = 1e-8  # of a unit profile's gene


@dataclass(frozen=True, kw_only=True)
class PanelDesign:
    """Genes to add to a panel.

    Attributes
    ----------
    start
        Genes that were there and are known.
    added
        Genes to add, the most useful first.
    for_pair
        For each of these, the pair of types that it was added for above all.
    """

    start: tuple[str, ...]
    added: tuple[str, ...]
    for_pair: tuple[tuple[str, str], ...]

    @property
    def genes(self) -> tuple[str, ...]:
        """All genes of the panel."""
        return (*self.start, *self.added)

    def write(self, out: Path) -> None:
        """Write all genes of the panel, a name a line."""
        write_whole(out, "".join(f"{gene}\n" for gene in self.genes).encode())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        added = []
        for gene, pair in zip(self.added, self.for_pair, strict=True):
            added.append({"gene": gene, "tells_apart": list(pair)})
        return {"start": list(self.start), "added": added}


def writable_panel(out: Path, *, overwrite: bool) -> Path:
    """Return the path of a list of genes if it can be written there.

    Raises
    ------
    DataError
        If it is no ``.txt``, its folder does not exist, or it is there already and is not to be replaced.
    """
    check_file(out, ".txt", "--out")
    if out.exists() and not overwrite:
        message = f"{out} is there already. Name another with --out, or replace it with --overwrite."
        raise DataError(message)
    return out


def design_panel(model: Model, add: int, start: Genes | None = None) -> PanelDesign:
    """Choose genes to add to a panel.

    Parameters
    ----------
    model
        With an analytic memory.
    add
        Number of genes to add.
    start
        Genes that are on the panel already.

    Raises
    ------
    ConfigError
        If the model has no memory or no two types to tell, or fewer genes are left than asked for.
    """
    memory = memory_of(model)
    evidence, pairs = _evidence(memory)
    chosen = np.zeros(len(memory.panel), dtype=bool)
    if start is not None:
        chosen[memory.panel.match(start).measured] = True
    present = tuple(memory.panel.genes.names[i] for i in np.flatnonzero(chosen).tolist())
    left = int((~chosen & (evidence.max(axis=0, initial=0.0) > 0)).sum())
    if not pairs or not 1 <= add <= left:
        message = f"{add} genes were asked for; expected between 1 and {left}, what is left to choose from."
        raise ConfigError(message)
    # What the panel says of each pair so far; then gene by gene.
    told = evidence[:, chosen].sum(axis=1)
    added, for_pair = [], []
    for _ in range(add):
        # How much less all pairs would be confused with each gene.
        confused = np.exp(-told)
        gained = confused @ -np.expm1(-evidence)
        gained[chosen] = -np.inf
        gene = int(gained.argmax())
        most = int((confused * -np.expm1(-evidence[:, gene])).argmax())
        chosen[gene] = True
        told += evidence[:, gene]
        added.append(memory.panel.genes.names[gene])
        for_pair.append(pairs[most])
    return PanelDesign(start=present, added=tuple(added), for_pair=tuple(for_pair))


def _evidence(memory: AnalyticMemory) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return what each gene says of each pair of types of each stage, (Q, G), and the pairs."""
    rows, pairs = [], []
    for stage, genes in memory.measured.items():
        own = [s for s in memory.statistics if s.stage == stage and s.n >= LEAST_CELLS]
        for a, b in combinations(sorted(own, key=lambda s: s.name), 2):
            row = np.zeros(len(memory.panel))
            spread = np.maximum(_variance(a) + _variance(b), LEAST_VARIANCE)
            row[genes] = (a.mean - b.mean) ** 2 / (4.0 * spread) / TOGETHER
            rows.append(row)
            pairs.append((a.name, b.name))
    return np.array(rows).reshape(len(rows), len(memory.panel)), pairs


def _variance(s: TypeStatistics) -> np.ndarray:
    """Return the variance of each gene of a type, (g,)."""
    return np.asarray((s.factors.astype(np.float64) ** 2).sum(axis=0) / s.n + s.rest)
