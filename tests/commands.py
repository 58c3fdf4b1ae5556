"""The commands as the command line knows them, for tests of surface and documents."""

import json
from pathlib import Path
from typing import Any

import typer.main
from typer.testing import CliRunner

from canal.cli.main import app


def all_commands() -> dict[str, Any]:
    """Return every command by its full name, such as ``stage add``."""
    return dict(_below("", typer.main.get_command(app)))


def options_of(command: Any) -> list[str]:
    """Return the long name of every option, and the metavar of every argument."""
    names = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            names.append(parameter.metavar.strip("[]"))
        else:
            names.append(max(parameter.opts, key=len))
    return names


def run(files: Path, *words: Any, code: int = 0) -> dict[str, Any]:
    """Run a command in the workspace ``w`` beside the files and return its JSON."""
    done = CliRunner().invoke(app, ["-C", str(files / "w"), *map(str, words), "--json"])
    assert done.exit_code == code, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _below(prefix: str, command: Any) -> list[tuple[str, Any]]:
    commands = getattr(command, "commands", None)
    if commands is None:
        return [(prefix.strip(), command)]
    return [found for name, sub in commands.items() for found in _below(f"{prefix} {name}", sub)]
