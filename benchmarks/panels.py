"""What a targeted panel was forecast to tell apart, and what it does; panels that were designed, beside others.

    python benchmarks/panels.py STREAM_DIR [--panels 24] [--depths] [--peers PEERS]

STREAM_DIR holds ``<number>_<name>.train.h5ad`` and ``.test.h5ad``. The training files are learned in their order. Then
panels of 100 to 500 genes are drawn from the genes of each file in turn, at random or among its 1,000 most variable:
the forecast of ``panel check`` for cells like that file's stands beside the accuracy on its test cells, cut to the
panel and scaled over it alone, as a file that measures nothing else would be.

With ``--depths`` the same panels are forecast at a half, a quarter and an eighth of the counts that a cell of the file
has of their genes, and the counts of the test cells are drawn down to that number, without replacement. Files that hold
no counts are left out. With ``--peers`` (a folder of environments, as for `canal benchmark`) SingleR, with all training
cells as its references, annotates the same cells on the same genes.

Then panels of 50 genes: designed, the most variable, the first markers of each type in turn (`Workspace.markers`), and
at random (mean of five); accuracy on the same test cells.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp
import scipy.stats
from novel_types import stream_files

import canal
from canal.benchmark.method import Context, Unavailable
from canal.benchmark.methods.external import SINGLER, PeerProcess, find_python
from canal.config import load_preset
from canal.data.cells import Cells
from canal.data.genes import Genes
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.model.model import Model
from canal.panels.check import check_panel, pseudo_cells
from canal.seeds import numpy_generator

FEWEST, MOST = 100, 500  # genes of a drawn panel
VARIABLE = 1_000  # genes that every second one is drawn from
DESIGNED = 50  # genes of a designed panel
RANDOM_PANELS = 5  # whose mean stands beside it
SHARES = (0.5, 0.25, 0.125)  # of the counts that a cell of the file has of a panel's genes, the median


def panel_columns(cells: Cells, names: list[str]) -> np.ndarray:
    """Return the columns of the genes of a panel that a file measures, ascending."""
    place = {name: column for column, name in enumerate(cells.genes)}
    return np.sort([place[name] for name in names if name in place])


def cut(cells: Cells, names: list[str]) -> Cells:
    """Return cells as a file that measures these genes alone would hold them: scaled over them to 10,000."""
    columns = panel_columns(cells, names)
    values = sp.csr_matrix(cells.expression[:, columns], dtype=np.float64)
    values.data = np.expm1(values.data)
    sums = np.asarray(values.sum(axis=1)).ravel()
    values = sp.csr_matrix(sp.diags(np.divide(1e4, sums, out=np.zeros_like(sums), where=sums > 0)) @ values)
    values.data = np.log1p(values.data)
    return replace(cells, expression=values.astype(np.float32), genes=cells.genes.take(columns), stored=None)


def reached(model: Model, cells: Cells, names: list[str]) -> float:
    """Return the accuracy on labelled cells that measure these genes alone."""
    few = cut(cells, names)
    return float((model.reader(few.genes).best_types(few.expression) == few.labels).mean())


def drawn_panel(model: Model, stage: int, cells: Cells, number: int, rng: np.random.Generator) -> list[str]:
    """Return the names of a panel: of a stage's genes that the test file measures, every second of variable ones."""
    memory = model.memory
    assert memory is not None
    measured = memory.measured[stage]
    there = set(cells.genes)
    usable = np.array([i for i in measured if memory.panel.genes.names[i] in there])
    if number % 2:
        means = np.zeros((len(memory.statistics), len(memory.panel)))
        for row, s in zip(means, memory.statistics, strict=True):
            if s.stage == stage:
                row[measured] = s.mean
        own = means[[s.stage == stage for s in memory.statistics]]
        usable = usable[np.argsort(-own.var(axis=0)[usable], kind="stable")[:VARIABLE]]
    size = min(int(rng.integers(FEWEST, MOST + 1)), len(usable))
    return [memory.panel.genes.names[i] for i in np.sort(rng.choice(usable, size, replace=False)).tolist()]


