"""Training one network in several processes: what the first one sends, and what the others do with it.

Everything goes through the group as one safetensors message: weights, cells and targets as tensors, the rest as JSON.

The program of a helper process: ``python -m canal.training.distributed DEVICES``, started by the first process.
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
from canal.training.train import CHECKPOINT, Distillation, TrainingData, train_network

ENCODER: TypeAdapter[Any] = TypeAdapter(EncoderConfig)


def train_on_devices(
    network: Network, data: TrainingData, config: TrainingConfig, run: Run, distillation: Distillation | None
) -> list[dict[str, float]]:
    """Train a network on as many devices and nodes as the run names; as `train_network`."""
    if run.devices * run.nodes == 1:
        return train_network(network, data, config, run, distillation=distillation)
    with process_group(run.devices, run.nodes) as processes:
        processes.broadcast(_packed(network, data, config, run, distillation))
        return train_network(network, data, config, run, distillation=distillation, processes=processes)


def help_training(devices: int, nodes: int) -> None:
    """Train along with the first process, and leave nothing behind.

    Raises
    ------
    StageError
        If a process is lost.
    """
    with process_group(devices, nodes) as processes, tempfile.TemporaryDirectory() as folder:
        tensors, facts = _unpacked(processes.broadcast(None), Path(folder))
        _train(tensors, facts, processes, Path(folder))


def _packed(
    network: Network, data: TrainingData, config: TrainingConfig, run: Run, distillation: Distillation | None
) -> bytes:
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
    tensors |= _cells("cells", data.cells) | _cells("validation", data.validation)
    arrays = {"types": data.types, "weights": data.weights, "validation_types": data.validation_types}
    tensors |= {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}
    if distillation is not None:
        tensors["previous"] = distillation.previous.contiguous()
    checkpoint = None if run.draft is None else run.draft.folder / CHECKPOINT
    if checkpoint is not None and checkpoint.is_file():
        tensors["checkpoint"] = torch.frombuffer(bytearray(checkpoint.read_bytes()), dtype=torch.uint8)
    return save(tensors, metadata={"facts": json.dumps(facts)})


def _cells(name: str, cells: PanelCells) -> dict[str, Tensor]:
    values = cells.values
    parts = {"data": values.data, "indices": values.indices, "indptr": values.indptr}
    parts |= {"measured": cells.measured, "source": cells.source}
    return {f"{name}.{k}": torch.from_numpy(v.copy()) for k, v in parts.items()}  # safetensors refuses shared memory


def _unpacked(content: bytes, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    message = folder / "message.safetensors"
    message.write_bytes(content)
    with safe_open(message, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts: dict[str, Any] = json.loads(file.metadata()["facts"])
    message.unlink()
    return tensors, facts


def _network(facts: dict[str, Any], tensors: dict[str, Tensor], config: TrainingConfig) -> Network:
    network = Network(build_encoder(ENCODER.validate_python(facts["encoder"]), facts["genes"]), facts["types"])
    network.encoder.product_dtype = product_dtype(config.precision)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    return network


def _read_cells(name: str, tensors: dict[str, Tensor]) -> PanelCells:
    part = {k: tensors[f"{name}.{k}"].numpy() for k in ("data", "indices", "indptr", "measured", "source")}
    shape = (len(part["indptr"]) - 1, part["measured"].shape[1])
    values = sp.csr_matrix((part["data"], part["indices"], part["indptr"]), shape=shape)
    return PanelCells(values=values, measured=part["measured"], source=part["source"])


def _train(tensors: dict[str, Tensor], facts: dict[str, Any], processes: ProcessGroup, folder: Path) -> None:
    """Train as the first process does, from what it sent; its checkpoint is read and none is written."""
    config = TrainingConfig.model_validate(facts["training"])
    network = _network(facts, tensors, config)
    cells, validation = _read_cells("cells", tensors), _read_cells("validation", tensors)
    data = TrainingData(
        cells=cells,
        types=tensors["types"].numpy(),
        weights=tensors["weights"].numpy(),
        validation=validation,
        validation_types=tensors["validation_types"].numpy(),
    )
    if facts["frozen_outputs"]:
        network.to(device := processes.fabric.device)
        data = replace(
            data,
            frozen_outputs=FrozenOutputs.of(network, cells, device),
            validation_frozen_outputs=FrozenOutputs.of(network, validation, device),
        )
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
