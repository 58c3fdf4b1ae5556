"""The example bank: quotas to the cell, the right cells, and nothing else in its file."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canal.data.cells import CellPool
from canal.data.stream import read_cells
from canal.errors import RegistryError, StageError
from canal.model.bank import bank_contents, bank_digest, load_bank, save_bank
from canal.training.examples import POLICIES, balanced_quotas
from tests.learning import choose as choose_bank
from tests.make import make_adata


def pool_of(n_cells: int = 120, stage: int = 1, **options: object) -> CellPool:
    """Return toy cells as a pool."""
    return CellPool.of(read_cells(make_adata(n_cells, **options), labels="cell_type"), stage)


def choose(pool: CellPool, size: int, selection: str = "random", seed: int = 0) -> CellPool:
    """Choose examples with the expression itself as representation."""
    rep = np.asarray(pool.expression.toarray())
    rows = {name: rep[pool.labels == name].mean(axis=0) for name in set(pool.labels.tolist())}
    return choose_bank(pool, rep, rows, size=size, selection=selection, seed=seed)


@given(
    st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.integers(1, 400), min_size=1, max_size=12),
    st.integers(0, 1500),
)
def test_quotas_are_exact_and_equal(available: dict[str, int], size: int) -> None:
    """Every place is filled where there are cells; no type has more than one place over another that has cells left."""
    if 0 < size < len(available):
        with pytest.raises(StageError, match="places for"):
            balanced_quotas(available, size)
        return

    quotas = balanced_quotas(available, size)

    assert sum(quotas.values()) == min(size, sum(available.values()))
    assert all(quotas[name] <= n for name, n in available.items())
    unfilled = [quotas[name] for name, n in available.items() if quotas[name] < n]
    assert not unfilled or max(quotas.values()) - min(unfilled) <= 1


def test_places_of_a_rare_type_go_to_the_others() -> None:
    """Three types, ten places, one type with two cells: the others get four each."""
    assert balanced_quotas({"rare": 2, "b": 50, "c": 50}, 10) == {"rare": 2, "b": 4, "c": 4}


@pytest.mark.parametrize("selection", sorted(POLICIES))
def test_every_policy_fills_the_quotas_without_doubles(selection: str) -> None:
    """The bank has exactly L cells, as many of each type as its quota, none twice."""
    pool = pool_of()

    bank = choose(pool, 30, selection)

    assert len(bank) == 30
    assert len(set(bank.names.tolist())) == 30
    assert max(Counter(bank.labels.tolist()).values()) - min(Counter(bank.labels.tolist()).values()) <= 1


def test_prototype_uses_the_row_of_the_type_itself() -> None:
    """The cells with the largest product with their own type's row are kept, whatever the order of the types."""
    pool = pool_of()
    rep = np.asarray(pool.expression.toarray())
    rng = np.random.default_rng(1)
    rows = {name: rng.normal(size=rep.shape[1]) for name in set(pool.labels.tolist())}

    bank = choose_bank(pool, rep, rows, size=6, selection="prototype", seed=0)

    for name, row in rows.items():
        of_type = np.flatnonzero(pool.labels == name)
        best = of_type[np.argsort(-(rep[of_type] @ row))[:2]]
        assert set(pool.names[best]) == set(bank.names[bank.labels == name])


def test_herding_keeps_the_mean() -> None:
    """The mean of ten herded cells is nearer the mean of all than that of ten random cells."""
    rng = np.random.default_rng(0)
    rep = rng.normal(size=(200, 8)) + 3
    unit = rep / np.linalg.norm(rep, axis=1, keepdims=True)

    herded = POLICIES["herding"](rep, 10, rep[0], rng)
    random = POLICIES["random"](rep, 10, rep[0], rng)

    gap = [np.linalg.norm(unit[rows].mean(axis=0) - unit.mean(axis=0)) for rows in (herded, random)]
    assert gap[0] < gap[1]


