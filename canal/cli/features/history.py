"""`canal stage diff`, `remove` and `replay`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher
from canal.cli.stage import noun

if TYPE_CHECKING:
    from rich.table import Table

    from canal.history.diff import StageDiff
    from canal.history.replay import ReplayReport


MANY = 8


def register(_app: typer.Typer) -> None:
    """Add the commands to `canal stage`."""
    command(noun, "diff", example="canal stage diff 1 2 --data new.h5ad")(diff)
    command(noun, "remove", example="canal stage remove 2")(remove)
    command(noun, "replay", example="canal stage replay stages/ --out again")(replay)


def diff(
    session: Session,
    a: Annotated[int, typer.Argument(metavar="A", min=1, help="Number of a stage.")],
    b: Annotated[int, typer.Argument(metavar="B", min=1, help="Number of another.")],
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="Annotate these cells with both.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="CSV", help="List the cells of --data that change.")] = None,
    gene_key: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of var with the gene names.")] = None,
) -> Answer:
    """Show what is different in stage B: types, genes, figures, configuration, and the answer for a file."""
    found = session.workspace().diff(a, b, data=data, out=out, gene_key=gene_key, progress=watcher(session))
    written = {"out": str(out.absolute())} if out is not None else {}
    return Answer(found.to_dict() | written, _different(found, out))


def remove(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Stage to take out of the model in use.")],
) -> Answer:
    """Make a new stage without the cells of stage N; nothing is deleted.

    It annotates from then on, unless accuracy on the cells of another stage falls too much: then it stays a candidate.
    """
    found = session.workspace().remove(number, progress=watcher(session))
    lines = [
        f"Stage {found.stage}, {found.name}: version {found.version}, stage {found.parent} without {found.removed}, "
        f"{found.seconds:.0f} s",
        f"  types      {len(found.types)}; gone: {', '.join(found.removed_types) or 'none'}",
        f"  bank       {found.bank} cells",
        *(f"  stage {t['stage']}, {t['name']}: {_change(t['before'], t['accuracy'])}" for t in found.tested),
        *(f"warning: {text}" for text in found.warnings),
        f"Stage {found.stage} annotates now. Stage {found.removed} and its files stay in the registry; "
        f"back to the model with it: canal stage promote {found.parent}"
        if found.champion
        else f"Stage {found.parent}, with the cells of stage {found.removed}, goes on annotating.",
    ]
    return Answer(found.to_dict(), lines)


def replay(
    session: Session,
    declarations: Annotated[Path, typer.Argument(metavar="STAGES", help="Folder of declarations, NNN-name.toml.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new workspace; empty or not there yet.")],
) -> Answer:
    """Learn all stages again in a new workspace, and tell whether every file comes out the same."""
    report = session.workspace(anywhere=True).replay(out, declarations=declarations, progress=watcher(session))
    lines = []
    for stage in report.stages:
        outcome = f"different: {', '.join(stage.different)}" if stage.different else "identical"
        lines.append(f"stage {stage.stage}, {stage.name}: {outcome}")
    lines += [
        f"stage {left.stage}{', ' if left.name else ''}{left.name}: left out. {left.reason}" for left in report.left_out
    ]
    lines += _verdict(report)
    lines.append(f"in {short_path(out)}")
    return Answer(report.to_dict(), lines, exit_code=0 if report.identical else 1)


def _verdict(report: "ReplayReport") -> list[str]:
    if report.identical:
        return ["Identical: every file of every stage is the same, bit for bit."]
    lines = ["Not identical."]
    if any(stage.different for stage in report.stages):
        lines.append("Another processor, library or canal computes other last digits.")
    if report.left_out:
        lines.append(f"{len(report.left_out)} of the stages are not in the new registry.")
    return lines


def _different(found: "StageDiff", out: Path | None) -> "list[Table | str]":
    parts: list[Table | str] = [
        f"from stage {found.a} to stage {found.b}",
        f"  types      {_listed('+', found.types_added)}; {_listed('-', found.types_removed)}",
        f"  genes      {_listed('+', found.genes_added)}; {_listed('-', found.genes_removed)}",
    ]
    tables = (("figure", {k: v for k, v in found.metrics.items() if "/" not in k}), ("key", found.config))
    parts += [_pairs(title, pairs, found) for title, pairs in tables if pairs]
    if found.cells is not None:
        facts = found.cells.to_dict()
        parts.append(f"{facts['changed']} of {facts['cells']} cells change their type")
        parts += [f"  {c['cells']} {c['from']} -> {c['to']}" for c in facts["changes"][:MANY]]
        if len(facts["changes"]) > MANY:
            parts.append(f"  and {len(facts['changes']) - MANY} other changes; --json has all")
    return [*parts, *([f"in {short_path(out)}"] if out is not None else [])]


def _pairs(title: str, pairs: Mapping[str, tuple[Any, Any]], found: "StageDiff") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(title)
    for number in (found.a, found.b):
        table.add_column(f"stage {number}", justify="right")
    for name, (before, after) in pairs.items():
        table.add_row(name.replace("_", " ") if title == "figure" else name, _short(before), _short(after))
    return table


def _listed(sign: str, names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return f"{sign}{len(names)} {', '.join(names[:MANY])}{more}".rstrip()


def _change(before: float | None, after: float | None) -> str:
    if after is None:
        return "not tested"
    return f"accuracy {after:.4f}" + ("" if before is None else f", was {before:.4f}")


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
