"""Records and files of stages that nobody learned."""

from pathlib import Path
from typing import Any

from canal.model.record import StageRecord
from canal.registry.commit import StageDraft


def make_record(number: int = 1, **changes: Any) -> StageRecord:
    """Return a record; each test names only what matters to it."""
    types = tuple(f"type {k}" for k in range(number + 1))
    facts: dict[str, Any] = {
        "number": number,
        "name": f"toy{number}",
        "parent": number - 1 or None,
        "seed": 7,
        "preset": {
            "name": "compact",
            "training": {"epochs": 3, "learning_rate": 0.001},
        },
        "types": types,
        "new_types": types[-1:],
        "cells": 100,
        "genes": 50 * number,
        "data": (
            {
                "path": f"/data/toy{number}.h5ad",
                "digest": f"sha256:{number:064x}",
                "cells": 100,
                "genes": 60,
                "labels": "cell_type",
                "dropped_types": {},
                "warnings": ["a warning"],
            },
        ),
        "bank": {
            "size": 10,
            "per_type": dict.fromkeys(types, 5),
            "digest": f"sha256:{0:064x}",
        },
        "metrics": {"validation_accuracy": 0.9, "validation_macro_f1": 0.8},
        "notes": {"overrides": ["training.epochs=3"], "label_map": None},
    }
    return StageRecord(**(facts | changes))


def make_files(folder: Path, number: int = 1) -> dict[str, Path]:
    """Write the files of a model; every stage has others."""
    contents = {
        "weights.safetensors": bytes(range(256)) * 40 + bytes([number % 256]),
        "bank.safetensors": f"cells of stage {number}".encode(),
        "types.json": b'["type 0", "type 1"]',
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def fill(draft: StageDraft, number: int, epochs: int = 3) -> dict[str, Path]:
    """Do what learning would: log epochs, write files."""
    for epoch in range(epochs):
        draft.log_epoch(epoch, {"loss": 1 / (epoch + 1), "validation_accuracy": epoch / 10})
    return make_files(draft.folder, number)
