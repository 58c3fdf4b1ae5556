"""`canal annotate --out` while the disk fails: every place where it may, and what is there afterwards.

Run with the library of ``shim.c`` preloaded. What is needed is imported once; then each fault has a forked process of
its own. By hand, for all faults::

    gcc -shared -fPIC -o fault.so tests/faults/shim.c -ldl
    LD_PRELOAD=$PWD/fault.so python -m tests.faults.sweep --workspace WS --folder EMPTY
"""

import argparse
import ctypes
import errno
import json
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np

import canal
from canal.cli.main import app
from canal.errors import CanalError
from tests.make import make_adata

LIBRARY = ctypes.CDLL(None)
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
KINDS = tuple((error, for_good) for error in ERRORS for for_good in (False, True))
WAYS = ("in place", "new", "zarr", "adata")


@dataclass(frozen=True)
class Outcome:
    """What one fault led to; ``wrong`` is empty where that is right."""

    way: str
    number: int
    error: str
    for_good: bool
    code: int
    wrong: str
    told: str


def contents(path: Path) -> dict[str, Any]:
    """Return all that stands in an HDF5 file: shapes, kinds, values and attributes."""
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        found[name] = {k: np.asarray(v).tolist() for k, v in item.attrs.items()}
        if isinstance(item, h5py.Dataset):
            values = np.asarray(item[()])
            found[f"{name} values"] = (values.shape, str(item.dtype), values.tolist())

    with h5py.File(path, "r") as file:
        note("/", file)
        file.visititems(note)
    return found


def cells_to_annotate() -> ad.AnnData:
    """Return a few cells, with a layer."""
    cells = make_adata(24, types=("B", "NK"), seed=5)
    cells.layers["counts"] = cells.X.copy()
    return cells


