"""What each part of the default preset is worth: orders x seeds of a stream, part by part.

    python benchmarks/ablation.py STREAM_DIR --orders 1234,2143,4321 --seeds 0,1,2 --out ablation.jsonl
    python benchmarks/ablation.py STREAM_DIR --leave-one-out --out lodo.jsonl
    python benchmarks/ablation.py STREAM_DIR --held-out --variants "full (L = 1000)" --out held_out.jsonl

STREAM_DIR holds ``N_name.train.h5ad`` and ``N_name.test.h5ad`` with ``obs['cell_type']``. Every run is one line of the
output file; runs that are there already are not run again. The table shows mean and standard deviation over the runs:
accuracy and macro-F1 are means over the stages' test files after the last stage, forgetting is the mean over earlier
test files of the best accuracy since the file was first seen minus the last. `network alone` and `memory alone` are
the two halves of the full model. `rare F1` is the mean F1 of types with fewer than 30 training cells in a stage.
Joint logistic regression, which sees all stages' cells at once, stands beside them. With --held-out the test files are
left alone: a fifth of the training cells, another one for every seed, is tested on. Settings are chosen by these.
"""

import argparse
import json
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from canal.config import load_preset
from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.figures import score
from canal.model.model import Model
from canal.seeds import numpy_generator
from canal.stages.evaluate import fit_logistic_regression, joint_logistic_regression
from canal.training.run import Run
from canal.training.splits import stratified_split
from canal.training.stage import learn_stage

RARE = 30
VARIANTS: dict[str, tuple[str, ...]] = {
    "full (L = 1000)": (),
    "L = 200": ("bank.size=200",),
    "L = 0, statistics only": ("bank.size=0",),
    "no pseudo-cells": ("analytic.pseudo_cells=0",),
    "no analytic memory": ("analytic.enabled=false",),
    "no distillation": ("training.distillation=0",),
    "network anew each stage": ("training.start=fresh",),
    "no gene-set masking": ("training.gene_set_masking=0",),
    "no gene dropout": ("training.gene_dropout=[0,0]",),
    "all cells weigh alike": ("training.balance=0",),
    "bank by coverage": ("bank.selection=coverage",),
    "naive fine-tuning": ("analytic.enabled=false", "bank.size=0", "training.distillation=0"),
}
Stream = list[tuple[Cells, Cells]]


def read_stream(folder: Path) -> Stream:
    """Return training and test cells of every stage, in the order of their numbers."""
    train = sorted(folder.glob("*.train.h5ad"), key=lambda p: int(re.match(r"\d+", p.name)[0]))
    return [
        (
            read_cells(path, labels="cell_type"),
            read_cells(str(path).replace(".train.", ".test."), labels=LabelOptions(column="cell_type", keep_rare=True)),
        )
        for path in train
    ]


def held_out(stream: Stream, seed: int) -> Stream:
    """Return four fifths of the training cells of every stage, and the fifth that the seed holds out to test on."""
    parts = []
    for train, _ in stream:
        assert train.labels is not None
        taken, held = stratified_split(train.labels, 0.2, numpy_generator(seed, "ablation held out"))
        parts.append((train.take(taken), train.take(held)))
    return parts


def learn(stream: Stream, order: list[int], seed: int, sets: tuple[str, ...]) -> Iterator[Model]:
    """Yield the model after each stage."""
    preset, model = load_preset("compact", sets), None
    for number, i in enumerate(order, 1):
        model = learn_stage(model, stream[i][0], preset, Run(number=number, seed=seed)).model
        yield model


def answers(model: Model, cells: Cells) -> dict[str, np.ndarray]:
    """Return the answer of the whole model and of its halves."""
    reader = model.reader(cells.genes)
    logits, _ = reader.network_outputs(cells.expression)
    memory = None if reader.solved is None else reader.memory_answer(reader.solved.scores(cells.expression))
    names = np.array(model.types, dtype=object)
    found = {"": names[model.fusion.join(logits, memory).argmax(axis=1)]}
    if memory is not None:
        found |= {"network alone": names[softmax(logits, axis=1).argmax(axis=1)]}
        found |= {"memory alone": names[memory.argmax(axis=1)]}
    return found


def figures(cells: list[Cells], predicted: list[np.ndarray], rare: set[str]) -> dict[str, float]:
    """Return mean accuracy, mean macro-F1 and mean F1 of rare types over some files."""
    each = [score(c.labels.astype(str), p.astype(str)) for c, p in zip(cells, predicted, strict=True)]
    of_rare = [f["per_type"][t]["f1"] for f in each for t in sorted(rare & set(f["per_type"]))]
    return {
        "accuracy": float(np.mean([f["accuracy"] for f in each])),
        "macro_f1": float(np.mean([f["macro_f1"] for f in each])),
        "rare_f1": float(np.mean(of_rare)) if of_rare else float("nan"),
    }


def rare_types(stream: Stream) -> set[str]:
    """Return types with fewer than `RARE` training cells in some stage and no stage with more."""
    most: dict[str, int] = defaultdict(int)
    for train, _ in stream:
        for name, n in zip(*np.unique(train.labels.astype(str), return_counts=True), strict=True):
            most[str(name)] = max(most[str(name)], int(n))
    return {name for name, n in most.items() if n < RARE}


