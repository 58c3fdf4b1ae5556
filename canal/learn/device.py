"""Where to compute, and with which numbers."""

import torch

from canal.seeds import derived_seed


def best_device() -> torch.device:
    """Return CUDA where it is present, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class seeded:
    """Give dropout and initialisation their own numbers, and leave the global generator as it was.

    torch's dropout and initialisers know no generator argument, so the global one is set for the time of the block.

    Parameters
    ----------
    seed
        The recorded seed.
    use
        Name of the use.
    device
        Device whose generator is set besides the CPU's.
    """

    def __init__(self, seed: int, use: str, device: torch.device | None = None) -> None:
        cuda = [0] if device is not None and device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=cuda)
        self._seed = derived_seed(seed, use)

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *exception: object) -> None:
        self._fork.__exit__(*exception)  # type: ignore[arg-type]
