"""`canal benchmark`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher

if TYPE_CHECKING:
    from rich.table import Table

    from canal.benchmark.table import TableRow


DEFAULT_METHODS = "ours,strategies,lr,lr-joint"
SEES_ALL = "* sees the cells of all stages at once."


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "benchmark", example="canal benchmark --stream demo --methods canal,naive,lr-joint --seeds 1")(
        benchmark
    )


def benchmark(
    session: Session,
    stream: Annotated[str, typer.Option(metavar="FILE", help="TOML of stages, folder of declarations, or demo.")] = "",
    methods: Annotated[
        str, typer.Option(help="Names and groups: ours, strategies, peers, all; or preset:NAME.")
    ] = DEFAULT_METHODS,
    orders: Annotated[str, typer.Option(help="Number of orders of the stages, or orders: 1-2-3,3-2-1.")] = "1",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the results; benchmark-STREAM by default.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Encoder and training of canal and of the strategies.")] = "compact",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the preset; repeatable.")
    ] = None,
    markers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of type and gene, for methods that need markers.")
    ] = None,
    peers: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Environments of peers, each with bin/python.")
    ] = None,
    only_kept: Annotated[
        bool, typer.Option("--kept", help="Run nothing: the table of the runs that are there.")
    ] = False,
    list_methods: Annotated[bool, typer.Option("--list", help="List the methods and run nothing.")] = False,
) -> Answer:
    """Run methods side by side on one stream of stages, and print one table.

    Every run is kept: asked again, only what is missing or was made from other inputs is run.
    """
    if list_methods:
        return _list_methods()
    from canal.benchmark.plan import BenchmarkOptions
    from canal.benchmark.table import benchmark_methods

    options = BenchmarkOptions.load(
        stream, out=out, preset_name=preset, overrides=tuple(overrides or ()), markers=markers, peers=peers
    )
    results, rows, data = benchmark_methods(
        options, methods, orders, range(first_seed, first_seed + seeds), watcher(session), only_kept=only_kept
    )
    # Below the tables: why single runs of a method have no figures, and where everything is.
    lines = [SEES_ALL]
    for row in rows:
        if row.reason and row.runs:
            lines.append(f"{row.method.name}: {row.reason}")
    folder = short_path(options.out)
    lines += [
        "",
        f"{results.kept_runs} of {len(results.results)} runs were there already.",
        f"tables and commands  {folder}/table.md",
        f"picture              {folder}/benchmark.png",
        f"every run            {folder}/benchmark.json",
    ]
    return Answer(data, [_figures_table(rows), _stages_table(rows, data["stages"]), *lines])


def _list_methods() -> Answer:
    from rich.table import Table

    from canal.benchmark.methods import METHODS

    table = Table("name", "title", "group", "keeps", "reference")
    data = []
    for method in METHODS:
        title = method.title + (" *" if method.sees_all else "")
        table.add_row(method.name, title, method.group, method.keeps, method.reference)
        fields = ("name", "title", "group", "keeps", "reference", "sees_all", "seeded")
        data.append({field: getattr(method, field) for field in fields})
    return Answer({"methods": data}, [table, SEES_ALL])


def _figures_table(rows: "tuple[TableRow, ...]") -> "Table":
    """Return the figures of the methods; lines set apart those that see all cells, and those without figures."""
    from rich.table import Table

    table = Table(title="After the last stage, mean over the stages' tests", title_justify="left")
    for name in ("method", "keeps"):
        table.add_column(name)
    for name in ("runs", "accuracy", "macro-F1", "forgetting", "CPU s", "peak MB"):
        table.add_column(name, justify="right", no_wrap=name != "runs")
    previous = None
    for row in rows:
        section = (not row.runs, row.method.sees_all and row.runs > 0)
        if previous is not None and section != previous:
            table.add_section()
        previous = section
        table.add_row(*row.texts(digits=3))
    return table


def _stages_table(rows: "tuple[TableRow, ...]", stages: list[str]) -> "Table":
    """Return the accuracy on each stage's test, of the methods that have figures."""
    from rich.table import Table

    table = Table(title="Accuracy after the last stage on each stage's test", title_justify="left")
    table.add_column("method")
    for name in stages:
        table.add_column(name, justify="right")
    for row in rows:
        if row.runs:
            table.add_row(row.title, *(f"{accuracy:.3f}" for accuracy in row.on_stage))
    return table
