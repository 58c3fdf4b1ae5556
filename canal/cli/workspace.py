"""`canal init`.

`canal bank`: the example bank.

`canal config`: the presets.

`canal doctor`: what is here and whether it works.

`canal version`.
"""

import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command, short_path
from canal.errors import CanalError, ConfigError
from canal.stages.layout import Layout

if TYPE_CHECKING:
    from rich.table import Table


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "init", example="canal init my-atlas")(init)
    bank = typer.Typer(no_args_is_help=True, help="Look at the example bank.")
    command(bank, "show", example="canal bank show")(show_bank)
    app.add_typer(bank, name="bank")
    config = typer.Typer(no_args_is_help=True, help="Look at the presets.")
    command(config, "list", example="canal config list")(list_presets)
    command(config, "show", example="canal config show canal > configs/mine.toml")(show_preset)
    app.add_typer(config, name="config")
    command(app, "doctor", example="canal -C my-atlas doctor")(doctor)
    command(app, "version", example="canal version --json")(version)


def init(
    session: Session,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Folder to make; else that of -C, else here.")
    ] = None,
) -> Answer:
    """Make a workspace: configs/, stages/, registry/ and canal.toml. What exists is left as it is."""
    if folder is not None and session.explicit:
        message = f"Both {session.layout.root} and {folder} are named. Name one of them."
        raise ConfigError(message)
    root = folder or session.layout.root
    existed = Layout(root).exists
    layout = Layout.init(root, session.layout.server)
    model = layout.settings.name
    data = {"workspace": str(layout.root.resolve()), "model": model, "created": not existed}
    verb = "is a workspace already" if existed else "is a workspace now"
    here = short_path(layout.root)
    text = (
        f"{here} {verb}; its model is called {model}.\n"
        f"Next: canal -C {here} stage add --data cells.h5ad --labels cell_type"
    )
    return Answer(data, [text])


def show_bank(
    session: Session,
    stage: Annotated[int | None, typer.Option(min=1, help="Bank after this stage; else the one in use.")] = None,
) -> Answer:
    """Show how many cells are kept, of which types and from which stages."""
    from rich.table import Table

    bank = session.workspace().bank(stage)
    table = Table(box=None, pad_edge=False)
    table.add_column("type")
    table.add_column("cells", justify="right")
    for name, count in sorted(bank["per_type"].items(), key=lambda item: (-item[1], item[0])):
        table.add_row(str(name), str(count))
    per_stage = ", ".join(f"stage {s}: {n}" for s, n in bank["per_stage"].items())
    return Answer(bank, [f"{bank['size']} cells ({per_stage})", table])


def list_presets(session: Session) -> Answer:
    """List the presets of canal and of the workspace's configs/, which come first."""
    from rich.table import Table

    workspace = session.workspace(anywhere=True)
    found = {name: _described(text, source) for name, (text, source) in workspace.presets().items()}
    table = Table(box=None, pad_edge=False)
    for title in ("preset", "description", "from"):
        table.add_column(title)
    for name, about in found.items():
        table.add_row(name, about["description"], about["source"])
    return Answer({"presets": found, "default": session.layout.settings.preset}, [table])


def show_preset(
    session: Session,
    preset: Annotated[
        str | None, typer.Argument(metavar="[PRESET]", help="Name or .toml file; else the default.")
    ] = None,
) -> Answer:
    """Print a preset with every key, as TOML: a start for one of your own."""
    import tomli_w

    table = session.workspace(anywhere=True).preset(preset)
    return Answer(table, [tomli_w.dumps(table).rstrip()])


def _described(text: str, source: str) -> dict[str, Any]:
    try:
        description = str(tomllib.loads(text).get("description", ""))
    except tomllib.TOMLDecodeError as error:
        description = f"not valid TOML: {error}"
    return {"description": description, "source": source}


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
    if not layout.may_have_stages():
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
