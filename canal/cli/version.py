"""`canal version`."""

import platform

import typer

from canal.cli.answer import Answer, Session, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "version", example="canal version --json")(version)


def version(session: Session) -> Answer:  # noqa: ARG001 - every command is told
    """Print the version of canal."""
    from canal import __version__

    python = platform.python_version()
    data = {"canal": __version__, "python": python}
    return Answer(data, [f"canal {__version__} (Python {python})"])
