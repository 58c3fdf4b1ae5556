"""Stages on several devices and nodes: who reads and writes, and who only helps."""

from collections.abc import Callable

from canal.learn.processes import started_outside
from canal.learn.together import help_training, trainer
from canal.stages.request import StageRequest


def trainer_of(request: StageRequest) -> Callable[..., list[dict[str, float]]]:
    """Return how the stage's network is trained; a process that was started to help does so and does not return.

    Raises
    ------
    ConfigError
        If torchrun or SLURM started another number of processes than is asked for.
    StageError
        If a helper loses the others.
    SystemExit
        In a helper that has done its part: it touches neither data nor registry.
    """
    rank = started_outside(request.devices, request.nodes)
    if rank:
        help_training(request.devices, request.nodes)
        raise SystemExit(0)
    return trainer(request.devices, request.nodes)
