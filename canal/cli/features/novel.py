"""`canal novel`: find and name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, GeneKey, Session, command, short_path, watcher
from canal.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from canal.novel.report import NovelReport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Look at novel cells, and give them names.")
    command(noun, "find", example="canal novel find --data new.h5ad --out novel")(find)
    command(noun, "name", example="canal novel name novel")(name)
    app.add_typer(noun, name="novel")


def find(
    session: Session,
    data: Annotated[Path, typer.Option(help="Cells: .h5ad, zarr folder, 10x .h5 or 10x folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; new, empty or an earlier result.")],
    alpha: Annotated[float, typer.Option(help="Share of known cells that may be called novel.")] = 0.05,
    stage: Annotated[int | None, typer.Option(min=1, help="Model of this stage.")] = None,
    min_size: Annotated[int, typer.Option(help="Set smaller clusters aside.")] = 10,
    resolution: Annotated[float, typer.Option(help="Higher for more clusters.")] = 1.0,
    batch: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of obs with batch or donor.")] = None,
    gene_key: GeneKey = None,
    uncertain: Annotated[bool, typer.Option("--uncertain", help="Take uncertain cells too.")] = False,
    adapt: Annotated[bool, typer.Option("--adapt", help="Adapt the model to the file before it judges.")] = False,
) -> Answer:
    """Group the novel cells of a file and show what speaks for each group.

    Written: index.html (look at it first), names.csv (to fill), novel.h5ad, novel.json, umap.png, dotplot.png.
    """
    report = session.workspace().find_novel(
        data,
        out,
        alpha=alpha,
        stage=stage,
        min_size=min_size,
        resolution=resolution,
        batch=batch,
        gene_key=gene_key,
        uncertain=uncertain,
        adapt=adapt,
        progress=watcher(session),
    )
    answer = {"out": str(out), **report.to_dict()}
    # Where there are groups, they have to be looked at and named next.
    counts = ", ".join(f"{cells} {status}" for status, cells in report.cells_by_status.items())
    lines = [f"{report.cells} cells: {counts}", f"sanity: {report.sanity}"]
    lines += [f"warning: {text}" for text in report.warnings]
    if not report.clusters:
        lines.append(f"No group of {report.min_size} novel cells or more: nothing to name; in {short_path(out)}")
        return Answer(answer, lines)
    lines.append(f"Look at {short_path(out / 'index.html')}, fill the last column of {short_path(out / 'names.csv')},")
    lines.append(f"then: canal novel name {short_path(out)}")
    return Answer(answer, [_clusters_table(report), *lines])


def name(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result of `canal novel find`.")],
    names: Annotated[Path | None, typer.Option(metavar="CSV", help="The filled table; else DIR/names.csv.")] = None,
    given: Annotated[
        list[str] | None, typer.Option("--name", metavar="N=TYPE", help="Name of cluster N, in place of the table.")
    ] = None,
    labels: Annotated[str, typer.Option(metavar="COLUMN", help="Column of obs for the names.")] = "cell_type",
    known_ok: Annotated[bool, typer.Option("--known-ok", help="A name may be that of a type the model knows.")] = False,
    with_known: Annotated[
        bool, typer.Option("--with-known/--alone", help="Teach the file's surely known cells along with them.")
    ] = True,
) -> Answer:
    """Write the cells of the named clusters to DIR/named.h5ad, ready for `canal stage add`."""
    naming = session.workspace(anywhere=True).name_novel(
        folder, names=_names_of(given, names), labels=labels, known_ok=known_ok, with_known=with_known
    )
    lines = [f"{cells} cells of {cell_type}" for cell_type, cells in naming.types.items()]
    if naming.known:
        lines.append(f"along with them: {sum(naming.known.values())} cells of {', '.join(naming.known)}, surely known")
    lines += [f"warning: {text}" for text in naming.warnings]
    if naming.unnamed:
        lines.append(f"without a name, left out: cluster {', '.join(naming.unnamed)}")
    lines.append(f"then: canal stage add --data {short_path(naming.out)} --labels {naming.labels}")
    data = {
        "out": str(naming.out),
        "labels": naming.labels,
        "types": naming.types,
        "names": naming.names,
        "unnamed": list(naming.unnamed),
        "known": naming.known,
        "warnings": list(naming.warnings),
    }
    return Answer(data, lines)


def _names_of(given: list[str] | None, table: Path | None) -> "Path | dict[str, str] | None":
    """Return the names of ``--name N=TYPE``, or the table where none was given so."""
    if not given:
        return table
    if table is not None:
        message = "Names were given with --name and with --names. Give them in one place."
        raise ConfigError(message)
    names: dict[str, str] = {}
    for text in given:
        cluster, equals, name = text.partition("=")
        if not equals or not cluster.strip():
            message = f"--name {text!r} names no cluster; expected N=TYPE, such as --name 1=B."
            raise ConfigError(message)
        if cluster.strip() in names:
            message = f"--name names cluster {cluster.strip()} twice. Give it one name."
            raise ConfigError(message)
        names[cluster.strip()] = name.strip()
    return names


def _clusters_table(report: "NovelReport") -> "Table":
    """Return the clusters of novel cells, with what speaks for each being a type of its own."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("cluster", "cells", "suggested name", "stands apart", "silhouette", "own neighbours"):
        table.add_column(title, justify="right" if title in {"cells", "silhouette", "own neighbours"} else "left")
    for cluster in report.clusters:
        table.add_row(
            cluster.name,
            str(cluster.cells),
            cluster.suggested,
            "unknown" if cluster.silhouette is None else "yes" if cluster.apart else "no",
            "" if cluster.silhouette is None else f"{cluster.silhouette:.2f}",
            "" if cluster.own_share is None else f"{cluster.own_share:.2f}",
        )
    return table
