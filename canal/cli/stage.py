"""`canal stage`: add, list and show stages; promote and rollback decide which of them annotates."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, DropLabels, GeneKey, KeepLabels, LabelMap, Session, command, watcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from canal.model.record import StageRecord
    from canal.model.reliability import Reliability
    from canal.stages.request import StageResult
    from canal.stages.use import Promotion


MOST_NAMES = 12  # of a list that is printed; the others are counted

noun = typer.Typer(no_args_is_help=True, help="Teach the model a stage, and look at stages.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(noun, "add", example="canal stage add --data muraro.h5ad --labels cell_type --name muraro")(add)
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
    label_map: LabelMap = None,
    gene_key: GeneKey = None,
    drop_labels: DropLabels = None,
    keep_labels: KeepLabels = None,
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
    ontology: Annotated[
        str, typer.Option(metavar="auto|CSV|off", help="Place the types in the Cell Ontology: by name, or by a table.")
    ] = "off",
    weights: Annotated[
        str | None, typer.Option(metavar="NAME", help="Pre-trained weights to start from, see `canal weights list`.")
    ] = None,
    devices: Annotated[
        int, typer.Option(metavar="N", min=1, help="Train in N processes on each node, one a GPU or core.")
    ] = 1,
    nodes: Annotated[int, typer.Option(metavar="M", min=1, help="Nodes, under torchrun or SLURM.")] = 1,
) -> Answer:
    """Learn the labelled cells of one file; the earlier files are not needed.

    An empty or new folder becomes a workspace. If anything fails, nothing is kept.
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
        drop_labels=tuple(drop_labels or ()),
        keep_labels=tuple(keep_labels or ()),
        gene_key=gene_key,
        test=test,
        weights=weights,
        ontology=ontology,
        devices=devices,
        nodes=nodes,
        progress=watcher(session),
    )
    return Answer(result.to_dict(), _lines_of_result(result))


def list_stages(session: Session) -> Answer:
    """List the stages; an asterisk marks the one that annotates."""
    workspace = session.workspace()
    records, champion = workspace.stages(), workspace.champion()
    data = {"stages": records, "champion": champion, "workspace": str(workspace.root)}
    if not records:
        return Answer(data, ["No stage yet. Add one: canal stage add --data cells.h5ad"])
    return Answer(data, [_stages_table(records, champion)])


def show(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the stage.")],
) -> Answer:
    """Show what was kept about one stage; --json gives all of it."""
    workspace = session.workspace()
    record, reliability = workspace.stage(number), workspace.reliability(number)
    data = record.model_dump(mode="json") | {"reliability": None if reliability is None else reliability.to_dict()}
    parts: list[Table | str] = [_record_table(record)]
    parts += _label_warnings(record.label_warnings)
    if reliability is not None:
        parts.append(_reliability_table(reliability))
    return Answer(data, parts)


def _lines_of_result(result: "StageResult") -> list[str]:
    """Return what people read after a stage was added."""
    # What was learned.
    after = f"on top of stage {result.parent}" if result.parent else "the first"
    new = ", ".join(result.new_types) or "none"
    lines = [
        f"Stage {result.stage}, {result.name}: version {result.version}, {after}, {result.seconds:.0f} s",
        f"  cells      {result.cells} on {result.genes} genes{_left_out(result.left_out)}",
        f"  types      {len(result.types)}; new: {new}",
        f"  bank       {result.bank.get('size', 0)} cells",
    ]
    if result.voter is not None:
        lines.append(f"  voter      {_voter_text(result.voter)}")
    for name, value in _overall(result.metrics).items():
        lines.append(f"  {name}  {value}")
    if result.incoming is not None:
        lines.append(f"  {_line_of_incoming(result.parent, result.incoming)}")
    # What it does on the cells of earlier stages, and what to look at.
    lines += [f"  {_line_of_test(test)}" for test in result.tested]
    lines += [f"warning: {text}" for text in result.warnings]
    lines += _label_warnings(result.label_warnings)
    if not result.champion:
        lines.append("It is kept, but does not annotate: see the warnings.")
    return lines


def _left_out(cells: "Mapping[str, int]") -> str:
    """Return how many cells of the file were not learned, and why; nothing where all were."""
    words = {"unlabelled": "without a label", "dropped_labels": "whose label is no type", "rare_types": "of rare types"}
    counted = [f"{cells[reason]} {text}" for reason, text in words.items() if cells.get(reason)]
    return f"; left out: {', '.join(counted)}" if counted else ""


def _overall(metrics: "Mapping[str, Any]") -> dict[str, str]:
    """Return the figures of all cells as they are printed, by name; those of single types have a slash."""
    shown = {}
    for name, value in metrics.items():
        if "/" not in name and not name.startswith("incoming_"):
            shown[name.replace("_", " ").replace("macro f1", "macro-F1")] = _short(value)
    return shown


