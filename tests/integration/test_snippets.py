"""What README and docs show works as it stands there, from top to bottom."""

import re
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib as mpl
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.config import load_preset
from tests.labs import QUICK
from tests.make import make_adata

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NOT_HERE = ("canal ui", "canal demo", "make ", "pip ")  # they serve, take long, or install


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks of a document in one language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [code for kind, code in FENCE.findall(text) if kind == language]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with the files that the documents name, where a stage is learned quickly."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANAL_WORKSPACE", "")
    mpl.use("agg")
    quick = load_preset("compact", QUICK)
    monkeypatch.setattr("canal.stages.starting.load_preset", lambda *_args, **_options: quick)
    fill(tmp_path)
    return tmp_path


def fill(folder: Path) -> None:
    """Write the files that the documents name."""
    files: dict[str, tuple[tuple[str, ...], str]] = {
        "muraro": (("B", "NK"), "cell_type"),
        "baron": (("B", "CD4 T"), "celltype1"),
        "new": (("B", "NK", "HSC"), "cell_type"),
        "new_patient": (("B", "NK", "CD4 T"), "cell_type"),
        "held_out": (("B", "NK"), "cell_type"),
    }
    for seed, (name, (types, column)) in enumerate(files.items()):
        adata = make_adata(80, 150, types=types, prefix=name, seed=seed)
        adata.obs = adata.obs.rename(columns={"cell_type": column})
        adata.write_h5ad(folder / f"{name}.h5ad")
    (folder / "names.csv").write_text("B cell,B\n")


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_python(folder: Path, document: str) -> None:
    """Every block of Python runs after those before it, on a workspace of two stages."""
    workspace = canal.open_workspace("my-atlas", create=True)
    for seed, types in enumerate((("B", "NK"), ("B", "HSC"))):
        make_adata(80, 150, types=types, prefix=f"old{seed}", seed=20 + seed).write_h5ad(folder / f"old{seed}.h5ad")
        workspace.add_stage(folder / f"old{seed}.h5ad", labels="cell_type")
    names: dict[str, Any] = {"adata": ad.read_h5ad(folder / "new.h5ad")}

    for code in blocks(document, "python"):
        exec(compile(code, document, "exec"), names)

    assert len(workspace.stages()) > 2


def test_the_commands_of_the_readme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block `With your own data` works line by line."""
    (block,) = [code for code in blocks("README.md", "bash") if "canal init" in code]

    ran = []
    for line in block.splitlines():
        for command in line.split(" && "):
            words = command.split()
            if not words or command.startswith(NOT_HERE):
                continue
            if words[0] == "cd":
                monkeypatch.chdir(folder / words[1])
                fill(folder / words[1])
                continue
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, f"{command}: {result.output}"
            ran.append(words[1])

    assert ran == ["init", "stage", "stage", "annotate", "evaluate"]
    assert "canal_status" in ad.read_h5ad("annotated.h5ad").obs
