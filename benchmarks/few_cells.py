"""What pre-trained weights are worth to a stage of few cells, beside weights of the same genes and sizes as drawn.

    python -m benchmarks.few_cells pbmc3k.train.h5ad pbmc3k.test.h5ad --weights canal/weights/blood \
        --preset canal-paper --cells 10 30 --draws 3 --set training.epochs=40 --out few.jsonl

So many cells of each type are drawn from the training file, anew for each draw. On the same cells learn:

- ``pre-trained``: a first stage of the preset that starts from the weights
- ``as drawn``: the same stage, on the same genes, from weights of the same layout that were never trained
- ``compact``: a first stage of that preset, without weights
- ``logistic regression``: on the 2,000 most variable genes of these cells

Weights are a folder of `canal pretrain` or `canal weights import`. Each start is tested on all cells of the test file.
Every measurement is a line of the output file; those that are there already are not made again.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from benchmarks.folds import learn_and_test
from benchmarks.performer_adds import drawn
from canal.data.formats import read_adata
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.errors import CanalError
from canal.model.network import seeded
from canal.pretrain.config import PretrainModel
from canal.pretrain.masked import MaskedModel
from canal.seeds import numpy_generator
from canal.stages.evaluate import joint_logistic_regression
from canal.training.start import checked_pretrained, load_pretrained, save_pretrained

STARTS = ("pre-trained", "as drawn", "compact", "logistic regression")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: which cells, which weights, how a stage learns, and of which cells of a type."""

    train: str
    test: str
    weights: str
    preset: str
    start: str
    cells: int
    draw: int
    labels: str = "cell_type"
    overrides: tuple[str, ...] = ()


def measure(question: Question, cells: ad.AnnData, test: ad.AnnData) -> dict[str, float]:
    """Return accuracy, macro-F1, ARI and seconds of one start on the drawn cells."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="canal-few-") as folder:
        root = Path(folder)
        if question.start == "logistic regression":
            return _of_regression(question, cells, test) | {"seconds": time.perf_counter() - begin}
        weights: str | None = question.weights
        preset, overrides = question.preset, question.overrides
        if question.start == "as drawn":
            weights = str(as_drawn(Path(question.weights), root / "drawn", question.draw))
        elif question.start == "compact":
            weights, preset, overrides = None, "compact", ()
        figures = learn_and_test(
            root / "workspace", cells, test, labels=question.labels, preset=preset, overrides=overrides,
            weights=weights, seed=question.draw, name="few",
        )  # fmt: skip
    return figures | {"seconds": time.perf_counter() - begin}


def as_drawn(weights: Path, folder: Path, seed: int) -> Path:
    """Write weights with the genes and sizes of others, as they are before any training; return their folder."""
    trained = load_pretrained(weights)
    config = PretrainModel(**trained.sizes.encoder_keys()).encoder()
    with seeded(seed, "weights"):
        tensors = MaskedModel(config, len(trained.genes)).published_tensors()
    save_pretrained(checked_pretrained(folder.name, tensors, trained.genes, {"source": "as drawn"}), folder)
    return folder


def _of_regression(question: Question, cells: ad.AnnData, test: ad.AnnData) -> dict[str, float]:
    """Return accuracy and macro-F1 of logistic regression."""
    labels = LabelOptions(column=question.labels, keep_rare=True)
    train, tested = (read_cells(adata, labels=labels) for adata in (cells, test))
    accuracy, macro_f1 = joint_logistic_regression([train], [tested])[0]
    return {"accuracy": accuracy, "macro_f1": macro_f1}


def run(questions: list[Question], out: Path, measured_by: Callable[..., dict[str, float]]) -> list[dict[str, Any]]:
    """Answer what the output file has no line of yet; return the lines of all questions."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    answered = {json.dumps(line["question"], sort_keys=True): line for line in lines}
    train, test = read_adata(questions[0].train), read_adata(questions[0].test)
    found = []
    for question in questions:
        asked = asdict(question)
        key = json.dumps(asked, sort_keys=True)
        if key not in answered:
            # The draw alone decides the cells, so that all starts learn the same ones.
            rng = numpy_generator(question.draw, f"few cells {question.cells}")
            rows = drawn(train.obs[question.labels].to_numpy(str), question.cells, rng)
            figures = measured_by(question, train[rows].copy(), test)
            answered[key] = {"question": asked, "figures": figures}
            with out.open("a") as file:
                file.write(json.dumps(answered[key]) + "\n")
            shown = {name: round(value, 3) for name, value in figures.items()}
            print(f"{question.start}, {question.cells} cells a type, draw {question.draw}: {shown}", flush=True)
        found.append(answered[key])
    return found


def table(lines: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation over the draws of each start and number of cells, as Markdown."""
    rows = ["| cells a type | start | draws | accuracy | macro-F1 | seconds |", "|---|---|---|---|---|---|"]
    groups: dict[tuple[int, str], list[dict[str, float]]] = {}
    for line in lines:
        groups.setdefault((line["question"]["cells"], line["question"]["start"]), []).append(line["figures"])
    for (cells, start), figures in groups.items():
        parts = []
        for name in ("accuracy", "macro_f1"):
            values = [one[name] for one in figures]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            parts.append(f"{np.mean(values):.3f}{spread}")
        seconds = np.mean([one["seconds"] for one in figures])
        rows.append(f"| {cells} | {start} | {len(figures)} | {' | '.join(parts)} | {seconds:.0f} |")
    return "\n".join(rows)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--weights", required=True, help="folder of pre-trained weights, such as canal/weights/blood")
    parser.add_argument("--preset", default="canal-paper")
    parser.add_argument("--labels", default="cell_type")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--cells", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    warnings.simplefilter("ignore")
    asked = Question(
        train=o.train, test=o.test, weights=o.weights, preset=o.preset, labels=o.labels, overrides=tuple(o.overrides),
        start="", cells=0, draw=0,
    )  # fmt: skip
    questions = [
        replace(asked, start=start, cells=cells, draw=draw)
        for draw, cells, start in product(range(o.draws), o.cells, o.starts)
    ]
    try:
        print(table(run(questions, o.out, measure)))
    except CanalError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
