"""`canal annotate` and `canal evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher
from canal.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from canal.report.annotation import Annotation


Alpha = Annotated[float | None, typer.Option(help="Share of known cells that may be called novel; 0.05 by default.")]
MinProbability = Annotated[
    float | None, typer.Option(metavar="P", help="Call cells novel that are less sure; scBERT's rule, 0.5 there.")
]
Transductive = Annotated[
    bool, typer.Option("--transductive", help="The paper's verdict: it depends on the other cells of the file.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "annotate", example="canal annotate --data new.h5ad --out annotated.h5ad")(annotate)
    command(app, "evaluate", example="canal evaluate --data held_out.h5ad --labels cell_type")(evaluate)


def annotate(
    session: Session,
    data: Annotated[list[Path], typer.Option(help="Cells: .h5ad, zarr folder, 10x .h5 or 10x folder; repeatable.")],
    out: Annotated[
        Path, typer.Option(help="File to write: .h5ad (the cells with the answer) or .csv; a folder for several.")
    ],
    stage: Annotated[int | None, typer.Option(min=1, help="Model of this stage.")] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Model of `canal registry export`; needs no workspace.")
    ] = None,
    types: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Answer with these types only."),
    ] = None,
    majority_voting: Annotated[
        bool, typer.Option("--majority-voting", help="Give each cluster its commonest type.")
    ] = False,
    over_clustering: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Clusters to vote in; else they are made."),
    ] = None,
    key_added: Annotated[str, typer.Option(help="Begins every name that is added.")] = "canal",
    gene_key: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of var with the gene names.")] = None,
    alpha: Alpha = None,
    neighbors: Annotated[int, typer.Option(metavar="K", min=0, help="Name the K nearest reference cells.")] = 0,
    min_probability: MinProbability = None,
    transductive: Transductive = False,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to work on, or local:N for N workers here.")
    ] = None,
) -> Answer:
    """Say of every cell what type it is; the file of the cells stays as it is.

    Written: obs[canal_cell_type], obs[canal_confidence], obs[canal_status] (known, uncertain or novel),
    obs[canal_novelty], obs[canal_p_value], obs[canal_best_known], obsm[X_canal] and uns[canal].
    """
    annotations = _annotated(
        session,
        (stage, model, dask),
        files=data,
        out=out,
        types=None if types is None else [t.strip() for t in types.split(",") if t.strip()],
        majority_voting=majority_voting,
        over_clustering=over_clustering,
        key_added=key_added,
        gene_key=gene_key,
        alpha=alpha,
        transductive=transductive,
        neighbors=neighbors,
        min_probability=min_probability,
        progress=watcher(session),
    )
    if len(annotations) > 1:
        return _several(data, out, annotations)
    annotation = annotations[0]
    per_type = _per_type(annotation)
    answer = {
        "out": str(out),
        "cells": len(annotation),
        "per_type": per_type,
        "status": _status(annotation),
        "mean_confidence": float(annotation.confidence.mean()) if len(annotation) else None,
        **annotation.facts,
    }
    counts = ", ".join(f"{n} {name}" for name, n in answer["status"].items())
    lines = [f"{len(annotation)} cells{': ' if counts else ''}{counts}; in {short_path(out)}"]
    return Answer(answer, [_table(per_type), *lines])


def _several(data: list[Path], out: Path, annotations: "list[Annotation]") -> Answer:
    cells = sum(len(annotation) for annotation in annotations)
    files = [
        {"data": str(file), "cells": len(annotation), "status": _status(annotation), **annotation.facts}
        for file, annotation in zip(data, annotations, strict=True)
    ]
    lines = [f"{cells} cells of {len(files)} files; in {short_path(out)}"]
    return Answer({"out": str(out), "cells": cells, "files": files}, lines)


def _status(annotation: "Annotation") -> dict[str, int]:
    values = annotation.columns.get("status")
    if values is None:
        return {}
    return {name: int((values == name).sum()) for name in ("known", "uncertain", "novel")}


def _annotated(
    session: Session, asked: tuple[int | None, Path | None, str | None], **options: Any
) -> "list[Annotation]":
    """Annotate with the model that was named: of a stage, of a file, or on workers."""
    stage, model, dask = asked
    if model is None:
        return session.workspace().annotate_files(**options, stage=stage, dask=dask)
    if dask is not None:
        message = f"Workers on {dask} read the model from a workspace. Import {model} with canal registry import first."
        raise ConfigError(message)
    if stage is not None:
        message = f"Both stage {stage} and {model} are named. Name one of them."
        raise ConfigError(message)
    from canal.workspace import load_model

    return load_model(model).annotate_files(**options)


def _per_type(annotation: "Annotation") -> dict[str, dict[str, Any]]:
    groups = annotation.to_frame().groupby("cell_type", observed=True)["confidence"]
    found = groups.agg(["size", "mean"]).sort_values("size", ascending=False, kind="stable")
    return {
        str(name): {"cells": int(row["size"]), "mean_confidence": float(row["mean"])} for name, row in found.iterrows()
    }


def _table(per_type: dict[str, dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("cell type")
    table.add_column("cells", justify="right")
    table.add_column("mean confidence", justify="right")
    for name, row in per_type.items():
        table.add_row(name, str(row["cells"]), f"{row['mean_confidence']:.3f}")
    return table


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
    return Answer(result, [*lines, _type_table(result["per_type"])])


def _type_table(per_type: dict[str, dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("cell type")
    for title in ("cells", "precision", "recall", "F1"):
        table.add_column(title, justify="right")
    for name, row in per_type.items():
        figures = [f"{row[k]:.3f}" for k in ("precision", "recall", "f1")]
        table.add_row(name, str(int(row["support"])), *figures)
    return table
