"""A type that one file teaches: whether it is known in all the others, and whether anybody loses by it.

    python benchmarks/teach.py STREAM_DIR --types "NK,B,CD14 Mono,CD8 T,CD16 Mono"

STREAM_DIR holds ``<number>_<name>.train.h5ad`` and ``.test.h5ad``. Each type is left out of the other files, and taught
by one file, every file in turn, in three ways:

- *labelled*: the other files are learned without the type, in their order, then the whole of this file;
- *found*: all files are learned without the type; ``novel find`` looks at this file (the known cells of its test file
  and the type's cells of its training file), the clusters that are mostly of the type are named, with the surely known
  cells or alone, and added;
- *joint*: logistic regression on the cells of all files at once, the type's cells of this file alone among them.

Printed is for each test file the type's recall, the accuracy on all other cells before and after, and how many of these
are called novel at alpha .05; then means over the pairs of a teaching and another file.
"""

import argparse
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from novel_find import found_in, learn_without, query_of
from novel_types import stream_files

import canal
from canal.config import Preset, load_preset
from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.errors import CanalError
from canal.model.model import Model
from canal.stages.evaluate import fit_logistic_regression
from canal.training.run import Run
from canal.training.stage import learn_stage

ALPHA = 0.05
LEAST_CELLS = 2  # of the type in a training file: fewer teach nothing
Answers = tuple[np.ndarray, np.ndarray | None]  # types and, where there are any, p-values of cells


@dataclass(frozen=True, kw_only=True)
class Row:
    """What comes of teaching, on one test file.

    Attributes
    ----------
    way, type, teacher, file
        How the type was taught, which, by which file, and the file that is annotated; numbers of files from 1.
    cells
        Cells of the type in the test file.
    recall
        Of the type; NaN where the file has none.
    before, after
        Accuracy on all other cells.
    alarms
        Share of these called novel after teaching; NaN where the method knows no novelty.
    """

    way: str
    type: str
    teacher: int
    file: int
    cells: int
    recall: float
    before: float
    after: float
    alarms: float


def answers_of(model: Model, cells: Cells) -> Answers:
    """Return the model's types and p-values."""
    reader = model.reader(cells.genes)
    novelty = reader.novelty()
    assert novelty is not None
    prediction = reader.with_novelty(novelty).predict(cells.expression)
    assert prediction.novelty is not None
    names = np.array(model.types, dtype=object)
    return names[prediction.probabilities.argmax(axis=1)], prediction.novelty.p_value


def compared(
    way: str, taught: str, teacher: int, tests: list[Cells], answers: Callable[[Cells], tuple[Answers, Answers]]
) -> list[Row]:
    """Return a row for each test file, and print it.

    Parameters
    ----------
    way, taught, teacher
        How, which type, and by which file, from 0.
    tests
        Cells of all test files.
    answers
        Returns what is said of some cells before and after teaching.
    """
    rows = []
    for file, cells in enumerate(tests):
        (before, _), (after, p_value) = answers(cells)
        own = cells.labels == taught
        row = Row(
            way=way,
            type=taught,
            teacher=teacher + 1,
            file=file + 1,
            cells=int(own.sum()),
            recall=float((after[own] == taught).mean()) if own.any() else np.nan,
            before=float((before[~own] == cells.labels[~own]).mean()),
            after=float((after[~own] == cells.labels[~own]).mean()),
            alarms=np.nan if p_value is None else float((p_value[~own] <= ALPHA).mean()),
        )
        place = "itself" if file == teacher else f"file {file + 1}"
        print(
            f"{way:17s} {taught:12s} file {teacher + 1} -> {place}: recall {row.recall:.2f} of {row.cells}, others "
            f"{row.before:.3f} -> {row.after:.3f}, false alarms {row.alarms:.3f}",
            flush=True,
        )
        rows.append(row)
    return rows


def taught_by_labels(train: list[Cells], tests: list[Cells], taught: str, preset: Preset, seed: int) -> list[Row]:
    """Teach the type by each file's labels, after all other files without it."""
    rows: list[Row] = []
    models: dict[tuple[int, ...], Model] = {}
    for teacher in teachers_of(train, taught):
        # The other files, in order; what several teachers have in common is learned once.
        before: Model | None = None
        done: tuple[int, ...] = ()
        for file, cells in enumerate(train):
            if file == teacher:
                continue
            done = (*done, file)
            if done not in models:
                run = Run(number=len(done), seed=seed)
                models[done] = learn_stage(before, without(cells, taught), preset, run).model
            before = models[done]
        assert before is not None, "a stream has two files at least"
        after = learn_stage(before, train[teacher], preset, Run(number=len(train), seed=seed)).model
        pair = (before, after)
        rows += compared(
            "labelled", taught, teacher, tests, lambda c, p=pair: (answers_of(p[0], c), answers_of(p[1], c))
        )
    return rows


