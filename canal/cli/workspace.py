"""Commands about the workspace and its surroundings: init, bank, config, doctor, version."""

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, GeneKey, Session, command, short_path
from canal.errors import CanalError, ConfigError
from canal.stages.layout import Layout

if TYPE_CHECKING:
    from rich.table import Table

    from canal.model.record import StageRecord


# Packages whose versions decide what canal does.
PACKAGES = (
    "canal",
    "torch",
    "torchvision",
    "avalanche-lib",
    "performer-pytorch",
    "faiss-cpu",
    "faiss-gpu",
    "mlflow",
    "anndata",
    "scanpy",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "zarr",
)
# Each is run in a process of its own: a broken library may end the process that imports it.
PROBES = {
    "faiss": "import faiss; print(faiss.__version__)",
    "avalanche": "import canal.training.avalanche",
    "performer": "import canal.model.encoders.performer",
}
LITTLE_DISK = 1e9  # bytes; less is reported as a problem


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "init", example="canal init my-atlas --from blood")(init)
    bank = typer.Typer(no_args_is_help=True, help="Look at the example bank.")
    command(bank, "show", example="canal bank show")(show_bank)
    app.add_typer(bank, name="bank")
    config = typer.Typer(no_args_is_help=True, help="Look at the presets.")
    command(config, "list", example="canal config list")(list_presets)
    command(config, "show", example="canal config show canal > configs/mine.toml")(show_preset)
    app.add_typer(config, name="config")
    command(app, "doctor", example="canal -C my-atlas doctor --data new.h5ad")(doctor)
    command(app, "version", example="canal version --json")(version)


def init(
    session: Session,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Folder to make; else that of -C, else here.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME|FILE", help="Stage 1: a ready-made model (blood), an export, or a voter."),
    ] = None,
) -> Answer:
    """Make a workspace: configs/, stages/, registry/ and canal.toml. What exists is left as it is."""
    if folder is not None and session.explicit:
        message = f"Both {session.layout.root} and {folder} are named. Name one of them."
        raise ConfigError(message)
    # What exists stays as it is; the answer says whether anything was made.
    root = folder or session.layout.root
    existed = Layout(root).exists
    # A model that cannot be taken is refused before anything is made.
    stage = None if start is None else _start_from(Layout(root, session.layout.server), start)
    layout = Layout.init(root, session.layout.server)
    model = layout.settings.name
    data: dict[str, Any] = {"workspace": str(layout.root.resolve()), "model": model, "created": not existed}
    root_text = short_path(layout.root)
    lines = [f"{root_text} is a workspace {'already' if existed else 'now'}; its model is called {model}."]
    if stage is not None:
        data["stage"] = stage.model_dump(mode="json")
        lines.append(f"Stage {stage.number}, {stage.name}, annotates: {', '.join(stage.types)}.")
        if stage.is_voter:
            lines.append(
                "It is a voter without statistics: it cannot tell novel cells, and its types are neither rehearsed nor "
                "distilled. Those that you teach go over to network and memory; the others stay with the voter."
            )
    lines.append(f"Next: canal -C {root_text} stage add --data cells.h5ad --labels cell_type")
    return Answer(data, lines)


def _start_from(layout: Layout, model: str) -> "StageRecord":
    """Make a model the first stage of a workspace, which is made with it; return its record."""
    from canal.workspace import Workspace

    return Workspace(layout).start_from(model)


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
    commonest_first = sorted(bank["per_type"].items(), key=lambda item: (-item[1], item[0]))
    for name, count in commonest_first:
        table.add_row(str(name), str(count))
    per_stage = ", ".join(f"stage {number}: {cells}" for number, cells in bank["per_stage"].items())
    return Answer(bank, [f"{bank['size']} cells ({per_stage})", table])


