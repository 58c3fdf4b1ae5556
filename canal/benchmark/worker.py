"""One run of the benchmark in a process of its own: ``python -m canal.benchmark.worker TASK RESULT``.

So the peak memory is the method's, and a method that crashes takes nothing else along. All methods are taught and
tested by the one function `run_method`.
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
from canal.benchmark.run import LONGEST_REASON
from canal.benchmark.stream import StageCells, read_stage, read_stream, read_test
from canal.config import load_preset
from canal.data.cells import Cells
from canal.errors import CanalError
from canal.figures import score


def main(task_file: str, result_file: str) -> None:
    """Make one run and write its figures, or why there are none."""
    warnings.simplefilter("ignore")
    task = json.loads(Path(task_file).read_text(encoding="utf-8"))
    # Whatever a method prints goes to the log.
    sys.stdout.flush()
    os.dup2(2, 1)
    try:
        result = _run_task(task)
    except Unavailable as error:
        result = {"status": "unavailable", "reason": str(error)}
    except CanalError as error:
        result = {"status": "failed", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - any failure is the method's, and becomes its row
        traceback.print_exc()
        text = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {text[-1] if text else ''}"
        result = {"status": "failed", "reason": reason[:LONGEST_REASON]}
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def _run_task(task: dict[str, Any]) -> dict[str, Any]:
    """Make the run of a task and return its figures, its time and its memory."""
    with tempfile.TemporaryDirectory(prefix="canal-benchmark-") as scratch:
        stream = read_stream(task["stream"], Path(scratch))
        stages = [read_stage(stream.stages[position]) for position in task["order"]]
        method = find_method(task["method"])
        context = Context(
            preset=load_preset(task["preset"], tuple(task["overrides"])),
            seed=task["seed"],
            n_types=len(_taught_types(stages)),
            markers=Path(task["markers"]) if task["markers"] else None,
            peers=Path(task["peers"]) if task["peers"] else None,
            scratch=Path(scratch),
        )
        untaught = {test.name: read_test(test) for test in stream.tests}
        figures = run_method(method, stages, untaught, context)
    # Time of this process and of the peers it started.
    cpu_seconds = 0.0
    for processes in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(processes)
        cpu_seconds += usage.ru_utime + usage.ru_stime
    return {
        "status": "done",
        **figures,
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_mb": round(_peak_bytes(method) / 2**20, 1),
    }


def _peak_bytes(method: Method) -> float:
    """Return the peak memory of this process, or of the peer that did the work."""
    processes = resource.RUSAGE_CHILDREN if method.external else resource.RUSAGE_SELF
    peak = resource.getrusage(processes).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def run_method(
    method: Method, stages: Sequence[StageCells], untaught: dict[str, Cells], context: Context
) -> dict[str, Any]:
    """Teach a method one stage after another and test it after each.

    Parameters
    ----------
    method
        The method.
    stages
        The stages, in the order they are taught.
    untaught
        Cells that no stage teaches, by name; tested at the end on the types that were taught.
    context
        What the method is told.

    Returns
    -------
    Plain values: ``accuracy`` and ``macro_f1`` (row k: after stage k + 1, on each stage's test so far), ``f1`` of
    each type over all tests at the end, ``unseen`` (figures of ``untaught``), ``learn_seconds`` and
    ``predict_seconds`` of each stage.
    """
    figures: dict[str, Any] = {"accuracy": [], "macro_f1": [], "learn_seconds": [], "predict_seconds": []}
    learner = method.learn((stage.train for stage in stages), context)
    predict: Predict | None = None
    predicted: list[np.ndarray] = []
    for k in range(len(stages)):
        # The method takes the next stage and hands over its predictor.
        begin = time.perf_counter()
        predict = next(learner)
        learned = time.perf_counter()
        # The predictor is tested on every stage so far.
        predicted, accuracy, macro_f1 = [], [], []
        for stage in stages[: k + 1]:
            types = _predict(predict, stage.test, method)
            scores = score(labels_of(stage.test), types)
            predicted.append(types)
            accuracy.append(scores["accuracy"])
            macro_f1.append(scores["macro_f1"])
        figures["accuracy"].append(accuracy)
        figures["macro_f1"].append(macro_f1)
        figures["learn_seconds"].append(learned - begin)
        figures["predict_seconds"].append(time.perf_counter() - learned)
    assert predict is not None
    learner.close()
    # F1 of each type over all tests, by the last predictor.
    truth = labels_of(*(stage.test for stage in stages))
    per_type = score(truth, np.concatenate(predicted))["per_type"]
    figures["f1"] = {name: values["f1"] for name, values in per_type.items()}
    figures["unseen"] = {name: _score_untaught(predict, cells, stages, method) for name, cells in untaught.items()}
    return figures


def _predict(predict: Predict, cells: Cells, method: Method) -> np.ndarray:
    """Return the predicted type of each cell as str, (cells,)."""
    types = np.asarray(predict(cells)).astype(str)
    assert types.shape == (len(cells),), (method.name, types.shape, len(cells))
    return types


def _score_untaught(predict: Predict, cells: Cells, stages: Sequence[StageCells], method: Method) -> dict[str, float]:
    """Return the figures of a file that no stage teaches, on its cells of types that were taught."""
    taught = _taught_types(stages)
    cells = cells.take(np.flatnonzero([label in taught for label in labels_of(cells).tolist()]))
    figures = score(labels_of(cells), _predict(predict, cells, method))
    return {"accuracy": figures["accuracy"], "macro_f1": figures["macro_f1"], "cells": float(len(cells))}


def _taught_types(stages: Sequence[StageCells]) -> set[str]:
    """Return the types that the stages teach."""
    return set(labels_of(*(stage.train for stage in stages)).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:3])
