"""Peers as their users run them: each in an environment of its own, with its own pins.

``--peers DIR`` names a folder of environments, ``DIR/NAME/bin/python``; a peer that has none there runs in canal's own
Python where its package is installed. Cells go to the peer as NumPy files, the predicted types come back as JSON: see
``benchmarks/peers``.
"""

import json
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from canal.benchmark.method import Context, Learn, Method, Predict, Unavailable, labels_of
from canal.benchmark.methods.plain import expression_on
from canal.data.cells import Cells
from canal.data.panel import GenePanel

# The peers' scripts are inside the package in a wheel, and beside it in the repository.
_INSTALLED = Path(__file__).parents[1] / "peers"
SCRIPTS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[3] / "benchmarks" / "peers"


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
        wanted = " ".join(f"'{requirement}'" for requirement in self.requirements)
        return f"python -m venv PEERS/{self.name} && PEERS/{self.name}/bin/pip install {wanted}"


CELLTYPIST = Peer(name="celltypist", package="celltypist", requirements=("celltypist==1.7.1", "scikit-learn<1.8"))
SINGLER = Peer(name="singler", package="singler", requirements=("singler>=0.5", "scipy"))
SCHPL = Peer(name="schpl", package="scHPL", requirements=("scHPL==1.0.5", "numpy<2"))
SCANVI = Peer(name="scanvi", package="scvi", requirements=("scvi-tools>=1.4", "scanpy"))


class PeerProcess:
    """A process of a peer that was taught some cells and waits for files; use it in a ``with`` statement.

    Parameters
    ----------
    peer
        The package.
    stages
        Cells to teach it.
    context
        Seed, environments, and a folder for the files.
    """

    def __init__(self, peer: Peer, stages: Sequence[Cells], context: Context) -> None:
        self._peer, self._seed = peer, context.seed
        self._queries = 0
        # The peer reads its training cells from its folder.
        self._folder = context.scratch / peer.name
        self._folder.mkdir(exist_ok=True)
        _write_cells(self._folder / "train.npz", stages, self._seed, labelled=True)
        script = SCRIPTS / f"{peer.name}_peer.py"
        self._process = subprocess.Popen(
            [find_python(peer, context.peers), str(script), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder,
        )
        self._wait_until_ready()

    def predict(self, cells: Cells) -> np.ndarray:
        """Return the type of each cell, (cells,)."""
        self._queries += 1
        path = self._folder / f"query{self._queries}.npz"
        _write_cells(path, [cells], self._seed, labelled=False)
        # The peer takes the name of a file on its stdin, and answers in a file beside it.
        assert self._process.stdin is not None
        self._process.stdin.write(path.name + "\n")
        self._process.stdin.flush()
        self._wait_until_ready()
        return np.array(json.loads(path.with_suffix(".answer").read_text(encoding="utf-8")), dtype=str)

    def _wait_until_ready(self) -> None:
        """Wait for the line with which the peer says that it has learned, or answered."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if line != "ready":
            code = self._process.wait()
            message = f"{self._peer.name} failed: {line or f'its process left with exit code {code}'}"
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


def find_python(peer: Peer, environments: Path | None) -> str:
    """Return the Python that has a peer's package, in the folder of environments or this very one.

    Raises
    ------
    Unavailable
        If there is none; the text says how to make one.
    """
    if environments is not None:
        for folder in ("bin", "Scripts"):  # of Windows
            python = environments / peer.name / folder / "python"
            if python.is_file():
                return str(python.absolute())
    if find_spec(peer.package) is not None:
        return sys.executable
    message = f"not installed; make it an environment with {peer.install} and name the folder with --peers PEERS"
    raise Unavailable(message)


def _write_cells(path: Path, stages: Sequence[Cells], seed: int, *, labelled: bool) -> None:
    """Write cells for a peer: values and stages as NumPy arrays, genes, labels and seed as JSON beside them."""
    # All cells on the union of the files' genes, in one matrix.
    panel = GenePanel.empty()
    for number, cells in enumerate(stages, 1):
        panel = panel.extended(cells.genes, number)
    values = expression_on(panel, *stages)
    # The stage and the label of each cell; those of cells to annotate are not given away.
    stage_of_cell: list[np.ndarray] = []
    labels: list[str] = []
    for number, cells in enumerate(stages, 1):
        stage_of_cell.append(np.full(len(cells), number))
        labels += labels_of(cells).tolist() if labelled else [""] * len(cells)
    np.savez(
        path,
        data=values.data,
        indices=values.indices,
        indptr=values.indptr,
        shape=np.array(values.shape),
        stage=np.concatenate(stage_of_cell),
    )
    table = {"genes": list(panel.genes), "labels": labels, "seed": seed}
    path.with_suffix(".json").write_text(json.dumps(table), encoding="utf-8")


def _learn_peer(peer: Peer, *, joint: bool) -> Learn:
    """Return the method that teaches a peer anew at every stage: all cells so far, or those of the stage."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        find_python(peer, context.peers)  # before any cells are written
        seen: list[Cells] = []
        for cells in stages:
            seen = [*seen, cells] if joint else [cells]
            with PeerProcess(peer, seen, context) as process:
                yield process.predict

    return learn


def _newest_and_joint(peer: Peer, title: str, reference: str) -> tuple[Method, Method]:
    """Return the two rows of a peer: taught the newest stage only, and all cells."""
    newest = Method(
        name=peer.name,
        title=title,
        group="peers",
        keeps="nothing",
        reference=reference,
        learn=_learn_peer(peer, joint=False),
        seeded=False,
        external=True,
    )
    joint = replace(
        newest,
        name=f"{peer.name}-joint",
        title=f"{title}, all cells",
        keeps="all cells",
        learn=_learn_peer(peer, joint=True),
        sees_all=True,
    )
    return newest, joint


METHODS = (
    *_newest_and_joint(CELLTYPIST, "CellTypist", "Domínguez Conde et al. 2022, celltypist"),
    *_newest_and_joint(SINGLER, "SingleR", "Aran et al. 2019, singler"),
    Method(
        name="schpl",
        title="scHPL, all cells",
        group="peers",
        keeps="all cells",
        reference="Michielsen et al. 2021, scHPL, linear SVMs",
        learn=_learn_peer(SCHPL, joint=True),
        sees_all=True,
        seeded=False,
        external=True,
    ),
    Method(
        name="scanvi",
        title="scANVI with surgery, all cells",
        group="peers",
        keeps="all cells",
        reference="Xu et al. 2021, Lotfollahi et al. 2022, scvi-tools",
        learn=_learn_peer(SCANVI, joint=True),
        sees_all=True,
        external=True,
    ),
)
