"""`canal doctor`: what is here and whether it works.

`canal version`.
"""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from canal.cli.answer import Answer, Session, command
from canal.errors import CanalError

if TYPE_CHECKING:
    from rich.table import Table


PACKAGES = (
    "canal", "torch", "torchvision", "avalanche-lib", "performer-pytorch", "faiss-cpu", "faiss-gpu",
    "mlflow", "anndata", "scanpy", "numpy", "scipy", "pandas", "scikit-learn", "zarr",
)  # fmt: skip
# In a process of its own: a broken library may end the process that imports it.
PROBES = {
    "faiss": "import faiss; print(faiss.__version__)",
    "avalanche": "import canal.training.avalanche",
    "performer": "import canal.model.encoders.performer",
}
LITTLE_DISK = 1e9


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "doctor", example="canal -C my-atlas doctor")(doctor)
    command(app, "version", example="canal version --json")(version)


def doctor(session: Session) -> Answer:
    """Check what is installed, the GPU, FAISS, the disk and the registry's health.

    The exit code is 1 if something needs mending.
    """
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "machine": _machine,
        "libraries": _libraries,
        "disk": lambda: _disk(session.layout.root),
        "registry": lambda: _registry(session),
    }
    data: dict[str, Any] = {"packages": _packages()}
    data |= {name: check() for name, check in checks.items()}
    problems = [text for name in checks for text in data[name].pop("problems", [])]
    data |= {"problems": problems, "healthy": not problems}
    verdict = [f"problem: {text}" for text in problems] or ["Everything works."]
    return Answer(data, [_table(data), *verdict], exit_code=1 if problems else 0)


def _packages() -> dict[str, str | None]:
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
    }


def _libraries() -> dict[str, Any]:
    found: dict[str, Any] = {}
    problems = []
    for name, code in PROBES.items():
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            check=False,
        )
        found[name] = done.returncode == 0
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
            problems.append(f"{name} cannot be imported: {reason}")
    return {**found, "problems": problems}


def _disk(root: Path) -> dict[str, Any]:
    there = next(folder for folder in (root.resolve(), *root.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    little = [f"only {free / 1e6:.0f} MB are free at {there}"] if free < LITTLE_DISK else []
    return {"folder": str(there), "free_gb": round(free / 1e9, 1), "problems": little}


def _registry(session: Session) -> dict[str, Any]:
    layout = session.layout
    found: dict[str, Any] = {"workspace": None, "stages": 0, "problems": []}
    if not layout.exists:
        return found
    found["workspace"] = str(layout.root.resolve())
    if not layout.has_registry():
        return found
    try:
        workspace = session.workspace()
        found["stages"] = len(workspace.stages())
        found["problems"] = [str(problem) for problem in workspace.verify()]
    except CanalError as error:
        found["problems"] = [str(error)]
    return found


def _table(data: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for part in ("packages", "machine", "libraries", "disk", "registry"):
        for name, value in data[part].items():
            table.add_row(name, _said(value))
    return table


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "works" if value else "does not work"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def version(session: Session) -> Answer:  # noqa: ARG001 - every command is told
    """Print the version of canal."""
    from canal import __version__

    python = platform.python_version()
    data = {"canal": __version__, "python": python}
    return Answer(data, [f"canal {__version__} (Python {python})"])
