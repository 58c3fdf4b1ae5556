"""`canal demo`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher

if TYPE_CHECKING:
    from rich.table import Table

    from canal.demo.demo import DemoReport, Scores


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
    # Another number of threads rounds in another order, and the figures would be others than those in the README. It is
    # read when the libraries are loaded, which they are not yet.
    for variable in THREADS:
        os.environ[variable] = "1"
    from canal.demo.demo import run_demo

    report = run_demo(out, seed=seed, progress=watcher(session), say=lambda line: sys.stderr.write(line + "\n"))
    folder = short_path(report.folder)
    lines = [
        f"Forgetting: {report.canal.forgetting:.3f} with canal, {report.naive.forgetting:.3f} with "
        f"fine-tuning. {report.seconds:.0f} s in all.",
        "",
        f"annotated cells  {short_path(report.annotated)}",
        f"picture          {short_path(report.picture)}",
        f"registry         canal -C {folder} stage list",
        f"                 canal -C {folder} ui",
    ]
    return Answer(report.to_dict(), [_accuracy_table(report), *lines])


def _accuracy_table(report: "DemoReport") -> "Table":
    """Return the accuracy on the held-out cells of each stage: of canal after each stage, of the others at the end."""
    from rich.table import Table

    table = Table(title="Accuracy on each stage's held-out cells", title_justify="left")
    table.add_column("")
    for name in (*report.stages, "mean", "macro-F1"):
        table.add_column(name, justify="right")
    for k in range(len(report.stages)):
        _add_row(table, f"canal, after stage {k + 1}", report.canal, k, len(report.stages))
    table.add_section()
    _add_row(table, "fine-tuning, no memory", report.naive, -1, len(report.stages))
    _add_row(table, "logistic regression, all at once", report.joint, -1, len(report.stages))
    return table


def _add_row(table: "Table", title: str, scores: "Scores", row: int, stages: int) -> None:
    """Add a row of figures; stages that were still to come stay blank."""
    accuracy = [f"{value:.3f}" for value in scores.accuracy[row]]
    blank = [""] * (stages - len(accuracy))
    mean_accuracy, mean_macro_f1 = scores.means(row)
    table.add_row(title, *accuracy, *blank, f"{mean_accuracy:.3f}", f"{mean_macro_f1:.3f}")
