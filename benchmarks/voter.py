"""A workspace that starts from CellTypist's models: the voter alone, a stage alone, and the stage on top of the voter.

    python benchmarks/voter.py STREAM_DIR --voters FOLDER [--all-pairs]

STREAM_DIR holds ``<number>_<name>.train.h5ad`` and ``.test.h5ad``; FOLDER holds models of CellTypist that were trained
on one file each, ``<number>_<name>.pkl``. The file after it is taught on top of each voter, with ``--all-pairs`` every
other file. The accuracy is the mean over all test files of the stream: of the cells of types that only the voter knows,
of all others, and of all.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from novel_types import stream_files

import canal
from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.workspace import import_celltypist

LABELS = "cell_type"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one annotator reaches on one test file.

    Attributes
    ----------
    accuracy
        Of all cells.
    own, others
        Of the cells of types that only the voter knows, NaN where there are none; of the others.
    """

    accuracy: float
    own: float
    others: float


def score(answers: np.ndarray, cells: Cells, own: set[str]) -> Row:
    """Return the accuracies of answers, (cells,)."""
    assert cells.labels is not None
    right = answers.astype(str) == cells.labels.astype(str)
    of_voter = np.isin(cells.labels.astype(str), sorted(own))
    share = float(right[of_voter].mean()) if of_voter.any() else float("nan")
    return Row(accuracy=float(right.mean()), own=share, others=float(right[~of_voter].mean()))


def compare(voter: Path, train: Path, tests: list[Path], folder: Path) -> dict[str, list[Row]]:
    """Return the rows of the voter alone, of the stage alone and of the stage on top of the voter."""
    loaded, written = import_celltypist(voter, folder / f"{voter.stem}.voter")
    alone = canal.open_workspace(folder / "alone", create=True)
    alone.add_stage(train, labels=LABELS)
    workspace = canal.open_workspace(folder / "both", create=True)
    workspace.start_from(written)
    workspace.add_stage(train, labels=LABELS)
    model = workspace.model()
    own = set(model.answers) - set(model.types)
    rows: dict[str, list[Row]] = {"voter alone": [], "stage alone": [], "stage on the voter": []}
    for path in tests:
        cells = read_cells(path, labels=LabelOptions(column=LABELS, keep_rare=True))
        for name, annotator in zip(rows, (loaded, alone, workspace), strict=True):
            rows[name].append(score(annotator.annotate(path).cell_type, cells, own))
    return rows


def print_means(title: str, rows: dict[str, list[Row]]) -> None:
    """Print the mean of each annotator's rows."""
    for name, of_name in rows.items():
        accuracy, others = np.mean([row.accuracy for row in of_name]), np.mean([row.others for row in of_name])
        known = [row.own for row in of_name if np.isfinite(row.own)]
        own = f"{np.mean(known):.3f}" if known else "none"
        print(f"{title}, {name}: {accuracy:.3f}; types of the voter alone {own}, others {others:.3f}", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path, help="folder of the stream")
    parser.add_argument("--voters", type=Path, required=True, help="folder of CellTypist's models, NUMBER_NAME.pkl")
    parser.add_argument("--all-pairs", action="store_true", help="teach every other file on top of each voter")
    options = parser.parse_args()
    trains, tests = stream_files(options.stream, "train"), stream_files(options.stream, "test")
    together: dict[str, list[Row]] = {}
    for place, other in enumerate(trains):
        voter = options.voters / f"{other.name.split('.')[0]}.pkl"
        taught = [path for path in trains if path != other] if options.all_pairs else trains[place + 1 : place + 2]
        for train in taught if voter.is_file() else []:
            with tempfile.TemporaryDirectory() as folder:
                rows = compare(voter, train, tests, Path(folder))
            print_means(f"voter {voter.stem}, taught {train.name.split('.')[0]}", rows)
            for name, of_pair in rows.items():
                together.setdefault(name, []).extend(of_pair)
    print_means("all pairs", together)


if __name__ == "__main__":
    main()
