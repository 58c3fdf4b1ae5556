"""One method over one stream: the one driver of all methods.

One cell of the table in a process of its own: ``python -m canal.benchmark.worker TASK RESULT``.

So the peak memory is the method's, and a method that crashes takes nothing else along.
"""

import json
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canal.benchmark.method import Context, Method, Predict, Unavailable, labels_of
from canal.benchmark.methods import find_method
from canal.benchmark.stream import StageCells, read_stage, read_stream, read_test, types_of
from canal.config import load_preset
from canal.data.cells import Cells
from canal.errors import CanalError
from canal.figures import score


def run_method(
    method: Method, stages: Sequence[StageCells], tests: dict[str, Cells], context: Context
) -> dict[str, Any]:
    """Teach a method one stage after another and test it after each.

    Parameters
    ----------
    method
        The method.
    stages
        In the order they are taught.
    tests
        Cells that no stage teaches, by name; tested at the end on the types that were taught.
    context
        What the method is told.

    Returns
    -------
    Plain values: ``accuracy`` and ``macro_f1`` (row k: after stage k + 1, on each stage's test so far), ``f1`` of
    each type over all tests at the end, ``unseen`` (figures of ``tests``), ``learn_seconds`` and ``predict_seconds``
    of each stage.
    """
    found: dict[str, Any] = {k: [] for k in ("accuracy", "macro_f1", "learn_seconds", "predict_seconds")}
    learner = method.learn((s.train for s in stages), context)
    said: list[np.ndarray] = []
    predict: Predict | None = None
    for k in range(len(stages)):
        begin = time.perf_counter()
        predict = next(learner)
        learned = time.perf_counter()
        said = [_checked(predict(stage.test), stage.test, method) for stage in stages[: k + 1]]
        figures = [score(labels_of(s.test), p) for s, p in zip(stages, said, strict=False)]
        found["learn_seconds"].append(learned - begin)
        found["predict_seconds"].append(time.perf_counter() - learned)
        for name in ("accuracy", "macro_f1"):
            found[name].append([f[name] for f in figures])
    assert predict is not None
    learner.close()
    truth = np.concatenate([labels_of(s.test) for s in stages])
    found["f1"] = {name: v["f1"] for name, v in score(truth, np.concatenate(said))["per_type"].items()}
    found["unseen"] = {name: _unseen(predict, cells, stages, method) for name, cells in tests.items()}
    return found


def _checked(predicted: np.ndarray, cells: Cells, method: Method) -> np.ndarray:
    names = np.asarray(predicted).astype(str)
    assert names.shape == (len(cells),), (method.name, names.shape, len(cells))
    return names


def _unseen(predict: Predict, cells: Cells, stages: Sequence[StageCells], method: Method) -> dict[str, float]:
    taught = {t for s in stages for t in labels_of(s.train).tolist()}
    rows = np.flatnonzero([t in taught for t in labels_of(cells).tolist()])
    kept = cells.take(rows)
    figures = score(labels_of(kept), _checked(predict(kept), kept, method))
    return {"accuracy": figures["accuracy"], "macro_f1": figures["macro_f1"], "cells": float(len(kept))}


def main(task_file: str, result_file: str) -> None:
    """Run one cell of the table and write its figures, or why there are none."""
    warnings.simplefilter("ignore")
    task = json.loads(Path(task_file).read_text(encoding="utf-8"))
    sys.stdout.flush()
    os.dup2(2, 1)  # whatever a method prints goes to the log
    try:
        result = _run(task)
    except Unavailable as error:
        result = {"status": "unavailable", "reason": str(error)}
    except CanalError as error:
        result = {"status": "failed", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - any failure is the method's, and becomes its row
        traceback.print_exc()
        text = str(error).strip().splitlines()
        result = {"status": "failed", "reason": f"{type(error).__name__}: {text[-1] if text else ''}"[:400]}
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def _run(task: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="canal-benchmark-") as scratch:
        stream = read_stream(task["stream"], Path(scratch))
        stages = [read_stage(stream.stages[i]) for i in task["order"]]
        method = find_method(task["method"])
        context = Context(
            preset=load_preset(task["preset"], tuple(task["overrides"])),
            seed=task["seed"],
            n_types=len(types_of([s.train for s in stages])),
            markers=Path(task["markers"]) if task["markers"] else None,
            peers=Path(task["peers"]) if task["peers"] else None,
            scratch=Path(scratch),
        )
        found = run_method(method, stages, {t.name: read_test(t) for t in stream.tests}, context)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "status": "done",
        **found,
        "cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in used), 1),
        "peak_mb": round(_peak_bytes(method) / 2**20, 1),
    }


def _peak_bytes(method: Method) -> float:
    who = resource.RUSAGE_CHILDREN if method.external else resource.RUSAGE_SELF
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(*sys.argv[1:3])
