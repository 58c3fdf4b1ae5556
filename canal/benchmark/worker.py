"""One cell of the table in a process of its own: ``python -m canal.benchmark.worker TASK RESULT``.

So the peak memory is the method's, and a method that crashes takes nothing else along.
"""

import json
import os
import resource
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

from canal.benchmark.method import Context, Method, Unavailable
from canal.benchmark.registry import find_method
from canal.benchmark.scoring import run_method
from canal.benchmark.stream import read_stage, read_stream, read_test, types_of
from canal.config import load_preset
from canal.errors import CanalError


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