def test_coverage_leaves_no_cell_far_away() -> None:
    """The farthest cell is nearer to ten covering cells than to ten random ones."""
    rng = np.random.default_rng(0)
    rep = rng.normal(size=(200, 3))
    unit = rep / np.linalg.norm(rep, axis=1, keepdims=True)

    def radius(rows: np.ndarray) -> float:
        return float(np.linalg.norm(unit[:, None] - unit[None, rows], axis=2).min(axis=1).max())

    assert radius(POLICIES["coverage"](rep, 10, rep[0], rng)) < radius(POLICIES["random"](rep, 10, rep[0], rng))


def test_a_type_keeps_cells_of_every_stage_it_was_seen_in() -> None:
    """Places within a type are shared among the stages."""
    pool = pool_of(90).joined(pool_of(90, stage=2, prefix="late", seed=1))

    bank = choose(pool, 30)

    for name in set(bank.labels.tolist()):
        stages = Counter(bank.stage[bank.labels == name].tolist())
        assert abs(stages[1] - stages[2]) <= 1


def test_the_file_holds_its_cells_and_nothing_else(tmp_path) -> None:
    """A bank of 20 of 2000 cells is a small file without the other cells' names; it reads back the same."""
    pool = pool_of(2000, n_genes=200)
    bank = choose(pool, 20)
    path = tmp_path / "bank.safetensors"

    save_bank(bank, path)
    content = path.read_bytes()
    again = load_bank(path)

    others = sorted(set(pool.names.tolist()) - set(bank.names.tolist()))
    names = content.decode("latin-1")
    assert not [name for name in others if f'"{name}"' in names]
    assert len(content) < 40_000
    assert bank_digest(again) == bank_digest(bank)
    np.testing.assert_array_equal(again.expression.toarray(), bank.expression.toarray())
    assert bank_contents(again) == bank_contents(bank)


def test_a_file_that_is_no_bank_is_refused(tmp_path) -> None:
    """Somebody else's bytes are one clear error."""
    path = tmp_path / "bank.safetensors"
    path.write_bytes(b"not a bank")

    with pytest.raises(RegistryError, match="not an example bank"):
        load_bank(path)


def test_pools_of_other_genes_join_and_know_what_was_measured() -> None:
    """A gene that a source did not measure is not measured for its cells after joining, and measured zeros stay."""
    first = pool_of(30, genes=[f"G{i}" for i in range(10)], n_genes=10)
    second = pool_of(30, genes=[f"G{i}" for i in range(5, 15)], n_genes=10, stage=2, prefix="b")

    both = first.joined(second)

    assert both.panel.genes.names == tuple(f"G{i}" for i in range(15))
    assert both.measured.tolist() == [[True] * 10 + [False] * 5, [False] * 5 + [True] * 10]
    np.testing.assert_array_equal(both.expression[30:, 5:].toarray(), second.expression.toarray())
    only_second = both.take(np.arange(30, 60))
    assert only_second.panel.genes == second.panel.genes


def test_cells_to_be_tested_on_come_last() -> None:
    """Held-out cells enter the bank only where their type has no others left."""
    pool = pool_of(90)
    rep = np.asarray(pool.expression.toarray())
    rows = dict.fromkeys(set(pool.labels.tolist()), rep[0])
    last = np.arange(90) % 5 == 0

    few = choose_bank(pool, rep, rows, size=60, selection="random", seed=0, held_out=last)
    all_of_them = choose_bank(pool, rep, rows, size=1000, selection="random", seed=0, held_out=last)

    assert not set(few.names.tolist()) & set(pool.names[last].tolist())
    assert len(few) == 60
    assert len(all_of_them) == 90


def test_herding_takes_from_every_part_of_a_type() -> None:
    """Two groups of 70 and 30 cells: about seven of ten herded cells are of the larger one, not all."""
    rng = np.random.default_rng(0)
    rep = rng.normal(scale=0.05, size=(100, 4))
    rep[:70, 0] += 1.0
    rep[70:, 1] += 1.0

    herded = POLICIES["herding"](rep, 10, rep[0], rng)

    assert int((herded < 70).sum()) == pytest.approx(7, abs=1)
