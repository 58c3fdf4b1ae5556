"""One training shared by several processes: each takes its part of every batch, and the gradients are added.

Every process draws the same batches from the same generators; it computes a slice of each, scaled by the share that
the slice has in the loss of the whole batch. The sum of the gradients is then that of the batch, up to the rounding of
sums in another order, and so all processes hold the same weights at every step.
"""

from typing import Any

import torch

from canal.encoders.dropout import BatchDropout
from canal.learn._avalanche import SupervisedPlugin
from canal.learn.processes import Processes


def slice_of(size: int, processes: Processes) -> tuple[tuple[int, int, int], bool]:
    """Return first row, last but one and size of a batch's part for this process, and whether it counts.

    Where a batch has fewer cells than there are processes, some compute a cell that does not count.
    """
    start, stop = (size * (processes.rank + i) // processes.count for i in (0, 1))
    return ((start, stop, size), True) if stop > start else ((0, 1, size), False)


class SharingPlugin(SupervisedPlugin):
    """Add up gradients and loss over the processes.

    Parameters
    ----------
    processes
        The group.
    """

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Tell dropout which rows of the batch these are."""
        for module in strategy.model.modules():
            if isinstance(module, BatchDropout):
                module.rows = strategy.mb_slice

    def after_backward(self, strategy: Any, **_: Any) -> None:
        """Replace each process's gradients and loss by their sums."""
        gradients = [p.grad for p in strategy.model.parameters() if p.grad is not None]
        parts = [*(g.flatten() for g in gradients), strategy.loss.detach().flatten()]
        total = self.processes.total(torch.cat(parts))
        for gradient, summed in zip(gradients, torch.split(total, [len(p) for p in parts]), strict=False):
            gradient.copy_(summed.view_as(gradient))
        strategy.loss = total[-1:]

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Dropout stands alone again."""
        for module in strategy.model.modules():
            if isinstance(module, BatchDropout):
                module.rows = None
