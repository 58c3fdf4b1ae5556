"""`canal labels`: suggest, accept, list, tree, rename, merge and split."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, GeneKey, LabelMap, Session, command, short_path, watcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from canal.history.relabel import RenamingResult
    from canal.labels.suggest import LabelReport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Names of cell types in the Cell Ontology.")
    command(noun, "suggest", example="canal labels suggest --data new.h5ad --out labels.csv")(suggest)
    command(noun, "accept", example="canal labels accept labels.csv")(accept)
    command(noun, "list", example="canal labels list")(list_)
    command(noun, "tree", example="canal labels tree")(tree)
    command(noun, "rename", example='canal labels rename "CD4 T" "CD4 T cell"')(rename)
    command(noun, "merge", example='canal labels merge "CD4 T" T_CD4 --into "CD4 T cell"')(merge)
    command(noun, "split", example='canal labels split "T cell" --data subtypes.h5ad --labels subtype')(split)
    app.add_typer(noun, name="labels")


def suggest(
    session: Session,
    names: Annotated[Path | None, typer.Option(metavar="CSV", help="Table with a column name.")] = None,
    data: Annotated[Path | None, typer.Option(help="Labelled cells: their column of cell types.")] = None,
    labels: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs, with --data.")] = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Types of this stage; else of the one in use.")] = None,
    tissue: Annotated[str, typer.Option(help="Where the cells come from, such as lung.")] = "",
    species: Annotated[str, typer.Option(help="human or mouse; else as the genes of --data are.")] = "",
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
    if report.species and not species:
        lines.append(f"The genes of {data} are {report.species}: terms of other species count less (--species).")
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
    session: Session,
    stage: Annotated[int | None, typer.Option(min=1, help="Types of this stage.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="SVG|PNG", help="Picture to write.")] = None,
) -> Answer:
    """Show the types of a stage as a tree of the Cell Ontology."""
    shown = session.workspace().label_tree(stage, out=out)
    lines = shown.lines() + ([f"Picture: {short_path(out)}"] if out is not None else [])
    return Answer({"tree": [node.to_dict() for node in shown.nodes], "without": list(shown.without)}, lines)


def rename(
    session: Session,
    old: Annotated[str, typer.Argument(metavar="OLD", help="A type of the stage in use.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its name from now on.")],
) -> Answer:
    """Make a new stage in which a type has another name; nothing is deleted."""
    return _renaming_answer(session.workspace().rename_type(old, new, progress=watcher(session)))


def merge(
    session: Session,
    types: Annotated[list[str], typer.Argument(metavar="TYPES", help="Two types of the stage in use, or more.")],
    into: Annotated[str, typer.Option(metavar="NAME", help="What they are called from now on.")],
) -> Answer:
    """Make a new stage in which several types are one; nothing is deleted."""
    return _renaming_answer(session.workspace().merge_types(*types, into=into, progress=watcher(session)))


def split(
    session: Session,
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="A type of the stage in use.")],
    data: Annotated[Path, typer.Option(help="Cells of this type, labelled by finer names.")],
    labels: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs with the finer names.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the stage; else the file's.")] = None,
    label_map: LabelMap = None,
    gene_key: GeneKey = None,
) -> Answer:
    """Make a new stage that tells kinds of a type apart; nothing is deleted."""
    result = session.workspace().split_type(
        type_, data, labels=labels, name=name, label_map=label_map, gene_key=gene_key, progress=watcher(session)
    )
    lines = [
        f"Stage {result.stage}, {result.name}: version {result.version}, {result.seconds:.0f} s",
        f"  {type_} -> {', '.join(result.new_types)}, from {result.cells} cells",
    ]
    lines += _tested_lines(result.tested, result.warnings)
    if result.champion:
        lines.append(f"Stage {result.stage} annotates now; back to the types of before: canal stage rollback")
    else:
        lines.append(f"Stage {result.parent} goes on annotating: see the warnings.")
    return Answer(result.to_dict(), lines)


def _renaming_answer(renaming: "RenamingResult") -> Answer:
    """Return what came of a renaming."""
    shown = ", ".join(f"{old} -> {new}" for old, new in renaming.renamed.items())
    lines = [
        f"Stage {renaming.stage}, {renaming.name}: version {renaming.version}, {renaming.seconds:.0f} s",
        f"  {shown}",
        f"  types      {len(renaming.types)}",
    ]
    lines += _tested_lines(renaming.tested, renaming.warnings)
    if renaming.champion:
        lines.append(f"Stage {renaming.stage} annotates now; back to the names of before: canal stage rollback")
    else:
        lines.append(f"Stage {renaming.parent}, with the names of before, goes on annotating.")
    return Answer(renaming.to_dict(), lines)


def _tested_lines(tested: "Sequence[Mapping[str, Any]]", warnings: "Sequence[str]") -> list[str]:
    """Return a line for each earlier stage, accuracy before and now, and the warnings."""
    lines = []
    for test in tested:
        figures = [
            f"{value:.4f}" if value is not None else "not tested" for value in (test["before"], test["accuracy"])
        ]
        lines.append(f"  stage {test['stage']}, {test['name']}: {' -> '.join(figures)}")
    return lines + [f"warning: {text}" for text in warnings]


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
