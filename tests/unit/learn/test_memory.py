"""The analytic memory against ridge regression on the cells themselves."""

import numpy as np
import pytest
import scipy.sparse as sp

from canal.data.cells import Cells
from canal.data.panel import GenePanel
from canal.data.stream import read_cells
from canal.errors import RegistryError
from canal.model import memory as memory_module
from canal.model.memory import AnalyticMemory, load_memory, save_memory
from canal.training.fitting import draw_pseudo_cells
from tests.make import make_adata


def toy(n: int = 90, seed: int = 0, **options: object) -> Cells:
    """Return toy cells with labels."""
    return read_cells(make_adata(n, seed=seed, **options), labels="cell_type")


def all_columns(cells: Cells) -> np.ndarray:
    """Return every column."""
    return np.arange(len(cells.genes))


def unit(x: np.ndarray) -> np.ndarray:
    """Divide rows by their length."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def weighted_ridge(cells: Cells, ridge: float, types: list[str]) -> np.ndarray:
    """Return the ridge solution on the cells, types weighted n^-1/2, rows of mean square 1."""
    x = unit(cells.expression.toarray().astype(np.float64))
    y = (cells.labels[:, None] == np.array(types, dtype=object)[None, :]).astype(np.float64)
    w = np.array([(cells.labels == name).sum() ** -0.5 for name in cells.labels])
    scale = np.sqrt((w[:, None] * x**2).sum() / w.sum())
    a = np.sqrt(w)[:, None] * x / scale
    return np.linalg.solve(a.T @ a + ridge * np.eye(a.shape[1]), a.T @ (np.sqrt(w)[:, None] * y))


def test_full_rank_equals_ridge_on_the_cells() -> None:
    """With every direction kept, the memory's solution is the weighted ridge regression on the cells."""
    cells = toy()
    types = sorted(set(cells.labels.tolist()))
    memory = AnalyticMemory.empty(0.1).with_stage(cells, all_columns(cells), stage=1, rank=1000, cells_per_factor=1)

    solved = memory.solved_for(cells.genes, types)

    np.testing.assert_allclose(solved.weights, weighted_ridge(cells, 0.1, types), atol=2e-4)


def test_the_order_of_stages_does_not_matter() -> None:
    """Two stages in either order give the same scores."""
    a, b, query = toy(seed=0), toy(seed=1, prefix="b"), toy(seed=2)
    types = sorted(set(a.labels.tolist()))

    def scores(first: Cells, second: Cells) -> np.ndarray:
        memory = AnalyticMemory.empty(0.1).with_stage(first, all_columns(first), stage=1, rank=20)
        memory = memory.with_stage(second, all_columns(second), stage=2, rank=20)
        return memory.solved_for(query.genes, types).scores(query.expression)

    np.testing.assert_allclose(scores(a, b), scores(b, a), atol=1e-4)


def test_taking_a_stage_out_is_exact() -> None:
    """Without its second stage the memory answers, bit for bit, as if there had never been one."""
    a, b, query = toy(seed=0), toy(seed=1, prefix="b"), toy(seed=2)
    types = sorted(set(a.labels.tolist()))
    alone = AnalyticMemory.empty(0.1).with_stage(a, all_columns(a), stage=1, rank=20)
    both = alone.with_stage(b, all_columns(b), stage=2, rank=20)

    without = both.without_stage(2)

    expected = alone.solved_for(query.genes, types).scores(query.expression)
    got = without.solved_for(query.genes, types).scores(query.expression)
    np.testing.assert_array_equal(expected, got)


def test_solving_for_fewer_genes_is_not_taking_the_others_for_zero() -> None:
    """Seen through half of the genes, the memory is right more often when solved for them than with zeros put in."""
    cells, query = toy(300, n_genes=80), toy(300, n_genes=80, seed=3)
    types = sorted(set(cells.labels.tolist()))
    memory = AnalyticMemory.empty(0.05).with_stage(cells, all_columns(cells), stage=1, rank=50)
    half = np.arange(40)

    solved = memory.solved_for(query.genes.take(range(40)), types)
    right = np.array(types, dtype=object)[solved.scores(query.expression[:, half]).argmax(axis=1)] == query.labels

    zeros = query.expression.toarray()
    zeros[:, 40:] = 0
    whole = memory.solved_for(query.genes, types)
    naive = np.array(types, dtype=object)[whole.scores(sp.csr_matrix(zeros)).argmax(axis=1)] == query.labels
    assert right.mean() >= naive.mean()
    assert right.mean() > 0.8


def test_a_gene_without_statistics_is_left_out() -> None:
    """A query gene that no stage measured changes nothing."""
    cells = toy(n_genes=20, genes=[f"G{i}" for i in range(20)])
    types = sorted(set(cells.labels.tolist()))
    memory = AnalyticMemory.empty(0.1).with_stage(cells, np.arange(10), stage=1, rank=20)

    few = memory.solved_for(cells.genes.take(range(10)), types)
    more = memory.solved_for(cells.genes, types)

    np.testing.assert_array_equal(few.scores(cells.expression[:, :10]), more.scores(cells.expression))


def test_size_does_not_grow_with_cells(tmp_path) -> None:
    """Ten times the cells of the same types make the same file size."""
    sizes = []
    for n in (300, 3000):
        cells = toy(n)
        memory = AnalyticMemory.empty(0.1).with_stage(cells, all_columns(cells), stage=1, rank=20)
        save_memory(memory, tmp_path / f"{n}.safetensors")
        sizes.append((tmp_path / f"{n}.safetensors").stat().st_size)

    assert abs(sizes[0] - sizes[1]) < 100


