"""Every command that writes, while the disk fails at any of its writes: nothing is lost, and it can be run again.

Watched is a folder with a workspace and what the command writes beside it. After each fault the stages are as before
(exit code 2) or as after the command (0), ``registry verify`` is clean, the first stage annotates as it did, no output
is there in part, and the command runs. Run with the library of ``shim.c`` preloaded; by hand, for all faults::

    gcc -shared -fPIC -o fault.so tests/faults/shim.c -ldl
    LD_PRELOAD=$PWD/fault.so OMP_NUM_THREADS=1 python -m tests.faults.commands --folder EMPTY
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import canal
from canal.cli.main import app
from canal.registry.store import import_mlflow
from tests.faults.sweep import ERRORS, Outcome, faults, forked, summary
from tests.learning import QUICK
from tests.make import make_adata

# What each command does, in a workspace of three stages; OUT is what it writes beside it.
COMMANDS: dict[str, tuple[str, ...]] = {
    "add": ("stage", "add", "--data", "CELLS", "--labels", "cell_type", *(f"--set={value}" for value in QUICK)),
    "promote": ("stage", "promote", "1"),
    "rollback": ("stage", "rollback"),
    "remove": ("stage", "remove", "2"),
    "rename": ("labels", "rename", "B", "B cell"),
    "gc": ("registry", "gc"),
    "import": ("registry", "import", "PACKAGE"),
    "export": ("registry", "export", "3", "OUT.canal"),
    "site export": ("site", "export", "OUT.canal", "--min-cells", "5"),
    "compare": ("compare", "--html", "OUT.html"),
    "diff": ("stage", "diff", "1", "3", "--data", "CELLS", "--out", "OUT.csv"),
    "novel": ("novel", "find", "--data", "CELLS", "--out", "OUT"),
    "csv": ("annotate", "--data", "CELLS", "--out", "OUT.csv"),
    "labels": ("labels", "suggest", "--data", "CELLS", "--labels", "cell_type", "--out", "OUT.csv"),
}


@dataclass(frozen=True)
class State:
    """What is there: the stages, which of them annotates, and the names of what a command wrote."""

    stages: list[Any]
    outputs: list[str]


class Lab:
    """A folder that is made anew for each fault, with a workspace, cells and a package of another workspace."""

    def __init__(self, folder: Path) -> None:
        self._keep, self.folder, self._note = folder / "keep", folder / "watched", folder / "note"
        self._keep.mkdir(parents=True)
        self.counted = 0  # writes of the last command below the folder

    def make(self) -> None:
        """Learn three stages, and one elsewhere; in a process of its own, as no other may have the registry open."""
        for seed, types in enumerate((("B", "NK"), ("B", "CD4 T"), ("B", "HSC"), ("NK", "Mono"))):
            make_adata(60, types=types, seed=seed, prefix=f"c{seed}").write_h5ad(self._keep / f"{seed}.h5ad")
        for root, files in {"ws": (0, 1, 2), "other": (1,)}.items():
            workspace = canal.open_workspace(self._keep / root, create=True)
            for number in files:
                workspace.add_stage(self._keep / f"{number}.h5ad", labels="cell_type", overrides=QUICK)
        workspace.export(self._keep / "package.canal", 1)
        shutil.rmtree(self._keep / "other")
        # What a killed run left, for the garbage collection.
        (self._keep / "ws" / "registry" / "artifacts" / "left").mkdir(parents=True)
        (self._keep / "ws" / "registry" / "artifacts" / "left" / "over").write_text("left")

    def prepare(self) -> None:
        """Make the folder as it is before the command."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._keep, self.folder)

    def words(self, command: Sequence[str]) -> list[str]:
        """Return the command line, with the paths of this folder."""
        paths = {"CELLS": str(self.folder / "3.h5ad"), "PACKAGE": str(self.folder / "package.canal")}
        out = str(self.folder / "OUT")
        return [paths.get(word, out + word.removeprefix("OUT") if word[:3] == "OUT" else word) for word in command]

    def call(self, words: Sequence[str], number: int = 0, error: int = 0, *, for_good: bool = False) -> tuple[int, str]:
        """Run a command in a forked process, with a fault where a number is given; return its exit code and words."""
        command = partial(app, ["-C", str(self.folder / "ws"), *words])
        code, self.counted, told = forked(command, self.folder, number, error, for_good=for_good, note=self._note)
        return code, told

    def state(self) -> State:
        """Return what is there; raises where the stages cannot be listed."""
        code, told = self.call(["stage", "list", "--json"])
        assert code == 0, told
        listed = json.loads(told)
        stages = [[stage["number"], stage["name"], stage["parent"]] for stage in listed["stages"]]
        outputs = sorted(str(path.relative_to(self.folder)) for path in self.folder.glob("[.]*OUT*"))
        outputs += sorted(str(path.relative_to(self.folder)) for path in self.folder.glob("OUT*"))
        return State([*stages, listed.get("champion")], [name for name in outputs if not name.endswith(".tmp")])

    def healthy(self, answer: bytes) -> str:
        """Return what is wrong with what was there before; an empty text where nothing is."""
        code, told = self.call(["registry", "verify"])
        if code != 0:
            return f"verify: {told[-300:]}"
        return "" if self.answer() == answer else "the first stage annotates otherwise"

    def answer(self) -> bytes:
        """Return what the first stage answers."""
        out = self.folder.parent / "answer.csv"
        out.unlink(missing_ok=True)
        words = ["annotate", "--stage", "1", "--data", str(self.folder / "0.h5ad"), "--out", str(out)]
        code, told = self.call(words)
        return out.read_bytes() if code == 0 else told.encode()


