"""`canal models list`, `get`, `mirror` and `add`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher
from canal.cli.models import noun

if TYPE_CHECKING:
    from rich.table import Table

Catalogue = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Folder, file: or https:; else CANAL_CATALOGUE, else as canal.toml."),
]
NO_CATALOGUE = "No catalogue is named; these come with canal. See docs/models.md."


def register(_app: typer.Typer) -> None:
    """Add the commands to `canal models`."""
    command(noun, "list", example="canal models list --catalogue https://models.example.org/canal")(list_models)
    command(noun, "get", example="canal models get lung --catalogue /srv/models")(get)
    command(noun, "mirror", example="canal models mirror models/ --catalogue https://models.example.org/canal")(mirror)
    command(noun, "add", example="canal models add lung.canal --catalogue models/")(add)


def list_models(session: Session, catalogue: Catalogue = None) -> Answer:
    """List the models that come with canal, and those of the catalogue; nothing but its index is fetched."""
    models = session.workspace(anywhere=True).list_models(catalogue)
    parts: list[Table | str] = [_models_table(models)]
    if all(model["from"] == "canal" for model in models):
        parts.append(NO_CATALOGUE)
    return Answer({"models": models}, parts)


def get(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model in the catalogue.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write; else NAME.canal, here.")] = None,
    catalogue: Catalogue = None,
) -> Answer:
    """Fetch a model of the catalogue. Size and hash are checked; a transfer that was cut goes on where it ended."""
    workspace = session.workspace(anywhere=True)
    path = workspace.get_model(name, out=out, catalogue=catalogue, progress=watcher(session))
    next_line = f"Next: canal annotate --model {short_path(path)} --data new.h5ad --out annotated.h5ad"
    return Answer({"name": name, "out": str(path), "bytes": path.stat().st_size}, [short_path(path), next_line])


def mirror(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that becomes a copy of the catalogue.")],
    catalogue: Catalogue = None,
) -> Answer:
    """Copy the whole catalogue into a folder, such as for machines without a network."""
    done = session.workspace(anywhere=True).mirror_models(folder, catalogue=catalogue, progress=watcher(session))
    line = f"{len(done.fetched)} models fetched, {len(done.kept)} were there; in {short_path(done.folder)}"
    return Answer({"folder": str(done.folder), "fetched": list(done.fetched), "kept": list(done.kept)}, [line])


def add(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Model: .canal.")],
    catalogue: Catalogue = None,
) -> Answer:
    """Put a model into a catalogue that is a folder; a new folder becomes one."""
    entry = session.workspace(anywhere=True).add_model(file, catalogue=catalogue)
    return Answer(entry, [f"{entry['name']}, {entry['bytes'] / 1e6:.1f} MB, {entry['sha256']}"])


def _models_table(models: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("model", "species", "tissue", "types", "cells", "MB", "from"):
        table.add_column(title)
    for model in models:
        numbers = (len(model["types"]), model["cells"], f"{model['bytes'] / 1e6:.1f}")
        table.add_row(model["name"], model["species"], model["tissue"], *map(str, numbers), model["from"])
    return table
