"""Leave a type out of all stages and find it again in the test files.

    python benchmarks/novel_types.py STREAM_DIR --types "B,NK,CD14 Mono,CD8 T,HSC"

STREAM_DIR holds ``<number>_<name>.train.h5ad`` and ``.test.h5ad``. For each type a model learns the stages in order
without it; then the cells of all test files are judged, each file on its own and each cell by itself. Printed are the
areas under the curves, the share of known cells above the threshold that finds 95 % of the novel ones, the H-score at
``--alpha`` and the realised false alarms in total and by file, beside three simple scores of the same network.
"""

import argparse
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from canal.config import Preset, load_preset
from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.figures import NoveltyFigures, auroc, novelty_figures, share
from canal.model.model import Model
from canal.model.network import run_network
from canal.model.novelty.calibration import verdicts
from canal.model.novelty.neighbours import NeighbourIndex
from canal.model.novelty.scores import energy, max_probability
from canal.training.fitting import on_panel
from canal.training.run import Run
from canal.training.stage import learn_stage

ALPHAS = (0.01, 0.05, 0.10)
NEIGHBOUR = 5


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The cells of all test files: one row a cell, ``file`` the number of its file."""

    file: np.ndarray
    novel: np.ndarray
    right: np.ndarray
    novelty: np.ndarray
    p_value: np.ndarray
    simple: dict[str, np.ndarray]


def stream_files(folder: Path, kind: str) -> list[Path]:
    """Return the stream's files of one kind in the order of their numbers."""
    files = sorted(folder.glob(f"*.{kind}.h5ad"), key=lambda path: int(re.match(r"\d+", path.name)[0]))
    if not files:
        raise SystemExit(f"{folder} holds no file <number>_<name>.{kind}.h5ad.")
    return files


def learn_without(stages: Sequence[Cells], left_out: str, preset: Preset, seed: int) -> Model:
    """Learn the stages in order without the cells of one type."""
    model = None
    for number, stage in enumerate(stages, 1):
        cells = stage.take(np.flatnonzero(stage.labels != left_out))
        model = learn_stage(model, cells, preset, Run(number=number, seed=seed)).model
    assert model is not None
    return model


def judge(model: Model, file: int, cells: Cells, left_out: str) -> Judged:
    """Judge the cells of one test file."""
    reader = model.reader(cells.genes)
    scores = reader.novelty().score(cells.expression)
    logits, representation = reader.network_outputs(cells.expression)
    index = NeighbourIndex(run_network(model.network, on_panel(model.bank, model.panel))[1])
    return Judged(
        file=np.full(len(cells), file),
        novel=cells.labels == left_out,
        right=reader.best_types(cells.expression) == cells.labels,
        novelty=scores.novelty,
        p_value=scores.p_value,
        simple={
            "max prob": 1 - max_probability(logits),
            "energy": energy(logits),
            "kNN": index.search(representation, NEIGHBOUR).distances[:, -1],
        },
    )


def joined(parts: Sequence[Judged]) -> Judged:
    """Return the cells of several files as one."""
    return Judged(
        file=np.concatenate([p.file for p in parts]),
        novel=np.concatenate([p.novel for p in parts]),
        right=np.concatenate([p.right for p in parts]),
        novelty=np.concatenate([p.novelty for p in parts]),
        p_value=np.concatenate([p.p_value for p in parts]),
        simple={k: np.concatenate([p.simple[k] for p in parts]) for k in parts[0].simple},
    )


def figures(judged: Judged, alpha: float) -> NoveltyFigures:
    """Return the figures at one rate of false alarms."""
    called = verdicts(judged.p_value, alpha) == "novel"
    return novelty_figures(judged.novelty, called, judged.right, judged.novel)


def alarms(judged: Judged, alpha: float) -> list[float]:
    """Return the share of known cells called novel, in total and by file."""
    called, known = judged.p_value <= alpha, ~judged.novel
    return [share(called, known)] + [share(called, known & (judged.file == f)) for f in np.unique(judged.file)]


def print_table(found: dict[str, Judged], alpha: float) -> None:
    """Print figures by type, then false alarms as the mean over the types and the worst distance from alpha."""
    simple = list(next(iter(found.values())).simple)
    print(
        f"| left out | AUROC | AUPR | FPR95 | H ({alpha:g}) | known right | novel found | " + " | ".join(simple) + " |"
    )
    print("|" + "---|" * (7 + len(simple)))
    rows = []
    for name, judged in found.items():
        f = figures(judged, alpha)
        row = [f.auroc, f.aupr, f.fpr95, f.h_score, f.known_accuracy, f.novel_recall]
        rows.append(row + [auroc(judged.simple[k], judged.novel) for k in simple])
        print(f"| {name} | " + " | ".join(f"{v:.3f}" for v in rows[-1]) + " |")
    print("| mean | " + " | ".join(f"{v:.3f}" for v in np.mean(rows, axis=0)) + " |\n")
    files = [f"file {f}" for f in np.unique(next(iter(found.values())).file)]
    print("| alpha | false alarms | " + " | ".join(files) + " | farthest: total | farthest: file |")
    print("|" + "---|" * (4 + len(files)))
    for a in ALPHAS:
        table = np.array([alarms(judged, a) for judged in found.values()])
        worst = np.nanmax(np.abs(table - a), axis=0)
        means = " | ".join(f"{v:.3f}" for v in np.nanmean(table, axis=0))
        print(f"| {a:g} | {means} | {worst[0]:.3f} | {worst[1:].max():.3f} |")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path, help="folder of the stream")
    parser.add_argument("--types", required=True, help="types to leave out, separated by commas")
    parser.add_argument("--labels", default="cell_type", help="column of obs with the types")
    parser.add_argument("--order", help="numbers of the files in the order to learn them, such as 4,3,2,1")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Avalanche says at every stage that nothing is logged.
    warnings.filterwarnings("ignore", message="No loggers specified")
    train, test = stream_files(options.stream, "train"), stream_files(options.stream, "test")
    order = [int(n) - 1 for n in options.order.split(",")] if options.order else list(range(len(train)))
    stages = [read_cells(train[i], labels=options.labels) for i in order]
    queries = [read_cells(path, labels=LabelOptions(column=options.labels, keep_rare=True)) for path in test]
    preset, found = load_preset(options.preset), {}
    for name in options.types.split(","):
        model = learn_without(stages, name, preset, options.seed)
        found[name] = joined([judge(model, file, cells, name) for file, cells in enumerate(queries, 1)])
        print(f"{name}: {figures(found[name], options.alpha)}", flush=True)
    print_table(found, options.alpha)


if __name__ == "__main__":
    main()
