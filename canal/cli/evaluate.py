"""`canal evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command
from canal.cli.novelty_options import Alpha, MinProbability, Transductive

if TYPE_CHECKING:
    from rich.table import Table


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "evaluate", example="canal evaluate --data held_out.h5ad --labels cell_type")(evaluate)


def evaluate(
    session: Session,
    data: Annotated[Path, typer.Option(help="Labelled cells: .h5ad, zarr folder, 10x .h5 or 10x folder.")],
    labels: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs with the cell types.")] = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Model of this stage.")] = None,
    label_map: Annotated[Path | None, typer.Option(metavar="CSV", help="Table of their name and our name.")] = None,
    gene_key: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of var with the gene names.")] = None,
    novel: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="Type of the file that the model was never taught; repeatable."),
    ] = None,
    alpha: Alpha = None,
    min_probability: MinProbability = None,
    transductive: Transductive = False,
) -> Answer:
    """Compare the model's answer with given labels; nothing is written."""
    found = session.workspace().evaluate(
        data,
        labels=labels,
        stage=stage,
        label_map=label_map,
        gene_key=gene_key,
        novel=tuple(novel or ()),
        alpha=alpha,
        min_probability=min_probability,
        transductive=transductive,
    )
    result = found.to_dict()
    lines = [
        f"{result['cells']} cells, model of stage {result['stage']}",
        f"accuracy {result['accuracy']:.4f}   macro-F1 {result['macro_f1']:.4f}   ARI {result['ari']:.4f}",
    ]
    unknown = ", ".join(result.get("unknown_types", ()))
    lines += [f"warning: the model does not know {unknown}"] if unknown else []
    if result["novelty"] is not None:
        lines.append("   ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in result["novelty"].items()))
    return Answer(result, [*lines, _table(result["per_type"])])


def _table(per_type: dict[str, dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("cell type")
    for title in ("cells", "precision", "recall", "F1"):
        table.add_column(title, justify="right")
    for name, row in per_type.items():
        figures = [f"{row[k]:.3f}" for k in ("precision", "recall", "f1")]
        table.add_row(name, str(int(row["support"])), *figures)
    return table
