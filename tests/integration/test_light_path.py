"""Annotating needs a few libraries only: those of requirements-annotate.txt."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement

import canal
from tests.labs import write

ROOT = Path(__file__).parents[2]


def listed() -> list[str]:
    """Return the requirements of annotating."""
    lines = (ROOT / "requirements-annotate.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def plain(name: str) -> str:
    """Return a name of a distribution in one spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def with_what_they_need(requirements: list[str]) -> set[str]:
    """Return the distributions that pip would install, by name, as far as they are installed here."""
    chosen: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = plain(requirement.name)
        unwanted = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        if name in chosen or unwanted:
            continue
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        chosen.add(name)
        waiting += [Requirement(text) for text in needed]
    return chosen


def without_the_rest(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command where only what annotating needs can be imported."""
    allowed = with_what_they_need(listed()) | {"canal"}
    blocked = []
    for name, owners in importlib.metadata.packages_distributions().items():
        if not allowed & {plain(owner) for owner in owners} and name not in {"_distutils_hack", "tests"}:
            blocked.append(name)
    assert {"torch", "mlflow", "avalanche", "anndata", "scanpy", "sklearn", "matplotlib", "zarr"} <= set(blocked)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked)!r}));"
        "from canal.cli.main import main; sys.argv[0] = 'canal'; main()"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def model(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a model."""
    path = tmp_path_factory.mktemp("model") / "lab.canal"
    canal.open_workspace(lab / "ws").export(path)
    return path


def test_annotating_needs_what_is_listed_and_no_more(lab: Path, model: Path, tmp_path: Path) -> None:
    """With the file of a model, to a table and to h5ad: the answer of the whole installation."""
    query = write(tmp_path, "query", ("B", "NK"), 40, seed=7)
    for out in ("a.csv", "a.h5ad"):
        done = without_the_rest("annotate", "--model", model, "--data", query, "--out", tmp_path / out, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["cells"] == 40
    expected = canal.open_workspace(lab / "ws").annotate(query)
    assert list(pd.read_csv(tmp_path / "a.csv")["cell_type"]) == list(expected.cell_type)


def test_what_needs_more_says_so(lab: Path, tmp_path: Path) -> None:
    """One message that names the library; no traceback, and nothing of a damaged file."""
    query = write(tmp_path, "query", ("B", "NK"), 40, seed=7)

    done = without_the_rest("-C", lab / "ws", "stage", "add", "--data", query, "--labels", "cell_type")

    assert done.returncode == 2
    assert re.fullmatch(r"error: This needs \w+, which is not installed here\. Install all of canal: .*\n", done.stderr)


def test_the_list_is_part_of_what_canal_needs() -> None:
    """Under the same bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(listed()) <= set(project["dependencies"])
