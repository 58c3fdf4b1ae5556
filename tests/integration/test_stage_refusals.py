"""What cannot be learned or read is one clear message, and the workspace stays as it was."""

from pathlib import Path
from typing import Any

import pytest

import canal
from canal.errors import CanalError, ConfigError, DataError, RegistryError, StageError
from canal.registry.registry import Registry
from canal.workspace import Workspace
from tests.labs import QUICK, add, everything, write
from tests.make import make_adata

BAD = {
    "the same file again": (lambda lab, _: (lab / "first.h5ad", {}), StageError, "added before"),
    "no such file": (lambda lab, _: (lab / "nowhere.h5ad", {}), DataError, "nowhere.h5ad"),
    "unknown preset": (lambda lab, _: (lab / "first.h5ad", {"preset": "big"}), ConfigError, "no preset 'big'"),
    "unknown key": (
        lambda lab, _: (lab / "first.h5ad", {"overrides": ["training.epoch=3"]}),
        ConfigError,
        "unknown key 'training.epoch'",
    ),
    "bad value": (
        lambda lab, _: (lab / "first.h5ad", {"overrides": ["bank.size=-1"]}),
        ConfigError,
        "bank.size = -1",
    ),
    "bank too small": (
        lambda _, tmp: (write(tmp, "new", ("B", "HSC")), {"overrides": ["bank.size=2"]}),
        StageError,
        "2 places for 4 cell types",
    ),
    "no gene in common": (
        lambda _, tmp: (write(tmp, "new", genes=[f"OTHER{i}" for i in range(60)]), {}),
        DataError,
        "no gene in common",
    ),
    "no such column": (lambda lab, _: (lab / "first.h5ad", {"labels": "type"}), DataError, "'type'"),
}


@pytest.mark.parametrize("case", BAD, ids=BAD)
def test_bad_input_is_one_message_and_nothing_is_written(lab: Path, tmp_path: Path, case: str) -> None:
    """Every request that cannot be met leaves the workspace as it was."""
    make, error, match = BAD[case]
    data, options = make(lab, tmp_path)
    workspace = canal.open_workspace(lab / "ws")
    before = everything(lab / "ws")

    with pytest.raises(error, match=match):
        workspace.add_stage(data, **({"labels": "cell_type", "overrides": QUICK} | options))

    assert everything(lab / "ws") == before


@pytest.mark.parametrize("what", ["annotate", "evaluate", "explain"])
def test_a_file_without_a_gene_of_the_model_is_refused(lab: Path, what: str) -> None:
    """Whatever is asked of it, the message names its genes and the model's."""
    workspace = canal.open_workspace(lab / "ws")
    strange = make_adata(20, 30, types=("B", "NK"), genes=[f"OTHER{i}" for i in range(30)])
    options: dict[str, Any] = {"evaluate": {"labels": "cell_type", "novel": ["NK"]}}.get(what, {})

    with pytest.raises(DataError, match="no gene in common"):
        getattr(workspace, what)(strange, **options)


def test_one_type_only_is_refused_and_makes_no_workspace(tmp_path: Path) -> None:
    """A first stage needs two types."""
    workspace = Workspace(canal.open_workspace(tmp_path, create=True).layout)

    with pytest.raises(DataError, match="one type"):
        add(workspace, write(tmp_path, "one", ("B",)))

    assert not Registry.exists(workspace.layout.registry)


@pytest.mark.parametrize("damage", ["altered", "missing", "no database"])
def test_a_damaged_registry_is_named(lab: Path, tmp_path: Path, damage: str) -> None:
    """An altered or missing artifact or a lost database is a clear error, not an answer."""
    import shutil

    shutil.copytree(lab / "ws", tmp_path / "ws")
    weights = next((tmp_path / "ws" / "registry" / "artifacts").rglob("weights.safetensors"))
    if damage == "altered":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        for path in (tmp_path / "ws" / "registry" / "artifacts").rglob("weights.safetensors"):
            path.write_bytes(content)
    elif damage == "missing":
        for path in (tmp_path / "ws" / "registry" / "artifacts").rglob("weights.safetensors"):
            path.unlink()
    else:
        (tmp_path / "ws" / "registry" / "mlflow.db").unlink()
    shutil.rmtree(tmp_path / "ws" / "registry" / "cache", ignore_errors=True)

    with pytest.raises(RegistryError):
        canal.open_workspace(tmp_path / "ws").annotate(make_adata(20, seed=3))


def test_every_error_is_of_the_tree() -> None:
    """What users can mend shares one base."""
    assert all(issubclass(e, CanalError) for e in (ConfigError, DataError, StageError, RegistryError))
