"""`canal registry`: check, tidy, hand over."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import USER_ERROR, Answer, Session, command, short_path

if TYPE_CHECKING:
    from canal.registry.artifacts import Problem

_MEND = (
    "Put what is damaged back from a backup (docs/registry.md), or go back to a stage that is whole: "
    "canal stage promote N."
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Check, tidy and hand over what was kept.")
    command(noun, "verify", example="canal registry verify")(verify)
    command(noun, "gc", example="canal registry gc --keep-drafts")(collect)
    command(noun, "export", example="canal registry export 2 model.canal")(export)
    command(noun, "import", example="canal registry import model.canal --name atlas")(take_in)
    app.add_typer(noun, name="registry")


def verify(session: Session) -> Answer:
    """Compare every file with its hash and follow every reference.

    The exit code is 2 if anything is damaged.
    """
    from canal.stages.connection import open_registry

    registry = open_registry(session.layout)
    problems = registry.verify()
    damaged = sorted({p.stage for p in problems if p.stage is not None})
    data = {"registry": registry.place, "healthy": not problems, "damaged_stages": damaged, "problems": problems}
    if not problems:
        return Answer(data, [f"{registry.place}: every file and reference is as it was kept."])
    return Answer(data, [*map(_damage, problems), _MEND], exit_code=USER_ERROR)


def collect(
    session: Session,
    keep_drafts: Annotated[bool, typer.Option("--keep-drafts", help="Keep what --resume could go on from.")] = False,
) -> Answer:
    """Delete what killed runs left and no stage or weights need."""
    from canal.stages.garbage import collect_garbage

    removed = collect_garbage(session.layout, keep_drafts=keep_drafts)
    size = sum(orphan.size for orphan in removed)
    lines = [f"deleted {orphan.kind} {orphan.name}, {orphan.size / 1e6:.1f} MB" for orphan in removed]
    return Answer({"removed": removed, "bytes": size}, lines or ["Nothing is left over."])


def export(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the stage.")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, such as model.canal.")],
) -> Answer:
    """Write stage N to one file, which annotates anywhere: canal annotate --model FILE.

    The cells of its example bank go with it.
    """
    from canal.stages.exchange import export_stage

    record, size = export_stage(session.layout, number, path)
    bank = int(record.bank.get("size", 0))
    data = {"out": str(path), "stage": record.number, "name": record.name, "bytes": size, "bank_cells": bank}
    text = f"Stage {record.number}, {record.name}, is in {short_path(path)}: {size / 1e6:.1f} MB"
    return Answer(data, [f"{text}, with the {bank} cells of its example bank."])


def take_in(
    session: Session,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File of `canal registry export`.")],
    name: Annotated[str | None, typer.Option(help="Name of the stage here; else the one it had.")] = None,
) -> Answer:
    """Take an exported stage into the registry, as its next stage.

    The first stage annotates at once; a later one after `canal stage promote`.
    """
    from canal.stages.exchange import import_stage

    record, champion = import_stage(session.layout, path, name)
    data = {"stage": record.number, "name": record.name, "version": record.version, "champion": champion}
    text = f"Stage {record.number}, {record.name}: {len(record.types)} types, {record.genes} genes."
    use = "It annotates now." if champion else f"Let it annotate: canal stage promote {record.number}"
    return Answer(data, [text, use])


def _damage(problem: "Problem") -> str:
    return f"damaged: {problem}"
