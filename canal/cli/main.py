"""The `canal` command."""

import logging
import os
import pkgutil
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from canal.cli import annotate, features, models, registry, stage, workspace
from canal.cli.answer import Session
from canal.stages.layout import WORKSPACE_VARIABLE, Layout

NOISY = ("alembic", "mlflow", "matplotlib", "numba")  # libraries whose notices are no concern of a user's

app = typer.Typer(
    name="canal",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog="Example: canal demo")
def canal(
    ctx: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Option("-C", metavar="DIR", help=f"The workspace; else {WORKSPACE_VARIABLE}, else here."),
    ] = None,
    registry_uri: Annotated[
        str | None,
        typer.Option("--registry", metavar="URI", help="Server that keeps the stages, or local; else as canal.toml."),
    ] = None,
) -> None:
    """Annotate cell types with a model that grows, stage by stage, and never sees old data again."""
    ctx.obj = Session(layout=Layout.find(folder, registry_uri), explicit=folder is not None)


for noun in (workspace, stage, annotate, registry, models):
    noun.register(app)
# A feature's command is found by its file: whoever deletes a feature deletes its folder and this file.
for feature in sorted(module.name for module in pkgutil.iter_modules(features.__path__)):
    import_module(f"{features.__name__}.{feature}").register(app)


def main() -> None:
    """Run the command line."""
    # Threads that wait must not spin: beside any other work that makes training many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    app()


if __name__ == "__main__":
    main()
