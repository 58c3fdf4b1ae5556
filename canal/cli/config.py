"""`canal config`: the presets."""

import tomllib
from typing import Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Look at the presets.")
    command(noun, "list", example="canal config list")(list_presets)
    command(noun, "show", example="canal config show canal > configs/mine.toml")(show)
    app.add_typer(noun, name="config")


def list_presets(session: Session) -> Answer:
    """List the presets of canal and of the workspace's configs/, which come first."""
    from rich.table import Table

    from canal.config import shipped_presets

    found = {name: _described(text, "canal") for name, text in shipped_presets().items()}
    for path in sorted(session.layout.configs.glob("*.toml")):
        found[path.stem] = _described(path.read_text(encoding="utf-8"), str(path))
    table = Table(box=None, pad_edge=False)
    for title in ("preset", "description", "from"):
        table.add_column(title)
    for name, about in found.items():
        table.add_row(name, about["description"], about["source"])
    return Answer({"presets": found, "default": session.layout.settings.preset}, [table])


def show(
    session: Session,
    preset: Annotated[
        str | None, typer.Argument(metavar="[PRESET]", help="Name or .toml file; else the default.")
    ] = None,
) -> Answer:
    """Print a preset with every key, as TOML: a start for one of your own."""
    import tomli_w

    from canal.config import dump_preset, load_preset

    table = dump_preset(load_preset(preset or session.layout.settings.preset, folder=session.layout.configs))
    return Answer(table, [tomli_w.dumps(table).rstrip()])


def _described(text: str, source: str) -> dict[str, Any]:
    try:
        description = str(tomllib.loads(text).get("description", ""))
    except tomllib.TOMLDecodeError as error:
        description = f"not valid TOML: {error}"
    return {"description": description, "source": source}
