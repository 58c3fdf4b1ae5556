"""What a targeted panel was forecast to tell apart, and what it does; panels that were designed, beside others.

    python benchmarks/panels.py STREAM_DIR [--panels 24]

STREAM_DIR holds ``<number>_<name>.train.h5ad`` and ``.test.h5ad``. The training files are learned in their order. Then
panels of 100 to 500 genes are drawn from the genes of each file in turn, at random or among its 1,000 most variable:
the forecast of ``panel check`` for cells like that file's stands beside the accuracy on its test cells, cut to the
panel and scaled over it alone, as a file that measures nothing else would be.

Then panels of 50 genes: designed, the most variable, the first markers of each type in turn (`Workspace.markers`), and
at random (mean of five); accuracy on the same test cells.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import scipy.stats
from novel_types import stream_files

import canal
from canal.data.cells import Cells
from canal.data.genes import Genes
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.model.model import Model
from canal.panels.check import check_panel
from canal.seeds import numpy_generator

FEWEST, MOST = 100, 500  # genes of a drawn panel
VARIABLE = 1_000  # genes that every second one is drawn from
DESIGNED = 50  # genes of a designed panel
RANDOM_PANELS = 5  # whose mean stands beside it


def cut(cells: Cells, names: list[str]) -> Cells:
    """Return cells as a file that measures these genes alone would hold them: scaled over them to 10,000."""
    place = {name: column for column, name in enumerate(cells.genes)}
    columns = np.sort([place[name] for name in names if name in place])
    values = sp.csr_matrix(cells.expression[:, columns], dtype=np.float64)
    values.data = np.expm1(values.data)
    sums = np.asarray(values.sum(axis=1)).ravel()
    values = sp.csr_matrix(sp.diags(np.divide(1e4, sums, out=np.zeros_like(sums), where=sums > 0)) @ values)
    values.data = np.log1p(values.data)
    return replace(cells, expression=values.astype(np.float32), genes=cells.genes.take(columns), stored=None)


def reached(model: Model, cells: Cells, names: list[str]) -> float:
    """Return the accuracy on labelled cells that measure these genes alone."""
    few = cut(cells, names)
    return float((model.reader(few.genes).best_types(few.expression) == few.labels).mean())


def drawn_panel(model: Model, stage: int, cells: Cells, number: int, rng: np.random.Generator) -> list[str]:
    """Return the names of a panel: of a stage's genes that the test file measures, every second of variable ones."""
    memory = model.memory
    assert memory is not None
    measured = memory.measured[stage]
    there = set(cells.genes)
    usable = np.array([i for i in measured if memory.panel.genes.names[i] in there])
    if number % 2:
        means = np.zeros((len(memory.statistics), len(memory.panel)))
        for row, s in zip(means, memory.statistics, strict=True):
            if s.stage == stage:
                row[measured] = s.mean
        own = means[[s.stage == stage for s in memory.statistics]]
        usable = usable[np.argsort(-own.var(axis=0)[usable], kind="stable")[:VARIABLE]]
    size = min(int(rng.integers(FEWEST, MOST + 1)), len(usable))
    return [memory.panel.genes.names[i] for i in np.sort(rng.choice(usable, size, replace=False)).tolist()]


def compare_forecasts(model: Model, tests: list[Cells], panels: int) -> None:
    """Print forecast and accuracy of each panel, and how well they agree."""
    rng = numpy_generator(0, "panels")
    stages = list(model.memory.measured) if model.memory is not None else []
    pairs = []
    for number in range(panels):
        file = number // 2 % len(tests)
        names = drawn_panel(model, stages[file], tests[file], number, rng)
        report = check_panel(model, Genes.of(names))
        forecast = next(s.accuracy for s in report.stages if s.stage == model.stage_of_key.get(stages[file], file + 1))
        pairs.append((forecast, reached(model, tests[file], names)))
        kind = "variable" if number % 2 else "random"
        print(
            f"file {file + 1}, {len(names)} {kind}: forecast {pairs[-1][0]:.3f}, reached {pairs[-1][1]:.3f}", flush=True
        )
    table = np.array(pairs)
    away = table[:, 0] - table[:, 1]
    rank = scipy.stats.spearmanr(table[:, 0], table[:, 1])[0]
    print(
        f"{panels} panels: rank correlation {rank:.3f}, mean error {np.abs(away).mean():.3f}, bias {away.mean():+.3f}"
    )


def compare_designs(workspace: canal.Workspace, tests: list[Cells]) -> None:
    """Print what panels of `DESIGNED` genes reach on the test cells, by how they were chosen."""
    model = workspace.model()
    memory = model.memory
    assert memory is not None
    names = np.array(memory.panel.genes.names, dtype=object)
    means = np.zeros((len(memory.statistics), len(names)))
    for row, s in zip(means, memory.statistics, strict=True):
        row[memory.measured[s.stage]] = s.mean
    # The first markers of all types in turn, each gene once.
    table = workspace.markers(top=DESIGNED)
    table = table[table["evidence"] == "for"].copy()
    table["place"] = table.groupby("cell_type").cumcount()
    markers = list(dict.fromkeys(table.sort_values("place", kind="stable")["gene"].tolist()))
    rng = numpy_generator(0, "random panels")
    panels = {
        "designed": [list(workspace.design_panel(DESIGNED).added)],
        "most variable": [names[np.argsort(-means.var(axis=0))[:DESIGNED]].tolist()],
        "markers": [markers[:DESIGNED]],
        "random": [rng.choice(names, DESIGNED, replace=False).tolist() for _ in range(RANDOM_PANELS)],
    }
    for kind, lists in panels.items():
        accuracy = [np.mean([reached(model, cells, panel) for panel in lists]) for cells in tests]
        shown = " ".join(f"{value:.3f}" for value in accuracy)
        print(f"{DESIGNED} genes, {kind:13s}: {shown}; mean {np.mean(accuracy):.3f}", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path, help="folder of the stream")
    parser.add_argument("--panels", type=int, default=24, help="panels to draw")
    parser.add_argument("--labels", default="cell_type", help="column of obs with the types")
    parser.add_argument("--workspace", type=Path, help="workspace that has learned the files; else they are learned")
    options = parser.parse_args()
    keep = LabelOptions(column=options.labels, keep_rare=True)
    tests = [read_cells(path, labels=keep) for path in stream_files(options.stream, "test")]
    with tempfile.TemporaryDirectory() as folder:
        workspace = canal.open_workspace(options.workspace or Path(folder) / "panels", create=options.workspace is None)
        if options.workspace is None:
            for path in stream_files(options.stream, "train"):
                workspace.add_stage(path, labels=options.labels)
        compare_designs(workspace, tests)
        compare_forecasts(workspace.model(), tests, options.panels)


if __name__ == "__main__":
    main()
