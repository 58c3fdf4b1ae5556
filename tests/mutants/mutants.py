"""The list of plausible bugs, and a copy of the project that one of them at a time is put into.

A bug is data, in the tables ``*.toml`` beside this file: a file, a text of it that occurs once, what stands there
instead, and the tests that must fail then.
"""

import importlib
import importlib.util
import os
import shutil
import signal
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
COPIED = ("canal", "configs", "tests", "benchmarks", "stages", "registry", "docs", "pyproject.toml", "README.md")
LIMIT = 180.0  # seconds for the tests of one bug: one that never ends is caught as well
FAILED, NONE_RUN = 1, 5  # exit codes of pytest
# The libraries were imported before pytest could look at them: no fault of theirs.
NO_NOTICE = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
OPTIONS = ("-q", "-x", "-p", "no:cacheprovider", "--no-header", *NO_NOTICE)
LIBRARIES = (
    "pytest",
    "hypothesis",
    "numpy",
    "pandas",
    "scipy.optimize",
    "scipy.linalg",
    "sklearn.metrics",
    "anndata",
    "scanpy",
    "torch",
    "canal.training.avalanche",
    "faiss",
    "pydantic",
    "typer",
    "rich.table",
    "jinja2",
    "safetensors.torch",
)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One plausible bug.

    Attributes
    ----------
    area, name
        The table it stands in; what is wrong, in words.
    file
        The file, relative to the project.
    old, new
        A text that occurs once in the file, and what stands there instead.
    tests
        Ids of tests that must fail.
    """

    area: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the tests said of a bug: ``caught``, ``survived``, or ``broken`` where they could not be run at all."""

    mutant: Mutant
    verdict: str
    seconds: float
    told: str


def read_mutants() -> list[Mutant]:
    """Return all bugs of all tables, in their order."""
    mutants = []
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        for entry in table["mutant"]:
            values = entry | {"tests": tuple(entry["tests"])}
            mutants.append(Mutant(area=path.stem, **values))
    return mutants


def misplaced(mutant: Mutant, root: Path = ROOT) -> str:
    """Return why a bug cannot be put in any more; empty where it can."""
    path = root / mutant.file
    if not path.is_file():
        return f"{mutant.area}, {mutant.name}: {mutant.file} is not there"
    times = path.read_text(encoding="utf-8").count(mutant.old)
    if times != 1:
        return f"{mutant.area}, {mutant.name}: the text occurs {times} times in {mutant.file}, expected once"
    if mutant.old == mutant.new:
        return f"{mutant.area}, {mutant.name}: changes nothing"
    for test in mutant.tests:
        file, *names = test.partition("[")[0].split("::")
        text = (root / file).read_text(encoding="utf-8") if (root / file).is_file() else ""
        if not all(f"{name}(" in text for name in names[-1:]) or not text:
            return f"{mutant.area}, {mutant.name}: there is no test {test}"
    return ""


def copy_tree(folder: Path) -> Path:
    """Copy what the tests need of the project into a folder, and return it."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignore)
        elif source.is_file():
            shutil.copy2(source, folder / name)
    return folder


@contextmanager
def put_in(mutant: Mutant, tree: Path) -> Iterator[None]:
    """Put a bug into a copy of the project, and take it out again."""
    path = tree / mutant.file
    before = path.read_text(encoding="utf-8")
    compiled = Path(importlib.util.cache_from_source(str(path)))
    try:
        path.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
        # Python tells a changed file by its second and size alone.
        compiled.unlink(missing_ok=True)
        yield
    finally:
        path.write_text(before, encoding="utf-8")
        compiled.unlink(missing_ok=True)


def preload() -> None:
    """Import the libraries that the tests need, once for all bugs: they take longer than most tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in LIBRARIES:
            # What is not installed is what no test that runs here needs.
            with suppress(ImportError):
                importlib.import_module(library)


def run_tests(tests: Sequence[str], tree: Path, *options: str) -> tuple[int | None, str]:
    """Run tests in a copy of the project; return pytest's exit code, ``None`` beyond the limit, and what it printed.

    A bug may kill the interpreter or never end: it has a process of its own, forked from this one.
    """
    printed = tree / "printed.txt"
    process = os.fork()
    if process == 0:
        _run_pytest([*OPTIONS, *options, *tests], tree, printed)
    code = _exit_code(process)
    return code, printed.read_text(encoding="utf-8", errors="replace") if printed.is_file() else ""


def _run_pytest(arguments: Sequence[str], tree: Path, printed: Path) -> NoReturn:
    """Run pytest in this process, on the copy's own modules, and leave with its exit code."""
    code = NONE_RUN
    try:
        os.setsid()  # so that whatever it starts can be ended with it
        output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Nothing of the project itself comes from where this process was started.
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        for name in list(sys.modules):
            if name.split(".")[0] in {"canal", "tests"}:
                del sys.modules[name]
        sys.path[:] = [str(tree), *(folder for folder in sys.path if folder not in {"", str(ROOT), str(tree)})]
        import pytest

        code = int(pytest.main([*arguments]))
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent is told by what was printed
        traceback.print_exc()
    finally:
        os._exit(code)


def _exit_code(process: int) -> int | None:
    """Return the exit code of a child, less than 0 for a signal; ``None`` where it had to be ended."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def try_mutant(mutant: Mutant, tree: Path) -> Outcome:
    """Put a bug into a copy of the project and run its tests."""
    begin = time.perf_counter()
    with put_in(mutant, tree):
        code, printed = run_tests(mutant.tests, tree)
    # A test that fails or never ends has caught it, and so has one that dies of a signal.
    verdict = "survived" if code == 0 else "broken"
    if code is None or code < 0 or code == FAILED:
        verdict = "caught"
    failed = [line for line in printed.splitlines() if line.startswith(("FAILED", "ERROR"))]
    told = failed[0].partition(" - ")[0].removeprefix("FAILED ") if failed else printed.strip().splitlines()[-1]
    return Outcome(mutant=mutant, verdict=verdict, seconds=time.perf_counter() - begin, told=told)
