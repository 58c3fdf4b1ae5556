"""`canal demo`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher

if TYPE_CHECKING:
    from rich.table import Table

    from canal.demo.demo import DemoReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", example="canal demo --out canal-demo")(demo)


def demo(
    session: Session,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; an earlier demo is replaced.")] = Path(
        "canal-demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of held-out cells and training.")] = 0,
) -> Answer:
    """Show three stages on real blood cells, with new cell types at every stage.

    Nothing is downloaded. It takes about a minute.
    """
    from canal.demo.demo import run_demo

    report = run_demo(out, seed=seed, progress=watcher(session), say=lambda line: sys.stderr.write(line + "\n"))
    last = report.canal.to_dict()
    here = short_path(report.folder)
    after = [
        f"Forgetting: {last['forgetting']:.3f} with canal, {report.naive.forgetting:.3f} with "
        f"fine-tuning. {report.seconds:.0f} s in all.",
        "",
        f"annotated cells  {short_path(report.annotated)}",
        f"picture          {short_path(report.picture)}",
        f"registry         canal -C {here} stage list",
        f"                 canal -C {here} ui",
    ]
    return Answer(report.to_dict(), [_table(report), *after])


def _table(report: "DemoReport") -> "Table":
    from rich.table import Table

    table = Table(title="Accuracy on each stage's held-out cells", title_justify="left")
    table.add_column("")
    for name in (*report.stages, "mean", "macro-F1"):
        table.add_column(name, justify="right")
    scores = report.canal
    for k, row in enumerate(scores.accuracy):
        blank = [""] * (len(report.stages) - len(row))
        figures = [*_digits(row), *blank, *_digits([_mean(row), _mean(scores.macro_f1[k])])]
        table.add_row(f"canal, after stage {k + 1}", *figures)
    table.add_section()
    naive, naive_f1 = report.naive.accuracy[-1], report.naive.macro_f1[-1]
    table.add_row("fine-tuning, no memory", *_digits([*naive, _mean(naive), _mean(naive_f1)]))
    joint, joint_f1 = ([pair[i] for pair in report.joint] for i in (0, 1))
    table.add_row("logistic regression, all at once", *_digits([*joint, _mean(joint), _mean(joint_f1)]))
    return table


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _digits(values: list[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]
