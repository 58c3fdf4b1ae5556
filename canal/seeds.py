"""One recorded seed, and one named generator of random numbers for each use.

A generator is derived from the seed and the name of its use, so that a new use never shifts the numbers of another.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, use: str) -> int:
    """Return the seed of one named use, 63 bits.

    Parameters
    ----------
    seed
        The recorded seed of the stage.
    use
        Name of the use, such as ``"batches"``.
    """
    # 63 bits stay positive where a seed is taken for a signed integer of 64 bits.
    digest = hashlib.sha256(f"{seed}:{use}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(seed: int, use: str) -> np.random.Generator:
    """Return the NumPy generator of one named use."""
    return np.random.default_rng(derived_seed(seed, use))


def torch_generator(seed: int, use: str) -> "torch.Generator":
    """Return the torch generator of one named use; it draws on the CPU, the same numbers whatever the device."""
    import torch

    return torch.Generator(device="cpu").manual_seed(derived_seed(seed, use))
