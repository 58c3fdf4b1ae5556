"""`canal site`, `canal merge` and `canal privacy`: annotators of several sites, merged without moving a cell."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, GeneKey, Session, command, short_path, watcher

if TYPE_CHECKING:
    from rich.table import Table


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Give statistics away, and no cell, to merge with other sites.")
    command(noun, "genes", example="canal site genes a.h5ad b.h5ad --out genes.txt")(genes)
    command(noun, "export", example="canal site export north.canal")(export)
    command(noun, "show", example="canal site show north.canal")(show)
    command(noun, "key", example="canal site key")(key)
    command(noun, "trust", example="canal site trust south ed25519:5f...")(trust)
    command(noun, "report", example="canal site report north.json south.json --html sites.html")(report)
    app.add_typer(noun, name="site")
    privacy = typer.Typer(no_args_is_help=True, help="What an export gives away of its cells.")
    command(privacy, "audit", example="canal privacy audit north.canal --data mine.h5ad")(audit)
    app.add_typer(privacy, name="privacy")
    command(app, "merge", example="canal merge north.canal south.canal --out joint.canal")(merge)


def genes(
    session: Session,  # noqa: ARG001 - every command is told
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Files of cells, and lists that other sites wrote (.txt).")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="List to write: a name a line.")],
    gene_key: GeneKey = None,
) -> Answer:
    """Write the names of the genes that all files have, for sites to agree on; no cell is looked at."""
    from canal.workspace import site_genes

    names = site_genes(files, out, gene_key=gene_key)
    data = {"out": str(out), "genes": len(names), "files": [str(file) for file in files]}
    return Answer(
        data, [f"{len(names):,} genes are in all of {len(files)} files; their names are in {short_path(out)}"]
    )


def export(
    session: Session,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="File to write, such as north.canal.")],
    stage: Annotated[int | None, typer.Option(min=1, help="Stage to export; else the one in use.")] = None,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the site; else that of the file.")] = None,
    genes: Annotated[
        Path | None, typer.Option(metavar="LIST", help="Genes that the sites agreed on: `canal site genes`.")
    ] = None,
    min_cells: Annotated[
        int | None, typer.Option(metavar="N", help="Leave out types of fewer cells; 20 by default.")
    ] = None,
    max_directions: Annotated[
        int | None, typer.Option(metavar="K", help="Most directions of the spread of a type; 5 by default.")
    ] = None,
    with_network: Annotated[
        bool, typer.Option("--with-network", help="Give the network away, too, which was trained on cells.")
    ] = False,
) -> Answer:
    """Write the statistics of a stage to one file: no cell, no name of a cell, no path, no network."""
    manifest = session.workspace(anywhere=True).export_site(
        out,
        stage=stage,
        site=site,
        genes=genes,
        min_cells=min_cells,
        max_directions=max_directions,
        with_network=with_network,
    )
    size = out.stat().st_size
    lines = [f"{short_path(out)}: {size / 1e6:.1f} MB", *_summary(manifest)]
    lines.append(f"See what is in it: canal site show {short_path(out)}")
    return Answer({**manifest, "out": str(out), "bytes": size}, lines)


def show(
    session: Session,  # noqa: ARG001 - every command is told
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of `canal site export`.")],
    html: Annotated[
        Path | None, typer.Option(metavar="PAGE", help="Page to write, for whoever has to allow it.")
    ] = None,
) -> Answer:
    """Show what an export holds, file by file and type by type; every byte of it is checked."""
    from canal.workspace import describe_site

    facts = describe_site(file, html)
    lines: list[str | Table] = [f"{facts['site']}: {facts['bytes'] / 1e6:.1f} MB, {facts['digest']}"]
    lines += [f"signed by {facts['signed_by']}" if facts["signed_by"] else "not signed", *_summary(facts)]
    lines += ["It holds no cell, no name of a cell and no path. It holds:"]
    lines += [f"- {name}: {what}" for name, what in facts["holds"].items()]
    lines.append(_types_table(facts["types"]))
    if html is not None:
        lines.append(f"The page is {short_path(html)}")
    return Answer(facts | {"html": None if html is None else str(html)}, lines)


def key(session: Session) -> Answer:
    """Print the key by which others know the exports of this workspace; one is made where there is none."""
    workspace = session.workspace()
    public = workspace.site_key()
    keys = workspace.trusted_keys()
    lines = [public, "Exports are signed with it from now on. Give it to the others on a way that they trust."]
    lines += [f"trusted: {name} {one}" for one, name in keys.items() if one != public]
    return Answer({"key": public, "trusted": keys}, lines)


def trust(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="What `canal site key` prints there.")],
) -> Answer:
    """Trust the exports that a key has signed."""
    keys = session.workspace().trust_key(name, key)
    return Answer({"trusted": keys}, [f"trusted: {name} {one}" for one, name in keys.items()])


def report(
    session: Session,  # noqa: ARG001 - every command is told
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Files of `canal evaluate --out`, or '*.json'.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Page to write.")] = None,
) -> Answer:
    """Join what sites measured at home into one matrix of accuracy: a row a model, a column a site."""
    from rich.table import Table

    from canal.workspace import site_report

    joined = site_report(files, html)
    table = Table(box=None, pad_edge=False)
    for title in ("model", "digest", *joined.sites, "mean"):
        table.add_column(title)
    for model, row, mean in zip(joined.models, joined.accuracy, joined.mean, strict=True):
        values = ["" if value is None else f"{value:.4f}" for value in row]
        table.add_row(model["name"], model["digest"], *values, f"{mean['accuracy']:.4f}")
    lines: list[Table | str] = ["Accuracy", table]
    if html is not None:
        lines.append(f"The page is {short_path(html)}")
    return Answer(joined.to_dict() | {"html": None if html is None else str(html)}, lines)


def audit(
    session: Session,
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="File of `canal site export`.")],
    data: Annotated[Path, typer.Option(help="The labelled cells that were taught.")],
    labels: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs with the cell types.")] = None,
    donor: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs with the donors.")] = None,
    gene_key: GeneKey = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the export anew, with the outcome in its manifest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the way in which the cells are parted.")] = 0,
) -> Answer:
    """Attack an export with the cells of its site, and say how well it is told who was among them.

    AUROC .5 is chance, 1 is certainty. Nothing leaves this machine.
    """
    from rich.table import Table

    outcome = session.workspace(anywhere=True).audit_export(
        export, data, labels=labels, donor=donor, gene_key=gene_key, out=out, seed=seed, progress=watcher(session)
    )
    table = Table(box=None, pad_edge=False)
    for title in ("attack", "cells of the type", "types", "AUROC", "95 %"):
        table.add_column(title)
    for row in outcome.findings:
        interval = f"{row.low:.3f} to {row.high:.3f}"
        table.add_row(row.attack, str(row.cells), str(row.types), f"{row.auroc:.3f}", interval)
    lines: list[Table | str] = [table]
    if outcome.min_cells_needed is not None:
        lines.append(f"Members are hidden (AUROC {outcome.goal} or less) in types of {outcome.min_cells_needed} cells")
    else:
        lines.append(
            f"No measured size keeps AUROC within {outcome.goal}: whoever has the profile of a cell, and cells to "
            f"compare with, can tell whether it was there. About {outcome.min_cells_estimated:,} cells of a type would "
            "be needed (extrapolated). See docs/privacy.md before you give this away."
        )
    allowed = ", ".join(f"{k} with {n} cells" for n, k in outcome.max_directions_allowed.items())
    lines.append(f"Directions within it: {allowed}")
    lines += [f"warning: {text}" for text in outcome.warnings]
    if out is not None:
        lines.append(f"The export with this outcome in its manifest is {short_path(out)}")
    return Answer(outcome.to_dict() | {"out": None if out is None else str(out)}, lines)


def merge(
    session: Session,
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Files of `canal site export`, in any order.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write; else it becomes a stage of the workspace.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the joint model.")] = "joint",
    without: Annotated[
        list[str] | None, typer.Option(metavar="SITE", help="Leave out this file or site; repeatable.")
    ] = None,
    type_map: Annotated[
        Path | None, typer.Option("--map", metavar="CSV", help="Which types are the same: columns site, name, to.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Preset of the joint model; else that of the sites.")] = None,
    disjoint: Annotated[bool, typer.Option("--disjoint", help="Sites need have no type in common.")] = False,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Take exports, too, that nobody signed whom this workspace trusts.")
    ] = False,
) -> Answer:
    """Merge the exports of several sites into one model. The order of the files does not matter.

    A site withdraws when the others are merged again: `--without` gives the same bytes as never having had it.
    """
    record = session.workspace(anywhere=True).merge_sites(
        files,
        out,
        name=name,
        without=tuple(without or ()),
        type_map=type_map,
        preset=preset,
        disjoint=disjoint,
        unsigned=unsigned,
        progress=watcher(session),
    )
    sites = record.notes["merged"]["sites"]
    data: dict[str, Any] = {
        "name": record.name,
        "types": list(record.types),
        "cells": record.cells,
        "genes": record.genes,
        "sites": sites,
        "out": None if out is None else str(out),
        "bytes": None if out is None else out.stat().st_size,
        "stage": record.number if out is None else None,
    }
    place = f"stage {record.number}" if out is None else f"{short_path(out)}, {out.stat().st_size / 1e6:.1f} MB"
    lines = [f"{record.name}: {len(record.types)} types of {record.cells:,} cells at {len(sites)} sites; {place}"]
    for one in sites:
        lines.append(f"- {one['site']}: {one['cells']:,} cells, {len(one['types'])} types, {one['digest']}")
        renamed = ", ".join(f"{old!r} is {new!r}" for old, new in one["renamed"].items())
        if renamed:
            lines.append(f"  {renamed}")
    if out is not None:
        lines.append(f"Next: canal annotate --model {short_path(out)} --data new.h5ad --out annotated.h5ad")
    return Answer(data, lines)


def _summary(manifest: dict[str, Any]) -> list[str]:
    """Return what an export holds, and what was left out."""
    lines = [
        f"{len(manifest['types'])} types of {manifest['cells']:,} cells, statistics of {manifest['genes']:,} genes"
    ]
    left_out = manifest["left_out"]
    if left_out["types"]:
        lines.append(
            f"Left out: {left_out['types']} types of fewer than {manifest['min_cells']} cells in a stage, "
            f"{left_out['cells']} cells in all"
        )
    alone = [name for name, facts in manifest["types"].items() if facts["donors"] == 1]
    if alone:
        lines.append(f"Of one donor alone, whose mean profile they tell: {', '.join(alone)}")
    if manifest["genes_without_statistics"]:
        lines.append(f"Of {manifest['genes_without_statistics']:,} genes of the list the model has no statistics")
    return lines


def _types_table(types: dict[str, dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("type", "id", "cells", "donors, at least"):
        table.add_column(title)
    for name, facts in types.items():
        donors = facts["donors"]
        table.add_row(name, facts["id"], f"{facts['cells']:,}", "not known" if donors is None else str(donors))
    return table
