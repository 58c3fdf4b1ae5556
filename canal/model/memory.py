"""The analytic memory: what is known of every type without keeping a cell.

For each type of each stage it keeps the number of cells, the mean profile, the leading directions of the spread around
it and the rest of the variance of each gene. From these the ridge regression of types on profiles is solved anew for
whatever genes a file measures: no gene that was not measured is taken for zero, and the order of the stages does not
matter. A stage can be taken out again exactly.

With unit profiles x, one-hot types y and weights w = n^-1/2 of a type in its stage, the solution for genes S is
``W = A_S' (A_S A_S' + r I)^-1 Y``, where the rows of A stand for the weighted cells: ``sqrt(w n) mean`` and
``sqrt(w) factor_i``. The rows of a stage are divided by their root mean square over S, so that a stage with few of the
genes counts as much as one with all.

Shapes: N cells, G genes of the memory, S genes that a file measures, K factors, R rows, C types.

The file of an analytic memory: statistics as tensors, the rest as JSON; no cell and no pickle.

What the analytic memory keeps of the cells of one type.

Shapes: n cells, g genes, k factors.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from canal.data.cells import Cells
from canal.data.genes import Genes
from canal.data.panel import GeneMatch, GenePanel
from canal.data.values import unit_rows
from canal.files import read_tensor_file, write_tensor_file
from canal.model.discriminants import ScoreMoments

MOST_ROWS = 4096  # cells of one type whose spread is decomposed as it is; more are sketched first
SPARE = 20  # directions beyond the wanted ones that block power iteration carries along
POWERS = 4


@dataclass(frozen=True, kw_only=True)
class TypeStatistics:
    """What is kept of the cells of one type of one stage.

    Attributes
    ----------
    stage, name
        Number of the stage and name of the type.
    n
        Number of cells.
    mean
        Mean unit profile over the stage's genes, float32 (g,).
    factors
        Leading directions of the centred profiles, each times the square root of its sum of squares, (k, g).
    rest
        Variance of each gene that the factors leave out, (g,).
    """

    stage: int
    name: str
    n: int
    mean: np.ndarray
    factors: np.ndarray
    rest: np.ndarray

    def with_rank(self, most: int) -> "TypeStatistics":
        """Return the statistics with the leading ``most`` factors; the others' variance goes to the rest."""
        if len(self.factors) <= most:
            return self
        dropped = (self.factors[most:].astype(np.float64) ** 2).sum(axis=0) / self.n
        return replace(self, factors=self.factors[:most], rest=(self.rest + dropped).astype(np.float32))


def type_statistics(rows: sp.csr_matrix, *, stage: int, name: str, rank: int) -> TypeStatistics:
    """Return what is kept of some unit profiles (n, g)."""
    n = rows.shape[0]
    mean = np.asarray(rows.mean(axis=0), dtype=np.float64).ravel()
    total = np.asarray(rows.multiply(rows).mean(axis=0), dtype=np.float64).ravel() - mean**2
    factors = _leading(rows, mean, min(rank, n - 1))
    rest = np.maximum(total - (factors.astype(np.float64) ** 2).sum(axis=0) / n, 0.0)
    return TypeStatistics(
        stage=stage, name=name, n=n, mean=mean.astype(np.float32), factors=factors, rest=rest.astype(np.float32)
    )


def joined_statistics(parts: Sequence[TypeStatistics], *, name: str, rank: int) -> TypeStatistics:
    """Return the statistics of the cells of several types of one stage together, under a new name.

    Number, mean and variance of each gene are exactly those of all cells. The scatter is the sum of what the factors
    of the parts keep and of the scatter between their means; its leading directions become the factors.

    Parameters
    ----------
    parts
        Statistics over the same genes.
    name, rank
        New name; most factors to keep.
    """
    n = sum(part.n for part in parts)
    mean = np.average([part.mean.astype(np.float64) for part in parts], axis=0, weights=[part.n for part in parts])
    # Rows whose products sum to the scatter: the factors of the parts, and the ways from the common mean to theirs.
    rows = []
    for part in parts:
        rows += [part.factors.astype(np.float64), np.sqrt(part.n) * (part.mean - mean)[None, :]]
    scatter = np.concatenate(rows)
    values, vectors = scipy.linalg.eigh(scatter @ scatter.T, check_finite=False)
    # The means lie in a space of one dimension less than there are parts: directions of no length are left out.
    leading = np.flatnonzero(values > 1e-12 * values[-1])[::-1][:rank]
    factors = vectors[:, leading].T @ scatter
    total = (scatter**2).sum(axis=0) / n
    for part in parts:
        total = total + part.n * part.rest.astype(np.float64) / n
    rest = np.maximum(total - (factors**2).sum(axis=0) / n, 0.0)
    return TypeStatistics(
        stage=parts[0].stage,
        name=name,
        n=n,
        mean=mean.astype(np.float32),
        factors=factors.astype(np.float32),
        rest=rest.astype(np.float32),
    )


