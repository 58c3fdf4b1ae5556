"""`canal panel check` and `canal panel design`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher

if TYPE_CHECKING:
    from rich.table import Table

    from canal.panels.check import PanelCheck

SHOWN_UNKNOWN = 8  # names of genes in a line
SHOWN_RECALLS = 10  # types that are told worst

Stage = Annotated[int | None, typer.Option(min=1, help="Model of this stage.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME|FILE", help="Ready-made model (blood) or file of an export; needs no workspace."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Targeted panels (Xenium, CosMx): what they tell apart.")
    command(noun, "check", example="canal panel check genes.txt --model blood")(check)
    command(noun, "design", example="canal panel design --add 50 --out panel.txt --model blood")(design)
    app.add_typer(noun, name="panel")


def check(
    session: Session,
    genes: Annotated[
        Path, typer.Argument(metavar="GENES", help="Genes of the panel: text with a name a line, or .json.")
    ],
    depth: Annotated[int | None, typer.Option(min=1, help="Counts a cell on the panel; else as taught.")] = None,
    stage: Stage = None,
    model: ModelName = None,
) -> Answer:
    """Say what a targeted panel will tell apart, before it is bought; no cell is needed."""
    report = session.annotator(model, stage).check_panel(genes, depth=depth, stage=stage, progress=watcher(session))
    known = len(report.known)
    parts: list[Table | str] = [f"{known} of {known + len(report.unknown)} genes are known to the model"]
    if report.unknown:
        shown = ", ".join(report.unknown[:SHOWN_UNKNOWN])
        parts[0] = f"{parts[0]}; not {shown}{', ...' if len(report.unknown) > SHOWN_UNKNOWN else ''}"
    at_depth = "" if report.depth is None else f" at {report.depth} counts a cell"
    parts.append(f"expected accuracy{at_depth}: {report.accuracy:.3f}")
    parts += [_stages_table(report), "", _recall_table(report), "", _mistakes_table(report)]
    parts += [f"warning: {text}" for text in report.warnings]
    return Answer(report.to_dict(), parts)


def design(
    session: Session,
    add: Annotated[int, typer.Option(min=1, help="Genes to add.")],
    start: Annotated[Path | None, typer.Option("--from", metavar="GENES", help="Panel to add to; else none.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="TXT", help="File to write: all genes of the panel.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    stage: Stage = None,
    model: ModelName = None,
) -> Answer:
    """Choose genes to add to a targeted panel so that it tells the taught types apart."""
    from rich.table import Table

    chosen = session.annotator(model, stage).design_panel(add, start=start, stage=stage, out=out, overwrite=overwrite)
    table = Table(box=None, pad_edge=False)
    for title in ("gene", "above all for"):
        table.add_column(title)
    for gene, pair in zip(chosen.added, chosen.for_pair, strict=True):
        table.add_row(gene, " | ".join(pair))
    parts: list[Table | str] = [table]
    if out is not None:
        parts.append(
            f"{len(chosen.genes)} genes written to {short_path(out)}; next: canal panel check {short_path(out)}"
        )
    return Answer(chosen.to_dict(), parts)


def _stages_table(report: "PanelCheck") -> "Table":
    """Return what the panel reaches on cells like those of each stage."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("cells like stage", "genes", "accuracy", "with all genes"):
        table.add_column(title, justify="right")
    for stage in report.stages:
        with_all = "-" if stage.all_genes is None else f"{stage.all_genes:.3f}"
        table.add_row(str(stage.stage), str(stage.genes), f"{stage.accuracy:.3f}", with_all)
    return table


def _recall_table(report: "PanelCheck") -> "Table":
    """Return the types that are told worst."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("told worst")
    table.add_column("recall", justify="right")
    for name, recall in sorted(report.recall.items(), key=lambda item: item[1])[:SHOWN_RECALLS]:
        table.add_row(name, f"{recall:.2f}")
    return table


def _mistakes_table(report: "PanelCheck") -> "Table":
    """Return the pairs of types that are confused most."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("cells of", "called", "share"):
        table.add_column(title, justify="right" if title == "share" else "left")
    for mistake in report.mistakes[:SHOWN_RECALLS]:
        table.add_row(mistake.cell_type, mistake.taken_for, f"{mistake.share:.0%}")
    return table
