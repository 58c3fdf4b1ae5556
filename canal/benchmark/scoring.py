"""One method over one stream: the one driver of all methods."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from canal.benchmark.method import Context, Method, Predict, labels_of
from canal.benchmark.stream import StageCells
from canal.data.cells import Cells
from canal.stages.metrics import score


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