def continual(stream: Stream, order: str, seed: int, sets: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Run a stream once; return figures of the whole model and of its halves."""
    index, begin = [int(c) - 1 for c in order], time.monotonic()
    matrix: dict[str, list[list[float]]] = defaultdict(list)
    last: dict[str, list[np.ndarray]] = {}
    training = 0.0
    for number, model in enumerate(learn(stream, index, seed, sets)):
        training += time.monotonic() - begin
        tests = [stream[i][1] for i in index[: number + 1]]
        said = [answers(model, cells) for cells in tests]
        last = {half: [s[half] for s in said] for half in said[0]}
        for half, predicted in last.items():
            pairs = zip(tests, predicted, strict=True)
            matrix[half].append([float((c.labels == p).mean()) for c, p in pairs])
        begin = time.monotonic()
    tests = [stream[i][1] for i in index]
    found = {}
    for half, predicted in last.items():
        rows = matrix[half]
        lost = [max(r[i] for r in rows[i:]) - rows[-1][i] for i in range(len(index) - 1)]
        found[half] = figures(tests, predicted, rare_types(stream)) | {
            "forgetting": float(np.mean(lost)),
            "seconds": training,
        }
    return found


def left_out(stream: Stream, out: int, seed: int, sets: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Learn all stages but one and annotate every cell of that one, beside joint logistic regression."""
    order = [i for i in range(len(stream)) if i != out]
    model = list(learn(stream, order, seed, sets))[-1]
    cells = list(stream[out])
    said = [answers(model, c) for c in cells]
    found = {h: pooled(cells, [s[h] for s in said]) for h in said[0]}
    if not sets and seed == 0:
        train = [stream[i][0] for i in order]
        found["joint logistic regression"] = pooled(cells, joint_predictions(train, cells))
    return found


def joint_predictions(train: list[Cells], test: list[Cells]) -> list[np.ndarray]:
    """Return what joint logistic regression says of some files."""
    predict = fit_logistic_regression(train)
    return [predict(cells) for cells in test]


def pooled(cells: list[Cells], predicted: list[np.ndarray]) -> dict[str, float]:
    """Return accuracy and macro-F1 over the cells of some files together."""
    truth = np.concatenate([c.labels for c in cells]).astype(str)
    found = score(truth, np.concatenate(predicted).astype(str))
    return {"accuracy": found["accuracy"], "macro_f1": found["macro_f1"]}


def run_all(stream: Stream, o: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what is not in the output file yet; return all its lines."""
    done = [json.loads(line) for line in o.out.read_text().splitlines()] if o.out.is_file() else []
    there = {(r["variant"], r["order"], r["seed"]) for r in done}
    orders = [str(i + 1) for i in range(len(stream))] if o.leave_one_out else o.orders.split(",")
    for variant in o.variants.split(";") if o.variants else VARIANTS:
        for order in orders:
            for seed in map(int, o.seeds.split(",")):
                if (variant, order, seed) in there:
                    continue
                sets = VARIANTS[variant]
                if o.leave_one_out:
                    found = left_out(stream, int(order) - 1, seed, sets)
                else:
                    found = continual(held_out(stream, seed) if o.held_out else stream, order, seed, sets)
                done.append({"variant": variant, "order": order, "seed": seed, "found": found})
                with o.out.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
                print(variant, order, seed, {k: round(v, 4) for k, v in found[""].items()}, flush=True)
    return done


def table(done: list[dict[str, Any]], joint: dict[str, float] | None) -> str:
    """Return the table as Markdown: mean and standard deviation over the runs."""
    groups: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run in done:
        for half, found in run["found"].items():
            if not half:
                groups[run["variant"]].append(found)
            elif run["variant"] == next(iter(VARIANTS)):
                groups[half].append(found)
    columns = ("accuracy", "macro_f1", "rare_f1", "forgetting", "seconds")
    rows = [f"| | runs | {' | '.join(c.replace('_', '-') for c in columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, found in groups.items():
        cells = []
        for column in columns:
            values = [f[column] for f in found if column in f and np.isfinite(f[column])]
            digits = 0 if column == "seconds" else 4
            cells.append(f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}" if values else "")
        rows.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    if joint:
        rows.append(f"| joint logistic regression (all cells at once) | 1 | {joint['accuracy']:.4f} | "
                    f"{joint['macro_f1']:.4f} | | | |")  # fmt: skip
    return "\n".join(rows)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stream", type=Path)
    parser.add_argument("--orders", default="1234,2143,4321")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--variants", default="", help="names separated by semicolons; all by default")
    parser.add_argument("--leave-one-out", action="store_true")
    parser.add_argument(
        "--held-out", action="store_true", help="test on training cells held out, not on the test files"
    )
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    warnings.simplefilter("ignore")
    stream = read_stream(o.stream)
    done = run_all(stream, o)
    joint = None
    if not o.leave_one_out:
        splits = [held_out(stream, seed) for seed in map(int, o.seeds.split(","))] if o.held_out else [stream]
        reached = [joint_logistic_regression([a for a, _ in s], [b for _, b in s]) for s in splits]
        joint = dict(zip(("accuracy", "macro_f1"), np.mean(reached, axis=(0, 1)).tolist(), strict=True))
    print(table(done, joint))


if __name__ == "__main__":
    main()
