"""A stage whose process is killed: nothing is there of it, and it can be gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import canal
from tests.labs import write


@pytest.mark.slow
def test_a_killed_stage_leaves_nothing_and_is_resumed(lab: Path, tmp_path: Path) -> None:
    """SIGKILL in training: the stages are as before, `--resume` goes on and ends as if nothing had happened."""
    folder = tmp_path / "ws"
    data = write(tmp_path, "long", n=200)
    sets = ["--set", "training.epochs=40", "--set", "training.patience=100", "--set", "bank.size=24"]
    command = [sys.executable, "-m", "canal.cli.main", "-C", str(folder), "stage", "add", "--data", str(data),
               "--labels", "cell_type", "--json", *sets]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    deadline = time.monotonic() + 120
    while not list(folder.rglob("checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    assert canal.open_workspace(folder).stages() == []
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, env=env, check=True)

    assert json.loads(done.stdout)["stage"] == 1
    again = canal.open_workspace(tmp_path / "again", create=True)
    again.add_stage(data, labels="cell_type", overrides=[s for s in sets if s != "--set"])
    resumed = canal.open_workspace(folder).stage(1)
    assert resumed.artifacts["weights.safetensors"] == again.stage(1).artifacts["weights.safetensors"]
