"""The models that come with canal: found by a short name, such as ``blood``, without a network.

Each is one file ``NAME.canal`` as `canal registry export` writes it, with its card among the notes of its record. They
are built from the declarations in ``stages/starter/`` by ``benchmarks/starter.py``.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

from canal.errors import ConfigError
from canal.registry.package import open_package

SUFFIX = ".canal"
CARD = "card"  # in the notes of a record: what people are told of a model that is given away


def shipped_models() -> dict[str, Path]:
    """Return the file of every model that comes with the package, by name."""
    # In an installed package the models lie inside it; in a checkout beside their declarations.
    inside = Path(str(files("canal"))) / "starter"
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "stages" / "starter"
    models = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        models[path.stem] = path
    return models


def model_file(name: str | Path) -> Path:
    """Return the file of a model that is named: a file, or the name of a model that comes with canal.

    Parameters
    ----------
    name
        Path of a file, which comes first, or a name of `shipped_models`.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_models()
    if str(name) in shipped:
        return shipped[str(name)]
    known = ", ".join(shipped) or "none"
    message = (
        f"There is no model {str(name)!r}: no file has this name, and the models that come with canal are: {known}. "
        f"Name one of these, or a file of `canal registry export` such as model{SUFFIX}."
    )
    raise ConfigError(message)


def describe_package(path: Path) -> dict[str, Any]:
    """Return what is known of the model in a file: its card, types, genes, cells, figures, size and digest.

    Parameters
    ----------
    path
        File of `canal registry export`, or a model that comes with canal.

    Returns
    -------
    ``card`` is empty for a model that was never given one; ``examples`` is the number of cells of the example bank.

    Raises
    ------
    RegistryError
        If the file is damaged, or of a newer canal.
    """
    with open_package(path) as package:
        record, digest = package.record, package.digest
    return {
        "name": record.name,
        "card": dict(record.notes.get(CARD) or {}),
        "types": list(record.types),
        "genes": record.genes,
        "cells": record.cells,
        "examples": int(record.bank.get("size", 0)),
        "metrics": dict(record.metrics),
        "bytes": path.stat().st_size,
        "digest": digest,
        "file": str(path),
    }
