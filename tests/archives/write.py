"""Write the archive of this version: ``python -m tests.archives.write v1``.

Done once, when a version is released, and never again: an archive is what users have on their disks.
"""

import json
import sys
import tarfile
import tempfile
from pathlib import Path

import canal
from canal.history.exchange import export_stage
from tests.make import make_adata

HERE = Path(__file__).parent
QUERY = {"types": ("B", "NK", "CD4 T"), "n_cells": 30, "seed": 9}
_TINY = (
    "training.epochs=3",
    "training.min_steps=20",
    "bank.size=12",
    "analytic.pseudo_cells=10",
    "encoder.hidden=8",
    "encoder.dim=8",
)


def write(folder: Path) -> None:
    """Write a workspace of two stages, an export, and what they say of some cells."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "archive"
        workspace = canal.open_workspace(root, create=True)
        for name, types in (("first", ("B", "NK")), ("second", ("B", "CD4 T"))):
            cells = make_adata(60, types=types, prefix=name, seed=len(name))
            workspace.add_stage(cells, labels="cell_type", name=name, overrides=_TINY)
        (root / "registry" / "lock").unlink()
        export_stage(workspace.layout, 2, folder / "model.canal")
        said = {str(n): workspace.annotate(make_adata(**QUERY), stage=n) for n in (1, 2)}
        facts = {
            "canal": canal.__version__,
            "records": [record.model_dump(mode="json") for record in workspace.stages()],
            "champion": workspace.champion(),
            "cell_type": {n: a.cell_type.tolist() for n, a in said.items()},
            "confidence": {n: [round(float(c), 5) for c in a.confidence] for n, a in said.items()},
        }
        (folder / "expected.json").write_text(json.dumps(facts, indent=1) + "\n")
        with tarfile.open(folder / "workspace.tar.xz", "w:xz") as archive:
            archive.add(root, arcname=".", filter=_nobody)


def _nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who wrote it, and when."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    write(HERE / sys.argv[1])
