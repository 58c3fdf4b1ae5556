"""`canal compare`: stages side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher

if TYPE_CHECKING:
    from rich.table import Table

    from canal.compare.report import CompareReport, Number, StageRow


MOST_SETS = 12  # sets of cells, one a column, that a terminal has room for
MOST_UNTESTED = 3  # reasons that are printed; the others are counted


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "compare", example="canal compare --html report.html")(compare)


def compare(
    session: Session,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="N", min=1, help="Stages; all by default.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one page with all figures.")] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Run the models again on every file that can still be read.")
    ] = False,
    references: Annotated[
        bool, typer.Option("--references", help="Train plain methods on what can still be read; takes minutes.")
    ] = False,
) -> Answer:
    """Show what each stage's model reaches on the held-out cells of every stage."""
    report = session.workspace().compare(
        *(numbers or ()), html=html, recompute=recompute, references=references, progress=watcher(session)
    )
    written = {"html": str(html.absolute())} if html is not None else {}
    return Answer(report.to_dict() | written, _parts(report, html))


def _parts(report: "CompareReport", html: Path | None) -> "list[Table | str]":
    """Return what people read: tables, then remarks on stages, missing tests and reference methods."""
    hidden = len(report.sets) - MOST_SETS
    more = f" (the last {MOST_SETS} of {len(report.sets)}; --json has all)" if hidden > 0 else ""
    title = f"accuracy on the held-out cells of each stage{more}"
    parts: list[Table | str] = [title, _accuracy_table(report), "", _figures_table(report)]
    for stage in report.stages:
        if stage.held_back:
            parts.append(f"stage {stage.number}: {stage.held_back}")
    # The honest figure: each data set when it was new.
    for stage in report.stages:
        if stage.incoming is not None:
            alarms = stage.incoming["false_alarms"]
            called = "" if alarms is None else f", {alarms:.1%} called novel"
            parts.append(
                f"stage {stage.number} when new (model of stage {stage.parent}): accuracy "
                f"{_four_digits(stage.incoming['accuracy'])} on {stage.incoming['cells']} cells{called}"
            )
    for column in report.sets:
        if column.in_bank:
            parts.append(
                f"stage {column.stage}: {column.in_bank} of its {column.cells} cells are in the bank, not held out"
            )
    # Tests that could not be made.
    for test in report.untested[:MOST_UNTESTED]:
        parts.append(f"stage {test['stage']} was not tested on stage {test['set']}: {test['reason']}")
    if len(report.untested) > MOST_UNTESTED:
        parts.append(f"and {len(report.untested) - MOST_UNTESTED} more that were not tested")
    for reference in report.references:
        accuracy = ", ".join(_four_digits(value) or "-" for value in reference.accuracy)
        parts += ["", f"{reference.name}: {accuracy}", f"  {reference.how}"]
    if html is not None:
        parts.append(f"in {short_path(html)}")
    return parts


def _accuracy_table(report: "CompareReport") -> "Table":
    """Return the accuracy of each stage's model on the held-out cells of each stage, the newest ones of many."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model after")
    columns = report.sets[-MOST_SETS:]
    for column in columns:
        table.add_column(f"{column.stage}", justify="right")
    for stage, accuracy in zip(report.stages, report.accuracy, strict=True):
        newest = accuracy[len(report.sets) - len(columns) :]
        table.add_row(_title(stage), *(_four_digits(value) for value in newest))
    return table


def _figures_table(report: "CompareReport") -> "Table":
    """Return the figures of each stage's model."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model after")
    for title in ("types", "accuracy", "macro-F1", "forgetting", "backward transfer"):
        table.add_column(title, justify="right")
    for stage in report.stages:
        figures = (stage.average, stage.macro_f1, stage.forgetting, stage.backward_transfer)
        table.add_row(_title(stage), str(stage.types), *map(_four_digits, figures))
    return table


def _title(stage: "StageRow") -> str:
    """Return number and name of a stage; an asterisk marks the one in use."""
    return f"{stage.number}{'*' if stage.in_use else ''} {stage.name}"


def _four_digits(value: "Number") -> str:
    return "" if value is None else f"{value:.4f}"
