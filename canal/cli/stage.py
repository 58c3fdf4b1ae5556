"""`canal stage`: add, list, show.

`canal stage promote` and `canal stage rollback`: which stage annotates.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command, watcher

if TYPE_CHECKING:
    from rich.table import Table

    from canal.model.record import StageRecord
    from canal.model.reliability import Reliability
    from canal.stages.request import StageResult
    from canal.stages.use import Promotion


MANY = 12


noun = typer.Typer(no_args_is_help=True, help="Teach the model a stage, and look at stages.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(
        noun,
        "add",
        example="canal stage add --data muraro.h5ad --labels cell_type --name muraro",
    )(add)
    command(noun, "list", example="canal stage list")(list_stages)
    command(noun, "show", example="canal stage show 2 --json")(show)
    command(noun, "promote", example="canal stage promote 2")(promote)
    command(noun, "rollback", example="canal stage rollback")(rollback)
    app.add_typer(noun, name="stage")


def add(
    session: Session,
    data: Annotated[Path, typer.Option(help="Labelled cells: .h5ad, zarr folder, 10x .h5 or 10x folder.")],
    labels: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs with the cell types.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the stage; else the file's.")] = None,
    preset: Annotated[str | None, typer.Option(help="Configuration, see `canal config list`.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the preset; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; it is recorded.")] = None,
    label_map: Annotated[Path | None, typer.Option(metavar="CSV", help="Table of their name and our name.")] = None,
    gene_key: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of var with the gene names.")] = None,
    strict_labels: Annotated[
        bool, typer.Option("--strict-labels", help="Refuse new names that look like known types.")
    ] = False,
    drop_rare: Annotated[bool, typer.Option("--drop-rare", help="Leave out types with fewer than 2 cells.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last epoch of a run that was stopped.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Take a file that was added before.")] = False,
    test: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labelled cells to test on, from now on at every stage.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="NAME", help="Pre-trained weights to start from, see `canal weights list`.")
    ] = None,
    devices: Annotated[
        int, typer.Option(metavar="N", min=1, help="Train in N processes on each node, one a GPU or core.")
    ] = 1,
    nodes: Annotated[int, typer.Option(metavar="M", min=1, help="Nodes, under torchrun or SLURM.")] = 1,
) -> Answer:
    """Learn the labelled cells of one file; the earlier files are not needed.

    An empty or new folder becomes a workspace. The stage is kept whole or not at all.
    """
    result = session.workspace(create=True).add_stage(
        data,
        labels=labels,
        name=name,
        preset=preset,
        overrides=tuple(overrides or ()),
        seed=seed,
        resume=resume,
        again=again,
        drop_rare=drop_rare,
        strict_labels=strict_labels,
        label_map=label_map,
        gene_key=gene_key,
        test=test,
        weights=weights,
        devices=devices,
        nodes=nodes,
        progress=watcher(session),
    )
    return Answer(result.to_dict(), _added(result))


def list_stages(session: Session) -> Answer:
    """List the stages; an asterisk marks the one that annotates."""
    workspace = session.workspace()
    records, champion = workspace.stages(), workspace.champion()
    data = {"stages": records, "champion": champion, "workspace": str(workspace.root)}
    if not records:
        return Answer(data, ["No stage yet. Add one: canal stage add --data cells.h5ad"])
    return Answer(data, [_list(records, champion)])


def show(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the stage.")],
) -> Answer:
    """Show what was kept about one stage; --json gives all of it."""
    workspace = session.workspace()
    record, reliability = workspace.stage(number), workspace.reliability(number)
    data = record.model_dump(mode="json") | {"reliability": None if reliability is None else reliability.to_dict()}
    return Answer(data, [*_shown(record), *([] if reliability is None else [_bins(reliability)])])


def _added(result: "StageResult") -> list[str]:
    after = f"on top of stage {result.parent}" if result.parent else "the first"
    new = ", ".join(result.new_types) or "none"
    lines = [
        f"Stage {result.stage}, {result.name}: version {result.version}, {after}, {result.seconds:.0f} s",
        f"  cells      {result.cells} on {result.genes} genes",
        f"  types      {len(result.types)}; new: {new}",
        f"  bank       {result.bank.get('size', 0)} cells",
    ]
    lines += [f"  {k.replace('_', ' ')}  {_short(v)}" for k, v in result.metrics.items() if "/" not in k]
    lines += [f"  {_tested(found)}" for found in result.tested]
    lines += [f"warning: {text}" for text in result.warnings]
    lines += [f"warning: {found['message']}" for found in result.label_warnings]
    if not result.champion:
        lines.append("It is kept, but does not annotate: see the warnings.")
    return lines


def _tested(found: dict[str, Any]) -> str:
    if found["accuracy"] is None:
        return f"stage {found['stage']}, {found['name']}: not tested"
    before = "" if found["before"] is None else f", was {_short(found['before'])}"
    return f"stage {found['stage']}, {found['name']}: accuracy {_short(found['accuracy'])}{before}"


def _list(records: Any, champion: int | None) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("stage", "name", "cells", "types", "new types", "created"):
        table.add_column(title, justify="right" if title in {"cells", "types"} else "left")
    for record in records:
        mark = "*" if record.number == champion else ""
        table.add_row(
            f"{record.number}{mark}",
            record.name,
            str(record.cells),
            str(len(record.types)),
            _short(list(record.new_types)),
            str(record.created)[:19],
        )
    return table


def _shown(record: "StageRecord") -> "list[Table | str]":
    from rich.table import Table

    changed = ", ".join(map(str, record.notes.get("overrides", ())))
    rows = {
        "stage": f"{record.number}, {record.name}",
        "version": f"{record.version}, from stage {record.parent or 'none'}",
        "created": f"{record.created} by canal {record.canal_version}, {record.seconds:.0f} s",
        "preset": f"{record.preset.get('name')} {changed}".rstrip(),
        "seed": str(record.seed),
        "cells": str(record.cells),
        "genes": f"{record.genes} in the panel",
        "types": _short(record.types),
        "new types": _short(record.new_types) or "none",
        "bank": f"{record.bank.get('size', 0)} cells",
        **{name.replace("_", " "): _short(value) for name, value in record.metrics.items() if "/" not in name},
    }
    if weights := record.notes.get("weights"):
        rows["weights"] = f"{weights['name']}, {weights['digest'][:19]}"
    for source in record.data:
        rows["data"] = f"{source.get('path')}, values: {source.get('scale')}"
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return [table, *(f"warning: {found['message']}" for found in record.label_warnings)]


def _bins(found: "Reliability") -> "Table":
    """Return confidence beside accuracy, for the tenths of confidence that have cells."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("confidence", "held-out cells", "mean confidence", "right"):
        table.add_column(title, justify="right")
    bins = found.bins
    rows = zip(bins.edges[:-1], bins.edges[1:], bins.cells, bins.confidence, bins.accuracy, strict=True)
    for low, high, cells, confidence, right in (row for row in rows if row[2]):
        table.add_row(f"{low:.1f} to {high:.1f}", str(cells), f"{confidence:.3f}", f"{right:.3f}")
    return table


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        more = f" and {len(value) - MANY} more" if len(value) > MANY else ""
        return ", ".join(map(str, value[:MANY])) + more
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value.is_integer() and value > 1 else f"{value:.4f}"


def promote(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the stage.")],
) -> Answer:
    """Let stage N annotate; its files are checked first."""
    return _answer(session.workspace().promote(number))


def rollback(session: Session) -> Answer:
    """Let the stage annotate that the one in use was learned from."""
    return _answer(session.workspace().rollback())


def _answer(found: "Promotion") -> Answer:
    now = f"Stage {found.record.number}, {found.record.name}, annotates"
    if found.before == found.record.number:
        return Answer(found.to_dict(), [f"{now} already."])
    instead = f" instead of stage {found.before}" if found.before else ""
    return Answer(found.to_dict(), [f"{now} now{instead}."])
