"""The table of a benchmark: one row for each method, from the results of its runs, as JSON, Markdown and a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.benchmark.method import Method
from canal.benchmark.methods import choose_methods
from canal.benchmark.methods.published import read_markers
from canal.benchmark.plan import BenchmarkOptions, benchmark_command, order_text, parse_orders
from canal.benchmark.run import MARK_FILE, Benchmark, Result, run_benchmark
from canal.benchmark.stream import count_stages
from canal.figures import continual
from canal.progress import Progress
from canal.report.plots import draw_heat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPREAD_FIGURES = ("accuracy", "macro_f1", "forgetting")  # shown with their standard deviation
SYMBOLS = {"accuracy": ("o", "#1f4e79"), "macro_f1": ("D", "#c55a11")}  # shape and colour in the picture
FORGETTING_COLOUR, JOINT_COLOUR = "#3b3b3b", "#9a9a9a"


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One method: means over its runs, and their standard deviations.

    Attributes
    ----------
    method
        The method.
    runs, asked
        Runs with figures, and runs that were asked for.
    mean, sd
        Of ``accuracy``, ``macro_f1`` (means over the stages' tests after the last stage), ``forgetting``,
        ``learn_seconds``, ``predict_seconds``, ``cpu_seconds`` (of the whole run) and ``peak_mb``.
    on_stage
        Mean accuracy after the last stage on each stage's test, in the order of the declaration, (stages,).
    unseen
        Mean accuracy and macro-F1 on each file that no stage teaches.
    reason
        Why runs have no figures; empty where all have.
    command
        Makes this row again.
    """

    method: Method
    runs: int
    asked: int
    mean: dict[str, float]
    sd: dict[str, float]
    on_stage: tuple[float, ...]
    unseen: dict[str, dict[str, float]]
    reason: str
    command: str

    @property
    def title(self) -> str:
        """The title of the method; an asterisk marks one that sees the cells of all stages."""
        return self.method.title + (" *" if self.method.sees_all else "")

    def texts(self, digits: int) -> list[str]:
        """Return the row as it is printed; a method without figures says why."""
        if not self.runs:
            return [self.title, f"not run: {self.reason}", f"0/{self.asked}", "", "", "", "", ""]
        runs = str(self.runs) if self.runs == self.asked else f"{self.runs}/{self.asked}: {self.reason}"
        figures = [f"{self.mean[name]:.{digits}f} ± {self.sd[name]:.{digits}f}" for name in SPREAD_FIGURES]
        cpu_seconds, peak_mb = f"{self.mean['cpu_seconds']:.0f}", f"{self.mean['peak_mb']:.0f}"
        return [self.title, self.method.keeps, runs, *figures, cpu_seconds, peak_mb]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = asdict(self)
        del values["method"]
        for name in ("name", "title", "group", "keeps", "reference", "sees_all", "seeded"):
            values[name] = getattr(self.method, name)
        return values


def benchmark_methods(
    options: BenchmarkOptions,
    methods: str,
    orders: str,
    seeds: Sequence[int],
    progress: Progress,
    *,
    only_kept: bool,
) -> tuple[Benchmark, tuple[TableRow, ...], dict[str, Any]]:
    """Run methods on a stream and write ``benchmark.json``, ``table.md`` and ``benchmark.png``.

    Parameters
    ----------
    options
        Stream, folder of the results and what else all runs have in common.
    methods
        Names and groups, separated by commas.
    orders
        Number of orders of the stages, or orders such as ``1-2-3,3-2-1``.
    seeds
        Seeds of the runs.
    progress
        Told about every run.
    only_kept
        Run nothing: make the table of the results that are there.

    Returns
    -------
    All results, the rows of the table, and plain values for JSON.

    Raises
    ------
    ConfigError, DataError
        If stream, methods, orders or marker table cannot be used, or the folder holds something else.
    """
    # Everything that can be refused is looked at before the first run.
    chosen = choose_methods(methods)
    chosen_orders = parse_orders(orders, count_stages(options.stream))
    if options.markers is not None:
        read_markers(options.markers)
    benchmark = run_benchmark(options, chosen, chosen_orders, seeds, progress, only_kept=only_kept)
    rows = _table_rows(benchmark)
    return benchmark, rows, _write_table(benchmark, rows)


def _table_rows(benchmark: Benchmark) -> tuple[TableRow, ...]:
    """Return the rows: those that may not see all cells first, the best first, at the end those without figures."""
    rows = [_table_row(method, benchmark) for method in benchmark.methods]
    return tuple(sorted(rows, key=lambda row: (not row.runs, row.method.sees_all, -row.mean.get("accuracy", 0.0))))


