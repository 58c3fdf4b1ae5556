"""Files of tensors from elsewhere: safetensors, or PyTorch's format without running any code in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from canal.errors import WeightsError

STATE = "model_state_dict"
SUFFIXES = (".safetensors", ".pth", ".pt")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint.

    Parameters
    ----------
    path
        A ``.safetensors`` file, or a file of ``torch.save`` that holds tensors by name, alone or as
        ``model_state_dict``. It is read with ``weights_only``: a pickle that would run code is refused.

    Raises
    ------
    WeightsError
        If there is no such file, it cannot be read without running code, or it holds no tensors by name.
    """
    if not path.is_file():
        message = f"There is no file {path}. Expected a checkpoint, .pth, .pt or .safetensors; check the spelling."
        raise WeightsError(message)
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except Exception as error:  # damaged files make torch and safetensors raise anything
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = (
            f"{path} cannot be read as tensors alone ({what[:200]}). Expected a file of torch.save or safetensors that "
            "holds nothing but tensors and plain values. A file that holds other objects could run code and is never "
            "loaded: load it where you trust it, and save its model_state_dict alone."
        )
        raise WeightsError(message) from error
    return _state(found, path)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name: safetensors, or ``{"model_state_dict": ...}`` in PyTorch's format for its own tools."""
    whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(whole, path)
    else:
        torch.save({STATE: whole}, path)


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _state(found: Any, path: Path) -> dict[str, Tensor]:
    state = found.get(STATE, found) if isinstance(found, Mapping) else found
    if isinstance(state, Mapping) and state and all(isinstance(v, Tensor) for v in state.values()):
        return {str(k): v for k, v in state.items()}
    keys = ", ".join(map(str, list(found)[:8])) if isinstance(found, Mapping) else type(found).__name__
    message = (
        f"{path} holds {keys or 'nothing'}; expected tensors by name, alone or under {STATE!r}. "
        "Save model.state_dict() and import that."
    )
    raise WeightsError(message)
