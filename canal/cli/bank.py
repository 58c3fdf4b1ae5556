"""`canal bank`: the example bank."""

from typing import Annotated

import typer

from canal.cli.answer import Answer, Session, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    noun = typer.Typer(no_args_is_help=True, help="Look at the example bank.")
    command(noun, "show", example="canal bank show")(show)
    app.add_typer(noun, name="bank")


def show(
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
