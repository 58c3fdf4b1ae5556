"""`canal ui`: the registry in MLflow's pages."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from canal.cli.answer import Answer, Session, command
from canal.errors import ConfigError, RegistryError

HOST = "127.0.0.1"
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes for jobs that we have none of
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PYTHONWARNINGS": "ignore",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "ui", example="canal -C canal-demo ui --port 5001")(ui)


def ui(
    session: Session,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> Answer:
    """Open the registry in MLflow: stages, curves, models. It runs until Ctrl-C.

    Only this machine can reach it.
    """
    registry = session.layout.require().registry
    server = session.layout.registry_uri
    if server is not None:
        return Answer({"url": server, "registry": server}, [f"{server} shows this registry; open it in a browser."])
    if not session.layout.has_registry():
        message = f"{registry} holds no registry yet. Add a stage first: canal stage add."
        raise RegistryError(message)
    _check_free(port)
    url = f"http://{HOST}:{port}"
    line = f"{url} shows the registry of {session.layout.root}. Stop it with Ctrl-C."
    session.print(Answer({"url": url, "registry": str(registry.resolve())}, [line]))
    return Answer(None, exit_code=_serve(server_command(registry, port)))


def server_command(registry: Path, port: int) -> list[str]:
    """Return the command line of MLflow's server for a local registry."""
    here = registry.resolve()
    return [
        *(sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{here / 'mlflow.db'}"),
        *("--default-artifact-root", (here / "artifacts").as_uri()),
        *("--workers", "1", "--uvicorn-opts", "--log-level warning"),
    ]


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            message = f"Port {port} cannot be used ({error.strerror}). Choose another with --port."
            raise ConfigError(message) from error


def _serve(line: list[str]) -> int:
    """Run the server until it ends or we are told to stop; it never outlives us."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = subprocess.Popen(line, env=os.environ | ENVIRONMENT)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait(timeout=20)
