"""What a pipeline runs annotates from one file, and says the version that it is of."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import anndata as ad
import pandas as pd
import pytest

import canal
from tests.labs import write

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "docs/pipelines"
SNAKEMAKE = shutil.which("snakemake")


@pytest.fixture
def folder(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a model, cells, and the command `canal` on the path."""
    canal.open_workspace(lab / "ws").export(tmp_path / "model.canal")
    (tmp_path / "cells").mkdir()
    write(tmp_path / "cells", "one", ("B", "NK"), 40, seed=7)
    script = tmp_path / "bin/canal"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m canal.cli.main "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def annotated_alike(lab: Path, folder: Path, out: Path) -> bool:
    """Tell whether a file holds the answer of the workspace that the model came from."""
    expected = canal.open_workspace(lab / "ws").annotate(folder / "cells/one.h5ad")
    types = pd.read_csv(out)["cell_type"] if out.suffix == ".csv" else ad.read_h5ad(out).obs["canal_cell_type"]
    return list(types) == list(expected.cell_type)


class Named(list[str]):
    """Files of a rule, by place and by name, as Snakemake gives them."""

    def __getattr__(self, name: str) -> str:
        for value in self:
            if Path(value).stem == name or name in value:
                return value
        raise AttributeError(name)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return a file by its name."""
        return getattr(self, name, default)


def run_wrapper(inputs: list[str], out: str, params: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the wrapper as Snakemake runs it, with a shell that quotes where it is asked to."""

    def shell(command: str) -> None:
        caller = sys._getframe(1).f_globals
        words = re.sub(r"\{([^}:]+):q\}", lambda match: f"'{eval(match[1], caller)}'", command)
        words = re.sub(r"\{([^}]+)\}", lambda match: str(eval(match[1], caller)), words)
        subprocess.run(words, shell=True, check=True)

    monkeypatch.setitem(sys.modules, "snakemake", types.ModuleType("snakemake"))
    monkeypatch.setitem(sys.modules, "snakemake.shell", SimpleNamespace(shell=shell))
    rule = SimpleNamespace(
        input=Named(inputs), output=[out], params=params, threads=1, log_fmt_shell=lambda **_: "> log 2>&1"
    )
    runpy.run_path(str(PIPELINES / "snakemake/annotate/wrapper.py"), init_globals={"snakemake": rule})


