"""Cells drawn from the analytic memory, for the network to rehearse what it has no cells of."""

import numpy as np
import scipy.sparse as sp

from canal.data.panel import GenePanel
from canal.data.pool import CellPool
from canal.learn.memory import AnalyticMemory


def draw_cells(memory: AnalyticMemory, n: int, panel: GenePanel, rng: np.random.Generator) -> CellPool:
    """Draw pseudo-cells of the earlier stages: Gaussian around each type's mean, with its factors and rest.

    Parameters
    ----------
    memory
        Statistics of the earlier stages.
    n
        Cells in all; a type gets a share by the square root of its cells, one at least.
    panel
        Genes to draw; those without statistics of the stage are not measured.
    rng
        Draws them.

    Returns
    -------
    A pool on ``panel`` with one source a stage. Values are of unit profiles, some negative.
    """
    at = panel.match(memory.panel.genes, memory.panel.ensembl)
    into, of = np.flatnonzero(at.measured), at.columns[at.measured]
    share = np.sqrt([s.n for s in memory.statistics])
    numbers = np.maximum(1, np.floor(n * share / share.sum())).astype(int) if len(share) else []
    stages = list(memory.measured)
    measured = np.zeros((len(stages), len(panel)), dtype=bool)
    blocks = []
    for s, k in zip(memory.statistics, numbers, strict=True):
        position = np.full(len(memory.panel), -1)
        position[memory.measured[s.stage]] = np.arange(len(s.mean))
        have = position[of] >= 0
        genes = position[of][have]
        spread = rng.standard_normal((k, len(s.factors)), dtype=np.float32) / np.sqrt(max(s.n - 1, 1))
        noise = rng.standard_normal((k, len(genes)), dtype=np.float32) * np.sqrt(s.rest[genes])
        block = np.zeros((k, len(panel)), dtype=np.float32)
        block[:, into[have]] = s.mean[genes] + spread @ s.factors[:, genes] + noise
        measured[stages.index(s.stage), into[have]] = True
        blocks.append(block)
    names = [s.name for s, k in zip(memory.statistics, numbers, strict=True) for _ in range(k)]
    stage = np.array(
        [s.stage for s, k in zip(memory.statistics, numbers, strict=True) for _ in range(k)], dtype=np.int64
    )
    return CellPool(
        panel=panel,
        expression=sp.csr_matrix(np.concatenate(blocks)),
        measured=measured,
        source=np.array([stages.index(k) for k in stage.tolist()], dtype=np.int64),
        stage=stage,
        labels=np.array(names, dtype=object),
        names=np.array([f"drawn {i}" for i in range(len(names))], dtype=object),
    )
