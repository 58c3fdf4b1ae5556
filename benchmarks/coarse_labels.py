"""What coarse labels of one lab teach: a stage whose labels are made coarser, with and without --ontology.

    python benchmarks/coarse_labels.py STREAM COARSE.csv PLACES.csv [--stage 2] [--labels cell_type] [--set KEY=VALUE]

``COARSE.csv`` has the columns ``name`` and ``coarse``: what the lab of the stage writes in place of a name.
``PLACES.csv`` tells where both stand in the Cell Ontology, as ``--ontology`` takes it. For every stage (or those that
are named) the training files of the stream (``*.train.h5ad``) are taught in order, with the labels of that one made
coarser: without an ontology, and with it. Printed: the share of the cells of all test files, and of the file of the
coarse stage, that are answered by their own, fine label. The first row has fine labels everywhere.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np

import canal


def main() -> int:
    """Print a row for every stage made coarse, with and without the ontology."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path)
    parser.add_argument("coarse", type=Path)
    parser.add_argument("places", type=Path)
    parser.add_argument("--stage", type=int, nargs="+", help="stages made coarse, one at a time; all by default")
    parser.add_argument("--labels", default="cell_type")
    parser.add_argument("--set", nargs="*", default=(), help="settings of the preset, as for canal stage add")
    arguments = parser.parse_args()

    with arguments.coarse.open(encoding="utf-8", newline="") as file:
        coarser = {row["name"]: row["coarse"] for row in csv.DictReader(file)}
    stages = arguments.stage or range(1, len(list(arguments.stream.glob("*.train.h5ad"))) + 1)
    print(f"{'coarse stage':14s} {'ontology':8s} {'all':>6s} {'file':>6s}")
    print_row("none", "off", arguments, None, {})
    for stage in stages:
        for ontology in ("off", "table"):
            print_row(str(stage), ontology, arguments, stage, coarser)
    return 0


def print_row(title: str, ontology: str, arguments: argparse.Namespace, stage: int | None, coarser: dict) -> None:
    """Teach the stream and print the shares of all cells and of those of the coarse stage's test file."""
    right: list[np.ndarray] = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = canal.open_workspace(folder, create=True)
        for number, path in enumerate(sorted(arguments.stream.glob("*.train.h5ad")), start=1):
            names = sorted(set(ad.read_h5ad(path, backed="r").obs[arguments.labels].astype(str)))
            workspace.add_stage(
                path,
                labels=arguments.labels,
                name=path.stem,
                label_map={name: coarser.get(name, name) for name in names} if number == stage else None,
                ontology=None if ontology == "off" else arguments.places,
                overrides=tuple(arguments.set),
            )
        # A stage that is held back would leave the one before in use.
        workspace.promote(number)
        for path in sorted(arguments.stream.glob("*.test.h5ad")):
            cells = ad.read_h5ad(path)
            answers = np.asarray(workspace.annotate(cells).cell_type)
            right.append(answers == cells.obs[arguments.labels].astype(str).to_numpy())
    own = "" if stage is None else f"{right[stage - 1].mean():6.3f}"
    print(f"{title:14s} {ontology:8s} {np.concatenate(right).mean():6.3f} {own:>6s}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
