"""`canal explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from canal.cli.answer import Answer, GeneKey, Session, command, short_path, watcher

if TYPE_CHECKING:
    from rich.table import Table


MOST_SETS = 10  # gene sets of a cell type that are printed; --json has all
# What the scores of each method are.
METHODS = {
    "attention": "Share of the encoder's attention that goes to each gene.",
    "memory": "Part of each gene in the memory's ridge score; what is made of the scores is not explained.",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "explain", example="canal explain --data cells.h5ad --type NK --out nk")(explain)


def explain(
    session: Session,
    data: Annotated[
        Path | None,
        typer.Option(help="Cells: .h5ad, zarr folder, 10x .h5 or 10x folder; else the cells that were taught."),
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="Cell type; repeatable; else every one.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of obs that says the type; else the model does.")
    ] = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Model of this stage.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Genes of a type that are shown and tested.")] = 20,
    cells: Annotated[int, typer.Option(min=1, help="Most cells of a type that are looked at.")] = 200,
    rank: Annotated[
        Literal["difference", "score"], typer.Option(help="Genes by the difference to all other cells, or as they are.")
    ] = "difference",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for genes.csv, gene_sets.csv and top-genes.png.")
    ] = None,
    enrich: Annotated[
        Path | None, typer.Option(metavar="SETS", help="Gene sets (.gmt) to test the top genes against.")
    ] = None,
    gene_key: GeneKey = None,
) -> Answer:
    """Show which genes the model looks at in the cells of each type, of a file or as they were taught.

    An encoder with attention is explained by its attention, another by its analytic memory; the answer says which.
    """
    answer = session.workspace().explain_to(
        out,
        data=data,
        stage=stage,
        types=tuple(types or ()),
        labels=labels,
        gene_key=gene_key,
        most_cells=cells,
        rank=rank,
        top=top,
        gene_sets=enrich,
        progress=watcher(session),
    )
    parts: list[Table | str] = [METHODS[answer["method"]]]
    if answer["source"] == "taught":
        parts.append("No file was named: these are the cells that were taught, by their statistics.")
    for name, explanation in answer["types"].items():
        parts += _parts_of_type(name, explanation)
    if out is not None:
        parts.append(f"Written to {short_path(out)}: {', '.join(answer['files'])}")
    parts += [f"warning: {text}" for text in answer["warnings"]]
    return Answer(answer, parts)


def _parts_of_type(name: str, explanation: dict[str, Any]) -> "list[Table | str]":
    """Return the genes of a cell type, and the gene sets that they are enriched in."""
    from rich.table import Table

    parts: list[Table | str] = ["", f"{name}, {explanation['cells']} cells"]
    # Where the method tells, genes that the type has apart from those that other types have.
    lists = {f"for {name}": "genes_for", f"against others: {name} has less": "genes_against"}
    if "genes_for" not in explanation:
        lists = {"gene": "genes"}
    for title, key in lists.items():
        table = Table(box=None, pad_edge=False)
        for heading in (title, "score", "in other cells"):
            table.add_column(heading, justify="left" if heading == title else "right")
        for gene in explanation[key]:
            table.add_row(gene["gene"], f"{gene['score']:.5f}", f"{gene['others']:.5f}")
        parts.append(table)
    for gene_set in explanation.get("gene_sets", [])[:MOST_SETS]:
        overlap = f"{gene_set['overlap']} of {gene_set['size']} genes"
        parts.append(f"  {gene_set['name']}: {overlap}, adjusted p {gene_set['adjusted']:.2g}")
    return parts
