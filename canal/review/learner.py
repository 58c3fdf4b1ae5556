"""The process that teaches: ``python -m canal.review.learner FOLDER``; see `canal.review.teaching`."""

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.errors import CanalError
from canal.files import write_file_whole, write_whole
from canal.progress import Progress
from canal.report.h5ad import write_adata
from canal.review.opening import places_of, reviewed_answers
from canal.review.teaching import CELLS, ERROR, LABELS, NAMES, PROGRESS, REQUEST, RESULT, ROWS, FileProgress
from canal.review.values import TeachingResult
from canal.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import anndata as ad

    from canal.report.annotation import Annotation
    from canal.stages.request import StageResult


def teach(folder: Path) -> None:
    """Learn what a folder asks for, and write there what came of it.

    Parameters
    ----------
    folder
        Of the teaching.
    """
    begin = time.monotonic()
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    try:
        result = _taught(folder, request, FileProgress(folder / PROGRESS), begin)
    except CanalError as error:
        write_whole(folder / ERROR, json.dumps({"error": str(error)}).encode())
        return
    except Exception as error:
        write_whole(folder / ERROR, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        raise  # for the log
    write_whole(folder / RESULT, json.dumps(asdict(result)).encode())


def _taught(folder: Path, request: dict[str, Any], progress: Progress, begin: float) -> TeachingResult:
    workspace = open_workspace(request["workspace"], registry=request["registry"])
    places = places_of(Path(request["reviewed"]))
    # 1. The cells, as a file of their own: later stages are tested on some of them.
    progress.start(1, "writing the cells")
    rows, names = np.load(folder / ROWS), np.load(folder / NAMES)
    cells = _cells_to_teach(places.cells, rows, names.tolist())
    write_file_whole(folder / CELLS, partial(write_adata, cells))
    # 2. The stage; it stays a candidate whatever the rule of promotion says.
    progress.start(1, "preparing the stage")
    result = workspace.add_stage(
        folder / CELLS,
        labels=LABELS,
        name=request["name"],
        overrides=request["overrides"],
        gene_key=request["gene_key"],
        # A model that answers as specifically as it is sure of goes on doing so.
        ontology="off" if workspace.model().sure is None else "auto",
        again=True,
        promote=False,
        progress=progress,
    )
    # 3. What it would change: in this file, on held-out cells, in the matrix of the stages.
    parent = workspace.stage(result.parent)
    before = reviewed_answers(workspace, places, parent, request["gene_key"], progress)
    after = workspace.annotate(places.cells, stage=result.stage, gene_key=request["gene_key"], progress=progress)
    named = {}
    for name in request["types"]:
        of_name = rows[names == name]
        named[name] = {"cells": len(of_name), "answers": int((after.cell_type[of_name] == name).sum())}
    return _result(workspace, result, _changes(before, after), named, time.monotonic() - begin)


def _cells_to_teach(path: Path, rows: np.ndarray, names: list[str]) -> "ad.AnnData":
    """Return some cells of a file with all they have there, and their types in the column `LABELS`."""
    import warnings

    import anndata as ad
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        stored = ad.read_h5ad(path, backed="r")
        try:
            cells = stored[rows].to_memory()
        finally:
            stored.file.close()
    if LABELS in cells.obs:
        cells.obs[f"{LABELS}_given"] = cells.obs[LABELS]
    cells.obs[LABELS] = pd.Categorical(names)
    return cells


def _changes(before: "Annotation", after: "Annotation") -> dict[str, Any]:
    """Return what changes in the reviewed file."""
    old, new = before.cell_type.astype(str), after.cell_type.astype(str)
    changed = old != new
    pairs = Counter(zip(old[changed].tolist(), new[changed].tolist(), strict=True))
    changes = []
    for (first, second), cells in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        changes.append({"from": first, "to": second, "cells": cells})
    return {
        "cells": len(old),
        "changed": int(changed.sum()),
        "changes": changes,
        "types_before": dict(Counter(old.tolist()).most_common()),
        "types_after": dict(Counter(new.tolist()).most_common()),
        "status_before": _statuses(before),
        "status_after": _statuses(after),
    }


def _statuses(annotation: "Annotation") -> dict[str, int]:
    status = annotation.columns.get("status")
    return {} if status is None else dict(Counter(map(str, status.tolist())).most_common())


def _result(
    workspace: Workspace,
    result: "StageResult",
    changes: dict[str, Any],
    recall: dict[str, dict[str, int]],
    seconds: float,
) -> TeachingResult:
    record = workspace.stage(result.stage)
    # The matrix of the stages in use and of the candidate.
    report = workspace.compare()
    return TeachingResult(
        stage=result.stage,
        name=result.name,
        parent=result.parent,
        new_types=tuple(result.new_types),
        held_back=str(record.notes.get("held_back") or ""),
        stages=tuple((row.number, row.name) for row in report.stages),
        sets=tuple((column.stage, column.name) for column in report.sets),
        accuracy=report.accuracy,
        forgetting=tuple(row.forgetting for row in report.stages),
        held_out=tuple(result.tested),
        file=changes,
        recall=recall,
        warnings=tuple(result.warnings),
        seconds=round(seconds, 1),
    )


if __name__ == "__main__":
    teach(Path(sys.argv[1]))
