"""Which cells are grouped: novel ones and those among them, never those around chance alarms."""

import numpy as np

from canal.novel.find import MOST_OTHERS, Candidates, choose_candidates, select_cells_to_group


def two_clouds(n: int = 100, m: int = 400, seed: int = 0) -> np.ndarray:
    """Return places of n cells of a new type and m known ones, apart."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(n, 5)) + 20, rng.normal(size=(m, 5))])


def candidates(own: np.ndarray, doubtful: np.ndarray, weight: np.ndarray | float = 1.0) -> Candidates:
    return Candidates(
        rows=np.arange(len(own)),
        by_verdict=own,
        doubtful=doubtful | own,
        weight=np.broadcast_to(weight, own.shape).copy(),
    )


def test_cells_among_novel_ones_are_taken() -> None:
    """Of a new type most cells look novel or uncertain: all of it is taken, and of the known type only its alarms."""
    rng = np.random.default_rng(1)
    new = np.arange(500) < 100
    own = np.where(new, rng.random(500) < 0.4, rng.random(500) < 0.05)
    doubtful = np.where(new, rng.random(500) < 0.55, rng.random(500) < 0.05)

    taken = select_cells_to_group(candidates(own, doubtful), two_clouds())

    assert taken[new].mean() > 0.95
    np.testing.assert_array_equal(taken[~new], own[~new])


def test_alarms_by_chance_take_nobody_along() -> None:
    """One known cell in ten is doubtful: nothing but the alarms themselves is taken."""
    rng = np.random.default_rng(2)
    own = rng.random(500) < 0.05

    taken = select_cells_to_group(
        candidates(own, rng.random(500) < 0.05), np.random.default_rng(3).normal(size=(500, 5))
    )

    np.testing.assert_array_equal(taken, own)


def test_a_sampled_cell_counts_for_those_it_stands_for() -> None:
    """Known cells among the alarms of a large file, drawn to stand for 38 each: the sample is not outvoted."""
    points = two_clouds(360, 3000)
    own = np.arange(3360) < 300  # alarms, in one cloud with 60 known cells

    assert select_cells_to_group(candidates(own, own), points).sum() > 340
    assert select_cells_to_group(candidates(own, own, np.where(own, 1.0, 38.0)), points).sum() < 310


def test_the_few_known_cells_of_a_novel_file_are_not_absorbed() -> None:
    """Where nearly all cells are novel most neighbours are so by chance: known cells stay, to compare with."""
    rng = np.random.default_rng(5)
    own = rng.random(500) < 0.75
    points = rng.normal(size=(500, 5))

    taken = select_cells_to_group(candidates(own, own), points)

    assert taken.sum() - own.sum() < 0.3 * (~own).sum()


def test_small_files_are_looked_at_whole_and_large_ones_in_part() -> None:
    """Every cell once, those that are wanted first; of many others a sample with its weight."""
    status = np.array(["known", "novel", "uncertain", "known"], dtype=object)

    plain = choose_candidates(status, ("novel",), 0)
    too = choose_candidates(status, ("novel", "uncertain"), 0)
    large = choose_candidates(np.repeat(status, 10_000), ("novel",), 0)

    assert plain.rows.tolist() == [1, 0, 2, 3]
    assert plain.doubtful.tolist() == [True, False, True, False]
    assert too.by_verdict.sum() == 2
    assert set(plain.weight) == {1.0}
    assert len(large.rows) == 10_000 + MOST_OTHERS
    assert large.weight[~large.by_verdict].sum() == np.float64(30_000)


def test_without_novel_cells_there_is_nothing_to_take() -> None:
    """Nor from a single cell."""
    none = np.zeros(5, dtype=bool)

    assert not select_cells_to_group(candidates(none, ~none), np.zeros((5, 2))).any()
    assert select_cells_to_group(candidates(~none[:1], none[:1]), np.zeros((1, 2))).all()
