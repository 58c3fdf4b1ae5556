"""A stage trained by several processes, with real ones: the same stage as one process makes, or none."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import canal
from canal.config import Preset, load_preset
from canal.errors import ConfigError, StageError
from canal.registry.commit import StageDraft
from canal.training import processes
from canal.training.processes import launched_rank
from canal.training.stage import LearnedStage
from tests.learning import QUICK, learn, toy, weights_of
from tests.make import make_adata
from tests.unit.learn.test_frozen import SMALL

TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}  # of weights; sums in another order, over all steps of a stage


def learn_second(preset: Preset, devices: int, before: LearnedStage) -> LearnedStage:
    """Learn a second stage on so many processes."""
    return learn(toy(("B", "HSC"), n=29, prefix="b"), before, preset, devices=devices)


@pytest.mark.parametrize(("preset_name", "sets"), [("compact", QUICK), ("canal", SMALL)], ids=["compact", "paper"])
def test_two_processes_train_what_one_trains(preset_name: str, sets: tuple[str, ...]) -> None:
    """Weights and figures agree, with dropout, hiding, weights, distillation and batches that do not split evenly."""
    preset = load_preset(preset_name, sets)
    first = learn(toy(n=24), preset=preset)
    environment = dict(os.environ)

    one, two = (learn_second(preset, devices, first) for devices in (1, 2))

    for name, value in weights_of(one).items():
        torch.testing.assert_close(weights_of(two)[name], value, **TOLERANCE, msg=name)
    assert len(one.history) == len(two.history) > 1
    for a, b in zip(one.history, two.history, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    assert dict(os.environ) == environment
    assert not torch.distributed.is_initialized()


def write(folder: Path) -> Path:
    """Write labelled toy cells."""
    make_adata(80, types=("B", "NK")).write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


def files(folder: Path) -> set[str]:
    """Return the artifacts and declarations of committed stages."""
    return {
        str(p) for p in folder.rglob("*") if p.name in {"manifest.json", "weights.safetensors"} or "stages" in p.parts
    }


def test_a_lost_process_leaves_the_registry_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper killed in the second epoch: a clear error, no stage; --resume goes on with one process."""
    helpers: list[subprocess.Popen[bytes]] = []
    start, log = processes._start_helpers, StageDraft.log_epoch
    epochs: list[int] = []

    def started(devices: int) -> list[subprocess.Popen[bytes]]:
        helpers.extend(start(devices))
        return helpers

    def kill(draft: StageDraft, epoch: int, figures: dict[str, float]) -> None:
        log(draft, epoch, figures)
        epochs.append(epoch)
        if epoch == 2 and helpers[0].poll() is None:
            helpers[0].kill()
            helpers[0].wait()

    monkeypatch.setattr(processes, "_start_helpers", started)
    monkeypatch.setattr(StageDraft, "log_epoch", kill)
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    before, data = files(tmp_path / "ws"), write(tmp_path)

    with pytest.raises(StageError, match=r"process of the training was lost.*--resume"):
        workspace.add_stage(data, labels="cell_type", overrides=QUICK, devices=2)
    assert {f for f in files(tmp_path / "ws") if "manifest" in f} <= before
    assert epochs == [1, 2]

    result = workspace.add_stage(data, labels="cell_type", overrides=QUICK, resume=True)
    assert result.stage == 1
    assert epochs[2:] in ([2, 3, 4], [3, 4])
    assert [s.number for s in canal.open_workspace(tmp_path / "ws").stages()] == [1]


def test_under_torchrun_one_process_answers_and_writes(tmp_path: Path) -> None:
    """Two processes started by torchrun commit one stage and print one answer."""
    data = write(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "canal.cli.main", "-C", str(tmp_path / "ws"), "stage", "add", "--data", str(data),
               "--labels", "cell_type", "--devices", "2", "--json"]  # fmt: skip
    for key in QUICK:
        command += ["--set", key]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["stage"] == 1
    assert [s.number for s in canal.open_workspace(tmp_path / "ws").stages()] == [1]


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("environment", "devices", "nodes", "expected"),
    [
        ({}, 1, 1, None),
        ({}, 2, 1, None),
        (TORCHRUN, 2, 1, 1),
        (TORCHRUN, 1, 2, 1),
        (SLURM, 2, 2, 3),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, 2, 1, None),
        (TORCHRUN, 1, 1, "torchrun started 2 processes"),
        (SLURM, 2, 1, "srun started 4 processes"),
        ({}, 2, 2, "torchrun or srun"),
    ],
)
def test_who_started_the_processes(
    environment: dict[str, str], devices: int, nodes: int, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rank under torchrun and SLURM, and a clear error where the numbers do not fit."""
    for name in {*TORCHRUN, *SLURM}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            launched_rank(devices, nodes)
    else:
        assert launched_rank(devices, nodes) == expected
