"""`canal compare`: stages side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher

if TYPE_CHECKING:
    from rich.table import Table

    from canal.compare.report import CompareReport, Number


WIDEST = 12  # columns of sets that a terminal holds


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
    return Answer(report.to_dict() | written, _shown(report, html))


def _shown(report: "CompareReport", html: Path | None) -> "list[Table | str]":
    hidden = len(report.sets) - WIDEST
    more = f" (the last {WIDEST} of {len(report.sets)}; --json has all)" if hidden > 0 else ""
    title = f"accuracy on the held-out cells of each stage{more}"
    parts: list[Table | str] = [title, _accuracy(report), "", _figures(report)]
    parts += [f"stage {s.number}: {s.held_back}" for s in report.stages if s.held_back]
    for u in report.untested[:3]:
        parts.append(f"stage {u['stage']} was not tested on stage {u['set']}: {u['reason']}")
    if len(report.untested) > 3:
        parts.append(f"and {len(report.untested) - 3} more that were not tested")
    for reference in report.references:
        values = ", ".join(_number(value) or "-" for value in reference.accuracy)
        parts += ["", f"{reference.name}: {values}", f"  {reference.how}"]
    if html is not None:
        parts.append(f"in {short_path(html)}")
    return parts


def _accuracy(report: "CompareReport") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model after")
    shown = report.sets[-WIDEST:]
    for column in shown:
        table.add_column(f"{column.stage}", justify="right")
    for stage, row in zip(report.stages, report.accuracy, strict=True):
        mark = "*" if stage.in_use else ""
        values = row[len(report.sets) - len(shown) :]
        table.add_row(f"{stage.number}{mark} {stage.name}", *(_number(value) for value in values))
    return table


def _figures(report: "CompareReport") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model after")
    for title in ("types", "accuracy", "macro-F1", "forgetting", "backward transfer"):
        table.add_column(title, justify="right")
    for s in report.stages:
        figures = (s.average, s.macro_f1, s.forgetting, s.backward_transfer)
        table.add_row(f"{s.number}{'*' if s.in_use else ''} {s.name}", str(s.types), *map(_number, figures))
    return table


def _number(value: "Number") -> str:
    return "" if value is None else f"{value:.4f}"
