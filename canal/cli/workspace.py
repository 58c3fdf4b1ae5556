"""`canal init`.

`canal bank`: the example bank.

`canal config`: the presets.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command, short_path
from canal.errors import ConfigError
from canal.stages.layout import Layout


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
