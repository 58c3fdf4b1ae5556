"""Leave one data set of a stream out, and annotate it and hard files made from it, plainly and with ``--adapt``.

    python benchmarks/unseen.py STREAM_DIR --types "B,NK,CD14 Mono" --out unseen.md

STREAM_DIR holds ``<number>_<name>.train.h5ad`` and ``.test.h5ad`` with the types in ``obs[cell_type]``. For each data
set a workspace learns the training files of all others; then all cells of the data set are annotated, and files made
from them: mixed with the test cells of a taught technology, three, two or one types only, 100 and 250 cells, 500 genes.
With ``--types`` each of these types is left out of the stages, too. Figures are of the cells whose type was taught:
accuracy, macro-F1, expected calibration error and false alarms at alpha 0.05; of a type that was left out AUROC and
recall. Beside it stands logistic regression on all taught cells at once, and with ``--peers`` (a folder of
environments, as for `canal benchmark`) CellTypist and SingleR, taught the same cells.
"""

import argparse
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

import canal
from canal.benchmark.method import Context
from canal.benchmark.methods.external import CELLTYPIST, SINGLER, PeerProcess
from canal.config import load_preset
from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.figures import auroc, score
from canal.model.reliability import expected_calibration_error
from canal.report.annotation import Annotation
from canal.stages.evaluate import fit_logistic_regression
from canal.workspace import Workspace

ALPHA = 0.05
LABELS = "cell_type"
SETTINGS = ("genes.min_overlap=0.01",)  # a targeted panel measures few of the model's genes
Row = tuple[str, str, str, int, str, dict[str, float]]


def read_stream(folder: Path) -> list[tuple[str, ad.AnnData, ad.AnnData]]:
    """Return name, training and test cells of each data set."""
    paths = sorted(folder.glob("*.train.h5ad"), key=lambda path: int(re.match(r"\d+", path.name)[0]))
    if not paths:
        raise SystemExit(f"{folder} holds no file <number>_<name>.train.h5ad.")
    stream = []
    for path in paths:
        train, test = ad.read_h5ad(path), ad.read_h5ad(str(path).replace(".train.", ".test."))
        for kind, cells in (("train", train), ("test", test)):
            cells.obs_names = [f"{name}-{kind}" for name in cells.obs_names]
            # Only the types: a benchmark that is told the batches would have to choose for each file.
            cells.obs = cells.obs[[LABELS]]
        stream.append((path.name.split(".")[0], train, test))
    return stream


def teach(stages: list[ad.AnnData], folder: Path, left_out: str | None) -> Workspace:
    """Learn the stages in order, without the cells of one type."""
    workspace = canal.open_workspace(folder / "w", create=True)
    for number, cells in enumerate(stages, 1):
        path = folder / f"{number}.h5ad"
        kept(cells, left_out).write_h5ad(path)
        workspace.add_stage(path, labels=LABELS, name=f"stage {number}", overrides=SETTINGS)
    # The newest stage is asked, also where the rule of promotion holds it back.
    return workspace


def kept(cells: ad.AnnData, left_out: str | None) -> ad.AnnData:
    """Return the cells without those of one type."""
    return cells[(cells.obs[LABELS].astype(str) != str(left_out)).to_numpy()].copy()


def hard_files(cells: ad.AnnData, taught: ad.AnnData, known: set[str]) -> Iterator[tuple[str, ad.AnnData]]:
    """Yield name and cells of the files that are made from a data set."""
    rng = np.random.default_rng(0)
    labels = cells.obs[LABELS].astype(str).to_numpy()
    common = [name for name in np.unique(labels) if name in known and (labels == name).sum() >= 30]
    yield "whole", cells
    # Two species may have no gene name in common.
    if len(cells.var_names.intersection(taught.var_names)) >= 200:
        yield "mixed with a taught technology", ad.concat([cells, taught], join="inner")
    for k in (3, 2, 1):
        names = rng.choice(common, min(k, len(common)), replace=False)
        yield f"{k} types only", cells[np.isin(labels, names)].copy()
    for n in (100, 250):
        yield f"{n} cells", cells[np.sort(rng.permutation(len(labels))[:n])].copy()
    # A targeted panel: of the genes that are seen in most cells.
    seen = np.asarray((cells.X > 0).mean(axis=0)).ravel()
    panel = rng.choice(np.argsort(-seen, kind="stable")[:1500], min(500, cells.n_vars), replace=False)
    yield "500 genes", cells[:, np.sort(panel)].copy()


