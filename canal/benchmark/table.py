"""From the results of all runs to the rows of the table.

The picture of a benchmark: methods beside each other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canal.benchmark.method import Method
from canal.benchmark.plan import command_of, order_text
from canal.benchmark.run import MARK, Benchmark, Result
from canal.figures import continual
from canal.report.plots import draw_heat_map


@dataclass(frozen=True, kw_only=True)
class Row:
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        kept = ("name", "title", "group", "keeps", "reference", "sees_all", "seeded")
        values = asdict(self) | {k: getattr(self.method, k) for k in kept}
        del values["method"]
        return values


def rows_of(benchmark: Benchmark) -> tuple[Row, ...]:
    """Return the rows: those that may not see all cells first, the best first, at the end those without figures."""
    rows = [_row(method, benchmark) for method in benchmark.methods]
    return tuple(sorted(rows, key=lambda r: (not r.runs, r.method.sees_all, -r.mean.get("accuracy", 0.0))))


def _row(method: Method, benchmark: Benchmark) -> Row:
    results = benchmark.of(method)
    done = [r for r in results if r.done]
    figures = [figures_of(r) for r in done]
    names = list(figures[0]) if figures else []
    reasons = dict.fromkeys(str(r.values["reason"]) for r in results if not r.done)
    seeds = benchmark.seeds if method.seeded else benchmark.seeds[:1]
    return Row(
        method=method,
        runs=len(done),
        asked=len(results),
        mean={n: float(np.mean([f[n] for f in figures])) for n in names},
        sd={n: float(np.std([f[n] for f in figures])) for n in names},
        on_stage=tuple(np.mean([_by_stage(r) for r in done], axis=0).tolist()) if done else (),
        unseen=_unseen(done),
        reason="; ".join(reasons),
        command=command_of(method, benchmark.orders, seeds, benchmark.options),
    )


def figures_of(result: Result) -> dict[str, float]:
    """Return the figures of one run."""
    values = result.values
    stages = len(values["accuracy"])
    table = np.full((stages, stages), np.nan)
    for k, row in enumerate(values["accuracy"]):
        table[k, : len(row)] = row
    found = continual(table, range(stages))
    return {
        "accuracy": found.average,
        "macro_f1": float(np.mean(values["macro_f1"][-1])),
        "forgetting": 0.0 if stages == 1 else found.forgetting,
        "learn_seconds": float(np.sum(values["learn_seconds"])),
        "predict_seconds": float(np.sum(values["predict_seconds"])),
        "cpu_seconds": float(values["cpu_seconds"]),
        "peak_mb": float(values["peak_mb"]),
    }


def _by_stage(result: Result) -> list[float]:
    last = result.values["accuracy"][-1]
    return [last[result.place.order.index(i)] for i in range(len(last))]


def _unseen(done: Sequence[Result]) -> dict[str, dict[str, float]]:
    names = list(done[0].values["unseen"]) if done else []
    return {
        n: {k: float(np.mean([r.values["unseen"][n][k] for r in done])) for k in ("accuracy", "macro_f1")}
        for n in names
    }


def to_dict(benchmark: Benchmark, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the whole benchmark as plain values for JSON; every run with its matrices and its command."""
    return {
        "schema": 1,
        "stream": benchmark.stream.name,
        "stages": [s.name for s in benchmark.stream.stages],
        "digest": benchmark.digest,
        "preset": benchmark.options.preset_name,
        "orders": [order_text(o) for o in benchmark.orders],
        "seeds": list(benchmark.seeds),
        "out": str(benchmark.options.out),
        "kept_runs": benchmark.kept,
        "rows": [r.to_dict() for r in rows],
        "runs": [{k: v for k, v in r.values.items() if k != "key"} for r in benchmark.results],
    }


