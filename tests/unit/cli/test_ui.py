"""`canal ui` serves the registry to this machine alone."""

import socket
import subprocess
import sys

import pytest

from canal.cli import registry as ui
from canal.stages.layout import Layout


@pytest.fixture
def registry(tmp_path):
    """Return the folder of a registry that looks begun."""
    layout = Layout.init(tmp_path)
    (layout.registry / "mlflow.db").touch()
    return layout.registry


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind((ui.HOST, 0))
        return int(probe.getsockname()[1])


def test_server_is_bound_to_this_machine(registry):
    """The command line names the local address, the database and the artifacts, all absolute."""
    line = ui._server_command(registry, 5055)
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert line[line.index("--port") + 1] == "5055"
    assert line[line.index("--backend-store-uri") + 1] == f"sqlite:///{registry / 'mlflow.db'}"
    assert line[:3] == [sys.executable, "-m", "mlflow"]


def test_url_is_printed_before_the_server_runs(run_json, registry, monkeypatch):
    """With --json the address is the whole answer."""
    served = []
    monkeypatch.setattr(ui, "_run_server", lambda line: served.append(line) or 0)
    port = free_port()
    assert run_json("ui", "--port", port) == {
        "url": f"http://127.0.0.1:{port}",
        "model_page": f"http://127.0.0.1:{port}/#/models/{registry.parent.name}",
        "registry": str(registry),
    }
    assert len(served) == 1


def test_a_port_in_use_is_refused(run, registry):
    """The message names the way out."""
    with socket.socket() as taken:
        taken.bind((ui.HOST, 0))
        taken.listen()
        result = run("ui", "--port", taken.getsockname()[1])
    assert result.exit_code == 2
    assert "--port" in result.stderr


def test_no_registry_yet(run, tmp_path):
    """Before the first stage there is nothing to show."""
    Layout.init(tmp_path)
    result = run("ui")
    assert result.exit_code == 2
    assert "canal stage add" in result.stderr


def test_the_server_does_not_outlive_the_command():
    """The exit code is the server's; a stopped command stops it."""
    code = (
        "import sys; from canal.cli import registry;"
        "sys.exit(registry._run_server([sys.executable, '-c', 'raise SystemExit(3)']))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3
