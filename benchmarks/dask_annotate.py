"""Annotation on one Dask worker and on two: cells a second and their ratio.

Run with ``python benchmarks/dask_annotate.py FOLDER``, the folder of the labelled streams (immune/...). The zheng test
file is repeated until it has 20,098 cells; the model is the default preset, trained on the zheng training file. Both
clusters are started and have annotated a little before the clock runs; every run reads the file and joins the answers.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

import canal
from canal.cluster.dask_cluster import connect, map_on_workers
from canal.cluster.shards import Shard, ShardAnnotator, cut_shards, join_annotations
from canal.progress import Silent
from canal.stages.annotate import AnnotateOptions

CELLS = 20_098


def repeated(source: Path, target: Path, cells: int) -> None:
    """Write a file of so many cells, the source's again and again."""
    cell = ad.read_h5ad(source)
    whole = ad.concat([cell] * -(-cells // cell.n_obs), index_unique="-")[:cells].copy()
    whole.write_h5ad(target)


def seconds(client: Any, work: ShardAnnotator, shards: list[Shard], runs: int) -> tuple[float, Any]:
    """Return the shortest of some runs, and the answer."""
    best, answer = np.inf, None
    for _ in range(runs):
        begin = time.perf_counter()
        answer = join_annotations(map_on_workers(client, work, shards, [s.cells for s in shards], Silent()))
        best = min(best, time.perf_counter() - begin)
    return best, answer


def main() -> None:
    """Print the table."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # of the workers: a worker is one process of one thread
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", type=Path)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    immune = options.streams / "immune"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "cells.h5ad"
        repeated(immune / "1_zheng_facs.test.h5ad", file, options.cells)
        workspace = canal.open_workspace(folder / "ws", create=True)
        train = ad.read_h5ad(immune / "1_zheng_facs.train.h5ad")
        workspace.add_stage(train, labels="cell_type")
        work = ShardAnnotator(workspace=workspace.root.absolute(), registry=None, stage=1, options=AnnotateOptions())
        rates, answers = [], []
        for workers in (1, 2):
            with connect(f"local:{workers}") as client:
                shards = cut_shards([file], 2, AnnotateOptions())  # the same parts for both
                seconds(client, work, shards, 1)
                spent, answer = seconds(client, work, shards, options.runs)
            rates.append(options.cells / spent)
            answers.append(answer)
            print(
                f"{workers} worker{'s' * (workers > 1)}: {spent:6.2f} s, {rates[-1]:8.0f} cells/s, {len(shards)} parts"
            )
        same = np.array_equal(answers[0].cell_type, answers[1].cell_type)
        same &= np.array_equal(answers[0].representation, answers[1].representation)
        print(f"two workers / one worker: {rates[1] / rates[0]:.2f}; the same answers: {same}")


if __name__ == "__main__":
    main()
