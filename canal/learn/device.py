"""Where to compute, and with which numbers."""

import torch

from canal.seeds import derived_seed


def best_device() -> torch.device:
    """Return CUDA where it is present, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def product_numbers(precision: str) -> torch.dtype:
    """Return the numbers of large matrix products on a CPU: bfloat16 where asked for, or where the CPU has it.

    Without instructions for it (AVX512-BF16 or AMX) bfloat16 is slower than float32.
    """
    if precision == "bfloat16":
        return torch.bfloat16
    able = torch.cpu.get_capabilities() if precision == "auto" and hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


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