def test_the_command_of_the_snakemake_wrapper(lab: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It annotates with the model that is an input, and passes further options on."""
    (folder / "data.h5ad").symlink_to(folder / "cells/one.h5ad")
    run_wrapper(["data.h5ad", "model.canal"], "out.h5ad", {"extra": "--key-added canal --scores all"}, monkeypatch)

    assert annotated_alike(lab, folder, folder / "out.h5ad")
    assert "canal_probabilities" in ad.read_h5ad(folder / "out.h5ad").obsm
    with pytest.raises(ValueError, match="Name a model"):
        run_wrapper(["data.h5ad"], "other.h5ad", {}, monkeypatch)


@pytest.mark.skipif(SNAKEMAKE is None, reason="Snakemake is not installed")
def test_snakemake_runs_the_rule(lab: Path, folder: Path) -> None:
    """The Snakefile annotates every file of the folder through the wrapper."""
    assert SNAKEMAKE is not None
    snakefile = PIPELINES / "snakemake/Snakefile"
    command = [SNAKEMAKE, "--cores", "1", "--snakefile", str(snakefile), "--config", "model=model.canal"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Snakemake lives in an environment of its own; only the command of the rule sees this canal.
    script = folder / "bin/canal"
    script.write_text(script.read_text().replace("exec ", f'export PYTHONPATH="{ROOT}"\nexec '))

    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)

    assert done.returncode == 0, done.stderr
    assert annotated_alike(lab, folder, folder / "annotated/one.h5ad")


def rendered(text: str, values: dict[str, Any]) -> str:
    """Return the command of a Galaxy tool for some inputs: its `#if`, `#else` and `$name`, which is all it uses."""
    lines, shown = [], [True]
    for line in text.splitlines():
        word = line.strip().split(" ")[0]
        if word == "#if":
            shown.append(bool(eval(line.strip().removeprefix("#if ").replace("$", ""), dict(values))))
        elif word == "#else":
            shown[-1] = not shown[-1]
        elif line.strip() == "#end if":
            shown.pop()
        elif all(shown):
            lines.append(re.sub(r"(?<!\\)\$([a-z_.]+)", lambda match: str(eval(match[1], dict(values))), line))
    assert shown == [True], "an #if that does not end"
    return " ".join(lines).replace("\\$", "$").strip()


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("kind", ["file", "shipped"])
def test_the_command_of_the_galaxy_tool(lab: Path, folder: Path, kind: str, table: bool) -> None:
    """It writes the file that the tool collects, and the model of the history is the one that answers."""
    tool = ElementTree.parse(PIPELINES / "galaxy/canal_annotate.xml").getroot()
    command = tool.findtext("command")
    assert command is not None
    source = SimpleNamespace(kind=kind, name="blood", model=folder / "model.canal")
    values = {"data": folder / "cells/one.h5ad", "source": source, "alpha": 0.05}
    values |= {"adapt": "--adapt", "scores": "", "table": table}
    place = folder / "job"
    place.mkdir()

    line = rendered(command, values)
    if kind == "shipped":  # whose genes the toy cells have not: the tool fails, with canal's words
        done = subprocess.run(line, shell=True, check=False, cwd=place, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("error: ")
        return
    subprocess.run(line, shell=True, check=True, cwd=place)

    outputs = {data.get("name"): str(data.get("from_work_dir")) for data in tool.iter("data")}
    assert annotated_alike(lab, folder, place / outputs["types" if table else "annotated"])


def test_a_dockerfile_copies_what_is_there() -> None:
    """And all that the wheel is built from: the images are not built here."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for path in sorted((PIPELINES / "docker").iterdir()):
        copied = set()
        for line in path.read_text().splitlines():
            if line.startswith("COPY "):
                copied |= set(line.split()[1:-1])
        assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []
        assert {*needed["packages"], *needed["force-include"], "pyproject.toml", "README.md", "LICENSE"} <= copied, path


def test_the_recipe_needs_what_annotating_needs() -> None:
    """The conda recipe names the short list, under the same bounds."""
    recipe = (PIPELINES / "conda/meta.yaml").read_text()
    run = recipe[recipe.index("  run:") : recipe.index("\ntest:")]
    named = {line.strip(" -").replace(" ", "") for line in run.splitlines()[1:] if line.strip()}
    listed = (ROOT / "requirements-annotate.txt").read_text().splitlines()
    assert named == {line for line in listed if line and not line.startswith("#")} | {"python>=3.11"}


def test_one_version() -> None:
    """Citation, recipe, tool and images name the version of the package."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    named = {
        "CITATION.cff": rf"^version: {re.escape(version)}$",
        "CHANGELOG.md": rf"^## \[{re.escape(version)}\]",
        "docs/pipelines/conda/meta.yaml": rf'version = "{re.escape(version)}"',
        "docs/pipelines/galaxy/canal_annotate.xml": rf'version="{re.escape(version)}\+galaxy0"',
        "docs/pipelines/nextflow/canal/annotate/main.nf": rf'container "canal:{re.escape(version)}"',
        "docs/pipelines/snakemake/annotate/environment.yaml": rf"canal =={re.escape(version)}$",
        "docs/pipelines/docker/Dockerfile": rf"canal:{re.escape(version)} ",
    }
    for path, pattern in named.items():
        assert re.search(pattern, (ROOT / path).read_text(), flags=re.MULTILINE), f"{path} is of another version"
