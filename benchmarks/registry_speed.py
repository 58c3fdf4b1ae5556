"""How long the registry takes: compare twenty stages, list two hundred, open a model.

python -m benchmarks.registry_speed [WORKSPACE]

WORKSPACE is one with a learned stage, whose champion is what is measured; by default a toy one is learned. Every figure
is of a process of its own, the start of Python counted in; the shortest of three. Beside it what is asked for.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import canal
from canal.model.record import StageRecord
from canal.registry.registry import Registry
from canal.stages.layout import open_registry
from canal.stages.testing.tests import TESTS_FILE
from tests.integration.registry.conftest import add
from tests.integration.registry.test_process import multiply
from tests.integration.test_compare_many import kept_of
from tests.make import make_adata

STAGES, MANY = 20, 200
REPEATS = 3
MODEL = "lab"

_OPEN = """
import json, sys, time
begin = time.perf_counter()
import torch
torch_seconds = time.perf_counter() - begin
import canal
begin = time.perf_counter()
canal.open_workspace(sys.argv[1]).model()
print(json.dumps([torch_seconds, time.perf_counter() - begin]))
"""


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory(prefix="canal-speed-") as folder:
        root = Path(folder)
        learned = canal.open_workspace(sys.argv[1]) if len(sys.argv) > 1 else toy(root / "toy")
        record = learned.stage()
        print(f"stage {record.number} of {learned.root.name}: {record.genes} genes, {len(record.types)} types\n")
        compared = twenty(learned, root / "twenty" / MODEL)
        cache = compared / "registry" / "cache"
        page = root / "report.html"
        show(f"canal compare, {STAGES} stages", command(compared, "compare"), 5)
        shutil.rmtree(cache, ignore_errors=True)
        first = command(compared, "compare", "--html", str(page), repeats=1)
        show(f"canal compare --html, {STAGES} stages, and one map to compute", first, None)
        show("the same again", command(compared, "compare", "--html", str(page)), 5)
        show(f"canal stage list, {MANY} stages", command(two_hundred(root / "many" / MODEL), "stage", "list"), 1)
        torch, opened = min((opening(learned.root) for _ in range(REPEATS)), key=lambda pair: pair[1])
        show(f"open the model (import of torch before it: {torch:.2f} s)", (opened, None), 2)


def show(what: str, seconds: tuple[float, float | None], limit: float | None) -> None:
    """Print one line: seconds that passed, seconds of the processor, what is asked for."""
    wall, cpu = seconds
    of_cpu = "" if cpu is None else f", {cpu:.2f} s of the processor"
    asked = "" if limit is None else f"; asked for: {limit:g} s"
    print(f"{what}: {wall:.2f} s{of_cpu}{asked}", flush=True)


def command(workspace: Path, *words: str, repeats: int = REPEATS) -> tuple[float, float]:
    """Return the seconds of a command line, and of the processor; the shortest of some."""
    line = [sys.executable, "-m", "canal.cli.main", "-C", str(workspace), *words]
    found = []
    for _ in range(repeats):
        begin, before = time.perf_counter(), os.times()
        subprocess.run(line, check=True, capture_output=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        found.append((time.perf_counter() - begin, used))
    return min(found)


def opening(workspace: Path) -> tuple[float, float]:
    """Return the seconds to import torch, and from then on to the opened model."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(workspace.resolve())], check=True, capture_output=True, text=True
    )
    torch, opened = json.loads(done.stdout)
    return float(torch), float(opened)


def toy(root: Path) -> "canal.Workspace":
    """Learn a stage of toy cells with the default preset."""
    workspace = canal.open_workspace(root, create=True)
    workspace.add_stage(make_adata(2000, 8000, types=8), labels="cell_type", overrides=("training.epochs=1",))
    return workspace


def twenty(learned: "canal.Workspace", root: Path) -> Path:
    """Commit the files of a learned stage twenty times, each with the tests of its own and all earlier stages."""
    source = open_registry(learned.layout)
    record = source.record()
    folder = source.artifacts(record)
    registry = Registry.open(root / "registry", MODEL, create=True)
    (root / "canal.toml").write_text(f'name = "{MODEL}"\n')
    for number in range(1, STAGES + 1):
        draft = registry.draft(f"copy-{number}")
        kept_of(number).write(draft.folder / TESTS_FILE)
        files = {name: folder / name for name in record.artifacts if name != TESTS_FILE} | {
            TESTS_FILE: draft.folder / TESTS_FILE
        }
        draft.commit(numbered(record, number), files)
    registry.close()
    return root


def numbered(record: StageRecord, number: int) -> StageRecord:
    """Return a record as that of another stage of a line."""
    return record.with_fields(number=number, name=f"stage{number}", parent=number - 1 or None, notes={})


def two_hundred(root: Path) -> Path:
    """Make a registry of two hundred stages, copies in the database alone."""
    registry = Registry.open(root / "registry", MODEL, create=True)
    (root / "canal.toml").write_text(f'name = "{MODEL}"\n')
    add(registry, 1)
    registry.close()
    multiply(root / "registry" / "mlflow.db", MANY)
    return root


if __name__ == "__main__":
    main()