def judge(lab: Lab, name: str, code: int, told: str, states: tuple[State, State], answer: bytes) -> str:
    """Return what is wrong with an outcome; an empty text where it is right."""
    before, after = states
    words = lab.words(COMMANDS[name])
    if "Traceback" in told or "Exception ignored" in told:
        return "a traceback"
    if code not in {0, 2}:
        return f"ended with {code}"
    found = lab.state()
    if found != (after if code == 0 else before):
        committed = "though it is done" if code == 2 and found.stages == after.stages != before.stages else ""
        return f"exit {code} {committed}: {found}"
    wrong = lab.healthy(answer)
    if wrong or code == 0:
        return wrong
    # It can be run again.
    code, told = lab.call(words)
    if code != 0 or lab.state() != after:
        return f"again: exit {code}: {told[-300:]}"
    return lab.healthy(answer)


def sweep(lab: Lab, name: str, few: int) -> list[Outcome]:
    """Try the faults of one command: all, or at a few places spread evenly, with one kind of fault each."""
    lab.prepare()
    words, before, answer = lab.words(COMMANDS[name]), lab.state(), lab.answer()
    code, told = lab.call(words)
    operations, after = lab.counted, lab.state()
    assert (code, lab.healthy(answer)) == (0, ""), told
    assert operations > 0, f"{name} wrote nothing"
    found = []
    for number, error, for_good in faults(operations, few):
        lab.prepare()
        code, told = lab.call(words, number, ERRORS[error], for_good=for_good)
        wrong = judge(lab, name, code, told, (before, after), answer)
        found.append(Outcome(name, number, error, for_good, code, wrong, told if wrong else told[-300:]))
    return found


def main() -> None:
    """Write the outcomes as JSON, and print how many are right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--few", type=int, default=0, help="about so many faults of each command; all by default")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    given = parser.parse_args()
    lab = Lab(given.folder)
    child = os.fork()
    if child == 0:
        lab.make()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the workspace could not be made"
    import_all()
    found: list[Outcome] = []
    for name in given.commands:
        mine = sweep(lab, name, given.few)
        found += mine
        (given.folder / "outcomes.json").write_text(json.dumps([asdict(fault) for fault in found], indent=1))
        sys.stdout.write(summary(name, mine))
        for fault in mine:
            if fault.wrong:
                sys.stdout.write(f"  {fault.number} {fault.error} {fault.for_good}: {fault.wrong[:200]}\n")
        sys.stdout.flush()


def import_all() -> None:
    """Import what the commands need, so that forked processes do not."""
    import_mlflow()
    import canal.training.avalanche
    import canal.workspace  # noqa: F401 - for the forked processes


if __name__ == "__main__":
    main()
