"""`canal registry`, to check, tidy and hand over what was kept, and `canal ui`, which shows it in MLflow's pages."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from canal.cli.answer import USER_ERROR, Answer, Session, command, short_path
from canal.errors import ConfigError, RegistryError

REPAIR = (
    "Put what is damaged back from a backup (docs/registry.md), or go back to a stage that is whole: "
    "canal stage promote N."
)
HOST = "127.0.0.1"
# Of MLflow's server.
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes for jobs that we have none of
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PYTHONWARNINGS": "ignore",
}
SECONDS_TO_STOP = 20  # that the server has to end


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Check, tidy and hand over what was kept.")
    command(noun, "verify", example="canal registry verify")(verify)
    command(noun, "gc", example="canal registry gc --keep-drafts")(collect_garbage)
    command(noun, "export", example="canal registry export 2 model.canal")(export)
    command(noun, "import", example="canal registry import model.canal --name atlas")(import_stage)
    app.add_typer(noun, name="registry")
    command(app, "ui", example="canal -C canal-demo ui --port 5001")(ui)


def verify(session: Session) -> Answer:
    """Compare every file with its hash and follow every reference.

    The exit code is 2 if anything is damaged.
    """
    workspace = session.workspace(anywhere=True)
    problems, place = workspace.verify(), workspace.registry_place
    damaged = sorted({problem.stage for problem in problems if problem.stage is not None})
    data = {"registry": place, "healthy": not problems, "damaged_stages": damaged, "problems": problems}
    if not problems:
        return Answer(data, [f"{place}: every file and reference is as it was kept."])
    return Answer(data, [*(f"damaged: {problem}" for problem in problems), REPAIR], exit_code=USER_ERROR)


def collect_garbage(
    session: Session,
    keep_drafts: Annotated[bool, typer.Option("--keep-drafts", help="Keep what --resume could go on from.")] = False,
) -> Answer:
    """Delete what killed runs left and no stage or weights need."""
    removed = session.workspace(anywhere=True).gc(keep_drafts=keep_drafts)
    size = sum(orphan.size for orphan in removed)
    lines = [f"deleted {orphan.kind} {orphan.name}, {orphan.size / 1e6:.1f} MB" for orphan in removed]
    return Answer({"removed": removed, "bytes": size}, lines or ["Nothing is left over."])


def export(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the stage.")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, such as model.canal.")],
) -> Answer:
    """Write stage N to one file, which annotates anywhere: canal annotate --model FILE.

    The cells of its example bank go with it.
    """
    record = session.workspace(anywhere=True).export(path, number)
    size = path.stat().st_size
    bank = int(record.bank.get("size", 0))
    data = {"out": str(path), "stage": record.number, "name": record.name, "bytes": size, "bank_cells": bank}
    text = f"Stage {record.number}, {record.name}, is in {short_path(path)}: {size / 1e6:.1f} MB"
    return Answer(data, [f"{text}, with the {bank} cells of its example bank."])


def import_stage(
    session: Session,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File of `canal registry export`.")],
    name: Annotated[str | None, typer.Option(help="Name of the stage here; else the one it had.")] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Take it though none of the workspace's trusted keys signed it.")
    ] = False,
) -> Answer:
    """Take an exported stage into the registry, as its next stage.

    The first stage annotates at once; a later one after `canal stage promote`.
    """
    workspace = session.workspace(anywhere=True)
    record = workspace.import_stage(path, name=name, unsigned=unsigned)
    champion = workspace.champion() == record.number
    data = {"stage": record.number, "name": record.name, "version": record.version, "champion": champion}
    text = f"Stage {record.number}, {record.name}: {len(record.types)} types, {record.genes} genes."
    use = "It annotates now." if champion else f"Let it annotate: canal stage promote {record.number}"
    return Answer(data, [text, use])


def ui(
    session: Session,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> Answer:
    """Open the registry in MLflow: stages, curves, models. It runs until Ctrl-C.

    Only this machine can reach it.
    """
    # A registry on a server has pages of its own.
    registry = session.layout.require().registry
    server = session.layout.registry_uri
    if server is not None:
        return Answer({"url": server, "registry": server}, [f"{server} shows this registry; open it in a browser."])
    if not session.layout.may_have_stages():
        message = f"{registry} holds no registry yet. Add a stage first: canal stage add."
        raise RegistryError(message)
    # The address is printed before the server runs, for it runs until it is stopped.
    _check_port(port)
    url = f"http://{HOST}:{port}"
    # MLflow's own start page is of other things: the page of the model is what is meant.
    page = f"{url}/#/models/{quote(session.layout.settings.name)}"
    lines = [
        f"The model of {session.layout.root}, each stage a version of it: {page}",
        f"All of MLflow: {url}",
        "Stop it with Ctrl-C.",
    ]
    session.print(Answer({"url": url, "model_page": page, "registry": str(registry.resolve())}, lines))
    return Answer(None, exit_code=_run_server(_server_command(registry, port)))


def _server_command(registry: Path, port: int) -> list[str]:
    """Return the command line of MLflow's server for a local registry."""
    folder = registry.resolve()
    words = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port)]
    words += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    words += ["--default-artifact-root", (folder / "artifacts").as_uri()]
    words += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    return words


def _check_port(port: int) -> None:
    """Refuse a port that is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            message = f"Port {port} cannot be used ({error.strerror}). Choose another with --port."
            raise ConfigError(message) from error


def _run_server(command_line: list[str]) -> int:
    """Run the server until it ends or we are told to stop; it never outlives us."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = subprocess.Popen(command_line, env=os.environ | ENVIRONMENT)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait(timeout=SECONDS_TO_STOP)
