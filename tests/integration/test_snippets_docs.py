"""Every command and every block of Python that a document shows runs, or there is a reason why it does not here."""

import csv
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import pytest
from typer.testing import CliRunner

from canal.cli.main import app
from canal.config import load_preset
from tests.labs import QUICK
from tests.make import make_adata

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"```(bash|python|console|sh)\n(.*?)```", re.DOTALL)
FOLDERS = ("", "docs", "registry", "stages", "configs")
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
ELSEWHERE = ("README.md", "docs/python.md", "CONTRIBUTING.md")  # test_snippets.py runs the first two; make and pytest

# Lines and blocks that are not run here, by how they begin, and why. A reason that names a test is a test that runs it.
NOT_RUN = {
    "canal ui": "serves until it is stopped: tests/unit/cli/test_ui.py",
    "canal -C canal-demo ui": "serves until it is stopped: tests/unit/cli/test_ui.py",
    "canal review new.h5ad": "serves until it is stopped: tests/integration/review/test_pages.py",
    "import canal\nfrom canal.review.review": (
        "teaches a stage in the background: tests/unit/review/test_review.py, tests/unit/review/test_teaching.py"
    ),
    "canal demo": "takes a minute: tests/integration/test_demo.py",
    "canal benchmark": "takes minutes to hours: tests/integration/test_benchmark.py",
    "canal stage add --data 1_baron_human": "trains for half an hour: tests/integration/test_presets.py",
    "canal stage add --data 2_baron_mouse": "trains for half an hour: tests/integration/test_presets.py",
    "canal pretrain": "trains for long: tests/integration/test_pretrain.py",
    "canal weights": "needs scBERT's checkpoint: tests/integration/test_weights.py",
    "canal stage add --preset performer --weights": "needs those weights: tests/integration/test_weights.py",
    "canal stage add --preset transanno --weights": "needs those weights: tests/integration/test_pretrain.py",
    "canal stage add --data big.h5ad --labels cell_type --preset performer --devices 4": (
        "starts four processes: tests/integration/test_processes.py"
    ),
    "canal annotate --data a.h5ad --data b.h5ad --out annotated --dask local:8": (
        "starts eight workers; with two: tests/integration/test_dask.py"
    ),
    "canal -C /shared/my-atlas annotate": "needs a scheduler of Dask: tests/integration/test_dask.py",
    "canal doctor": "imports everything: tests/unit/cli/test_doctor.py",
    "canal novel find --data new.h5ad --out novel": "as in docs/novel.md: tests/integration/novel/test_find.py",
    "canal novel name novel": "as in docs/novel.md: tests/integration/novel/test_name.py",
    "canal compare --html": "draws for a minute: tests/integration/test_compare_html.py",
    "canal explain --data cells.h5ad --type NK --out nk --enrich": (
        "needs gene sets and gseapy: tests/integration/test_explain.py"
    ),
    "canal stage replay": "learns every stage again: tests/integration/test_replay.py",
    "canal config show compact > ": "needs a shell: tests/unit/cli/test_commands.py",
    "canal stage add --data cells.h5ad --preset mine": "needs the file of the line before: tests/test_surface.py",
    "canal labels": (
        "needs the table of the line before: tests/integration/test_labels.py, tests/integration/test_relabel.py"
    ),
    "canal site": "needs files of other sites: tests/unit/sites",
    "canal merge": "needs files of other sites: tests/unit/sites/test_merge.py",
    "canal privacy": "needs an export: tests/unit/sites/test_audit.py",
    "canal evaluate --model joint.canal": "needs a merged model: tests/unit/sites/test_report.py",
    "canal models list": "needs a catalogue: tests/integration/catalogue/test_catalogue.py",
    "canal models get": "needs a catalogue: tests/integration/catalogue/test_catalogue.py",
    "canal models mirror": "needs a catalogue: tests/integration/catalogue/test_catalogue.py",
    "canal models add": "needs a model to add: tests/integration/catalogue/test_catalogue.py",
    "canal models import-celltypist": "needs a model of CellTypist: tests/unit/voter/test_voter.py",
    "canal annotate --model Immune_All_Low.voter": "needs a model of CellTypist: tests/unit/voter/test_voter.py",
    "canal init my-atlas --from Immune_All_Low.voter": (
        "needs a model of CellTypist: tests/unit/voter/test_voter_stage.py"
    ),
    "canal annotate --model blood": "needs a file of blood: tests/integration/registry/test_shipped.py",
    "torchrun": "needs several nodes",
    "#!/bin/bash": "needs SLURM",
    "#SBATCH": "needs SLURM",
    "srun": "needs SLURM",
    "from dask_jobqueue": "needs SLURM",
    "export MLFLOW": "a shell with a server",
    "mlflow models serve": "a server: tests/integration/registry/test_pyfunc.py asks the model itself",
    "curl": "asks a server",
    "docker": "starts a server: tests/integration/registry/test_server.py",
    "cd registry/server": "starts a server",
    "cp env.example": "starts a server",
    "def learn(stages": "a sketch of what a method is",
    "python benchmarks/": "hours on data that are not in the repository",
    "python -m benchmarks.": "hours on data that are not in the repository",
    "python -m venv": "installs other methods",
    "pip install": "installs",
}