def taught_jointly(train: list[Cells], tests: list[Cells], taught: str) -> list[Row]:
    """Fit logistic regression on all cells at once, the type's of one file alone among them."""
    rows: list[Row] = []
    others = [without(cells, taught) for cells in train]
    for teacher in teachers_of(train, taught):
        before = fit_logistic_regression([cells for file, cells in enumerate(others) if file != teacher])
        after = fit_logistic_regression(
            [train[file] if file == teacher else cells for file, cells in enumerate(others)]
        )
        pair = (before, after)
        rows += compared("joint", taught, teacher, tests, lambda c, p=pair: ((p[0](c), None), (p[1](c), None)))
    return rows


def taught_by_finding(stream: Path, tests: list[Cells], taught: str, labels: str, preset: str) -> list[Row]:
    """Find the type in each file, name it, and add it: with the surely known cells, and alone."""
    rows: list[Row] = []
    train, test = stream_files(stream, "train"), stream_files(stream, "test")
    with tempfile.TemporaryDirectory() as root:
        base = learn_without(Path(root) / "base", train, labels, taught, preset)
        before = base.model()
        for teacher, paths in enumerate(zip(train, test, strict=True)):
            query = query_of(*paths, labels, taught)
            if int((query.obs[labels] == taught).sum()) < LEAST_CELLS:
                continue
            folder = Path(root) / f"found-{teacher}"
            base.find_novel(query, folder, alpha=ALPHA)
            names, _, _ = found_in(folder, query, labels, taught)
            for way, with_known in (("found, with known", True), ("found, alone", False)):
                after = before
                if names:
                    naming = base.name_novel(folder, names=names, labels="named_type", with_known=with_known)
                    copy = Path(shutil.copytree(base.root, Path(root) / f"{teacher}-{with_known}"))
                    workspace = canal.open_workspace(copy)
                    number = workspace.add_stage(naming.out, labels="named_type", preset=preset, name="named").stage
                    after = workspace.model(number)
                rows += compared(
                    way, taught, teacher, tests, lambda c, m=after: (answers_of(before, c), answers_of(m, c))
                )
    return rows


def without(cells: Cells, name: str) -> Cells:
    """Return the cells of all other types."""
    return cells.take(np.flatnonzero(cells.labels != name))


def teachers_of(train: list[Cells], taught: str) -> list[int]:
    """Return the files that have cells of the type to teach."""
    return [file for file, cells in enumerate(train) if int((cells.labels == taught).sum()) >= LEAST_CELLS]


def print_means(rows: list[Row]) -> None:
    """Print, for each way, means and worst cases over the pairs of a teaching and another file."""
    titles = ("taught", "recall elsewhere", "worst", "others there", "worst", "recall itself", "others there")
    print("\n| " + " | ".join((*titles, "false alarms", "most")) + " |")
    print("|---" * (len(titles) + 2) + "|")
    for way in dict.fromkeys(row.way for row in rows):
        elsewhere = [row for row in rows if row.way == way and row.file != row.teacher]
        itself = [row for row in rows if row.way == way and row.file == row.teacher]
        recalls = [row.recall for row in elsewhere if row.cells]
        changes = [row.after - row.before for row in elsewhere]
        alarms = [row.alarms for row in elsewhere + itself]
        # In itself a file is not compared with before where it was not learned before.
        own = [row.recall for row in itself if row.cells]
        own_change = [row.after - row.before for row in itself]
        values = [np.mean(recalls), min(recalls), np.mean(changes), min(changes), np.mean(own), np.mean(own_change)]
        values += [np.mean(alarms), max(alarms)]
        print(f"| {way} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path, help="folder of the stream")
    parser.add_argument("--types", required=True, help="types to teach, separated by commas")
    parser.add_argument("--labels", default="cell_type", help="column of obs with the types")
    parser.add_argument("--ways", default="labelled,joint,found", help="ways to teach, separated by commas")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Avalanche says at every stage that nothing is logged.
    warnings.filterwarnings("ignore", message="No loggers specified")
    train = [read_cells(path, labels=options.labels) for path in stream_files(options.stream, "train")]
    keep = LabelOptions(column=options.labels, keep_rare=True)
    tests = [read_cells(path, labels=keep) for path in stream_files(options.stream, "test")]
    ways, rows = options.ways.split(","), []
    for name in options.types.split(","):
        try:
            if "labelled" in ways:
                rows += taught_by_labels(train, tests, name, load_preset(options.preset), options.seed)
            if "joint" in ways:
                rows += taught_jointly(train, tests, name)
            if "found" in ways:
                rows += taught_by_finding(options.stream, tests, name, options.labels, options.preset)
        except CanalError as error:
            print(f"{name}: {error}")
    print_means(rows)


if __name__ == "__main__":
    main()
