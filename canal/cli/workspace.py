"""`canal init`."""

from pathlib import Path
from typing import Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path
from canal.errors import ConfigError
from canal.stages.layout import Layout


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "init", example="canal init my-atlas")(init)


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
