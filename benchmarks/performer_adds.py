r"""What the Performer's representation adds to the analytic memory: in its place, joined to it, as a sum of answers.

    python benchmarks/performer_adds.py WORKSPACE --teach a.train.h5ad --test a.test.h5ad b.test.h5ad \
        --stage 1 --cells 10 30 0 --repeats 3 --out adds.jsonl
    python benchmarks/performer_adds.py WORKSPACE --teach a.train.h5ad --test a.test.h5ad --novel alpha

The network of a committed stage is held still. A memory is taught some cells of each type of a file (--cells, 0: all;
drawn anew at each repeat) and answers for the test files, once from each of:

- ``profiles``: unit profiles over the most variable genes, as the preset ``compact`` keeps them
- ``panel``: unit profiles over the genes that the network sees
- ``representation``: the network's representation, of unit length
- ``joined``: profiles and representation beside each other
- ``sum``: the sum of what the memories of ``profiles`` and ``representation`` answer
- ``network``: the network's own answer; it does not learn these cells

All memories are the same closed form with the same shrinkage and the same rule. Cells of types that were not taught are
left out of accuracy and macro-F1. With --novel a type is kept from the memory, and the AUROC says how well the highest
ridge score tells its cells in the test files from the others; the network must not have been taught it, either. Every
measurement is a line of the output. Representations are kept beside it and not made again.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from canal.config import load_preset
from canal.data.cells import Cells
from canal.data.genes import Genes
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.data.values import unit_rows
from canal.data.variable_genes import rank_by_variance
from canal.figures import score
from canal.model.memory import AnalyticMemory
from canal.model.model import Model
from canal.seeds import numpy_generator
from canal.workspace import open_workspace

BLOCK = 64


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The cells of a file as the network sees them: representation (cells, D) and its answer (cells,)."""

    cells: Cells
    representation: np.ndarray
    answer: np.ndarray


def seen_by(model: Model, path: Path, kept: Path) -> Seen:
    """Return the cells of a file as a model's network sees them; from beside ``kept`` where that was done before."""
    cells = read_cells(path, labels=LabelOptions(column="cell_type", keep_rare=True))
    # Of which network and of which cells the representations are.
    digest = hashlib.sha256("\n".join(cells.names).encode())
    for tensor in model.network.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    name = digest.hexdigest()[:16]
    file = kept.with_name(f"{kept.name}.{name}.npz")
    if not file.is_file():
        reader, parts = model.reader(cells.genes), []
        for start in range(0, len(cells), BLOCK):
            parts.append(reader.network_outputs(cells.expression[start : start + BLOCK]))
            print(f"\r{path.name}: {min(start + BLOCK, len(cells))} of {len(cells)} cells", end="", flush=True)
        print()
        logits, representation = (np.concatenate(part) for part in zip(*parts, strict=True))
        np.savez(file, logits=logits, representation=representation)
    with np.load(file) as arrays:
        answer = np.array(model.types, dtype=object)[arrays["logits"].argmax(axis=1)]
        return Seen(cells=cells, representation=arrays["representation"], answer=answer)


def features(seen: Seen, model: Model) -> dict[str, Cells]:
    """Return the cells with each kind of features in place of their genes."""
    genes, expression = seen.cells.genes, seen.cells.expression
    shown = unit_rows(sp.csr_matrix(seen.representation.astype(np.float32)))
    names = Genes.of([f"REPRESENTATION-{k}" for k in range(shown.shape[1])])
    match = model.panel.match(genes)
    columns = match.columns[match.measured]
    panel = replace(seen.cells, expression=expression[:, columns].tocsr(), genes=genes.take(columns), stored=None)
    both = sp.hstack([unit_rows(expression), shown], format="csr", dtype=np.float32)
    every = Genes.of([*genes.names, *names.names])
    return {
        "profiles": seen.cells,
        "panel": panel,
        "representation": replace(seen.cells, expression=shown, genes=names, stored=None),
        "joined": replace(seen.cells, expression=both, genes=every, stored=None),
    }