def figures(annotation: Annotation, truth: np.ndarray, known: set[str], left_out: str | None) -> dict[str, float]:
    """Return the figures of one annotation."""
    taught = np.isin(truth, list(known))
    predicted = annotation.cell_type.astype(str)
    right = predicted[taught] == truth[taught]
    scored = score(truth[taught], predicted[taught])
    found = {
        "accuracy": scored["accuracy"],
        "macro_f1": scored["macro_f1"],
        "ece": expected_calibration_error(annotation.confidence[taught], right),
        "alarms": float((annotation.columns["p_value"][taught] <= ALPHA).mean()),
    }
    novel = truth == left_out
    if novel.any():
        judged = taught | novel
        found["auroc"] = auroc(annotation.columns["novelty"][judged], novel[judged])
        found["recall"] = float((annotation.columns["p_value"][novel] <= ALPHA).mean())
    return found


def joint(train: list[ad.AnnData]) -> Callable[[Cells], np.ndarray]:
    """Return logistic regression on all taught cells at once."""
    return fit_logistic_regression([labelled(cells) for cells in train])


def labelled(cells: ad.AnnData) -> Cells:
    """Return the cells as the package reads them."""
    return read_cells(cells, labels=LabelOptions(column=LABELS, keep_rare=True))


def taught_peers(stages: list[Cells], peers: Path | None, folder: Path) -> Iterator[tuple[str, PeerProcess]]:
    """Yield name and process of every peer, taught the stages; nothing without a folder of environments."""
    if peers is None:
        return
    context = Context(preset=load_preset("compact"), seed=0, n_types=0, markers=None, peers=peers, scratch=folder)
    for name, peer in (("CellTypist, all cells", CELLTYPIST), ("SingleR, all cells", SINGLER)):
        yield name, PeerProcess(peer, stages, context)


def leave_out(
    stream: list[tuple[str, ad.AnnData, ad.AnnData]], k: int, left_out: str | None, asked: argparse.Namespace
) -> Iterator[Row]:
    """Yield a row for every file made from data set k, or for it alone, and every method."""
    name, train, test = stream[k]
    cells = ad.concat([train, test], merge="same")
    if left_out is not None and not (cells.obs[LABELS] == left_out).any():
        return
    others = [s for i, s in enumerate(stream) if i != k]
    stages = [kept(s[1], left_out) for s in others]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        workspace = teach(stages, Path(folder), left_out)
        newest = max(record.number for record in workspace.stages())
        known = set(workspace.model(newest).types)
        rivals = {"joint logistic regression": joint(stages)}
        for title, process in taught_peers([labelled(cells) for cells in stages], asked.peers, Path(folder)):
            rivals[title] = processes.enter_context(process).predict
        for file, query in hard_files(cells, others[0][2], known):
            if (asked.whole or left_out is not None) and file != "whole":
                continue
            truth = query.obs[LABELS].astype(str).to_numpy()
            at = (name, left_out or "", file, query.n_obs)
            for method, adapt in (("canal", False), ("canal --adapt", True)):
                annotation = workspace.annotate(query, stage=newest, alpha=ALPHA, adapt=adapt)
                held_back = adapt and all(annotation.facts["adapted"]["held_back"])
                note = " (held back)" if held_back else ""
                yield *at, method + note, figures(annotation, truth, known, left_out)
            taught = np.isin(truth, list(known))
            for title, predict in rivals.items():
                scored = score(truth[taught], predict(labelled(query)).astype(str)[taught])
                yield *at, title, {f: scored[f] for f in ("accuracy", "macro_f1")}


FIGURES = ("accuracy", "macro_f1", "ece", "alarms", "auroc", "recall")


def line(cells: list[Any]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main() -> None:
    """Annotate everything and print the table."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path)
    parser.add_argument("--types", default="", help="types to leave out as well, separated by commas")
    parser.add_argument("--peers", type=Path, help="folder of the environments of CellTypist and SingleR")
    parser.add_argument("--whole", action="store_true", help="only the data sets as they are, no file made from them")
    parser.add_argument("--out", type=Path, help="write the table here, too")
    asked = parser.parse_args()
    stream = read_stream(asked.stream)
    lines = [line(["left out", "type left out", "file", "cells", "method", *FIGURES]), line(["---"] * 11)]
    print(*lines, sep="\n", flush=True)
    for left_out in (None, *[name.strip() for name in asked.types.split(",") if name.strip()]):
        for k in range(len(stream)):
            for *at, found in leave_out(stream, k, left_out, asked):
                lines.append(line([*at, *(f"{found[f]:.3f}" if f in found else "" for f in FIGURES)]))
                print(lines[-1], flush=True)
    if asked.out is not None:
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