def _line_of_incoming(parent: int | None, figures: "Mapping[str, Any]") -> str:
    """Return the line about what the model before reached on the new file's cells of known types."""
    alarms = figures.get("false_alarms")
    called = "" if alarms is None else f", {alarms:.1%} of them called novel at alpha .05"
    return (
        f"before learning: stage {parent} on the {figures['cells']:.0f} cells of known types: accuracy "
        f"{_short(figures['accuracy'])}, macro-F1 {_short(figures['macro_f1'])}, calibration error "
        f"{_short(figures['calibration_error'])}{called}"
    )


def _label_warnings(warnings: "Sequence[Mapping[str, Any]]") -> list[str]:
    return [f"warning: {warning['message']}" for warning in warnings]


def _line_of_test(test: dict[str, Any]) -> str:
    """Return the line about the cells of an earlier stage."""
    stage = f"stage {test['stage']}, {test['name']}"
    if test["accuracy"] is None:
        return f"{stage}: not tested"
    before = "" if test["before"] is None else f", was {_short(test['before'])}"
    line = f"{stage}: accuracy {_short(test['accuracy'])}{before}"
    if test["false_alarms"] is not None:
        was = "" if test["false_alarms_before"] is None else f", was {test['false_alarms_before']:.1%}"
        line += f"; called novel {test['false_alarms']:.1%}{was}"
    if test["fewer_genes_accuracy"] is not None:
        line += (
            f"; on the new genes alone {_short(test['fewer_genes_accuracy'])}, was {_short(test['fewer_genes_before'])}"
        )
    return line


def _stages_table(records: "Sequence[StageRecord]", champion: int | None) -> "Table":
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


def _record_table(record: "StageRecord") -> "Table":
    """Return the record of a stage as names and values."""
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
    }
    rows |= _overall(record.metrics)
    # What the model before reached on these cells when they were new.
    incoming = {}
    for figure, share in record.metrics.items():
        if figure.startswith("incoming_"):
            incoming[figure.removeprefix("incoming_")] = share
    if incoming:
        rows["when new"] = _line_of_incoming(record.parent, incoming)
    # What not every stage has.
    if voter := record.notes.get("voter"):
        rows["voter"] = _voter_text(voter)
    if weights := record.notes.get("weights"):
        rows["weights"] = f"{weights['name']}, {weights['digest'][:19]}"
    # A model that was given away names all its data sets.
    if record.data:
        rows["data"] = "; ".join(_source_text(source) for source in record.data)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _source_text(source: "Mapping[str, Any]") -> str:
    """Return what a stage was taught with; records from before species were recognised name none."""
    species = f", {source['species']} genes" if source.get("species") else ""
    return f"{source.get('path')}, values: {source.get('scale')}{species}"


def _voter_text(voter: "Mapping[str, Any]") -> str:
    """Return what is left to the voter that a line started from, and what it cannot do."""
    if not voter["types"]:
        return f"{voter['name']}: all of its types were taught since, it does not answer any more"
    cannot = f"cannot: {', '.join(voter['cannot'])}"
    return (
        f"{voter['name']} answers {len(voter['types'])} types that nobody taught ({_short(voter['types'])}); {cannot}"
    )


def _reliability_table(reliability: "Reliability") -> "Table":
    """Return confidence beside accuracy, for the tenths of confidence that have cells."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("confidence", "held-out cells", "mean confidence", "right"):
        table.add_column(title, justify="right")
    bins = reliability.bins
    rows = zip(bins.edges[:-1], bins.edges[1:], bins.cells, bins.confidence, bins.accuracy, strict=True)
    for low, high, cells, confidence, right in rows:
        if cells:
            table.add_row(f"{low:.1f} to {high:.1f}", str(cells), f"{confidence:.3f}", f"{right:.3f}")
    return table


def _short(value: Any) -> str:
    """Return a value as it is printed: few names of a list, few digits of a number."""
    if isinstance(value, list | tuple):
        more = f" and {len(value) - MOST_NAMES} more" if len(value) > MOST_NAMES else ""
        return ", ".join(map(str, value[:MOST_NAMES])) + more
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value.is_integer() and value > 1 else f"{value:.4f}"


def promote(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of the stage.")],
) -> Answer:
    """Use stage N to annotate from now on; its files are checked first."""
    return _answer_of_promotion(session.workspace().promote(number))


def rollback(session: Session) -> Answer:
    """Go back to the stage from which the one in use was learned."""
    return _answer_of_promotion(session.workspace().rollback())


def _answer_of_promotion(promotion: "Promotion") -> Answer:
    record, before = promotion.record, promotion.before
    annotates = f"Stage {record.number}, {record.name}, annotates"
    if before == record.number:
        line = f"{annotates} already."
    elif before:
        line = f"{annotates} now instead of stage {before}."
    else:
        line = f"{annotates} now."
    return Answer(promotion.to_dict(), [line])