def test_it_reads_back_what_it_wrote(tmp_path) -> None:
    """Written and read, it scores the same up to the factors' half precision."""
    cells, query = toy(), toy(seed=2)
    types = sorted(set(cells.labels.tolist()))
    memory = AnalyticMemory.empty(0.1).with_stage(cells, all_columns(cells), stage=1, rank=20)
    save_memory(memory, tmp_path / "memory.safetensors")

    again = load_memory(tmp_path / "memory.safetensors")

    assert again.panel == memory.panel
    assert again.counts() == memory.counts()
    np.testing.assert_allclose(
        again.solved_for(query.genes, types).scores(query.expression),
        memory.solved_for(query.genes, types).scores(query.expression),
        atol=5e-3,
    )


def test_a_file_that_is_no_memory_is_refused(tmp_path) -> None:
    """Somebody else's bytes are one clear error."""
    (tmp_path / "memory.safetensors").write_bytes(b"nothing")

    with pytest.raises(RegistryError, match="not an analytic memory"):
        load_memory(tmp_path / "memory.safetensors")


def test_pseudo_cells_have_the_moments_of_their_type() -> None:
    """Drawn cells have the mean and the variance of the cells they stand for."""
    cells = toy(600, n_genes=30)
    memory = AnalyticMemory.empty(0.1).with_stage(cells, all_columns(cells), stage=1, rank=10)
    panel = GenePanel.empty().extended(cells.genes, 1)

    drawn = draw_pseudo_cells(memory, 60_000, panel, np.random.default_rng(0))

    for name in set(cells.labels.tolist()):
        x = unit(cells.expression.toarray()[cells.labels == name])
        z = drawn.expression.toarray()[drawn.labels == name]
        np.testing.assert_allclose(z.mean(axis=0), x.mean(axis=0), atol=0.01)
        np.testing.assert_allclose(z.var(axis=0), x.var(axis=0), atol=0.01)


def test_factors_are_bounded_in_all_and_no_variance_is_lost() -> None:
    """Many stages share a fixed number of factors; what is cut off stays as variance of the genes."""
    cells = toy(300, n_genes=40)
    memory = AnalyticMemory.empty(0.1)
    for stage in (1, 2, 3):
        memory = memory.with_stage(cells, all_columns(cells), stage=stage, rank=20)

    small = memory.within(60)

    assert sum(len(s.factors) for s in memory.statistics) > 100
    assert sum(len(s.factors) for s in small.statistics) <= 60
    for before, after in zip(memory.statistics, small.statistics, strict=True):
        total = [s.rest + (s.factors**2).sum(axis=0) / s.n for s in (before, after)]
        np.testing.assert_allclose(total[0], total[1], atol=1e-6)


def test_what_the_factors_leave_out_is_drawn_too() -> None:
    """With one factor a type the rest is most of the variance of drawn cells, and they have all of it."""
    cells = toy(600, n_genes=30)
    memory = AnalyticMemory.empty(0.1).with_stage(cells, all_columns(cells), stage=1, rank=1)

    drawn = draw_pseudo_cells(memory, 60_000, GenePanel.empty().extended(cells.genes, 1), np.random.default_rng(0))

    for name in set(cells.labels.tolist()):
        variance = unit(cells.expression.toarray()[cells.labels == name]).var(axis=0)
        np.testing.assert_allclose(drawn.expression.toarray()[drawn.labels == name].var(axis=0), variance, rtol=0.05)


def test_types_are_drawn_by_the_root_of_their_cells() -> None:
    """Four times the cells of another type, twice its pseudo-cells."""
    cells = toy(100, types=("B", "NK")).take(np.r_[np.arange(0, 100, 2)[:10], np.arange(1, 100, 2)[:40]])
    memory = AnalyticMemory.empty(0.1).with_stage(cells, all_columns(cells), stage=1, rank=5)

    drawn = draw_pseudo_cells(memory, 300, GenePanel.empty().extended(cells.genes, 1), np.random.default_rng(0))

    numbers = [int((drawn.labels == name).sum()) for name in ("B", "NK")]
    assert numbers == [100, 200]


def test_no_factor_is_a_cell() -> None:
    """Four cells stand behind each factor at least, and a fixed number of them is kept in all."""
    cells = toy(36)
    memory = AnalyticMemory.empty(0.1).with_stage(cells, all_columns(cells), stage=1, rank=50)

    assert {s.n // len(s.factors) for s in memory.statistics} == {4}


def test_a_new_stage_keeps_the_bound_on_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many stages there are."""
    monkeypatch.setattr(memory_module, "MOST_FACTORS", 30)
    cells = toy(300, n_genes=40)
    memory = AnalyticMemory.empty(0.1)
    for stage in (1, 2, 3):
        memory = memory.with_stage(cells, all_columns(cells), stage=stage, rank=20)

    assert sum(len(s.factors) for s in memory.statistics) <= 30


def test_rows_are_scaled_by_all_of_the_variance() -> None:
    """Unit profiles have the mean square one: seen through all genes, rows of few factors are not scaled up."""
    cells = toy()
    memory = AnalyticMemory.empty(0.1).with_stage(cells, all_columns(cells), stage=1, rank=2)
    index = {s.name: k for k, s in enumerate(memory.statistics)}

    rows, _, classes = memory._rows(np.ones(len(cells.genes), dtype=bool), index)

    for s, c in zip(memory.statistics, classes, strict=True):
        np.testing.assert_allclose(rows[c.start], s.n**0.25 * s.mean, rtol=1e-3, atol=1e-6)
