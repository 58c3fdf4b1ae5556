"""New types at training and at test in one run: the classifier grows by stages, and what it does not know is found.

    python benchmarks/universal.py STREAM_DIR --without alpha

STREAM_DIR holds ``<number>_<name>.train.h5ad`` and ``.test.h5ad``. After each stage all test files are judged, each by
itself. A cell is *novel* if its type was taught at no stage so far: types of later stages, and those of ``--without``,
which no stage teaches. Beside canal stand, on the same cells:

- canal's network with the distance to the fifth neighbour in the bank, or with the paper's rule (``--transductive``);
- naive fine-tuning of the same network with its largest probability;
- logistic regression trained at once on the cells of all stages so far, with its largest probability.

Where a method has no threshold of its own, it is what a share ``alpha`` of the known cells exceed that were held out at
the stages so far (for naive fine-tuning at the last one alone).
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from novel_types import NEIGHBOUR, stream_files

from canal.config import Preset, load_preset
from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.panel import GenePanel
from canal.data.stream import read_cells
from canal.data.variable_genes import highly_variable
from canal.figures import novelty_figures, share
from canal.model.model import Model
from canal.model.network import run_network
from canal.model.novelty.calibration import verdicts
from canal.model.novelty.neighbours import NeighbourIndex
from canal.model.novelty.scores import (
    TEMPERATURE,
    Mixes,
    energy,
    max_probability,
    transductive_scores,
    transductive_threshold,
)
from canal.training.fitting import on_panel
from canal.training.run import Run
from canal.training.stage import LearnedStage, learn_stage

NAIVE = ("bank.size=0", "training.distillation=0.0", "analytic.enabled=false")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a method says of the cells of a file: type, score (higher for newer) and whether it is novel."""

    types: np.ndarray
    score: np.ndarray
    called: np.ndarray


Method = Callable[[Cells], Answers]
Scored = Callable[[Cells], tuple[np.ndarray, np.ndarray]]


def with_threshold(scored: Scored, held: Sequence[Cells], alpha: float) -> Method:
    """Return a method that calls novel what scores above all but a share ``alpha`` of the held-out cells."""
    threshold = np.quantile(np.concatenate([scored(cells)[1] for cells in held]), 1 - alpha)

    def judge(cells: Cells) -> Answers:
        types, score = scored(cells)
        return Answers(types=types, score=score, called=score > threshold)

    return judge


def by_detector(model: Model, alpha: float) -> Method:
    """Return canal as it ships."""

    def judge(cells: Cells) -> Answers:
        reader = model.reader(cells.genes)
        found = reader.novelty().score(cells.expression)
        called = verdicts(found.p_value, alpha) == "novel"
        return Answers(types=reader.best_types(cells.expression), score=found.novelty, called=called)

    return judge


def by_paper(model: Model, seed: int) -> Method:
    """Return canal with the paper's rule: a verdict depends on the other cells of the file."""

    def judge(cells: Cells) -> Answers:
        reader = model.reader(cells.genes)
        logits, _ = reader.network_outputs(cells.expression)
        mixes = Mixes.draw(len(logits), np.random.default_rng(seed))
        score = transductive_scores(max_probability(logits), energy(logits, TEMPERATURE))
        called = score > transductive_threshold(logits[mixes.first], logits[mixes.second], mixes.weights)
        return Answers(types=reader.best_types(cells.expression), score=score, called=called)

    return judge