def markdown(rows: Sequence[Row], stages: Sequence[str]) -> str:
    """Return the tables as Markdown."""
    head = ["method", "keeps of earlier stages", "runs", "accuracy", "macro-F1", "forgetting", "CPU s", "peak MB"]
    lines = [_line(head), "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        lines.append(_line(texts(row)))
    lines += ["", _line(["accuracy after the last stage on", *stages]), "|---|" + "---:|" * len(stages)]
    lines += [_line([title_of(r), *(f"{v:.3f}" for v in r.on_stage)]) for r in rows if r.runs]
    if any(r.unseen for r in rows):
        names = list(next(r.unseen for r in rows if r.unseen))
        lines += ["", _line(["accuracy / macro-F1 on files no stage teaches", *names]), "|---|" + "---:|" * len(names)]
        lines += [_line([title_of(r), *map(_pair, r.unseen.values())]) for r in rows if r.unseen]
    return "\n".join(lines) + "\n"


def texts(row: Row, digits: int = 4) -> list[str]:
    """Return a row as it is printed; a method without figures says why."""
    if not row.runs:
        return [title_of(row), f"not run: {row.reason}", f"0/{row.asked}", "", "", "", "", ""]
    runs = str(row.runs) if row.runs == row.asked else f"{row.runs}/{row.asked}: {row.reason}"
    spread = [f"{row.mean[k]:.{digits}f} ± {row.sd[k]:.{digits}f}" for k in ("accuracy", "macro_f1", "forgetting")]
    return [title_of(row), row.method.keeps, runs, *spread, f"{row.mean['cpu_seconds']:.0f}",
            f"{row.mean['peak_mb']:.0f}"]  # fmt: skip


def title_of(row: Row) -> str:
    """Return the title; an asterisk marks what sees all cells."""
    return row.method.title + (" *" if row.method.sees_all else "")


def write(benchmark: Benchmark, rows: Sequence[Row], draw: Callable[..., None]) -> dict[str, Any]:
    """Write ``benchmark.json``, ``table.md`` and ``benchmark.png`` into the folder; return the JSON's values.

    Parameters
    ----------
    benchmark, rows
        All results, and the rows of the table.
    draw
        Draws the picture: `canal.benchmark.table.benchmark_picture`.
    """
    out = benchmark.options.out
    values = to_dict(benchmark, rows)
    (out / MARK).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    stages = [s.name for s in benchmark.stream.stages]
    commands = "\n".join(f"    {row.command}" for row in rows)
    text = f"{markdown(rows, stages)}\n\\* sees the cells of all stages at once.\n\n{commands}\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    shown = [row for row in rows if row.runs]
    if shown:
        draw(
            out / "benchmark.png",
            names=[title_of(r) for r in shown],
            means={k: np.array([r.mean[k] for r in shown]) for k in ("accuracy", "macro_f1", "forgetting")},
            spreads={k: np.array([r.sd[k] for r in shown]) for k in ("accuracy", "macro_f1", "forgetting")},
            on_stage=np.array([r.on_stage for r in shown]),
            stages=stages,
            title=f"{benchmark.stream.name}: orders {len(benchmark.orders)}, seeds {len(benchmark.seeds)}",
        )
    return values


def _line(values: Sequence[str]) -> str:
    return "| " + " | ".join(v.replace("|", "/") for v in values) + " |"


def _pair(values: dict[str, float]) -> str:
    return f"{values['accuracy']:.3f} / {values['macro_f1']:.3f}"


MARKS = {"accuracy": ("o", "#1f4e79"), "macro_f1": ("D", "#c55a11")}
JOINT = "#9a9a9a"


def benchmark_picture(
    out: Path,
    *,
    names: Sequence[str],
    means: Mapping[str, np.ndarray],
    spreads: Mapping[str, np.ndarray],
    on_stage: np.ndarray,
    stages: Sequence[str],
    title: str,
) -> None:
    """Draw accuracy and macro-F1, forgetting, and the accuracy on each stage's test at the end.

    Parameters
    ----------
    out
        PNG to write.
    names
        Of the methods, from the top; one that ends in an asterisk sees all cells and is grey.
    means, spreads
        ``accuracy``, ``macro_f1`` and ``forgetting`` with their standard deviations, each (methods,).
    on_stage
        Accuracy after the last stage, (methods, stages).
    stages
        Names of the stages.
    title
        Of the picture.
    """
    from matplotlib.figure import Figure

    n = len(names)
    figure = Figure(figsize=(5 + 3.2 * 2 + 0.9 * len(stages), 1.8 + 0.32 * n), layout="constrained")
    parts: Any = figure.subplots(1, 3, width_ratios=(2.2, 1.2, max(1.0, 0.45 * len(stages))))
    figures, lost, heat = parts
    places = np.arange(n)
    for key, (mark, colour) in MARKS.items():
        shade = [JOINT if name.endswith("*") else colour for name in names]
        label = key.replace("macro_f1", "macro-F1")
        figures.errorbar(means[key], places, xerr=spreads[key], fmt="none", ecolor=shade, elinewidth=1)
        figures.scatter(means[key], places, marker=mark, c=shade, s=26, label=label, zorder=3)
    figures.legend(frameon=False, fontsize=8, loc="lower left")
    shade = [JOINT if name.endswith("*") else "#3b3b3b" for name in names]
    lost.barh(places, means["forgetting"], xerr=spreads["forgetting"], color=shade, height=0.6, error_kw={"lw": 0.8})
    lost.axvline(0, color="k", lw=0.6)
    for axes, text in ((figures, "after the last stage, mean over tests"), (lost, "forgetting")):
        axes.set_ylim(n - 0.5, -0.5)
        axes.set_title(text, fontsize=9)
        axes.grid(axis="x", lw=0.3)
    figures.set_yticks(places, names, fontsize=8)
    lost.set_yticks(places, [""] * n)
    lowest = float(np.nanmin(on_stage))
    draw_heat_map(heat, on_stage, [""] * n, stages, limits=(min(lowest, 0.9), 1.0))
    heat.set_title("accuracy on each test", fontsize=9)
    figure.suptitle(f"{title}   (* sees the cells of all stages)", fontsize=10)
    figure.savefig(out, dpi=120)
