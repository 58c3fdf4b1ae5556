"""Time and size of the analytic memory at its bound: 4,000 directions on 6,000 genes.

python benchmarks/memory_solve.py
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from canal.data.genes import Genes
from canal.data.panel import GenePanel
from canal.model.memory import MOST_FACTORS, AnalyticMemory, TypeStatistics, save_memory

GENES, TYPES = 6000, 50


def main() -> None:
    """Make a memory of random statistics, solve it once, write it once."""
    rng = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(GENES)]
    each = MOST_FACTORS // TYPES
    statistics = tuple(
        TypeStatistics(
            stage=1, name=f"type {i}", n=4 * each,
            mean=rng.random(GENES, dtype=np.float32),
            factors=rng.standard_normal((each, GENES), dtype=np.float32),
            rest=rng.random(GENES, dtype=np.float32),
        )
        for i in range(TYPES)
    )  # fmt: skip
    memory = AnalyticMemory(
        panel=GenePanel.empty().extended(Genes.of(genes), 1),
        measured={1: np.arange(GENES)},
        statistics=statistics,
        ridge=0.05,
    )
    begin = time.perf_counter()
    memory.solved_for(Genes.of(genes), [s.name for s in statistics])
    seconds = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        save_memory(memory, Path(folder) / "memory.safetensors")
        size = (Path(folder) / "memory.safetensors").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"solve {seconds:.2f} s, file {size / 1e6:.0f} MB, peak of the process {peak:.0f} MB")


if __name__ == "__main__":
    main()
