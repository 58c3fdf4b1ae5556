"""Whoever deletes a feature deletes its folder and its command, and nothing else breaks."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import canal

PACKAGE = Path(canal.__file__).parent
MAIN_PATH = {"ontology", "data", "model", "training", "registry", "stages", "report", "cli", "configs"}
FEATURES = sorted(p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file() and p.name not in MAIN_PATH)

# Libraries are imported once; each feature is tried in a fork of that process.
PROGRAM = """
import importlib, os, pkgutil, runpy, sys
runpy.run_path(sys.argv[1])  # the module that knows how to import Avalanche; it imports nothing of canal
import anndata, faiss, matplotlib, mlflow, pandas, performer_pytorch, scanpy, sklearn, torch, typer
failed = []
for folder in sys.argv[2:]:
    child = os.fork()
    if not child:
        sys.path.insert(0, folder)
        import canal
        assert canal.__file__.startswith(folder), canal.__file__
        for module in pkgutil.walk_packages(canal.__path__, "canal."):
            importlib.import_module(module.name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(folder)
print(*failed)
"""


def without(feature: str, folder: Path) -> Path:
    """Copy the package without a feature and without its commands; return what to put on the path."""
    site = folder / feature
    shutil.copytree(PACKAGE, site / "canal", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(site / "canal" / feature)
    command = site / "canal" / "cli" / "features" / f"{feature}.py"
    command.unlink(missing_ok=True)
    return site


@pytest.mark.filterwarnings("ignore")
def test_a_feature_can_be_deleted(tmp_path: Path) -> None:
    """Every other module is imported without it, also the one that makes the command line."""
    assert {
        "compare",
        "novel",
        "history",
        "pretrain",
        "weights",
        "explain",
        "panels",
        "cluster",
        "demo",
        "benchmark",
        "voter",
        "labels",
    } <= set(FEATURES)
    sites = [str(without(feature, tmp_path)) for feature in FEATURES]

    line = [sys.executable, "-P", "-W", "ignore", "-c", PROGRAM, str(PACKAGE / "training" / "avalanche.py"), *sites]
    done = subprocess.run(line, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], done.stderr
