"""Arrays and a JSON table in one safetensors file; no pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from canal.errors import RegistryError


def write_tensor_file(path: Path, arrays: Mapping[str, np.ndarray], key: str, table: Mapping[str, Any]) -> None:
    """Write arrays by name, and a table of plain values as JSON under ``key``."""
    text = np.frombuffer(json.dumps(table).encode(), dtype=np.uint8).copy()
    save_file({k: np.ascontiguousarray(v) for k, v in ({key: text} | dict(arrays)).items()}, path)


def read_tensor_file(path: Path, key: str, what: str, newest: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and the table of `write_tensor_file`.

    Parameters
    ----------
    what
        What the file should be, for messages, such as ``"example bank"``.
    newest
        Newest ``format`` of the table that this version reads.

    Raises
    ------
    RegistryError
        If the file is no such file, or a newer canal wrote it.
    """
    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        message = f"{path} is not an {what}: {error}. Restore it, or roll back to an earlier stage."
        raise RegistryError(message) from error
    table: dict[str, Any] = json.loads(arrays[key].tobytes())
    if table["format"] > newest:
        message = f"{path} was written by a newer canal ({what} format {table['format']}); update canal to read it."
        raise RegistryError(message)
    return arrays, table