def list_presets(session: Session) -> Answer:
    """List the presets of canal and of the workspace's configs/, which come first."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("preset", "description", "from"):
        table.add_column(title)
    presets = {}
    for name, (text, source) in session.workspace(anywhere=True).presets().items():
        description = _description(text)
        presets[name] = {"description": description, "source": source}
        table.add_row(name, description, source)
    return Answer({"presets": presets, "default": session.layout.settings.preset}, [table])


def _description(preset: str) -> str:
    """Return the description in the text of a preset; a broken one is named, so that the others can be listed."""
    try:
        return str(tomllib.loads(preset).get("description", ""))
    except tomllib.TOMLDecodeError as error:
        return f"not valid TOML: {error}"


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


def doctor(
    session: Session,
    file: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="A file of cells: how far it is from what was taught.")
    ] = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Model of this stage; else the one in use.")] = None,
    gene_key: GeneKey = None,
) -> Answer:
    """Check what is installed, the GPU, FAISS, the disk and the registry's health; or a file before it is annotated.

    The exit code is 1 if something needs mending.
    """
    if file is not None:
        return _check_file(session, file, stage, gene_key)
    if stage is not None or gene_key is not None:
        message = "--stage and --gene-key say how the file of --data is looked at. Name it, or leave them out."
        raise ConfigError(message)
    data: dict[str, Any] = {
        "packages": {package: _installed_version(package) for package in PACKAGES},
        "machine": _check_machine(),
        "libraries": _check_libraries(),
        "disk": _check_disk(session.layout.root),
        "registry": _check_registry(session),
    }
    # Each check tells its problems; the answer has them together.
    problems: list[str] = []
    for check in data.values():
        problems += check.pop("problems", [])
    data |= {"problems": problems, "healthy": not problems}
    lines = [f"problem: {text}" for text in problems] or ["Everything works."]
    return Answer(data, [_checks_table(data), *lines], exit_code=1 if problems else 0)


def _check_file(session: Session, file: Path, stage: int | None, gene_key: str | None) -> Answer:
    """Say how far a file is from what a model was taught."""
    from rich.table import Table

    check = session.workspace().check_file(file, stage=stage, gene_key=gene_key)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("cells", f"{check.cells:,}, {check.looked_at:,} of them looked at")
    table.add_row("values", f"{check.where}, {check.scale}")
    table.add_row("species", check.species or "the names of the genes do not tell")
    depth = "" if check.counts_per_cell is None else f", {check.counts_per_cell:,.0f} counts"
    table.add_row("a cell has", f"{check.genes_per_cell:,.0f} genes{depth} (median)")
    table.add_row("genes of the model", f"{check.measured_genes:,} of {check.panel_genes:,} measured")
    if check.gene_agreement is not None:
        table.add_row("gene levels", f"agree {check.gene_agreement:.2f} with the training cells")
    if check.unlike is not None:
        table.add_row("unlike what was taught", f"{check.unlike:.0%} of the cells; 5% is usual")
        for name, share in check.unlike_stages.items():
            nearest = " (nearest)" if name == check.nearest_stage else ""
            table.add_row(f"unlike stage {name}", f"{share:.0%}{nearest}")
    table.add_row("mean confidence", f"{check.mean_confidence:.2f}")
    lines = [f"expected: {check.expected}; {check.meaning}."]
    lines += [f"warning: {text}" for text in check.warnings]
    return Answer(check.to_dict(), [table, *lines])


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_machine() -> dict[str, Any]:
    """Return Python, system, threads and GPUs."""
    facts = {"python": platform.python_version(), "system": platform.platform()}
    try:
        import torch
    except ModuleNotFoundError:  # the probes of the libraries tell
        return facts | {"threads": os.cpu_count(), "cuda": None, "gpus": []}
    gpus = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            gpus.append(torch.cuda.get_device_name(number))
    return facts | {"threads": torch.get_num_threads(), "cuda": torch.version.cuda, "gpus": gpus}


def _check_libraries() -> dict[str, Any]:
    """Return whether each library of `PROBES` can be imported, and why not."""
    checks: dict[str, Any] = {}
    problems = []
    for name, code in PROBES.items():
        command_line = [sys.executable, "-W", "ignore", "-c", code]
        process = subprocess.run(command_line, capture_output=True, text=True, check=False)
        checks[name] = process.returncode == 0
        if process.returncode:
            # The last line of a traceback says what is wrong.
            output = process.stderr.strip().splitlines() or [f"exit {process.returncode}"]
            problems.append(f"{name} cannot be imported: {output[-1]}")
    return {**checks, "problems": problems}


def _check_disk(root: Path) -> dict[str, Any]:
    """Return the free space where the workspace is, or will be."""
    folder = root.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    problems = [f"only {free / 1e6:.0f} MB are free at {folder}"] if free < LITTLE_DISK else []
    return {"folder": str(folder), "free_gb": round(free / 1e9, 1), "problems": problems}


def _check_registry(session: Session) -> dict[str, Any]:
    """Return the number of stages, and what is damaged; the registry is not made by looking at it."""
    # Without a workspace, or before the first stage, nothing can be damaged.
    layout = session.layout
    check: dict[str, Any] = {"workspace": None, "stages": 0, "problems": []}
    if not layout.exists:
        return check
    check["workspace"] = str(layout.root.resolve())
    if not layout.may_have_stages():
        return check
    try:
        workspace = session.workspace()
        check["stages"] = len(workspace.stages())
        check["problems"] = [str(problem) for problem in workspace.verify()]
        # What killed commands left is in nobody's way; a draft is there for --resume.
        left = [f"{orphan.kind} {orphan.name} ({orphan.size / 1e6:.1f} MB)" for orphan in workspace.leftovers()]
        check["left over"] = [f"{name}: canal stage add --resume, or canal registry gc" for name in left]
    except CanalError as error:
        check["problems"] = [str(error)]
    return check


def _checks_table(data: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for check in ("packages", "machine", "libraries", "disk", "registry"):
        for name, value in data[check].items():
            table.add_row(name, _text(value))
    return table


def _text(value: Any) -> str:
    """Return a value of a check as people read it."""
    if isinstance(value, bool):
        return "works" if value else "does not work"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def version(session: Session) -> Answer:  # noqa: ARG001 - every command is told
    """Print the version of canal."""
    from canal import __version__

    python = platform.python_version()
    return Answer({"canal": __version__, "python": python}, [f"canal {__version__} (Python {python})"])
