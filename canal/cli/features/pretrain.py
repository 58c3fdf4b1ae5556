"""`canal pretrain`."""

from pathlib import Path
from typing import Annotated

import typer

from canal.cli.answer import Answer, GeneKey, Session, command, watcher


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "pretrain", example="canal pretrain --data a.h5ad b.h5ad --name blood")(pretrain)


def pretrain(
    session: Session,
    data: Annotated[list[Path], typer.Option(help="Cells: .h5ad, zarr folder, 10x .h5 or 10x folder; repeatable.")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="FILES", help="More files of cells.")] = None,
    name: Annotated[str, typer.Option(help="Name of the weights.")] = "pretrained",
    preset: Annotated[str, typer.Option(help="small, performer, scbert or a .toml file.")] = "small",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the preset; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; it is recorded.")] = None,
    gene2vec: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Vectors of genes, .npy or text; else they are learned.")
    ] = None,
    genes: Annotated[Path | None, typer.Option(help="Names of the vectors' genes, where the file has none.")] = None,
    gene_key: GeneKey = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from where a run was stopped.")] = False,
) -> Answer:
    """Pre-train a Performer on unlabelled cells: it learns to predict the expression bins of masked genes.

    Files may be larger than memory. The result is used with canal stage add --preset performer --weights NAME.
    """
    weights = session.workspace(anywhere=True).pretrain(
        [*data, *(more or ())],
        name=name,
        preset=preset,
        overrides=tuple(overrides or ()),
        seed=seed,
        gene2vec=gene2vec,
        genes=genes,
        gene_key=gene_key,
        resume=resume,
        progress=watcher(session),
    )
    # The accuracy on masked bins beside that of the two baselines without a model.
    facts = weights.described()
    lines = [
        f"{facts['name']}: {facts['sizes']['genes']} genes, {facts['cells']} cells, {facts['seconds']:.0f} s",
        f"  masked bins of {facts['held_out_cells']} held-out cells told right: {facts['accuracy']:.3f}",
        f"  commonest bin of the cell:               {facts['cell_majority']:.3f}",
        f"  commonest bin of the gene in such cells: {facts['gene_majority']:.3f}",
        f"Start a stage from it: canal stage add --preset performer --weights {facts['name']} --data cells.h5ad",
    ]
    return Answer(facts, [*lines, *(f"warning: {text}" for text in facts.get("warnings", ()))])