@dataclass(frozen=True, kw_only=True)
class TestFile:
    """The held-out cells of one file.

    Attributes
    ----------
    cells
        Labelled cells.
    counts
        Molecules of every gene, int64 (cells, genes); ``None`` where the file holds none.
    """

    cells: Cells
    counts: sp.csr_matrix | None

    @classmethod
    def read(cls, path: Path, labels: str) -> "TestFile":
        """Read a file of a stream."""
        cells = read_cells(path, labels=LabelOptions(column=labels, keep_rare=True))
        raw = sp.csr_matrix(ad.read_h5ad(path).X)
        if (raw.data < 0).any() or (raw.data != np.rint(raw.data)).any():
            return cls(cells=cells, counts=None)
        # The values are log1p of 10,000 a cell: back to counts by the sum of the cell.
        counts = sp.csr_matrix(cells.expression, dtype=np.float64)
        counts.data = np.expm1(counts.data)
        counts = sp.csr_matrix(sp.diags(np.asarray(raw.sum(axis=1), dtype=np.float64).ravel() / 1e4) @ counts)
        counts.data = np.rint(counts.data)
        return cls(cells=cells, counts=counts.astype(np.int64))


def thinned(file: TestFile, names: list[str], depth: int, rng: np.random.Generator) -> Cells:
    """Return the cells as a file holds them that measures a panel and counts ``depth`` molecules of it a cell.

    The molecules are drawn without replacement from those that were counted; a cell that has fewer keeps all.
    """
    assert file.counts is not None
    columns = panel_columns(file.cells, names)
    dense = file.counts[:, columns].toarray()
    for row, counted in enumerate(dense):
        if counted.sum() > depth:
            dense[row] = rng.multivariate_hypergeometric(counted, depth)
    sums = np.maximum(dense.sum(axis=1, keepdims=True), 1)
    values = sp.csr_matrix(np.log1p(1e4 * dense / sums), dtype=np.float32)
    return replace(file.cells, expression=values, genes=file.cells.genes.take(columns), stored=None)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What became of one panel in one file.

    Attributes
    ----------
    depth
        Counts a cell, ``None`` for all that there are.
    forecast, canal, singler
        Accuracy as it was forecast, and as it was reached; NaN without SingleR.
    """

    depth: int | None
    forecast: float
    canal: float
    singler: float


def compare_forecasts(
    model: Model, files: list[TestFile], panels: int, peer: PeerProcess | None, *, depths: bool
) -> None:
    """Print forecast and accuracy of each panel, and how well they agree."""
    rng = numpy_generator(0, "panels")
    # Panels and draws do not depend on each other: the panels are the same with and without depths.
    draws = numpy_generator(0, "thinned counts")
    stages = list(model.memory.measured) if model.memory is not None else []
    drawn = pseudo_cells(model)
    rows: list[Reached] = []
    for number in range(panels):
        place = number // 2 % len(files)
        file, key = files[place], stages[place]
        names = drawn_panel(model, key, file.cells, number, rng)
        for depth in [None, *_depths(file, names)] if depths else [None]:
            report = check_panel(model, Genes.of(names), depth, drawn=drawn)
            stage = model.stage_of_key.get(key, place + 1)
            forecast = next(s.accuracy for s in report.stages if s.stage == stage)
            cells = cut(file.cells, names) if depth is None else thinned(file, names, depth, draws)
            rows.append(_reached(model, cells, peer, depth, forecast))
            kind = "variable" if number % 2 else "random"
            row, counts = rows[-1], "all" if depth is None else depth
            print(
                f"file {place + 1}, {len(names)} {kind}, {counts} counts: forecast {row.forecast:.3f}, reached "
                f"{row.canal:.3f}, SingleR {row.singler:.3f}",
                flush=True,
            )
    _print_agreement("all counts", [row for row in rows if row.depth is None])
    _print_agreement("thinned counts", [row for row in rows if row.depth is not None])


def _depths(file: TestFile, names: list[str]) -> list[int]:
    """Return the numbers of counts to forecast: shares of the file's median over the genes of a panel."""
    if file.counts is None:
        return []
    median = float(np.median(np.asarray(file.counts[:, panel_columns(file.cells, names)].sum(axis=1))))
    return sorted({max(int(share * median), 1) for share in SHARES}, reverse=True)


def _reached(model: Model, cells: Cells, peer: PeerProcess | None, depth: int | None, forecast: float) -> Reached:
    """Return what canal and SingleR reach on cells that measure a panel."""
    assert cells.labels is not None
    ours = float((model.reader(cells.genes).best_types(cells.expression) == cells.labels).mean())
    theirs = float("nan") if peer is None else float((peer.predict(cells) == cells.labels.astype(str)).mean())
    return Reached(depth=depth, forecast=forecast, canal=ours, singler=theirs)


