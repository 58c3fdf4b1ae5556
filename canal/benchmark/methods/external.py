"""Peers as their users run them: each in an environment of its own, with its own pins.

``--peers DIR`` names a folder of environments, ``DIR/NAME/bin/python``. A peer whose package this very Python has is
run with it. Cells go to the peer as NumPy files, the answer comes back as JSON: see ``benchmarks/peers``.
"""

import json
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import scipy.sparse as sp

from canal.benchmark.method import Context, Learn, Method, Predict, Unavailable, labels_of
from canal.benchmark.methods.plain import on_panel
from canal.data.cells import Cells
from canal.data.panel import GenePanel

_INSIDE = Path(__file__).parents[1] / "peers"  # of a wheel; beside the package in the repository
SCRIPTS = _INSIDE if _INSIDE.is_dir() else Path(__file__).parents[3] / "benchmarks" / "peers"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A package that others maintain.

    Attributes
    ----------
    name
        Of its folder in ``--peers`` and, with ``_peer.py``, of its script.
    package
        What its script imports.
    requirements
        What pip installs for it.
    """

    name: str
    package: str
    requirements: tuple[str, ...]

    @property
    def install(self) -> str:
        """The commands that make its environment."""
        wanted = " ".join(f"'{r}'" for r in self.requirements)
        return f"python -m venv PEERS/{self.name} && PEERS/{self.name}/bin/pip install {wanted}"


PEERS = {
    p.name: p
    for p in (
        Peer(name="celltypist", package="celltypist", requirements=("celltypist==1.7.1", "scikit-learn<1.8")),
        Peer(name="singler", package="singler", requirements=("singler>=0.5", "scipy")),
        Peer(name="schpl", package="scHPL", requirements=("scHPL==1.0.5", "numpy<2")),
        Peer(name="scanvi", package="scvi", requirements=("scvi-tools>=1.4", "scanpy")),
    )
}


class PeerProcess:
    """A peer that was taught some cells and waits for files to annotate; use it in a ``with`` statement.

    Parameters
    ----------
    peer
        Which one.
    stages
        Cells to teach it.
    context
        Seed, environments, and a folder for the files.
    """

    def __init__(self, peer: Peer, stages: Sequence[Cells], context: Context) -> None:
        self._folder = context.scratch / peer.name
        self._folder.mkdir(exist_ok=True)
        self._asked, self._context = 0, context
        _write(self._folder / "train.npz", stages, context.seed, labelled=True)
        script = SCRIPTS / f"{peer.name}_peer.py"
        self._process = subprocess.Popen(
            [python_of(peer, context.peers), str(script), str(self._folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self._folder,
        )  # fmt: skip
        self._peer = peer
        self._await()

    def predict(self, cells: Cells) -> np.ndarray:
        """Return the type of each cell, (cells,)."""
        self._asked += 1
        path = self._folder / f"query{self._asked}.npz"
        _write(path, [cells], self._context.seed, labelled=False)
        assert self._process.stdin is not None
        self._process.stdin.write(path.name + "\n")
        self._process.stdin.flush()
        self._await()
        return np.array(json.loads(path.with_suffix(".answer").read_text(encoding="utf-8")), dtype=str)

    def _await(self) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if said != "ready":
            code = self._process.wait()
            message = f"{self._peer.name} failed: {said or f'its process left with exit code {code}'}"
            raise RuntimeError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def python_of(peer: Peer, peers: Path | None) -> str:
    """Return the Python that has a peer's package.

    Raises
    ------
    Unavailable
        If there is none; the text says how to make one.
    """
    if peers is not None:
        for folder in ("bin", "Scripts"):
            python = peers / peer.name / folder / "python"
            if python.is_file():
                return str(python.absolute())
    if find_spec(peer.package) is not None:
        return sys.executable
    message = f"not installed; make it an environment with {peer.install} and name the folder with --peers PEERS"
    raise Unavailable(message)


def _learn(name: str, *, joint: bool) -> Learn:
    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        python_of(PEERS[name], context.peers)  # before any cells are written
        seen: list[Cells] = []
        for cells in stages:
            seen = [*seen, cells] if joint else [cells]
            with PeerProcess(PEERS[name], seen, context) as peer:
                yield peer.predict

    return learn


def _write(path: Path, stages: Sequence[Cells], seed: int, *, labelled: bool) -> None:
    panel = GenePanel.empty()
    for number, cells in enumerate(stages, 1):
        panel = panel.extended(cells.genes, number)
    values = sp.vstack([on_panel(panel, cells) for cells in stages], format="csr")
    stage = np.concatenate([np.full(len(cells), number) for number, cells in enumerate(stages, 1)])
    labels = np.concatenate([labels_of(c) for c in stages]).tolist() if labelled else [""] * values.shape[0]
    np.savez(
        path, data=values.data, indices=values.indices, indptr=values.indptr, shape=np.array(values.shape), stage=stage
    )  # fmt: skip
    table = {"genes": list(panel.genes), "labels": labels, "seed": seed}
    path.with_suffix(".json").write_text(json.dumps(table), encoding="utf-8")


def _rows(name: str, title: str, reference: str) -> tuple[Method, Method]:
    common = {"group": "peers", "reference": reference, "external": True, "seeded": False}
    return (
        Method(name=name, title=title, keeps="nothing", learn=_learn(name, joint=False), **common),  # type: ignore[arg-type]
        Method(
            name=f"{name}-joint", title=f"{title}, all cells", keeps="all cells", sees_all=True,
            learn=_learn(name, joint=True), **common,  # type: ignore[arg-type]
        ),
    )  # fmt: skip


METHODS = (
    *_rows("celltypist", "CellTypist", "Domínguez Conde et al. 2022, celltypist"),
    *_rows("singler", "SingleR", "Aran et al. 2019, singler"),
    Method(
        name="schpl", title="scHPL, all cells", group="peers", keeps="all cells", sees_all=True, seeded=False,
        external=True, reference="Michielsen et al. 2021, scHPL, linear SVMs", learn=_learn("schpl", joint=True),
    ),
    Method(
        name="scanvi", title="scANVI with surgery, all cells", group="peers", keeps="all cells", sees_all=True,
        external=True, reference="Xu et al. 2021, Lotfollahi et al. 2022, scvi-tools",
        learn=_learn("scanvi", joint=True),
    ),
)  # fmt: skip