def _table_row(method: Method, benchmark: Benchmark) -> TableRow:
    """Return the row of one method."""
    # Runs with figures, and why the others have none; each reason once.
    results = benchmark.results_of(method)
    done: list[Result] = []
    reasons: list[str] = []
    for result in results:
        if result.done:
            done.append(result)
        elif result.values["reason"] not in reasons:
            reasons.append(result.values["reason"])
    # Means and deviations over the runs.
    mean, sd = {}, {}
    figures: dict[str, list[float]] = {}
    on_stage: list[list[float]] = []
    for result in done:
        for name, value in _run_figures(result).items():
            figures.setdefault(name, []).append(value)
        on_stage.append(_accuracy_by_stage(result))
    for name, values in figures.items():
        mean[name], sd[name] = float(np.mean(values)), float(np.std(values))
    seeds = benchmark.seeds if method.seeded else benchmark.seeds[:1]
    return TableRow(
        method=method,
        runs=len(done),
        asked=len(results),
        mean=mean,
        sd=sd,
        on_stage=tuple(np.mean(on_stage, axis=0).tolist()) if done else (),
        unseen=_mean_of_untaught(done),
        reason="; ".join(reasons),
        command=benchmark_command(method, benchmark.orders, seeds, benchmark.options),
    )


def _run_figures(result: Result) -> dict[str, float]:
    """Return the figures of one run."""
    values = result.values
    # After each stage (rows) the accuracy on each stage's test so far (columns).
    stages = len(values["accuracy"])
    table = np.full((stages, stages), np.nan)
    for k, row in enumerate(values["accuracy"]):
        table[k, : len(row)] = row
    figures = continual(table, range(stages))
    return {
        "accuracy": figures.average,
        "macro_f1": float(np.mean(values["macro_f1"][-1])),
        "forgetting": 0.0 if stages == 1 else figures.forgetting,
        "learn_seconds": float(np.sum(values["learn_seconds"])),
        "predict_seconds": float(np.sum(values["predict_seconds"])),
        "cpu_seconds": float(values["cpu_seconds"]),
        "peak_mb": float(values["peak_mb"]),
    }


def _accuracy_by_stage(result: Result) -> list[float]:
    """Return the accuracy after the last stage on each stage's test, in the order of the declaration, (stages,)."""
    last = result.values["accuracy"][-1]
    return [last[result.run.order.index(stage)] for stage in range(len(last))]


