"""The tutorials of the documentation site say what comes out; `make docs` runs all of them as they stand."""

import ast
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

import canal
from canal.config import load_preset

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
CELL = re.compile(r"```\{code-cell\}\n(?!:tags: \[remove-cell\])(.*?)```", re.DOTALL)  # without what the build checks
QUICK = ("training.epochs=2", "training.min_steps=20", "analytic.pseudo_cells=200")
# Those that are run here, with quick training, and what their texts say came out: no figure of a training.
PROMISES = {
    "new-technology": ("facts['calibrated_for'] == 'no'", "adapted.facts['adapted']['held_back'] == ['']"),
    "new-type": ("'B' in names.values()", "(again.cell_type == 'B').sum() > 20"),
    "from-celltypist": ("(labels == annotation.cell_type).all()", "(probability - annotation.confidence).max() < 1e-6"),
}


def cells_of(name: str) -> list[str]:
    """Return the code of a tutorial, cell by cell."""
    return CELL.findall((ROOT / f"docs/tutorials/{name}.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [path.stem for path in TUTORIALS])
def test_a_tutorial_uses_what_is_there(name: str) -> None:
    """Every name of canal, every method of a workspace and every picture that it uses exists."""
    owners = {"canal": canal, "workspace": canal.Workspace, "pl": canal.pl}
    codes = cells_of(name)
    assert codes
    for code in codes:
        for node in ast.walk(ast.parse(code)):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            if owner in owners:
                assert hasattr(owners[owner], node.attr), f"{name}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", PROMISES)
def test_a_tutorial_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom, and what its text says came out."""
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    monkeypatch.setattr("canal.novel.folder.umap_coordinates", lambda points, _seed: points[:, :2])
    quick = load_preset("compact", QUICK)
    monkeypatch.setattr("canal.stages.starting.load_preset", lambda *_args, **_options: quick)
    names: dict[str, Any] = {}
    for code in cells_of(name):
        exec(compile(code, name, "exec"), names)

    for promise in PROMISES[name]:
        assert eval(promise, names), promise


def test_the_first_tutorial_is_right_about_the_label() -> None:
    """What the file calls CD14 monocytes are called CD16 monocytes, and have the gene of CD16."""
    names: dict[str, Any] = {}
    for code in cells_of("first-annotator")[:2]:
        exec(compile(code, "first-annotator", "exec"), names)
    of_label = (names["cells"].obs["bulk_labels"] == "CD14+ Monocyte").to_numpy()
    called = names["annotated"].obs["canal_cell_type"][of_label]
    means = names["cells"].raw.to_adata()[of_label].to_df().mean()

    assert (called == "CD16 Mono").mean() > 0.9
    assert means["FCGR3A"] > 3 * means["S100A8"]