def _leading(rows: sp.csr_matrix, mean: np.ndarray, k: int) -> np.ndarray:
    """Return the k leading right singular vectors of the centred rows, each times its singular value."""
    n, g = rows.shape
    if k <= 0:
        return np.zeros((0, g), dtype=np.float32)
    centred = _sketched(rows, mean) if n > MOST_ROWS else _centred(rows, mean)
    u = _leading_vectors(centred, min(k, len(centred)))
    return np.asarray(u.T.astype(np.float32) @ centred)


def _centred(rows: sp.csr_matrix, mean: np.ndarray) -> np.ndarray:
    """Return the rows less their mean, dense: `MOST_ROWS` of 6,000 genes take 100 MB and are multiplied ten times."""
    dense: np.ndarray = rows.toarray().astype(np.float32, copy=False)
    dense -= mean.astype(np.float32)
    return dense


def _leading_vectors(centred: np.ndarray, k: int) -> np.ndarray:
    """Return k left singular vectors (n, k) of the largest singular values, by block power iteration where cheaper."""
    n = len(centred)
    if n <= 2 * (k + SPARE):
        gram = (centred @ centred.T).astype(np.float64)
        return np.asarray(scipy.linalg.eigh(gram, check_finite=False)[1][:, ::-1][:, :k])
    basis = np.random.default_rng(0).standard_normal((n, k + SPARE))  # a fixed start: same cells, same factors
    for _ in range(POWERS):
        there = basis.astype(np.float32).T @ centred
        basis = scipy.linalg.qr((centred @ there.T).astype(np.float64), mode="economic", check_finite=False)[0]
    there = basis.astype(np.float32).T @ centred
    inner = scipy.linalg.eigh((there @ there.T).astype(np.float64), check_finite=False)[1][:, ::-1][:, :k]
    return np.asarray(basis @ inner)


def _sketched(rows: sp.csr_matrix, mean: np.ndarray) -> np.ndarray:
    """Return fewer rows with nearly the same scatter: random signs fold the centred cells into `MOST_ROWS` sums.

    A count sketch S with one sign a cell has E[(S x)'(S x)] = x'x (Charikar, Chen and Farach-Colton 2002).
    """
    n = rows.shape[0]
    rng = np.random.default_rng(0)
    place, sign = rng.integers(MOST_ROWS, size=n), rng.choice([-1.0, 1.0], size=n)
    fold = sp.csr_matrix((sign, (place, np.arange(n))), shape=(MOST_ROWS, n))
    sums = np.asarray(fold.sum(axis=1)) @ mean[None, :]
    return np.asarray((fold @ rows).toarray() - sums, dtype=np.float32)


def rank_within(factors: Sequence[int], most: int) -> int:
    """Return the number of factors that each type may keep at most, so that all together keep ``most``.

    Parameters
    ----------
    factors
        Number of factors of each type of each stage.
    most
        Of all of them.
    """
    cap = max(factors, default=0)
    while sum(min(n, cap) for n in factors) > most and cap > 1:
        cap -= 1
    return cap


MOST_FACTORS = 4000  # in all: at 6000 genes 50 MB, and about two seconds to solve on two cores