def reason(text: str) -> str | None:
    """Return why a line or a block is not run here, ``None`` if it is."""
    matching = [start for start in NOT_RUN if text.startswith(start)]
    return NOT_RUN[max(matching, key=len)] if matching else None


def blocks() -> list[tuple[str, str, str]]:
    """Return document with line, kind and code of every block that is shown, but for those of `ELSEWHERE`."""
    shown = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 1
            shown.append((f"{document}:{line}", match[1], match[2]))
    return shown


def pieces(kind: str, code: str) -> list[str]:
    """Return what is run by itself: a block of Python, or each line of the shell."""
    if kind == "python":
        return [code]
    return [line.strip() for line in code.replace("\\\n", " ").splitlines() if line.strip()]


BLOCKS = blocks()


def runnable() -> list[tuple[str, str, list[str]]]:
    """Return place, kind and pieces of each block of which something is run here."""
    chosen = []
    for place, kind, code in BLOCKS:
        kept = [piece for piece in pieces(kind, code) if reason(piece) is None]
        if kept and not place.startswith(ELSEWHERE):
            chosen.append((place, kind, kept))
    return chosen


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the documents name."""
    folder = tmp_path_factory.mktemp("files")
    named = {
        "muraro": ("B", "NK"),
        "muraro_test": ("B", "NK"),
        "cells": ("B", "NK"),
        "new": ("B", "NK", "DC"),
        "patient7": ("B", "NK", "DC"),
        "held_out": ("B", "NK"),
    }
    for seed, (name, types) in enumerate(named.items()):
        cells = make_adata(180, 60, types=types, prefix=name, seed=10 + seed, batches=2)
        cells.obs["donor_id"] = cells.obs["batch"].astype(str)
        cells.write_h5ad(folder / f"{name}.h5ad")
    return folder


@pytest.fixture
def atlas(made: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a workspace of three stages with the files that the documents name, where a stage is learned quickly."""
    folder = Path(shutil.copytree(made / "ws", tmp_path / "my-atlas"))
    shutil.copytree(files, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CANAL_WORKSPACE", "")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    # The map of a result takes most of its time, and is none of what is shown.
    monkeypatch.setattr("canal.novel.folder.umap_coordinates", lambda points, _seed: points[:, :2])
    quick = load_preset("compact", QUICK)
    monkeypatch.setattr("canal.stages.starting.load_preset", lambda *_args, **_options: quick)
    return folder


def name_clusters(folder: Path) -> None:
    """Write a name into the table of a result, as the documents ask for."""
    with (folder / "names.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "names.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"name": "DC" if row["cluster"] == "1" else ""} for row in rows)


def run_line(line: str, folder: Path) -> None:
    """Run one line of the shell; it succeeds."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    assert words[0] == "canal", f"neither run nor given a reason: {line}"
    if words[1:3] == ["registry", "import"]:  # on another machine
        if not Path(words[3]).exists():
            run_line(f"canal registry export 3 {words[3]}", folder)
        words[1:1] = ["-C", str(folder / "elsewhere")]
    if "--model" in words and not Path("model.canal").exists():  # somebody else has made it
        run_line("canal registry export 3 model.canal", folder)
    if words[1] == "panel":  # that somebody thinks of buying
        Path("genes.txt").write_text("CD3D\nNKG7\nMS4A1\nLYZ\nGENE0\nGENE1\nGENE2\n")  # of blood, and made-up
    if words[1:3] == ["novel", "name"]:  # after somebody has filled the table
        name_clusters(folder / words[3])
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{line}: {result.output}"


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # when MLflow is imported
@pytest.mark.parametrize(("place", "kind", "shown"), runnable(), ids=[place for place, _, _ in runnable()])
def test_what_a_document_shows_runs(place: str, kind: str, shown: list[str], atlas: Path) -> None:
    """Every block, from top to bottom, on a workspace of three stages."""
    if kind != "python":
        for line in shown:
            run_line(line, atlas)
        return
    names: dict[str, Any] = {"adata": ad.read_h5ad("new.h5ad"), "counts": ad.read_h5ad("new.h5ad").to_df()}
    # Here the workspace is this folder, and its model has the name that it was made with.
    code = (
        shown[0].replace('open_workspace("my-atlas")', 'open_workspace(".")').replace("models:/my-atlas", "models:/ws")
    )
    # MLflow keeps a connection by its address: this one may be of another test's folder.
    code = code.replace("sqlite:///registry/", f"sqlite:///{atlas}/registry/")
    exec(compile(code, place, "exec"), names)


def test_every_reason_is_needed() -> None:
    """What is not run stands in a document, and a test that is named is there."""
    shown = []
    for _, kind, code in BLOCKS:
        shown += pieces(kind, code)
    for start, why in NOT_RUN.items():
        assert any(piece.startswith(start) for piece in shown), f"no document shows {start!r}"
        for test in re.findall(r"tests/\S+\.py", why):
            assert (ROOT / test).is_file(), test