def _print_agreement(title: str, rows: list[Reached]) -> None:
    """Print how well forecasts agree with what was reached, and how often canal is above SingleR."""
    if not rows:
        return
    away = np.array([row.forecast - row.canal for row in rows])
    rank = scipy.stats.spearmanr([row.forecast for row in rows], [row.canal for row in rows])[0]
    ours, theirs = np.array([row.canal for row in rows]), np.array([row.singler for row in rows])
    print(
        f"{title}, {len(rows)} panels: rank correlation {rank:.3f}, mean error {np.abs(away).mean():.3f}, bias "
        f"{away.mean():+.3f}; canal {ours.mean():.3f}, SingleR {theirs.mean():.3f}, canal above in "
        f"{int((ours > theirs).sum())}, equal in {int((ours == theirs).sum())}, below in {int((ours < theirs).sum())}"
    )


@contextlib.contextmanager
def singler(peers: Path | None, train: list[Cells], folder: Path) -> Iterator[PeerProcess | None]:
    """Yield SingleR with the training cells of each file as a reference; ``None`` where no peers were named."""
    if peers is None:
        yield None
        return
    try:
        find_python(SINGLER, peers)
    except Unavailable as reason:
        raise SystemExit(f"SingleR: {reason}") from reason
    context = Context(preset=load_preset("compact"), seed=0, n_types=0, markers=None, peers=peers, scratch=folder)
    with PeerProcess(SINGLER, train, context) as process:
        yield process


def compare_designs(workspace: canal.Workspace, tests: list[Cells]) -> None:
    """Print what panels of `DESIGNED` genes reach on the test cells, by how they were chosen."""
    model = workspace.model()
    memory = model.memory
    assert memory is not None
    names = np.array(memory.panel.genes.names, dtype=object)
    means = np.zeros((len(memory.statistics), len(names)))
    for row, s in zip(means, memory.statistics, strict=True):
        row[memory.measured[s.stage]] = s.mean
    # The first markers of all types in turn, each gene once.
    table = workspace.markers(top=DESIGNED)
    table = table[table["evidence"] == "for"].copy()
    table["place"] = table.groupby("cell_type").cumcount()
    markers = list(dict.fromkeys(table.sort_values("place", kind="stable")["gene"].tolist()))
    rng = numpy_generator(0, "random panels")
    panels = {
        "designed": [list(workspace.design_panel(DESIGNED).added)],
        "most variable": [names[np.argsort(-means.var(axis=0))[:DESIGNED]].tolist()],
        "markers": [markers[:DESIGNED]],
        "random": [rng.choice(names, DESIGNED, replace=False).tolist() for _ in range(RANDOM_PANELS)],
    }
    for kind, lists in panels.items():
        accuracy = [np.mean([reached(model, cells, panel) for panel in lists]) for cells in tests]
        shown = " ".join(f"{value:.3f}" for value in accuracy)
        print(f"{DESIGNED} genes, {kind:13s}: {shown}; mean {np.mean(accuracy):.3f}", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path, help="folder of the stream")
    parser.add_argument("--panels", type=int, default=24, help="panels to draw")
    parser.add_argument("--depths", action="store_true", help="forecast fewer counts, too, and thin the test cells")
    parser.add_argument("--peers", type=Path, help="folder of the environment of SingleR")
    parser.add_argument("--labels", default="cell_type", help="column of obs with the types")
    parser.add_argument("--workspace", type=Path, help="workspace that has learned the files; else they are learned")
    options = parser.parse_args()
    files = [TestFile.read(path, options.labels) for path in stream_files(options.stream, "test")]
    train = stream_files(options.stream, "train")
    with tempfile.TemporaryDirectory() as folder:
        workspace = canal.open_workspace(options.workspace or Path(folder) / "panels", create=options.workspace is None)
        if options.workspace is None:
            for path in train:
                workspace.add_stage(path, labels=options.labels)
        compare_designs(workspace, [file.cells for file in files])
        references = [] if options.peers is None else [read_cells(p, labels=_labels(options.labels)) for p in train]
        with singler(options.peers, references, Path(folder)) as peer:
            compare_forecasts(workspace.model(), files, options.panels, peer, depths=options.depths)


def _labels(column: str) -> LabelOptions:
    """Return how the labels of training cells are read."""
    return LabelOptions(column=column, keep_rare=True)


if __name__ == "__main__":
    main()
