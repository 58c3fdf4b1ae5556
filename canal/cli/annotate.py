"""`canal annotate` and `canal evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.arguments import expanded
from canal.cli.answer import Answer, DropLabels, GeneKey, KeepLabels, LabelMap, Session, command, short_path, watcher
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

AlphaLabel = Annotated[
    float | None, typer.Option(metavar="A", help="Share of sure answers (canal_cell_type_sure) that may be wrong.")
]

Adapt = Annotated[bool, typer.Option("--adapt", help="The file's own cells help to answer, where that helps.")]
Batch = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of obs whose batches --adapt adapts to one by one.")
]
Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="CONDITION", help="Cells of a SOMA experiment, such as \"tissue == 'blood'\"."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "annotate", example="canal annotate --data new.h5ad --out annotated.h5ad")(annotate)
    command(app, "evaluate", example="canal evaluate --data held_out.h5ad --labels cell_type")(evaluate)


def annotate(
    session: Session,
    data: Annotated[
        list[Path],
        typer.Option(help="Cells: .h5ad, zarr folder, 10x .h5, 10x folder, SOMA or 'runs/*.h5ad'; repeatable."),
    ],
    out: Annotated[
        Path, typer.Option(help="File to write: .h5ad (the cells with the answer) or .csv; a folder for several.")
    ],
    stage: Annotated[int | None, typer.Option(min=1, help="Model of this stage.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Ready-made model (blood) or file of an export; needs no workspace."),
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
    gene_key: GeneKey = None,
    alpha: Alpha = None,
    neighbors: Annotated[int, typer.Option(metavar="K", min=0, help="Name the K nearest reference cells.")] = 0,
    min_probability: MinProbability = None,
    transductive: Transductive = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --out where it is there, be it the file of --data.")
    ] = False,
    scores: Annotated[
        str, typer.Option(metavar="best|all", help="Write the probability of the best two types, or of every type.")
    ] = "best",
    adapt: Adapt = False,
    batch: Batch = None,
    alpha_label: AlphaLabel = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="cellxgene|cap", help="Add the terms as CELLxGENE or CAP ask for them."),
    ] = None,
    cas: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Write a document of the Cell Annotation Schema, too.")
    ] = None,
    author: Annotated[
        str | None, typer.Option(metavar="NAME", help="First and last name, for the document of --cas.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to work on, or local:N for N workers here.")
    ] = None,
    where: Filter = None,
) -> Answer:
    """Give every cell a cell type, and write a copy of the file with the annotation.

    Columns of obs: canal_cell_type, canal_confidence, canal_status (known, uncertain or novel), canal_novelty,
    canal_p_value, canal_best_known, canal_second_type, canal_second_confidence. Beside them X_canal in obsm (with
    --scores all canal_probabilities, too) and canal in uns.
    """
    options: dict[str, Any] = {
        "types": None if types is None else [name.strip() for name in types.split(",") if name.strip()],
        "majority_voting": majority_voting,
        "over_clustering": over_clustering,
        "key_added": key_added,
        "gene_key": gene_key,
        "alpha": alpha,
        "transductive": transductive,
        "neighbors": neighbors,
        "min_probability": min_probability,
        "overwrite": overwrite,
        "scores": scores,
        "adapt": adapt,
        "batch": batch,
        "alpha_label": alpha_label,
        "format": form,
        "cas": cas,
        "author": author,
        "filter": where,
        "progress": watcher(session),
    }
    files = expanded(data)
    # With a model that is named, or with one of the workspace.
    if model is not None:
        if dask is not None:
            message = (
                f"Workers on {dask} read the model from a workspace. Import {model} with canal registry import first."
            )
            raise ConfigError(message)
        annotations = session.annotator(model, stage).annotate_files(files, out, **options)
    else:
        annotations = session.workspace().annotate_files(files, out, stage=stage, dask=dask, **options)
    if len(annotations) > 1:
        return _answer_of_files(files, out, annotations)
    return _answer_of_file(out, annotations[0], _document_lines(cas, author))


def _document_lines(cas: Path | None, author: str | None) -> list[str]:
    """Return a line about the document of the Cell Annotation Schema, where there is one."""
    if cas is None:
        return []
    missing = "" if author else '; its author_name is "not given": name one with --author'
    return [f"Cell Annotation Schema: {short_path(cas)}{missing}"]


def _answer_of_file(out: Path, annotation: "Annotation", documents: list[str]) -> Answer:
    """Return the cell types of one file, with numbers of cells and mean confidence; and lines on other documents."""
    per_type, per_status = _cells_per_type(annotation), _cells_per_status(annotation)
    data = {
        "out": str(out),
        "cells": len(annotation),
        "per_type": per_type,
        "status": per_status,
        "mean_confidence": float(annotation.confidence.mean()) if len(annotation) else None,
        **annotation.facts,
    }
    counts = ", ".join(f"{cells} {status}" for status, cells in per_status.items())
    line = f"{len(annotation)} cells{': ' if counts else ''}{counts}; in {short_path(out)}"
    facts = annotation.facts
    lines = [line, *documents, *_adapted_lines(facts.get("adapted")), *_on_the_file(facts), *_calibration_lines(facts)]
    return Answer(data, [_confidence_table(per_type), *lines])


def _on_the_file(facts: "Mapping[str, Any]", file: str = "") -> list[str]:
    """Return the lines that say whether a file fits the model: one of figures, and the warnings."""
    name = f" of {file}" if file else ""
    lines = [f"sanity{name}: {facts['sanity']}"] if facts.get("sanity") else []
    return lines + [f"warning: {text}" for text in facts.get("warnings", ())]


def _calibration_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return a line that says so where the verdicts on novelty are not calibrated for the file."""
    if facts.get("calibrated_for") != "no":
        return []
    line = (
        f"novelty is not calibrated for this file: {facts['unlike']:.0%} of its cells look unlike those that were "
        "taught, where 5% would"
    )
    if facts["unlike_stages"]:
        stage, share = min(facts["unlike_stages"].items(), key=lambda item: item[1])
        line += f" (least unlike are those of stage {stage}: {share:.0%})"
    if facts.get("novelty_shift"):
        line += ". Cells count as novel that are newer than the bulk of the file"
    else:
        line += ". More of the known cells are called novel than --alpha allows"
    return [f"{line}; try --adapt"] if "adapted" not in facts else [line]