def _mean_of_untaught(done: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Return mean accuracy and macro-F1 over runs, on each file that no stage teaches."""
    means: dict[str, dict[str, float]] = {}
    for file in done[0].values["unseen"] if done else ():
        means[file] = {}
        for name in ("accuracy", "macro_f1"):
            means[file][name] = float(np.mean([result.values["unseen"][file][name] for result in done]))
    return means


def _write_table(benchmark: Benchmark, rows: Sequence[TableRow]) -> dict[str, Any]:
    """Write the three files into the folder of the results; return the JSON's values."""
    out = benchmark.options.out
    values = _json_values(benchmark, rows)
    (out / MARK_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    commands = "\n".join(f"    {row.command}" for row in rows)
    text = f"{_markdown(rows, values['stages'])}\n\\* sees the cells of all stages at once.\n\n{commands}\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    with_figures = [row for row in rows if row.runs]
    if with_figures:
        title = f"{benchmark.stream.name}: orders {len(benchmark.orders)}, seeds {len(benchmark.seeds)}"
        _draw_table(out / "benchmark.png", with_figures, values["stages"], title)
    return values


def _json_values(benchmark: Benchmark, rows: Sequence[TableRow]) -> dict[str, Any]:
    """Return the whole benchmark as plain values for JSON; every run with its matrices and its command."""
    # The key only tells whether a result is of the same inputs.
    runs = []
    for result in benchmark.results:
        values = dict(result.values)
        values.pop("key", None)
        runs.append(values)
    return {
        "schema": 1,
        "stream": benchmark.stream.name,
        "stages": [stage.name for stage in benchmark.stream.stages],
        "digest": benchmark.digest,
        "preset": benchmark.options.preset_name,
        "orders": list(map(order_text, benchmark.orders)),
        "seeds": list(benchmark.seeds),
        "out": str(benchmark.options.out),
        "kept_runs": benchmark.kept_runs,
        "rows": [row.to_dict() for row in rows],
        "runs": runs,
    }


def _markdown(rows: Sequence[TableRow], stages: Sequence[str]) -> str:
    """Return the tables as Markdown: figures, accuracy on each stage, and on files that no stage teaches."""
    head = ["method", "keeps of earlier stages", "runs", "accuracy", "macro-F1", "forgetting", "CPU s", "peak MB"]
    lines = [_markdown_line(head), "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        lines.append(_markdown_line(row.texts(digits=4)))
    lines += ["", _markdown_line(["accuracy after the last stage on", *stages]), "|---|" + "---:|" * len(stages)]
    for row in rows:
        if row.runs:
            lines.append(_markdown_line([row.title, *map("{:.3f}".format, row.on_stage)]))
    # Only where the stream names files that no stage teaches.
    with_untaught = [row for row in rows if row.unseen]
    if with_untaught:
        files = list(with_untaught[0].unseen)
        head = ["accuracy / macro-F1 on files no stage teaches", *files]
        lines += ["", _markdown_line(head), "|---|" + "---:|" * len(files)]
    for row in with_untaught:
        pairs = [f"{values['accuracy']:.3f} / {values['macro_f1']:.3f}" for values in row.unseen.values()]
        lines.append(_markdown_line([row.title, *pairs]))
    return "\n".join(lines) + "\n"


def _markdown_line(values: Sequence[str]) -> str:
    return "| " + " | ".join(value.replace("|", "/") for value in values) + " |"


def _draw_table(out: Path, rows: Sequence[TableRow], stages: Sequence[str], title: str) -> None:
    """Draw accuracy and macro-F1, forgetting, and the accuracy on each stage's test at the end, one row a method.

    Parameters
    ----------
    out
        PNG to write.
    rows
        Rows with figures, from the top; one that sees all cells is grey.
    stages
        Names of the stages.
    title
        Title of the picture.
    """
    from matplotlib.figure import Figure

    # Inches: room for the names, two panels, a column for each stage and a line for each method.
    n = len(rows)
    figure = Figure(figsize=(5 + 3.2 * 2 + 0.9 * len(stages), 1.8 + 0.32 * n), layout="constrained")
    panels: Any = figure.subplots(1, 3, width_ratios=(2.2, 1.2, max(1.0, 0.45 * len(stages))))
    scores, forgetting, on_stages = panels
    _draw_scores(scores, rows)
    _draw_forgetting(forgetting, rows)
    for axes, text in ((scores, "after the last stage, mean over tests"), (forgetting, "forgetting")):
        axes.set_ylim(n - 0.5, -0.5)
        axes.set_title(text, fontsize=9)
        axes.grid(axis="x", lw=0.3)
    scores.set_yticks(np.arange(n), [row.title for row in rows], fontsize=8)
    forgetting.set_yticks(np.arange(n), [""] * n)
    # The scale of the heat map reaches down to 0.9 at least, so that small differences do not look large.
    on_stage = np.array([row.on_stage for row in rows])
    draw_heat_map(on_stages, on_stage, [""] * n, stages, limits=(min(float(np.nanmin(on_stage)), 0.9), 1.0))
    on_stages.set_title("accuracy on each test", fontsize=9)
    figure.suptitle(f"{title}   (* sees the cells of all stages)", fontsize=10)
    figure.savefig(out, dpi=120)


def _draw_scores(axes: "Axes", rows: Sequence[TableRow]) -> None:
    """Draw mean accuracy and macro-F1 with their deviations."""
    positions = np.arange(len(rows))
    for name, (shape, colour) in SYMBOLS.items():
        means, deviations = _means_and_deviations(rows, name)
        colours = _colours(rows, colour)
        label = name.replace("macro_f1", "macro-F1")
        axes.errorbar(means, positions, xerr=deviations, fmt="none", ecolor=colours, elinewidth=1)
        axes.scatter(means, positions, marker=shape, c=colours, s=26, label=label, zorder=3)
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def _draw_forgetting(axes: "Axes", rows: Sequence[TableRow]) -> None:
    """Draw mean forgetting with its deviation."""
    means, deviations = _means_and_deviations(rows, "forgetting")
    colours = _colours(rows, FORGETTING_COLOUR)
    axes.barh(np.arange(len(rows)), means, xerr=deviations, color=colours, height=0.6, error_kw={"lw": 0.8})
    axes.axvline(0, color="k", lw=0.6)


def _means_and_deviations(rows: Sequence[TableRow], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of one figure, each (rows,)."""
    pairs = np.array([(row.mean[name], row.sd[name]) for row in rows])
    return pairs[:, 0], pairs[:, 1]


def _colours(rows: Sequence[TableRow], colour: str) -> list[str]:
    return [JOINT_COLOUR if row.method.sees_all else colour for row in rows]