class Way:
    """One way to annotate, in a folder of its own that is made anew for each fault."""

    def __init__(self, name: str, workspace: Path, folder: Path) -> None:
        self.name, self._workspace = name, workspace
        self._keep, self.folder = folder / "keep", folder / "watched"
        self._keep.mkdir(parents=True)
        cells = cells_to_annotate()
        if name == "zarr":
            self._source = self._keep / "cells.zarr"
            cells.write_zarr(self._source)
        else:
            self._source = self._keep / "cells.h5ad"
            cells.write_h5ad(self._source)
        self._in_place = name == "in place"
        self.out = self.folder / ("cells.h5ad" if self._in_place else "out.h5ad")

    def prepare(self) -> None:
        """Make the folder as it is before the command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if self._in_place:
            shutil.copyfile(self._source, self.out)

    def command(self) -> None:
        """Annotate; ends with SystemExit."""
        data = self.out if self._in_place else self._source
        if self.name == "adata":  # written by anndata, as cells from Python and from 10x files are
            _annotate_in_memory(self._workspace, data, self.out)
        app(["-C", str(self._workspace), "annotate", "--data", str(data), "--out", str(self.out), "--overwrite"])

    def untouched(self) -> bool:
        """Tell whether nothing changed under the name of the output."""
        if self._in_place:
            return self.out.read_bytes() == self._source.read_bytes()
        return not self.out.exists()


def answer_once(workspace: Path, cells: ad.AnnData) -> None:
    """Let `canal annotate` compute nothing any more: what it writes is the same for every fault."""
    from canal.stages import annotate as module

    answer = canal.open_workspace(workspace).annotate(cells)
    module.annotate = lambda *_args, **_options: answer


def _annotate_in_memory(workspace: Path, data: Path, out: Path) -> None:
    try:
        canal.open_workspace(workspace).annotate(ad.read_h5ad(data), out=out)
    except CanalError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from error
    raise SystemExit(0)


def run(way: Way, number: int, error: int, *, for_good: bool, note: Path) -> tuple[int, int, str]:
    """Annotate in a forked process with one fault; return exit code, operations counted and what was said."""
    way.prepare()
    return forked(way.command, way.folder, number, error, for_good=for_good, note=note)


def forked(
    command: Callable[[], None], folder: Path, number: int, error: int, *, for_good: bool, note: Path
) -> tuple[int, int, str]:
    """Run a command in a forked process; return exit code, operations counted and what was said.

    ``number`` is the operation below ``folder`` that fails; with 0 they are counted alone.
    """
    note.write_text("")
    child = os.fork()
    if child == 0:
        log = os.open(note, os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = _ended(command, folder, number, error, for_good=for_good)
        count = LIBRARY.fault_count()
        LIBRARY.fault_arm(b"/nowhere", 0, 0, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        note.with_suffix(".count").write_text(str(count))
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    count = int(note.with_suffix(".count").read_text() or 0)
    return os.waitstatus_to_exitcode(status), count, note.read_text(errors="replace")


def _ended(command: Callable[[], None], folder: Path, number: int, error: int, *, for_good: bool) -> int:
    LIBRARY.fault_arm(str(folder).encode(), ctypes.c_long(number), error, int(for_good))
    try:
        command()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001 - a bug is an outcome
        traceback.print_exc()
        return 1
    return 0


def judge(way: Way, code: int, told: str, expected: dict[str, Any]) -> str:
    """Return what is wrong with an outcome; an empty text where it is right."""
    noise = "a traceback" if "Traceback" in told or "Exception ignored" in told else ""
    if code == 2:
        return noise if way.untouched() else "an error was told, but the output is not as it was"
    if code != 0:
        return f"ended with {code}"
    try:
        found = contents(way.out)
    except Exception as error:  # noqa: BLE001 - any of HDF5's
        return f"exit 0 with an unreadable output: {error}"
    different = sorted(k for k in set(found) | set(expected) if found.get(k) != expected.get(k))
    return f"exit 0 with a wrong output: {', '.join(different[:3])}" if different else noise


def sweep(workspace: Path, folder: Path, name: str, few: int) -> list[Outcome]:
    """Try the faults of one way: all, or a few places spread evenly with one kind of fault each."""
    way, note = Way(name, workspace, folder / name), folder / "note"
    code, operations, told = run(way, 0, 0, for_good=False, note=note)
    assert (code, judge(way, code, told, contents(way.out))) == (0, ""), told
    expected, found = contents(way.out), []
    for number, error, for_good in faults(operations, few):
        code, _, told = run(way, number, ERRORS[error], for_good=for_good, note=note)
        wrong = judge(way, code, told, expected)
        found.append(Outcome(name, number, error, for_good, code, wrong, told if wrong else told[-300:]))
    return found


def faults(operations: int, few: int) -> Iterator[tuple[int, str, bool]]:
    """Yield number, error, and whether for good: all, or a few places spread evenly with one kind of fault each."""
    for turn, number in enumerate(range(1, operations + 1, max(1, operations // few) if few else 1)):
        for error, for_good in KINDS if not few else KINDS[turn % len(KINDS) :][:1]:
            yield number, error, for_good


def summary(name: str, mine: Sequence[Outcome]) -> str:
    """Return how many faults there were, where, how they ended, and how many are wrong."""
    codes = {code: sum(o.code == code for o in mine) for code in sorted({o.code for o in mine})}
    places, wrong = max((o.number for o in mine), default=0), sum(bool(o.wrong) for o in mine)
    return f"{name}: {len(mine)} faults at {places} places, exit codes {codes}, {wrong} wrong\n"


def main() -> None:
    """Write the outcomes as JSON, and print how many are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--few", type=int, default=0, help="about so many faults of each way; all by default")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    answer_once(given.workspace, cells_to_annotate())
    found: list[Outcome] = []
    for name in given.ways:
        mine = sweep(given.workspace, given.folder, name, given.few)
        found += mine
        (given.folder / "outcomes.json").write_text(json.dumps([asdict(o) for o in found], indent=1))
        wrong = [o for o in mine if o.wrong]
        sys.stdout.write(summary(name, mine))
        for kind in sorted({o.wrong.split(":")[0] for o in wrong}):
            sys.stdout.write(f"  {sum(o.wrong.startswith(kind) for o in wrong)} x {kind}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