def _adapted_lines(adapted: dict[str, Any] | None) -> list[str]:
    """Return a line for each group of cells that was adapted to, or was not, and why."""
    if adapted is None:
        return []
    if "groups" not in adapted:
        return [f"not adapted: {adapted['held_back'][0]}"]
    lines = []
    for group, name in enumerate(adapted["groups"]):
        reason, cells = adapted["held_back"][group], adapted["cells"][group]
        if reason:
            lines.append(f"{name}, {cells} cells, not adapted: {reason}")
            continue
        unlike, moved = adapted["unlike"][group], adapted["moved"][group]
        lines.append(
            f"{name}, {cells} cells, adapted: {unlike:.0%} unlike what was taught, {moved:.1%} change their type"
        )
    return lines


def _answer_of_files(data: list[Path], out: Path, annotations: "list[Annotation]") -> Answer:
    """Return the numbers of cells of several files."""
    files: list[dict[str, Any]] = []
    cells = 0
    for file, annotation in zip(data, annotations, strict=True):
        cells += len(annotation)
        counts = {"cells": len(annotation), "status": _cells_per_status(annotation)}
        files.append({"data": str(file), **counts, **annotation.facts})
    lines = [f"{cells} cells of {len(files)} files; in {short_path(out)}"]
    for file, annotation in zip(data, annotations, strict=True):
        lines += _on_the_file(annotation.facts, file.name)
    return Answer({"out": str(out), "cells": cells, "files": files}, lines)


def _cells_per_status(annotation: "Annotation") -> dict[str, int]:
    """Return the number of known, uncertain and novel cells; nothing where novelty was not judged."""
    status = annotation.columns.get("status")
    if status is None:
        return {}
    return {name: int((status == name).sum()) for name in ("known", "uncertain", "novel")}


def _cells_per_type(annotation: "Annotation") -> dict[str, dict[str, Any]]:
    """Return number of cells and mean confidence of each cell type, the commonest first."""
    groups = annotation.to_frame().groupby("cell_type", observed=True)["confidence"]
    table = groups.agg(["size", "mean"]).sort_values("size", ascending=False, kind="stable")
    per_type = {}
    for name, row in table.iterrows():
        per_type[str(name)] = {"cells": int(row["size"]), "mean_confidence": float(row["mean"])}
    return per_type


def _confidence_table(per_type: dict[str, dict[str, Any]]) -> "Table":
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
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Ready-made or joint model, or file of an export; needs no workspace."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures alone, for `canal site report`: .json.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the site in --out; else of the file.")
    ] = None,
    label_map: LabelMap = None,
    drop_labels: DropLabels = None,
    keep_labels: KeepLabels = None,
    gene_key: GeneKey = None,
    novel: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="Type of the file that the model was never taught; repeatable."),
    ] = None,
    alpha: Alpha = None,
    min_probability: MinProbability = None,
    transductive: Transductive = False,
    adapt: Adapt = False,
    batch: Batch = None,
    where: Filter = None,
) -> Answer:
    """Compare the model's annotation with given labels; nothing is written but, with --out, the figures."""
    annotator = session.annotator(model, stage)
    if out is not None:
        from canal.workspace import check_site_numbers

        check_site_numbers(out)
    evaluation = annotator.evaluate(
        data,
        labels=labels,
        stage=stage,
        label_map=label_map,
        drop_labels=tuple(drop_labels or ()),
        keep_labels=tuple(keep_labels or ()),
        gene_key=gene_key,
        novel=tuple(novel or ()),
        alpha=alpha,
        min_probability=min_probability,
        transductive=transductive,
        adapt=adapt,
        batch=batch,
        filter=where,
    )
    if out is not None:
        from canal.workspace import write_site_numbers

        write_site_numbers(evaluation, annotator, out, site=site, stage=stage)
    figures = evaluation.to_dict()
    lines = [
        f"{figures['cells']} cells, model of stage {figures['stage']}",
        f"accuracy {figures['accuracy']:.4f}   macro-F1 {figures['macro_f1']:.4f}   ARI {figures['ari']:.4f}",
    ]
    # What makes the figures worse than the model is, and how well novel types were found.
    unknown = ", ".join(figures.get("unknown_types", ()))
    if unknown:
        lines.append(f"warning: the model does not know {unknown}: every cell of these counts as wrong")
    lines += _adapted_lines(figures.get("adapted"))
    if "granularity" in figures:
        shown = (f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures["granularity"].items())
        lines.append("in the Cell Ontology: " + "   ".join(shown))
    if figures["novelty"] is not None:
        lines.append("   ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures["novelty"].items()))
    left_out = figures["unlabelled"]
    if left_out:
        lines.append(f"{left_out} cells without a label that names a type do not count")
    lines += _on_the_file(figures)
    return Answer(figures, [*lines, _type_table(figures["per_type"])])


def _type_table(per_type: dict[str, dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("cell type")
    for title in ("cells", "precision", "recall", "F1"):
        table.add_column(title, justify="right")
    for name, row in per_type.items():
        figures = [f"{row[figure]:.3f}" for figure in ("precision", "recall", "f1")]
        table.add_row(name, str(int(row["support"])), *figures)
    return table
