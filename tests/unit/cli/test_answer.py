"""JSON alone on stdout, everything else on stderr, and exit codes that scripts can trust."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from canal.cli.answer import claim_stdout, plain, short_path
from canal.cli.main import app, main
from tests.unit.cli.fakes import FakeWorkspace

CHATTER = """
import os, sys
from canal.cli.answer import Answer, Session, claim_stdout
out = claim_stdout()
print("from python")
os.system("echo from a child")
os.write(1, b"from C\\n")
out.write("the answer\\n")
out.flush()
"""


def test_libraries_cannot_write_to_stdout():
    """Python, child processes and C code are all sent to stderr."""
    done = subprocess.run([sys.executable, "-c", CHATTER], capture_output=True, text=True, check=True)
    assert done.stdout == "the answer\n"
    for chatter in ("from python", "from a child", "from C"):
        assert chatter in done.stderr


def test_json_is_alone_on_stdout(run, workspace):
    """The chatter of a command is not in its JSON."""
    result = run("stage", "add", "--data", "a.h5ad", "--json")
    assert json.loads(result.stdout)["stage"] == 1
    assert "chatter" in result.stderr
    assert "chatter" not in result.stdout


def test_a_user_error_is_one_message_and_exit_2(run, workspace):
    """No traceback; with --json the message is on stdout too."""
    result = run("stage", "show", "9")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: There is no stage 9. Stages: 1.\n"
    found = run("stage", "show", "9", "--json")
    assert found.exit_code == 2
    assert json.loads(found.stdout) == {
        "error": "There is no stage 9. Stages: 1.",
        "kind": "StageError",
    }


def test_ctrl_c_is_exit_130(run, workspace, monkeypatch):
    """Who stops a command is told so, without a traceback."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeWorkspace, "stages", interrupted)
    result = run("stage", "list")
    assert result.exit_code == 130
    assert "stopped" in result.stderr


def test_a_full_disk_is_one_message_and_exit_2(run, workspace, monkeypatch):
    """What the system refuses is no bug of ours, wherever it comes up; other errors of the system are."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/stages")

    monkeypatch.setattr(FakeWorkspace, "stages", full)
    result = run("stage", "list", "--json")
    assert result.exit_code == 2
    assert "error: /data/stages cannot be read or written: No space left on device. Stages are kept" in result.stderr
    assert json.loads(result.stdout)["kind"] == "OSError"

    def bug(*_):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(FakeWorkspace, "stages", bug)
    assert isinstance(run("stage", "list").exception, OSError)


def test_a_bug_is_not_hidden(run, workspace, monkeypatch):
    """What is no user's fault is raised."""

    def broken(*_):
        message = "a bug"
        raise RuntimeError(message)

    monkeypatch.setattr(FakeWorkspace, "stages", broken)
    result = run("stage", "list")
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize("line", ["stage add", "stage nothing", "annotate --data a", "stage show x"])
def test_wrong_usage_is_exit_2(run, line):
    """Missing and unknown options are refused before anything is done."""
    assert run(line).exit_code == 2


def test_main_runs_the_app(monkeypatch, capsys):
    """The entry point prints help and ends with 0."""
    monkeypatch.setattr(sys, "argv", ["canal", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "stage" in capsys.readouterr().out
    assert app.info.name == "canal"


def test_plain_values():
    """NumPy, sets and paths become JSON."""
    values = {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": {1}}
    assert json.loads(json.dumps(values, default=plain)) == {
        "a": 0.5,
        "b": [0, 1],
        "c": "x",
        "d": [1],
    }


def test_short_path(tmp_path, monkeypatch):
    """Paths below here are relative; the others as they were named."""
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "a") == "a"
    assert short_path(tmp_path) == "."
    assert short_path(tmp_path.parent) == str(tmp_path.parent)


def test_claimed_stdout_of_a_captured_stream(capsys, monkeypatch):
    """In a test the captured stream itself is given."""
    ours = sys.stdout
    monkeypatch.setattr(sys, "stdout", ours)
    assert claim_stdout().writable()
    assert sys.stdout is sys.stderr