@dataclass(frozen=True, kw_only=True)
class AnalyticMemory:
    """Statistics of every type of every stage in gene space.

    Attributes
    ----------
    panel
        Genes that any stage has statistics of.
    measured
        Genes that each stage has statistics of, by number of stage, int positions in the panel.
    statistics
        One entry a type and stage.
    ridge
        Strength of the regularisation, for rows of mean square 1.
    """

    panel: GenePanel
    measured: dict[int, np.ndarray]
    statistics: tuple[TypeStatistics, ...]
    ridge: float

    @classmethod
    def empty(cls, ridge: float) -> "AnalyticMemory":
        """Return a memory of nothing."""
        return cls(panel=GenePanel.empty(), measured={}, statistics=(), ridge=ridge)

    def with_stage(
        self, cells: Cells, columns: np.ndarray, *, stage: int, rank: int, cells_per_factor: int = 4
    ) -> "AnalyticMemory":
        """Return the memory with the cells of one more stage.

        Parameters
        ----------
        cells
            Labelled cells.
        columns
            Columns of the genes to keep statistics of.
        stage
            Number of the stage.
        rank
            Most factors kept of each type.
        cells_per_factor
            Cells behind each factor at least. With one the factors of a small type are its cells, rotated; with four
            no cell can be told from them.
        """
        assert cells.labels is not None
        kept_genes = cells.genes.take(columns)
        panel = self.panel.extended(kept_genes, stage)
        match = panel.match(kept_genes)
        positions = np.flatnonzero(match.measured)
        values = unit_rows(cells.expression[:, columns[match.columns[positions]]])
        fresh = []
        for name in sorted(set(cells.labels.tolist())):
            rows = values[np.flatnonzero(cells.labels == name)]
            kept = min(rank, rows.shape[0] // cells_per_factor)
            fresh.append(type_statistics(rows, stage=stage, name=name, rank=kept))
        grown = replace(
            self,
            panel=panel,
            measured=self.measured | {stage: positions},
            statistics=(*self.statistics, *fresh),
        )
        return grown.within(MOST_FACTORS)

    def within(self, most: int) -> "AnalyticMemory":
        """Return the memory with ``most`` factors in all, the same number at most of each type and stage.

        So neither the file nor the time to solve grows with the number of stages.
        """
        cap = rank_within([len(s.factors) for s in self.statistics], most)
        return replace(self, statistics=tuple(s.with_rank(cap) for s in self.statistics))

    def renamed(self, names: Mapping[str, str], *, rank: int, cells_per_factor: int = 4) -> "AnalyticMemory":
        """Return the memory with new names of types; types of a stage that get one name become one.

        Parameters
        ----------
        names
            New name by old name; others stay.
        rank, cells_per_factor
            As for `with_stage`, for types that become one.
        """
        # What has one name within a stage, in the order that learning under these names gives.
        groups: dict[tuple[int, str], list[TypeStatistics]] = {}
        for s in self.statistics:
            groups.setdefault((s.stage, names.get(s.name, s.name)), []).append(s)
        order = {stage: position for position, stage in enumerate(self.measured)}
        statistics = []
        for stage, name in sorted(groups, key=lambda key: (order[key[0]], key[1])):
            parts = groups[stage, name]
            if len(parts) == 1:
                statistics.append(replace(parts[0], name=name))
                continue
            most = min(rank, sum(part.n for part in parts) // cells_per_factor)
            statistics.append(joined_statistics(parts, name=name, rank=most))
        return replace(self, statistics=tuple(statistics))

    def without_stage(self, stage: int) -> "AnalyticMemory":
        """Return the memory as if the stage had never been; its genes stay in the panel, without statistics."""
        return replace(
            self,
            measured={k: v for k, v in self.measured.items() if k != stage},
            statistics=tuple(s for s in self.statistics if s.stage != stage),
        )

    def counts(self) -> dict[tuple[int, str], int]:
        """Return the number of cells of each type of each stage."""
        return {(s.stage, s.name): s.n for s in self.statistics}

    def solved_for(self, genes: Genes, types: Sequence[str]) -> "SolvedMemory":
        """Return the memory solved for the genes of a file.

        Parameters
        ----------
        genes
            Genes of the file.
        types
            Order of the scores; a type without statistics scores zero.
        """
        match = self.panel.match(genes)
        weights, moments = self.solved(match.measured, types)
        return SolvedMemory(match=match, weights=weights, types=tuple(types), moments=moments)

    def solved(self, seen: np.ndarray, types: Sequence[str]) -> tuple[np.ndarray, ScoreMoments]:
        """Return the weights (S, C) that score unit profiles over the genes seen, and where the classes lie there.

        Parameters
        ----------
        seen
            Genes of the memory that are looked at, bool (G,); S of them.
        types
            Order of the scores; a type without statistics scores zero.
        """
        rows, targets, classes = self._rows(seen, {name: i for i, name in enumerate(types)})
        # (A'A + rI)^-1 A' = A' (AA' + rI)^-1: the smaller of the two is solved.
        fewer_genes = rows.shape[1] < rows.shape[0]
        gram = rows.T @ rows if fewer_genes else rows @ rows.T
        gram[np.diag_indices_from(gram)] += self.ridge
        right = rows.T @ targets if fewer_genes else targets
        solution = scipy.linalg.solve(gram, right, assume_a="pos", check_finite=False)
        weights = solution if fewer_genes else rows.T @ solution
        return weights, _score_moments(classes, rows @ weights, weights)

    def type_profiles(self, seen: np.ndarray, types: Sequence[str]) -> np.ndarray:
        """Return the mean unit profile of each type over the genes that a file measures, float64 (C, S).

        Stages of a type count by the root of their cells; where no stage of a type measured a gene, the gene is as in
        the other types.

        Parameters
        ----------
        seen
            Genes of the memory that the file measures, bool (G,).
        types
            Names in the order of the rows.
        """
        index = {name: i for i, name in enumerate(types)}
        place = np.cumsum(seen) - 1
        sums, weights = np.zeros((len(types), int(seen.sum()))), np.zeros((len(types), int(seen.sum())))
        for s in self.statistics:
            here = seen[self.measured[s.stage]]
            columns = place[self.measured[s.stage][here]]
            mean, factors = s.mean[here].astype(np.float64), s.factors[:, here]
            mean_square = float((mean**2).sum() + (factors**2).sum() / s.n + s.rest[here].sum())
            sums[index[s.name], columns] += s.n**0.5 / math.sqrt(max(mean_square, 1e-12)) * mean
            weights[index[s.name], columns] += s.n**0.5
        means = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
        measured = (weights > 0).sum(axis=0)
        return np.where(weights > 0, means, means.sum(axis=0) / np.maximum(measured, 1))

    def _rows(self, seen: np.ndarray, index: dict[str, int]) -> tuple[np.ndarray, np.ndarray, list["_ClassRows"]]:
        """Return rows A (R, S), targets Y (R, C), and which rows are whose, of all stages for the genes seen."""
        place = np.cumsum(seen) - 1
        count = sum(1 + len(s.factors) for s in self.statistics)
        # Filled in place: at many stages these rows are the most memory that annotating takes.
        rows = np.zeros((count, int(seen.sum())), dtype=np.float32)
        targets = np.zeros((count, len(index)), dtype=np.float32)
        classes = []
        end = 0
        for stage, positions in self.measured.items():
            here = seen[positions]
            begin, energy, mass = end, 0.0, 0.0
            of_stage = []
            for s in (s for s in self.statistics if s.stage == stage):
                w = s.n**-0.5
                block = rows[end : end + 1 + len(s.factors)]
                block[0, place[positions[here]]] = np.sqrt(w * s.n) * s.mean[here]
                block[1:, place[positions[here]]] = np.sqrt(w) * s.factors[:, here]
                targets[end, index[s.name]] = np.sqrt(w * s.n)
                own_energy = float((block**2).sum()) + w * s.n * float(s.rest[here].sum())
                of_stage.append((s, end, own_energy / (w * s.n)))
                energy += own_energy
                mass += w * s.n
                end += len(block)
            scale = float(np.sqrt(energy / mass)) if energy > 0 else 1.0
            rows[begin:end] /= scale
            # What is needed to read the classes back out of the rows; one without a gene in the file shows nothing.
            for s, start, mean_square in of_stage:
                if mean_square > 0:
                    one = _ClassRows(
                        start=start,
                        stop=start + 1 + len(s.factors),
                        type=index[s.name],
                        n=s.n,
                        mean_square=mean_square / scale**2,
                        rest=s.rest[here] / scale**2,
                        columns=place[positions[here]],
                    )
                    classes.append(one)
        return rows, targets, classes


@dataclass(frozen=True, kw_only=True)
class _ClassRows:
    """Which rows of A stand for a type of a stage that has genes in common with the file.

    Attributes
    ----------
    start, stop
        Its rows, the mean first.
    type, n
        Position of the type among the targets; number of cells.
    mean_square
        Mean square length of its profiles over the genes seen, as the rows stand.
    rest
        Variance of each gene of the stage that is seen, beside the directions, as the rows stand.
    columns
        Places of these genes among those seen.
    """

    start: int
    stop: int
    type: int
    n: int
    mean_square: float
    rest: np.ndarray
    columns: np.ndarray


def _score_moments(classes: Sequence[_ClassRows], products: np.ndarray, weights: np.ndarray) -> ScoreMoments:
    """Return where the classes lie among the scores, and their mean covariance.

    Parameters
    ----------
    classes
        The classes.
    products
        Rows times solution, A W (R, C).
    weights
        The solution W, (S, C).
    """
    means = np.zeros((len(classes), weights.shape[1]))
    n = np.array([c.n for c in classes], dtype=np.float64)
    shares = np.sqrt(n) / max(float(np.sqrt(n).sum()), 1.0)
    rest = np.zeros(len(weights))
    spread = []
    for k, c in enumerate(classes):
        # Profiles of the class get the mean square 1; the rows' weights are undone, n^1/4 and n^-1/4.
        own = products[c.start : c.stop].astype(np.float64) / math.sqrt(c.mean_square)
        means[k] = own[0] / c.n**0.25
        spread.append(own[1:] * c.n**0.25 * math.sqrt(shares[k] / max(c.n - 1, 1)))
        rest[c.columns] += shares[k] / c.mean_square * c.rest
    directions = np.concatenate([np.zeros((0, weights.shape[1])), *spread])
    covariance = directions.T @ directions + (weights.T * rest.astype(np.float32)) @ weights
    types = np.array([c.type for c in classes], dtype=np.int64)
    return ScoreMoments(means=means, n=n, types=types, covariance=covariance)


@dataclass(frozen=True, kw_only=True)
class SolvedMemory:
    """The memory for one set of genes.

    Attributes
    ----------
    match
        Genes of the memory that the file measures.
    weights
        W of shape (S, C).
    types
        Types in the order of the scores.
    moments
        Where the classes lie among the scores.
    """

    match: GeneMatch
    weights: np.ndarray
    types: tuple[str, ...]
    moments: ScoreMoments

    @property
    def columns(self) -> np.ndarray:
        """Columns of the file in the order of the rows of W, (S,)."""
        return np.asarray(self.match.columns[self.match.measured])

    @cached_property
    def _seen(self) -> np.ndarray:
        return np.flatnonzero(self.match.measured)

    def scores(self, expression: sp.csr_matrix) -> np.ndarray:
        """Return the scores (cells, C) of cells (cells, genes of the file); near 1 for the type, near 0 elsewhere."""
        values = unit_rows(self.match.project(expression)[:, self._seen])
        return np.asarray(values @ self.weights, dtype=np.float32)


FORMAT = 1


def save_memory(memory: AnalyticMemory, path: Path) -> None:
    """Write the statistics to one safetensors file, factors as float16."""
    table = {
        "format": FORMAT,
        "ridge": memory.ridge,
        "panel": memory.panel.to_dict(),
        "statistics": [{"stage": s.stage, "name": s.name, "n": s.n} for s in memory.statistics],
    }
    arrays = {f"measured.{k}": v.astype(np.int64) for k, v in memory.measured.items()}
    for i, s in enumerate(memory.statistics):
        arrays |= {f"{i}.mean": s.mean, f"{i}.factors": s.factors.astype(np.float16), f"{i}.rest": s.rest}
    write_tensor_file(path, arrays, "table", table)


def load_memory(path: Path) -> AnalyticMemory:
    """Read the statistics.

    Raises
    ------
    RegistryError
        If the file is not an analytic memory of this or an earlier version.
    """
    arrays, table = read_tensor_file(path, "table", "analytic memory", FORMAT)
    statistics = tuple(
        TypeStatistics(
            **facts,
            mean=arrays[f"{i}.mean"],
            factors=arrays[f"{i}.factors"].astype(np.float32),
            rest=arrays[f"{i}.rest"],
        )
        for i, facts in enumerate(table["statistics"])
    )
    measured = {int(k.removeprefix("measured.")): v for k, v in arrays.items() if k.startswith("measured.")}
    return AnalyticMemory(
        panel=GenePanel.from_dict(table["panel"]),
        measured=dict(sorted(measured.items())),
        statistics=statistics,
        ridge=table["ridge"],
    )
