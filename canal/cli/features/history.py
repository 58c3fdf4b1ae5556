"""`canal stage diff`, `remove` and `replay`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, GeneKey, Session, command, short_path, watcher
from canal.cli.stage import noun

if TYPE_CHECKING:
    from rich.table import Table

    from canal.history.diff import StageDiff
    from canal.history.replay import ReplayReport


MOST_CHANGES = 8  # names or changes of a kind that are printed; the others are counted


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
    gene_key: GeneKey = None,
) -> Answer:
    """Show what is different in stage B: types, genes, figures, configuration, and the answer for a file."""
    difference = session.workspace().diff(a, b, data=data, out=out, gene_key=gene_key, progress=watcher(session))
    written = {"out": str(out.absolute())} if out is not None else {}
    return Answer(difference.to_dict() | written, _parts_of_difference(difference, out))


def remove(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Stage to take out of the model in use.")],
) -> Answer:
    """Make a new stage without the cells of stage N; nothing is deleted.

    It annotates from then on, unless accuracy on the cells of another stage falls too much: then it stays a candidate.
    """
    removal = session.workspace().remove(number, progress=watcher(session))
    lines = [
        f"Stage {removal.stage}, {removal.name}: version {removal.version}, stage {removal.parent} without "
        f"{removal.removed}, {removal.seconds:.0f} s",
        f"  types      {len(removal.types)}; gone: {', '.join(removal.removed_types) or 'none'}",
        f"  bank       {removal.bank} cells",
    ]
    # What the removal changes on the cells of the other stages.
    for test in removal.tested:
        lines.append(f"  stage {test['stage']}, {test['name']}: {_accuracy_change(test['before'], test['accuracy'])}")
    lines += [f"warning: {text}" for text in removal.warnings]
    if removal.champion:
        lines.append(
            f"Stage {removal.stage} annotates now. Stage {removal.removed} and its files stay in the registry; "
            f"back to the model with it: canal stage promote {removal.parent}"
        )
    else:
        lines.append(f"Stage {removal.parent}, with the cells of stage {removal.removed}, goes on annotating.")
    return Answer(removal.to_dict(), lines)


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
    for left_out in report.left_out:
        name = f", {left_out.name}" if left_out.name else ""
        lines.append(f"stage {left_out.stage}{name}: left out. {left_out.reason}")
    lines += _verdict(report)
    lines.append(f"in {short_path(out)}")
    return Answer(report.to_dict(), lines, exit_code=0 if report.identical else 1)


def _verdict(report: "ReplayReport") -> list[str]:
    """Return whether all came out the same, and what may be the reason if not."""
    if report.identical:
        return ["Identical: every file of every stage is the same, bit for bit."]
    lines = ["Not identical."]
    if any(stage.different for stage in report.stages):
        lines.append("Another processor, library or canal computes other last digits.")
    if report.left_out:
        lines.append(f"{len(report.left_out)} of the stages are not in the new registry.")
    return lines


def _parts_of_difference(difference: "StageDiff", out: Path | None) -> "list[Table | str]":
    """Return what people read: types and genes, figures, configuration, and the cells whose type changes."""
    parts: list[Table | str] = [
        f"from stage {difference.a} to stage {difference.b}",
        f"  types      {_listed('+', difference.types_added)}; {_listed('-', difference.types_removed)}",
        f"  genes      {_listed('+', difference.genes_added)}; {_listed('-', difference.genes_removed)}",
    ]
    # Figures of single types have a slash in their name, and are left to the JSON.
    figures = {}
    for name, values in difference.metrics.items():
        if "/" not in name:
            figures[name.replace("_", " ")] = values
    if figures:
        parts.append(_before_and_after("figure", figures, difference))
    if difference.config:
        parts.append(_before_and_after("key", difference.config, difference))
    # The annotation of a file by both stages.
    if difference.cells is not None:
        counts = difference.cells.to_dict()
        parts.append(f"{counts['changed']} of {counts['cells']} cells change their type")
        for change in counts["changes"][:MOST_CHANGES]:
            parts.append(f"  {change['cells']} {change['from']} -> {change['to']}")
        if len(counts["changes"]) > MOST_CHANGES:
            parts.append(f"  and {len(counts['changes']) - MOST_CHANGES} other changes; --json has all")
    if out is not None:
        parts.append(f"in {short_path(out)}")
    return parts


def _before_and_after(title: str, values: Mapping[str, tuple[Any, Any]], difference: "StageDiff") -> "Table":
    """Return a table of what is different in the two stages."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(title)
    for number in (difference.a, difference.b):
        table.add_column(f"stage {number}", justify="right")
    for name, (before, after) in values.items():
        table.add_row(name, _short(before), _short(after))
    return table


def _listed(sign: str, names: tuple[str, ...]) -> str:
    """Return number and names of what was added or removed."""
    more = f" and {len(names) - MOST_CHANGES} more" if len(names) > MOST_CHANGES else ""
    return f"{sign}{len(names)} {', '.join(names[:MOST_CHANGES])}{more}".rstrip()


def _accuracy_change(before: float | None, after: float | None) -> str:
    if after is None:
        return "not tested"
    return f"accuracy {after:.4f}" + ("" if before is None else f", was {before:.4f}")


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
