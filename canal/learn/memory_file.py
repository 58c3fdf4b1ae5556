"""The file of an analytic memory: statistics as tensors, the rest as JSON; no cell and no pickle."""

from pathlib import Path

import numpy as np

from canal.data.panel import GenePanel
from canal.learn.memory import AnalyticMemory
from canal.learn.statistics import TypeStatistics
from canal.learn.tensor_file import read_tensor_file, write_tensor_file

FORMAT = 1


def save_memory(memory: AnalyticMemory, path: Path) -> None:
    """Write the statistics to one safetensors file, factors as float16."""
    table = {
        "format": FORMAT,
        "ridge": memory.ridge,
        "panel": memory.panel.to_dict(),
        "statistics": [{"stage": s.stage, "name": s.name, "n": s.n} for s in memory.statistics],
    }
    arrays = {f"measured.{k}": v.astype(np.int64) for k, v in memory.measured.items()}
    for i, s in enumerate(memory.statistics):
        arrays |= {f"{i}.mean": s.mean, f"{i}.factors": s.factors.astype(np.float16), f"{i}.rest": s.rest}
    write_tensor_file(path, arrays, "table", table)


def load_memory(path: Path) -> AnalyticMemory:
    """Read the statistics.

    Raises
    ------
    RegistryError
        If the file is not an analytic memory of this or an earlier version.
    """
    arrays, table = read_tensor_file(path, "table", "analytic memory", FORMAT)
    statistics = tuple(
        TypeStatistics(
            **facts,
            mean=arrays[f"{i}.mean"],
            factors=arrays[f"{i}.factors"].astype(np.float32),
            rest=arrays[f"{i}.rest"],
        )
        for i, facts in enumerate(table["statistics"])
    )
    measured = {int(k.removeprefix("measured.")): v for k, v in arrays.items() if k.startswith("measured.")}
    return AnalyticMemory(
        panel=GenePanel.from_dict(table["panel"]),
        measured=dict(sorted(measured.items())),
        statistics=statistics,
        ridge=table["ridge"],
    )
