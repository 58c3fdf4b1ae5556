"""How well a preset names the cells of one labelled file: k-fold cross-validation, every fold tested once.

    python benchmarks/folds.py lung.h5ad --labels cell_type --preset transanno --folds 5 --out lung.jsonl

Folds are stratified by type. Each fold is a first stage in a workspace of its own, learned on the other folds and
tested on this one: choice of genes, validation cells and oversampling see the training folds alone. With --stages DIR
the stages of that workspace are there before, so that a lab sees what its annotator would make of the file; with
--weights DIR the network starts from weights of `canal pretrain` or `canal weights import`. Every fold is one line of
the output file; folds that are there already are not run again. With --only 1 3 these folds alone are run: a job of a
cluster may take one, and the jobs of one file write to the same output.
"""

import argparse
import json
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from canal.data.formats import read_adata
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.errors import CanalError, DataError
from canal.figures import score
from canal.seeds import numpy_generator
from canal.workspace import open_workspace


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: which cells, how they are learned, how they are split."""

    data: str
    labels: str
    preset: str
    overrides: tuple[str, ...] = ()
    folds: int = 5
    seed: int = 0
    stages: str | None = None
    weights: str | None = None


def fold_of_cells(labels: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each cell, int (cells,); the cells of a type differ by at most one between folds.

    Raises
    ------
    DataError
        If a type has fewer cells than there are folds.
    """
    names, counts = np.unique(labels, return_counts=True)
    if (counts < folds).any():
        few = ", ".join(f"{n} ({c})" for n, c in zip(names, counts, strict=True) if c < folds)
        message = (
            f"{folds} folds need {folds} cells of every type; there are fewer of {few}. Ask for fewer with --folds."
        )
        raise DataError(message)
    found = np.zeros(len(labels), dtype=np.int64)
    for start, name in enumerate(names):
        rows = rng.permutation(np.flatnonzero(labels == name))
        found[rows] = (np.arange(len(rows)) + start) % folds  # where a type does not divide, another fold has more
    return found


def cross_validate(question: Question, out: Path, only: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Run the folds that are not in the output file yet, or those of ``only``; return the lines of all that were run.

    Raises
    ------
    DataError
        If a fold of ``only`` is none, counted from 1, or a type has fewer cells than there are folds.
    """
    wrong = [k for k in only if not 1 <= k <= question.folds]
    if wrong:
        message = f"There is no fold {wrong[0]}: folds are counted from 1 to {question.folds}."
        raise DataError(message)
    asked = json.loads(json.dumps(asdict(question)))
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    done = {line["fold"]: line for line in lines if line["question"] == asked}
    cells = _labelled(question)
    fold = fold_of_cells(
        cells.obs[question.labels].to_numpy(str), question.folds, numpy_generator(question.seed, "folds")
    )
    for k in range(question.folds):
        if k in done or (only and k + 1 not in only):
            continue
        done[k] = {"question": asked, "fold": k, "figures": _fold(question, cells[fold != k], cells[fold == k])}
        with out.open("a") as file:
            file.write(json.dumps(done[k]) + "\n")
        print(f"fold {k + 1}", {name: round(v, 4) for name, v in done[k]["figures"].items()}, flush=True)
    return [done[k] for k in sorted(done)]


def _labelled(question: Question) -> ad.AnnData:
    """Return the cells that have a label, after every check that a stage makes."""
    named = read_cells(question.data, labels=LabelOptions(column=question.labels, drop_rare=True)).names
    cells = read_adata(question.data)
    return cells[cells.obs_names.isin(named)].copy()


def _fold(question: Question, train: ad.AnnData, test: ad.AnnData) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="canal-folds-") as folder:
        root = Path(folder) / "workspace"
        if question.stages is not None:
            shutil.copytree(question.stages, root)
        return learn_and_test(
            root, train, test, labels=question.labels, preset=question.preset, seed=question.seed,
            overrides=question.overrides, name="fold", again=True, weights=question.weights,
        )  # fmt: skip


def learn_and_test(root: Path, train: ad.AnnData, test: ad.AnnData, *, labels: str, **asked: Any) -> dict[str, float]:
    """Add a stage to the workspace in a folder, made if need be; return its figures on other cells, and its seconds.

    Parameters
    ----------
    root
        Folder of the workspace.
    train, test
        Labelled cells; both stay as they are.
    labels
        Column of ``obs`` with the cell types.
    asked
        What `canal.workspace.Workspace.add_stage` is asked for besides.
    """
    workspace = open_workspace(root, create=True)
    result = workspace.add_stage(train.copy(), labels=labels, **asked)
    said = workspace.annotate(test.copy(), stage=result.stage).cell_type
    figures = score(test.obs[labels].to_numpy(str), np.asarray(said).astype(str))
    return {name: figures[name] for name in ("accuracy", "macro_f1", "ari")} | {"seconds": result.seconds}


def table(lines: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation over the folds as Markdown."""
    rows = ["| | mean | sd | folds |", "|---|---|---|---|"]
    for name in lines[0]["figures"]:
        values = [line["figures"][name] for line in lines]
        each = ", ".join(f"{v:.4f}" for v in values)
        spread = f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else "not measured"
        rows.append(f"| {name} | {np.mean(values):.4f} | {spread} | {each} |")
    return "\n".join(rows)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--labels", default="cell_type")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", help="workspace whose stages are there before")
    parser.add_argument("--weights", help="folder of pre-trained weights, such as canal/weights/lung")
    parser.add_argument("--only", type=int, nargs="+", default=[], metavar="FOLD", help="run these folds alone")
    parser.add_argument("--out", type=Path, required=True)
    o = vars(parser.parse_args())
    warnings.simplefilter("ignore")
    out, only = o.pop("out"), tuple(o.pop("only"))
    try:
        print(table(cross_validate(Question(**o | {"overrides": tuple(o["overrides"])}), out, only)))
    except CanalError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
