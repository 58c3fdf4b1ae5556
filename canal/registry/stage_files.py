"""Which files a stage has: the one list of their names.

A file from elsewhere that bears another name is no part of a model. It is not taken into a registry and not read:
MLflow would import the modules that a foreign ``MLmodel`` names, and put a foreign ``code/`` on Python's path.
"""

from collections.abc import Iterable

from canal.registry.flavour import FLAVOUR_FILES

# What stages write, in the parts of canal that are named. None is pickled and none is run.
MODEL_FILES = frozenset(
    {
        # canal.model.model
        "weights.safetensors",
        "memory.safetensors",
        "genes.json",
        "types.json",
        "calibration.json",
        "novelty.json",
        "config.toml",
        # canal.model.bank
        "bank.safetensors",
        # canal.stages.tests
        "tests.json",
        "reliability.json",
        "reliability.svg",
    }
)


def strange_names(names: Iterable[str]) -> list[str]:
    """Return the names that no file of a stage has, sorted."""
    return sorted(set(names) - MODEL_FILES - FLAVOUR_FILES)


def without_flavour(files: dict[str, str]) -> dict[str, str]:
    """Return the files that make up the model, by name: without those that are written anew for MLflow."""
    return {name: digest for name, digest in files.items() if name not in FLAVOUR_FILES}
