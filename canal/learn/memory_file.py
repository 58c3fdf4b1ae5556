"""The file of an analytic memory: statistics as tensors, the rest as JSON; no cell and no pickle."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from canal.data.panel import GenePanel
from canal.errors import RegistryError
from canal.learn.memory import AnalyticMemory
from canal.learn.statistics import TypeStatistics

FORMAT = 1


def save_memory(memory: AnalyticMemory, path: Path) -> None:
    """Write the statistics to one safetensors file, factors as float16."""
    table = {
        "format": FORMAT,
        "ridge": memory.ridge,
        "panel": memory.panel.to_dict(),
        "statistics": [{"stage": s.stage, "name": s.name, "n": s.n} for s in memory.statistics],
    }
    arrays = {"table": np.frombuffer(json.dumps(table).encode(), dtype=np.uint8).copy()}
    arrays |= {f"measured.{k}": v.astype(np.int64) for k, v in memory.measured.items()}
    for i, s in enumerate(memory.statistics):
        arrays |= {f"{i}.mean": s.mean, f"{i}.factors": s.factors.astype(np.float16), f"{i}.rest": s.rest}
    save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}, path)


def load_memory(path: Path) -> AnalyticMemory:
    """Read the statistics.

    Raises
    ------
    RegistryError
        If the file is not an analytic memory of this or an earlier version.
    """
    try:
        with safe_open(path, "pt") as file:
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        message = f"{path} is not an analytic memory: {error}. Restore it, or roll back to an earlier stage."
        raise RegistryError(message) from error
    table = json.loads(arrays["table"].tobytes())
    if table["format"] > FORMAT:
        message = f"{path} was written by a newer canal (memory format {table['format']}); update canal."
        raise RegistryError(message)
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
