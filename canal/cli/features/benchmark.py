"""`canal benchmark`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from canal.cli.answer import Answer, Session, command, short_path, watcher
from canal.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from canal.benchmark.plan import Options
    from canal.benchmark.table import Row


DEFAULT = "ours,strategies,lr,lr-joint"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "benchmark", example="canal benchmark --stream demo --methods canal,naive,lr-joint --seeds 1")(
        benchmark
    )


def benchmark(
    session: Session,
    stream: Annotated[str, typer.Option(metavar="FILE", help="TOML of stages, folder of declarations, or demo.")] = "",
    methods: Annotated[str, typer.Option(help="Names and groups: ours, strategies, peers, all; or preset:NAME.")] = (
        DEFAULT
    ),
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
        return _list()
    if not stream:
        message = "No stream is named. Name one with --stream: a TOML file of stages, a folder, or demo."
        raise ConfigError(message)
    from canal.benchmark.plan import Options
    from canal.config import load_preset

    options = Options(
        stream=stream, out=out or Path(f"benchmark-{Path(stream).stem}"), preset_name=preset,
        overrides=tuple(overrides or ()), preset=load_preset(preset, tuple(overrides or ())),
        markers=markers, peers=peers,
    )  # fmt: skip
    return _run(session, options, methods, orders, range(first_seed, first_seed + seeds), only_kept)


def _run(session: Session, options: "Options", methods: str, orders: str, seeds: range, only_kept: bool) -> Answer:
    from canal.benchmark.methods import choose_methods
    from canal.benchmark.methods.published import read_markers
    from canal.benchmark.plan import parse_orders
    from canal.benchmark.run import run_benchmark
    from canal.benchmark.stream import stages_in
    from canal.benchmark.table import benchmark_picture, rows_of, write

    chosen = choose_methods(methods)
    order = parse_orders(orders, stages_in(options.stream))
    if options.markers is not None:
        read_markers(options.markers)
    found = run_benchmark(options, chosen, order, seeds, watcher(session), only_kept=only_kept)
    rows = rows_of(found)
    data = write(found, rows, benchmark_picture)
    here = short_path(options.out)
    after = [
        "* sees the cells of all stages at once.",
        *(f"{r.method.name}: {r.reason}" for r in rows if r.reason and r.runs),
        "",
        f"{found.kept} of {len(found.results)} runs were there already.",
        f"tables and commands  {here}/table.md",
        f"picture              {here}/benchmark.png",
        f"every run            {here}/benchmark.json",
    ]
    return Answer(data, [_table(rows), _stages(rows, [s.name for s in found.stream.stages]), *after])


def _list() -> Answer:
    from rich.table import Table

    from canal.benchmark.methods import METHODS

    table = Table("name", "title", "group", "keeps", "reference")
    for m in METHODS:
        table.add_row(m.name, m.title + (" *" if m.sees_all else ""), m.group, m.keeps, m.reference)
    fields = ("name", "title", "group", "keeps", "reference", "sees_all", "seeded")
    return Answer(
        {"methods": [{f: getattr(m, f) for f in fields} for m in METHODS]},
        [table, "* sees the cells of all stages at once."],
    )


def _table(rows: "tuple[Row, ...]") -> "Table":
    from rich.table import Table

    from canal.benchmark.table import texts

    table = Table(title="After the last stage, mean over the stages' tests", title_justify="left")
    for name in ("method", "keeps"):
        table.add_column(name)
    for name in ("runs", "accuracy", "macro-F1", "forgetting", "CPU s", "peak MB"):
        table.add_column(name, justify="right", no_wrap=name != "runs")
    before = None
    for row in rows:
        part = (not row.runs, row.method.sees_all and row.runs > 0)
        if before is not None and part != before:
            table.add_section()
        before = part
        table.add_row(*texts(row, digits=3))
    return table


def _stages(rows: "tuple[Row, ...]", stages: list[str]) -> "Table":
    from rich.table import Table

    from canal.benchmark.table import title_of

    table = Table(title="Accuracy after the last stage on each stage's test", title_justify="left")
    table.add_column("method")
    for name in stages:
        table.add_column(name, justify="right")
    for row in (r for r in rows if r.runs):
        table.add_row(title_of(row), *(f"{value:.3f}" for value in row.on_stage))
    return table
