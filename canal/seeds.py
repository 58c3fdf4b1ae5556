"""One recorded seed, one named generator for each use.

A generator is derived from the seed and the name of its use, so that adding a use never shifts the numbers of another.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, use: str) -> int:
    """Return the 63-bit seed of one named use.

    Parameters
    ----------
    seed
        The recorded seed of the stage.
    use
        Name of the use, such as ``"batches"``.
    """
    digest = hashlib.sha256(f"{seed}:{use}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(seed: int, use: str) -> np.random.Generator:
    """Return the NumPy generator of one named use."""
    return np.random.default_rng(derived_seed(seed, use))


def torch_generator(seed: int, use: str, device: str = "cpu") -> "torch.Generator":
    """Return the torch generator of one named use."""
    import torch

    return torch.Generator(device=device).manual_seed(derived_seed(seed, use))