def neighbour_distance(model: Model) -> Scored:
    """Return types and the distance to the fifth neighbour in the bank, in the network's representation."""
    index = NeighbourIndex(run_network(model.network, on_panel(model.bank, model.panel))[1])

    def scored(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        reader = model.reader(cells.genes)
        _, representation = reader.network_outputs(cells.expression)
        return reader.best_types(cells.expression), index.search(representation, NEIGHBOUR).distances[:, -1]

    return scored


def network_doubt(model: Model) -> Scored:
    """Return types and one less the largest probability of the network."""

    def scored(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        reader = model.reader(cells.genes)
        return reader.best_types(cells.expression), 1 - max_probability(reader.network_outputs(cells.expression)[0])

    return scored


def joint_regression(train: Sequence[Cells], n_genes: int = 2000) -> Scored:
    """Train logistic regression on all cells at once; return types and one less the largest probability."""
    from sklearn.linear_model import LogisticRegression

    panel = GenePanel.empty()
    for number, cells in enumerate(train, 1):
        columns = highly_variable(cells, n_genes)
        panel = panel.extended(cells.genes.take(columns), number)

    def on(cells: Cells) -> sp.csr_matrix:
        return panel.match(cells.genes).project(cells.expression)

    labels = np.concatenate([cells.labels for cells in train]).astype(str)
    model = LogisticRegression(C=0.1, max_iter=500).fit(sp.vstack([on(cells) for cells in train]), labels)

    def scored(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        probabilities = model.predict_proba(on(cells))
        return model.classes_[probabilities.argmax(axis=1)].astype(object), 1 - probabilities.max(axis=1)

    return scored


def row(method: Method, queries: Sequence[Cells], taught: set[str]) -> list[float]:
    """Return accuracy on known cells, AUROC, H-score, novel cells found, false alarms in total and by file."""
    found = [method(cells) for cells in queries]
    truth = np.concatenate([cells.labels for cells in queries])
    file = np.repeat(np.arange(len(queries)), [len(cells) for cells in queries])
    score, called = (np.concatenate([getattr(f, name) for f in found]) for name in ("score", "called"))
    right = np.concatenate([f.types for f in found]) == truth
    novel = ~np.isin(truth, sorted(taught))
    figures = novelty_figures(score, called, right, novel)
    alarms = [share(called, ~novel & (file == f)) for f in range(len(queries))]
    h_score = figures.h_score if novel.any() else np.nan
    return [share(right, ~novel), figures.auroc, h_score, figures.novel_recall, figures.false_alarms, *alarms]


def print_stage(title: str, rows: dict[str, list[float]], files: int) -> None:
    """Print the table of a stage."""
    head = ["accuracy on known", "AUROC", "H", "novel found", "false alarms", *(f"file {k + 1}" for k in range(files))]
    print(f"\n{title}\n\n| | " + " | ".join(head) + " |\n|" + "---|" * (len(head) + 1))
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join("" if np.isnan(v) else f"{v:.3f}" for v in values) + " |", flush=True)


def run(
    stages: Sequence[Cells], queries: Sequence[Cells], preset: Preset, naive: Preset, alpha: float, seed: int
) -> None:
    """Learn the stages and print a table after each."""
    ours: LearnedStage | None = None
    plain: Model | None = None
    seen: list[Cells] = []
    held: list[Cells] = []
    for number, cells in enumerate(stages, 1):
        settings = Run(number=number, seed=seed)
        ours = learn_stage(None if ours is None else ours.model, cells, preset, settings)
        plain = learn_stage(plain, cells, naive, settings).model
        held.append(cells.take(ours.held_out))
        seen.append(cells.take(np.setdiff1d(np.arange(len(cells)), ours.held_out)))
        model = ours.model
        methods = {
            "canal": by_detector(model, alpha),
            "canal's network, neighbour distance": with_threshold(neighbour_distance(model), held, alpha),
            "canal's network, the paper's rule": by_paper(model, seed),
            "naive fine-tuning, probability": with_threshold(network_doubt(plain), held[-1:], alpha),
            "joint logistic regression, probability": with_threshold(joint_regression(seen), held, alpha),
        }
        taught = set(model.types)
        novel = sum(int((~np.isin(q.labels, sorted(taught))).sum()) for q in queries)
        total = sum(len(q) for q in queries)
        title = f"After stage {number}: {len(taught)} types taught, {novel} of {total} test cells are of others."
        print_stage(title, {name: row(method, queries, taught) for name, method in methods.items()}, len(queries))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path, help="folder of the stream")
    parser.add_argument("--without", default="", help="types that no stage teaches, separated by commas")
    parser.add_argument("--labels", default="cell_type", help="column of obs with the types")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Avalanche says at every stage that nothing is logged; a regression may stop at its limit.
    warnings.filterwarnings("ignore", message="No loggers specified")
    warnings.filterwarnings("ignore", message="lbfgs failed to converge")
    without = [name.strip() for name in options.without.split(",") if name.strip()]
    train = [read_cells(path, labels=options.labels) for path in stream_files(options.stream, "train")]
    stages = [cells.take(np.flatnonzero(~np.isin(cells.labels, without))) for cells in train]
    queries = [
        read_cells(p, labels=LabelOptions(column=options.labels, keep_rare=True))
        for p in stream_files(options.stream, "test")
    ]
    preset, naive = load_preset(options.preset), load_preset(options.preset, NAIVE)
    run(stages, queries, preset, naive, options.alpha, options.seed)


if __name__ == "__main__":
    main()
