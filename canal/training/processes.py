"""Several processes that train one network: started here, by torchrun or by SLURM, and joined by Lightning Fabric.

The only module that knows Fabric. The first process reads, writes and decides; the others are *helpers*, which get
everything through the group and need neither the data nor the registry (`canal.training.distributed`).

Every process draws the same batches from the same generators; it computes a slice of each, scaled by the share that
the slice has in the loss of the whole batch. The sum of the gradients is then that of the batch, up to the rounding of
sums in another order, and so all processes hold the same weights at every step.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from canal.errors import ConfigError, StageError
from canal.model.encoders.contract import BatchDropout
from canal.training.avalanche import SupervisedPlugin

TIMEOUT = timedelta(minutes=30)  # for a process that still computes; one that has died is noticed at once
HELPER_EXIT = 20  # seconds that a helper gets to leave by itself


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one network, as one of them sees the group.

    Attributes
    ----------
    rank, count
        Number of this process, from 0, and of all.
    fabric
        Lightning Fabric, launched.
    """

    rank: int
    count: int
    fabric: Any

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the tensors that every process gives, the same bits in each.

        Raises
        ------
        StageError
            If a process is gone.
        """
        with _report_lost_process():
            total: Tensor = self.fabric.all_reduce(values.to(self.fabric.device), reduce_op="sum")
        return total.to(values.device)

    def broadcast(self, content: bytes | None) -> bytes:
        """Return the bytes that the first process sends; the others pass ``None``.

        Raises
        ------
        StageError
            If a process is gone.
        """
        # Their number first, so that every process has room for them.
        device = self.fabric.device
        size = self.sum(torch.tensor([len(content) if content else 0], dtype=torch.int64))
        buffer = torch.zeros(int(size), dtype=torch.uint8, device=device)
        if content:
            buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        with _report_lost_process():
            torch.distributed.broadcast(buffer, 0)
        return buffer.cpu().numpy().tobytes()


def launched_rank(devices: int, nodes: int) -> int | None:
    """Return this process's rank where torchrun or SLURM started it together with others, else ``None``.

    Raises
    ------
    ConfigError
        If they started another number of processes than is asked for, or several nodes are asked for and nothing
        started processes on them.
    """
    for rank, size, who in (("RANK", "WORLD_SIZE", "torchrun"), ("SLURM_PROCID", "SLURM_NTASKS", "srun")):
        # torchrun may run within a SLURM job: then its variables count, and SLURM's do not.
        torchrun = "TORCHELASTIC_RUN_ID" in os.environ
        if rank not in os.environ or (who == "torchrun") != torchrun:
            continue
        # A single process under SLURM starts its own helpers, like one outside.
        count = int(os.environ.get(size, "1"))
        if count != devices * nodes and (count > 1 or torchrun):
            message = (
                f"{who} started {count} processes, but --devices {devices} --nodes {nodes} ask for "
                f"{devices * nodes}. Give --devices the processes of one node and --nodes the nodes."
            )
            raise ConfigError(message)
        if count > 1:
            return int(os.environ[rank])
    if nodes > 1:
        message = (
            f"--nodes {nodes} needs a process on each node. Start the command with torchrun or srun; "
            "docs/cluster.md has examples."
        )
        raise ConfigError(message)
    return None


@contextmanager
def process_group(devices: int, nodes: int) -> Iterator[ProcessGroup]:
    """Join the group, and leave it at the end; its helpers are started first where nothing else started processes.

    Raises
    ------
    ConfigError
        If Fabric is not installed, or as `launched_rank`.
    StageError
        If a process is lost.
    """
    # Fabric changes both, and they are put back at the end.
    environment, threads = dict(os.environ), torch.get_num_threads()
    fabric_type, strategy = _fabric()
    outside = launched_rank(devices, nodes)
    cuda = torch.cuda.is_available() and torch.cuda.device_count() >= devices
    helpers: list[subprocess.Popen[bytes]] = []
    try:
        if outside is None and "CANAL_HELPER" not in os.environ:
            helpers = _start_helpers(devices)
        with _report_lost_process():
            fabric = fabric_type(
                accelerator="cuda" if cuda else "cpu",
                devices=devices,
                num_nodes=nodes,
                strategy=strategy(timeout=TIMEOUT),
            )
            fabric.launch()
        yield ProcessGroup(fabric.global_rank, fabric.world_size, fabric)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        _stop_helpers(helpers)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)


def _fabric() -> tuple[Any, Any]:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        message = "Training on several devices needs Lightning Fabric. Install it with pip install 'canal[cluster]'."
        raise ConfigError(message) from error
    return Fabric, DDPStrategy


def _start_helpers(devices: int) -> list[subprocess.Popen[bytes]]:
    """Start a helper for each further device of this node, and set the variables that Fabric joins them by."""
    # A free port for the group.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(devices), "NODE_RANK": "0"}
    os.environ |= common | {"LOCAL_RANK": "0"}
    command = [sys.executable, "-m", "canal.training.distributed", str(devices)]
    helpers = []
    for rank in range(1, devices):
        environment = os.environ | {"CANAL_HELPER": "1", "LOCAL_RANK": str(rank)}
        helpers.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    return helpers


def _stop_helpers(helpers: list[subprocess.Popen[bytes]]) -> None:
    for helper in helpers:
        try:
            helper.wait(timeout=HELPER_EXIT)
        except subprocess.TimeoutExpired:
            helper.kill()
            helper.wait()


@contextmanager
def _report_lost_process() -> Iterator[None]:
    """Turn the error of a group that lost a process into the user's."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = (
            f"A process of the training was lost ({reason}). Nothing was committed. "
            "Run the command again with --resume to go on from the last epoch."
        )
        raise StageError(message) from error


def batch_slice(size: int, processes: ProcessGroup) -> tuple[tuple[int, int, int], bool]:
    """Return (start, stop, total) of this process's rows of a batch of ``size`` cells, and whether they count.

    Where a batch has fewer cells than there are processes, some compute a cell that does not count.
    """
    start = size * processes.rank // processes.count
    stop = size * (processes.rank + 1) // processes.count
    return ((start, stop, size), True) if stop > start else ((0, 1, size), False)


class GradientSumPlugin(SupervisedPlugin):
    """Add up gradients and loss over the processes.

    Parameters
    ----------
    processes
        The group.
    """

    def __init__(self, processes: ProcessGroup) -> None:
        super().__init__()
        self.processes = processes

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Give dropout the rows of the batch that are computed here."""
        for module in strategy.model.modules():
            if isinstance(module, BatchDropout):
                module.rows = strategy.mb_slice

    def after_backward(self, strategy: Any, **_: Any) -> None:
        """Replace each process's gradients and loss by their sums."""
        # One message for all of them: a vector of every gradient and, last, the loss.
        gradients = [p.grad for p in strategy.model.parameters() if p.grad is not None]
        parts = [gradient.flatten() for gradient in gradients]
        parts.append(strategy.loss.detach().flatten())
        total = self.processes.sum(torch.cat(parts))
        # And taken apart again.
        start = 0
        for gradient in gradients:
            stop = start + gradient.numel()
            gradient.copy_(total[start:stop].view_as(gradient))
            start = stop
        strategy.loss = total[-1:]

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Let dropout work on whole batches again."""
        for module in strategy.model.modules():
            if isinstance(module, BatchDropout):
                module.rows = None
