"""Training one network in several processes: what the first one sends, and what its helpers do with it.

Everything goes through the group as one safetensors message: weights, cells and targets as tensors, the rest as JSON.

This module is also the program of a helper: ``python -m canal.training.distributed DEVICES``, started by the first
process (`canal.training.processes`).
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from canal.config import EncoderConfig, TrainingConfig
from canal.errors import StageError
from canal.model.network import Network, PanelCells, build_encoder, product_dtype
from canal.training.frozen import FrozenOutputs
from canal.training.processes import ProcessGroup, process_group
from canal.training.run import ReceivedDraft, Run
from canal.training.train import CHECKPOINT, Distillation, TrainingData, tensors_under, train_network

ENCODER: TypeAdapter[Any] = TypeAdapter(EncoderConfig)


def train_on_devices(
    network: Network, data: TrainingData, config: TrainingConfig, run: Run, distillation: Distillation | None
) -> list[dict[str, float]]:
    """Train a network on as many devices and nodes as the run names; as `train_network`."""
    if run.devices * run.nodes == 1:
        return train_network(network, data, config, run, distillation=distillation)
    with process_group(run.devices, run.nodes) as processes:
        processes.broadcast(_message(network, data, config, run, distillation))
        return train_network(network, data, config, run, distillation=distillation, processes=processes)


def help_training(devices: int, nodes: int) -> None:
    """Train along with the first process, and leave nothing behind.

    Raises
    ------
    StageError
        If a process is lost.
    """
    with process_group(devices, nodes) as processes, tempfile.TemporaryDirectory() as folder:
        tensors, facts = _read_message(processes.broadcast(None), Path(folder))
        _train_along(tensors, facts, processes, Path(folder))


def _message(
    network: Network, data: TrainingData, config: TrainingConfig, run: Run, distillation: Distillation | None
) -> bytes:
    """Return all that a helper needs to train along."""
    facts = {
        "training": config.model_dump(mode="json"),
        "seed": run.seed,
        "stage": run.number,
        "encoder": ENCODER.dump_python(network.encoder.config, mode="json"),
        "genes": network.encoder.n_genes,
        "types": network.classifier.out_features,
        "frozen_outputs": data.frozen_outputs is not None,
        "weight": distillation.weight if distillation is not None else 0.0,
        "key": run.draft.key if run.draft is not None else "",
    }
    tensors = {f"network.{k}": v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    # Cells, their types and weights.
    tensors |= _cell_tensors("cells", data.cells) | _cell_tensors("validation", data.validation)
    tensors["types"] = torch.from_numpy(np.ascontiguousarray(data.types))
    tensors["weights"] = torch.from_numpy(np.ascontiguousarray(data.weights))
    tensors["validation_types"] = torch.from_numpy(np.ascontiguousarray(data.validation_types))
    if distillation is not None:
        tensors["previous"] = distillation.previous.contiguous()
    # Where the first process goes on from a checkpoint, so does a helper.
    checkpoint = None if run.draft is None else run.draft.folder / CHECKPOINT
    if checkpoint is not None and checkpoint.is_file():
        tensors["checkpoint"] = torch.frombuffer(bytearray(checkpoint.read_bytes()), dtype=torch.uint8)
    return save(tensors, metadata={"facts": json.dumps(facts)})


def _cell_tensors(name: str, cells: PanelCells) -> dict[str, Tensor]:
    """Return cells as tensors whose names begin with ``name``; `_panel_cells` reads them."""
    values = cells.values
    parts = {"data": values.data, "indices": values.indices, "indptr": values.indptr}
    parts |= {"measured": cells.measured, "source": cells.source}
    return {f"{name}.{k}": torch.from_numpy(v.copy()) for k, v in parts.items()}  # safetensors refuses shared memory


def _read_message(content: bytes, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and facts of a message, which passes through a file of the folder."""
    message = folder / "message.safetensors"
    message.write_bytes(content)
    with safe_open(message, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts: dict[str, Any] = json.loads(file.metadata()["facts"])
    message.unlink()
    return tensors, facts


def _received_network(facts: dict[str, Any], tensors: dict[str, Tensor], config: TrainingConfig) -> Network:
    network = Network(build_encoder(ENCODER.validate_python(facts["encoder"]), facts["genes"]), facts["types"])
    network.encoder.product_dtype = product_dtype(config.precision)
    network.load_state_dict(tensors_under(tensors, "network."))
    return network


def _panel_cells(name: str, tensors: dict[str, Tensor]) -> PanelCells:
    """Return the cells of `_cell_tensors`."""
    arrays = {part: tensor.numpy() for part, tensor in tensors_under(tensors, f"{name}.").items()}
    shape = (len(arrays["indptr"]) - 1, arrays["measured"].shape[1])
    values = sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
    return PanelCells(values=values, measured=arrays["measured"], source=arrays["source"])


def _train_along(tensors: dict[str, Tensor], facts: dict[str, Any], processes: ProcessGroup, folder: Path) -> None:
    """Train as the first process does, from what it sent; its checkpoint is read and none is written."""
    config = TrainingConfig.model_validate(facts["training"])
    network = _received_network(facts, tensors, config)
    cells, validation = _panel_cells("cells", tensors), _panel_cells("validation", tensors)
    data = TrainingData(
        cells=cells,
        types=tensors["types"].numpy(),
        weights=tensors["weights"].numpy(),
        validation=validation,
        validation_types=tensors["validation_types"].numpy(),
    )
    # Outputs of frozen layers are not sent: every process computes its own.
    if facts["frozen_outputs"]:
        network.to(device := processes.fabric.device)
        data = replace(
            data,
            frozen_outputs=FrozenOutputs.of(network, cells, device),
            validation_frozen_outputs=FrozenOutputs.of(network, validation, device),
        )
    # Checkpoint and distillation, where the first process has them.
    draft = None
    if "checkpoint" in tensors:
        draft = ReceivedDraft(folder, facts["key"])
        (folder / CHECKPOINT).write_bytes(tensors["checkpoint"].numpy().tobytes())
    distillation = None
    if "previous" in tensors:
        distillation = Distillation(previous=tensors["previous"], weight=facts["weight"])
    run = Run(number=facts["stage"], seed=facts["seed"], draft=draft)
    train_network(network, data, config, run, distillation=distillation, processes=processes)


def main() -> int:
    """Join the group, train, leave; 1 where the first process is gone."""
    try:
        help_training(int(sys.argv[1]), 1)
    except StageError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
