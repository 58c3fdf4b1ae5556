"""A stage as a person reads it: ``stages/NNN-name.toml``, all that is needed to add it again."""

import re
from typing import Any

import tomli_w

from canal.registry.record import StageRecord

_HEAD = """\
# Stage {number} of this annotator. Written by canal when the stage was committed;
# `canal stage replay` learns it again from here.

"""


def declaration(record: StageRecord) -> str:
    """Return the TOML text of a stage: data, labels, preset with every value, seed, parent."""
    stage = {
        "number": record.number,
        "name": record.name,
        "parent": record.parent,
        "seed": record.seed,
        "created": record.created,
        "canal": record.canal_version,
    }
    table = {
        "schema": 1,
        "stage": stage,
        "options": record.notes,
        "data": list(record.data),
        "preset": record.preset,
        "outcome": {
            "new_types": list(record.new_types),
            "types": len(record.types),
            "cells": record.cells,
            "genes": record.genes,
            "metrics": record.metrics,
            "artifacts": record.artifacts,
        },
    }
    return _HEAD.format(number=record.number) + tomli_w.dumps(_without_none(table))


def declaration_name(record: StageRecord) -> str:
    """Return the file name of a declaration: ``001-pbmc.toml``."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", record.name).strip("-.") or "stage"
    return f"{record.number:03d}-{safe[:80]}.toml"


def _without_none(value: Any) -> Any:
    """Leave out what is not set: TOML has no null."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value if v is not None]
    return value
