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
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from canal.data.cells import Cells
from canal.data.panel import GeneMatch, GenePanel
from canal.data.pool import CellPool
from canal.data.variance import unit_rows
from canal.errors import RegistryError

FORMAT = 1
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
        panel = self.panel.extended([cells.genes[c] for c in columns], [cells.ensembl[c] for c in columns], stage)
        match = panel.match([cells.genes[c] for c in columns], [cells.ensembl[c] for c in columns])
        positions = np.flatnonzero(match.measured)
        values = unit_rows(cells.expression[:, columns][:, match.columns[positions]])
        fresh = []
        for name in sorted(set(cells.labels.tolist())):
            rows = values[np.flatnonzero(cells.labels == name)]
            kept = min(rank, rows.shape[0] // cells_per_factor)
            fresh.append(type_statistics(rows, stage=stage, name=name, rank=kept))
        return replace(
            self,
            panel=panel,
            measured=self.measured | {stage: positions},
            statistics=(*self.statistics, *fresh),
        )

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

    def draw(self, n: int, panel: GenePanel, rng: np.random.Generator) -> CellPool:
        """Draw pseudo-cells of the earlier stages: Gaussian around each type's mean, with its factors and rest.

        Parameters
        ----------
        n
            Cells in all; a type gets a share by the square root of its cells, one at least.
        panel
            Genes to draw; those without statistics of the stage are not measured.
        rng
            Draws them.

        Returns
        -------
        A pool on ``panel`` with one source a stage. Values are of unit profiles, some negative.
        """
        at = panel.match(self.panel.genes, self.panel.ensembl)
        into, of = np.flatnonzero(at.measured), at.columns[at.measured]
        share = np.sqrt([s.n for s in self.statistics])
        numbers = np.maximum(1, np.floor(n * share / share.sum())).astype(int) if len(share) else []
        stages = list(self.measured)
        measured = np.zeros((len(stages), len(panel)), dtype=bool)
        blocks = []
        for s, k in zip(self.statistics, numbers, strict=True):
            position = np.full(len(self.panel), -1)
            position[self.measured[s.stage]] = np.arange(len(s.mean))
            have = position[of] >= 0
            genes = position[of][have]
            spread = rng.standard_normal((k, len(s.factors)), dtype=np.float32) / np.sqrt(max(s.n - 1, 1))
            noise = rng.standard_normal((k, len(genes)), dtype=np.float32) * np.sqrt(s.rest[genes])
            block = np.zeros((k, len(panel)), dtype=np.float32)
            block[:, into[have]] = s.mean[genes] + spread @ s.factors[:, genes] + noise
            measured[stages.index(s.stage), into[have]] = True
            blocks.append(block)
        names = [s.name for s, k in zip(self.statistics, numbers, strict=True) for _ in range(k)]
        stage = np.array(
            [s.stage for s, k in zip(self.statistics, numbers, strict=True) for _ in range(k)], dtype=np.int64
        )
        return CellPool(
            panel=panel,
            expression=sp.csr_matrix(np.concatenate(blocks)),
            measured=measured,
            source=np.array([stages.index(k) for k in stage.tolist()], dtype=np.int64),
            stage=stage,
            labels=np.array(names, dtype=object),
            names=np.array([f"drawn {i}" for i in range(len(names))], dtype=object),
        )

    def solved_for(self, genes: Sequence[str], ensembl: Sequence[str], types: Sequence[str]) -> "SolvedMemory":
        """Return the memory solved for the genes of a file.

        Parameters
        ----------
        genes, ensembl
            Genes of the file.
        types
            Order of the scores; a type without statistics scores zero.
        """
        match = self.panel.match(genes, ensembl)
        rows, targets, spread = self._rows(match.measured, {name: i for i, name in enumerate(types)})
        gram = rows @ rows.T
        gram[np.diag_indices_from(gram)] += self.ridge
        weights = rows.T @ scipy.linalg.solve(gram, targets, assume_a="pos", check_finite=False)
        return SolvedMemory(match=match, weights=weights, types=tuple(types), spread=spread)

    def _rows(self, seen: np.ndarray, index: dict[str, int]) -> tuple[np.ndarray, np.ndarray, dict[int, float]]:
        """Return rows A (R, S) and targets Y (R, C) of all stages for the genes seen, and each stage's scale."""
        place = np.cumsum(seen) - 1
        rows, targets, scales = [], [], {}
        for stage, positions in self.measured.items():
            here = seen[positions]
            blocks, goals, energy, mass = [], [], 0.0, 0.0
            for s in (s for s in self.statistics if s.stage == stage):
                w = s.n**-0.5
                block = np.zeros((1 + len(s.factors), int(seen.sum())), dtype=np.float32)
                block[0, place[positions[here]]] = np.sqrt(w * s.n) * s.mean[here]
                block[1:, place[positions[here]]] = np.sqrt(w) * s.factors[:, here]
                goal = np.zeros((len(block), len(index)), dtype=np.float32)
                goal[0, index[s.name]] = np.sqrt(w * s.n)
                energy += float((block**2).sum()) + w * s.n * float(s.rest[here].sum())
                mass += w * s.n
                blocks.append(block)
                goals.append(goal)
            scales[stage] = float(np.sqrt(energy / mass)) if energy > 0 else 1.0
            rows.append(np.concatenate(blocks) / scales[stage])
            targets.append(np.concatenate(goals))
        return np.concatenate(rows), np.concatenate(targets), scales

    def save(self, path: Path) -> None:
        """Write the statistics to one safetensors file, factors as float16."""
        table = {
            "format": FORMAT,
            "ridge": self.ridge,
            "panel": self.panel.to_dict(),
            "statistics": [{"stage": s.stage, "name": s.name, "n": s.n} for s in self.statistics],
        }
        arrays = {"table": np.frombuffer(json.dumps(table).encode(), dtype=np.uint8).copy()}
        arrays |= {f"measured.{k}": v.astype(np.int64) for k, v in self.measured.items()}
        for i, s in enumerate(self.statistics):
            arrays |= {f"{i}.mean": s.mean, f"{i}.factors": s.factors.astype(np.float16), f"{i}.rest": s.rest}
        save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()}, path)

    @classmethod
    def load(cls, path: Path) -> "AnalyticMemory":
        """Read the statistics.

        Raises
        ------
        RegistryError
            If the file is not an analytic memory of this or an earlier version.
        """
        try:
            with safe_open(path, "pt") as file:
                arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            message = f"{path} is not an analytic memory: {error}. Restore it, or roll back to an earlier stage."
            raise RegistryError(message) from error
        table = json.loads(arrays["table"].tobytes())
        if table["format"] > FORMAT:
            message = f"{path} was written by a newer canal (memory format {table['format']}); update canal."
            raise RegistryError(message)
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
        return cls(
            panel=GenePanel.from_dict(table["panel"]),
            measured=dict(sorted(measured.items())),
            statistics=statistics,
            ridge=table["ridge"],
        )


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
    spread
        Scale of each stage's rows over these genes.
    """

    match: GeneMatch
    weights: np.ndarray
    types: tuple[str, ...]
    spread: dict[int, float]

    @cached_property
    def _seen(self) -> np.ndarray:
        return np.flatnonzero(self.match.measured)

    def scores(self, expression: sp.csr_matrix) -> np.ndarray:
        """Return the scores (cells, C) of cells (cells, genes of the file); near 1 for the type, near 0 elsewhere."""
        values = unit_rows(self.match.project(expression)[:, self._seen])
        return np.asarray(values @ self.weights, dtype=np.float32)


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


def _leading(rows: sp.csr_matrix, mean: np.ndarray, k: int) -> np.ndarray:
    """Return the k leading right singular vectors of the centred rows, each times its singular value."""
    n, g = rows.shape
    if k <= 0:
        return np.zeros((0, g), dtype=np.float32)
    if n > MOST_ROWS:
        rows = _sketched(rows, mean)
        mean = np.zeros(g)
        n = rows.shape[0]
    # The n x n Gram matrix of the centred rows comes from sparse products: the rows are never dense.
    cross = rows @ mean
    gram = (rows @ rows.T).toarray().astype(np.float64)
    gram += float(mean @ mean) - cross[:, None] - cross[None, :]
    u = _leading_eigenvectors(gram, min(k, n))
    return np.asarray((rows.T @ u).T - u.sum(axis=0)[:, None] * mean[None, :], dtype=np.float32)


def _leading_eigenvectors(gram: np.ndarray, k: int) -> np.ndarray:
    """Return k eigenvectors (n, k) of the largest eigenvalues, by block power iteration where that is cheaper."""
    n = len(gram)
    if n <= 2 * (k + SPARE):
        return np.asarray(scipy.linalg.eigh(gram, check_finite=False)[1][:, ::-1][:, :k])
    basis = np.random.default_rng(0).standard_normal((n, k + SPARE))  # a fixed start: same cells, same factors
    for _ in range(POWERS):
        basis = scipy.linalg.qr(gram @ basis, mode="economic", check_finite=False)[0]
    inner = scipy.linalg.eigh(basis.T @ gram @ basis, check_finite=False)[1][:, ::-1][:, :k]
    return np.asarray(basis @ inner)


def _sketched(rows: sp.csr_matrix, mean: np.ndarray) -> sp.csr_matrix:
    """Return fewer rows with nearly the same scatter: random signs fold the centred cells into `MOST_ROWS` sums.

    A count sketch S with one sign a cell has E[(S x)'(S x)] = x'x (Charikar, Chen and Farach-Colton 2002).
    """
    n = rows.shape[0]
    rng = np.random.default_rng(0)
    place, sign = rng.integers(MOST_ROWS, size=n), rng.choice([-1.0, 1.0], size=n)
    fold = sp.csr_matrix((sign, (place, np.arange(n))), shape=(MOST_ROWS, n))
    folded = fold @ rows
    return sp.csr_matrix(folded - np.asarray(fold.sum(axis=1)) @ mean[None, :], dtype=np.float64)
