"""`canal labels`: suggest, accept, list and tree."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path

if TYPE_CHECKING:
    from rich.table import Table

    from canal.labels.suggest import LabelReport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Names of cell types in the Cell Ontology.")
    command(noun, "suggest", example="canal labels suggest --data new.h5ad --out labels.csv")(suggest)
    command(noun, "accept", example="canal labels accept labels.csv")(accept)
    command(noun, "list", example="canal labels list")(list_)
    command(noun, "tree", example="canal labels tree")(tree)
    app.add_typer(noun, name="labels")


def suggest(
    session: Session,
    names: Annotated[Path | None, typer.Option(metavar="CSV", help="Table with a column name.")] = None,
    data: Annotated[Path | None, typer.Option(help="Labelled cells: their column of cell types.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs, with --data.")] = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Types of this stage; else of the one in use.")] = None,
    tissue: Annotated[str, typer.Option(help="Where the cells come from, such as lung.")] = "",
    species: Annotated[str, typer.Option(help="human or mouse.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="CSV", help="Table to write, to look through and accept.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the table.")] = False,
) -> Answer:
    """Suggest terms of the Cell Ontology for the names of a table, a file of cells or a stage."""
    workspace = session.workspace(anywhere=names is not None or data is not None)
    report = workspace.suggest_labels(
        names=names,
        data=data,
        labels=labels,
        stage=stage,
        tissue=tissue,
        species=species,
        out=out,
        overwrite=overwrite,
    )
    lines = [f"{report.accepted} of {len(report.suggestions)} names are as good as certain (marked *)"]
    if out is not None:
        lines.append(f"Look through {short_path(out)}, fill the column id, then: canal labels accept {short_path(out)}")
    return Answer(report.to_dict(), [_suggestions_table(report), *lines])


def accept(
    session: Session,
    table: Annotated[Path, typer.Argument(metavar="CSV", help="The filled table of `canal labels suggest`.")],
) -> Answer:
    """Take the terms of a filled table into the workspace."""
    accepted = session.workspace().accept_labels(table)
    lines = [f"{len(accepted.accepted)} names accepted; {accepted.total} in {short_path(Path(accepted.file))}"]
    lines += [f"changed: {name}" for name in accepted.changed]
    return Answer(accepted.to_dict(), lines)


def list_(
    session: Session, stage: Annotated[int | None, typer.Option(min=1, help="Types of this stage.")] = None
) -> Answer:
    """List the types of a stage and the terms they stand for."""
    from rich.table import Table

    labels = session.workspace().list_labels(stage)
    table = Table(box=None, pad_edge=False)
    for title in ("type", "id", "label", "relation", "below"):
        table.add_column(title)
    for listed in labels.labels:
        table.add_row(listed.type, listed.id or "-", listed.label, listed.relation, listed.below)
    return Answer(labels.to_dict(), [table, f"stage {labels.stage}; Cell Ontology {labels.release}"])


def tree(
    session: Session, stage: Annotated[int | None, typer.Option(min=1, help="Types of this stage.")] = None
) -> Answer:
    """Show the types of a stage as a tree of the Cell Ontology."""
    shown = session.workspace().label_tree(stage)
    return Answer({"tree": [node.to_dict() for node in shown.nodes], "without": list(shown.without)}, shown.lines())


def _suggestions_table(report: "LabelReport") -> "Table":
    """Return the first candidates of every name."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "", "id", "label", "relation", "score", "why"):
        table.add_column(title, justify="right" if title == "score" else "left")
    for suggestion in report.suggestions:
        if not suggestion.candidates:
            table.add_row(suggestion.name, "", "-", "nothing like it", "", "", "")
        for number, candidate in enumerate(suggestion.candidates[:3]):
            shown = (candidate.id, candidate.label, candidate.relation, f"{candidate.score:.2f}", candidate.why)
            mark = "*" if suggestion.accepted == candidate.id else ""
            table.add_row(suggestion.name if number == 0 else "", mark, *shown)
    return table