def drawn(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of ``n`` cells of each type, or of all that it has; of all cells where ``n`` is 0."""
    if n == 0:
        return np.arange(len(labels))
    parts = [rng.permutation(np.flatnonzero(labels == name))[:n] for name in np.unique(labels)]
    return np.sort(np.concatenate(parts))


class Memories:
    """A memory of each kind of features, taught the same cells."""

    def __init__(self, taught: dict[str, Cells], rows: np.ndarray) -> None:
        preset = load_preset("compact")
        labels = next(iter(taught.values())).labels
        assert labels is not None
        self.types = tuple(sorted(set(labels[rows].tolist())))
        empty = AnalyticMemory.empty(preset.analytic.ridge)
        # The genes are chosen on the cells that are taught; all of the representation is taken.
        self.memory = {}
        for kind, cells in taught.items():
            some = cells.take(rows)
            columns = np.arange(len(cells.genes))
            if kind in ("profiles", "joined"):
                shown = np.array([name.startswith("REPRESENTATION-") for name in cells.genes.names])
                ranked = rank_by_variance(some)
                ranked = ranked[~shown[ranked]][: preset.genes.statistics]
                columns = np.concatenate([np.sort(ranked), np.flatnonzero(shown)])
            self.memory[kind] = empty.with_stage(some, columns, stage=1, rank=preset.analytic.rank)

    def scores(self, tested: dict[str, Cells]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return log-densities and ridge scores of each kind, and their sums, (cells, types) each."""
        found = {}
        for kind, memory in self.memory.items():
            solved = memory.solved_for(tested[kind].genes, self.types)
            ridge = solved.scores(tested[kind].expression)
            found[kind] = solved.moments.discriminants.of(ridge), ridge
        (genes, ridge_genes), (shown, ridge_shown) = found["profiles"], found["representation"]
        found["sum"] = log_softmax(genes, axis=1) + log_softmax(shown, axis=1), ridge_genes + ridge_shown
        return found


def measured(
    model: Model, teach: Seen, tests: list[tuple[str, Seen]], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Yield a line for each number of cells, repeat, test file and kind of features."""
    taught, tested = features(teach, model), [(name, seen, features(seen, model)) for name, seen in tests]
    labels = teach.cells.labels
    assert labels is not None
    for n in options.cells:
        for repeat in range(1 if n == 0 else options.repeats):
            rows = drawn(labels, n, numpy_generator(repeat, "performer adds"))
            rows = rows[~np.isin(labels[rows], options.novel)]
            memories = Memories(taught, rows)
            for name, seen, kinds in tested:
                truth = np.asarray(seen.cells.labels, dtype=str)
                known, novel = np.isin(truth, memories.types), np.isin(truth, options.novel)
                line = {"cells": n, "repeat": repeat, "taught": len(rows), "test": name, "tested": int(known.sum())}
                for kind, (densities, ridge) in memories.scores(kinds).items():
                    answer = np.array(memories.types, dtype=object)[densities.argmax(axis=1)]
                    yield line | figures(kind, truth, answer, known) | auroc(ridge, known, novel)
                yield line | figures("network", truth, seen.answer, known)


def figures(kind: str, truth: np.ndarray, answer: np.ndarray, known: np.ndarray) -> dict[str, Any]:
    """Return accuracy and macro-F1 on the cells of taught types."""
    found = score(truth[known], answer[known].astype(str))
    return {"features": kind, "accuracy": found["accuracy"], "macro_f1": found["macro_f1"]}


def auroc(scores: np.ndarray, known: np.ndarray, novel: np.ndarray) -> dict[str, float]:
    """Return how well the highest score tells cells of the types left out from those taught."""
    if not novel.any():
        return {}
    judged = known | novel
    return {"novelty_auroc": float(roc_auc_score(novel[judged], -scores.max(axis=1)[judged]))}


def table(lines: list[dict[str, Any]]) -> str:
    """Return the means over repeats, a row a kind of features."""
    groups: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}
    for line in lines:
        groups.setdefault((line["test"], line["cells"]), {}).setdefault(line["features"], []).append(line)
    rows = ["| test file | cells a type | features | accuracy | macro-F1 | AUROC |", "|---|---|---|---|---|---|"]
    for (test, n), kinds in groups.items():
        for kind, found in kinds.items():
            means = []
            for name in ("accuracy", "macro_f1", "novelty_auroc"):
                values = [line[name] for line in found if name in line]
                means.append(f"{np.mean(values):.3f}" if values else "")
            rows.append(f"| {test} | {n or 'all'} | {kind} | {' | '.join(means)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, write the lines and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--stage", type=int, default=None, help="whose network is held still; else the one in use")
    parser.add_argument("--teach", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[10, 30, 0], help="of each type; 0 for all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--novel", nargs="*", default=[], help="types that the memory is not taught")
    parser.add_argument("--out", type=Path, default=Path("performer_adds.jsonl"))
    options = parser.parse_args()
    model = open_workspace(options.workspace).model(options.stage)
    teach = seen_by(model, options.teach, options.out)
    tests = [(path.name, seen_by(model, path, options.out)) for path in options.test]
    lines = list(measured(model, teach, tests, options))
    options.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(table(lines))


if __name__ == "__main__":
    main()
