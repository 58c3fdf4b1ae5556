"""`canal models import-celltypist`."""

from pathlib import Path
from typing import Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path
from canal.cli.models import noun


def register(_app: typer.Typer) -> None:
    """Add the command to `canal models`."""
    example = "canal models import-celltypist Immune_All_Low.pkl"
    command(noun, "import-celltypist", example=example)(import_celltypist)


def import_celltypist(
    session: Session,  # noqa: ARG001 - every command is told
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Model of CellTypist, .pkl.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write, NAME.voter; else the model's name, here.")
    ] = None,
) -> Answer:
    """Read a model of CellTypist, without running anything in it, and write it as a voter that annotates.

    A voter gives CellTypist's labels and probabilities. It has no statistics: it cannot tell novel cells.
    """
    from canal.workspace import import_celltypist as imported

    loaded, path = imported(file, out)
    voter = loaded.voter
    data = {
        "out": str(path),
        "name": voter.name,
        "types": list(voter.types),
        "genes": len(voter.genes),
        "description": dict(voter.description),
    }
    return Answer(
        data,
        [
            f"{voter.name}: {len(voter.types)} types, {len(voter.genes)} genes; in {short_path(path)}",
            "It cannot tell novel cells: every cell gets one of its types.",
            f"Next: canal annotate --model {short_path(path)} --data new.h5ad --out annotated.h5ad",
        ],
    )
