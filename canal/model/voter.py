"""A voter: one linear score a type, as CellTypist models are, kept as numbers and text alone.

Each gene is centred, divided by its spread and cut at `CEILING`; the score of a type is a weighted sum of the genes,
and its probability the logistic function of the score, for each type by itself. A voter keeps no statistics of cells:
it cannot tell a cell of a type it does not know, adapts to no file, and no pseudo-cell can be drawn from it.

A workspace can start from one. What is taught goes over to network and memory; for the types that nobody taught the
voter goes on answering, by the rule of `VoterReader`.

Shapes: n cells, G genes of the voter, S of them that a file measures, C types, U of them that nobody taught, T taught
types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import expit, log_expit, logsumexp

from canal.data.genes import Genes
from canal.data.panel import GeneMatch, GenePanel
from canal.errors import RegistryError
from canal.files import read_tensor_file, write_file_whole, write_tensor_file

FORMAT = 1
SUFFIX = ".voter"
CEILING = 10.0  # of a centred and scaled value, as CellTypist cuts it
DENSE_ROWS = 1024  # cells that are made dense at a time
_ARRAYS = ("weights", "intercept", "mean", "scale")
# Share of the held-out cells of a stage, all of taught types, that the voter may take for types of its own. Voters of
# one immune data set, annotators taught another (8 pairs, all test files): accuracy .844 at .05, .848 at .02, .850 at
# .01, .838 without a threshold; pancreas (4 pairs): .938 at all of them. The same quantile of the
# bank, seen through the genes of each file, gives .853: not worth reading the bank for.
MOST_TAKEN = 0.01
CANNOT = ("novelty", "replay", "distillation")  # what needs statistics or cells of a type, and a voter has none
LEAST_SHARE = 1e-30  # of the probability, below which a logarithm is not taken


@dataclass(frozen=True, kw_only=True)
class Voter:
    """One linear score a type.

    Attributes
    ----------
    name
        Name of the voter.
    types
        Names of the types, (C,).
    genes
        Names of the genes, (G,).
    weights, intercept
        Of the scores, float64 (C, G) and (C,).
    mean, scale
        By which a gene is centred and divided, float64 (G,); the mean is zero where the model does not centre.
    description
        What the file it came from says of itself, and its digest; plain values.
    thresholds
        By key of the stage: the log odds beside the taught types from which the voter answers, so that few of the
        stage's held-out cells are taken from these; see `VoterReader`. None before it was taught on.
    renamed
        What types are called where they were renamed or merged since, by the names that the voter has for them.
    """

    name: str
    types: tuple[str, ...]
    genes: tuple[str, ...]
    weights: np.ndarray
    intercept: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    description: Mapping[str, Any]
    thresholds: Mapping[int, float] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            message = f"The voter {self.name!r} cannot be used: {problem}. Import it again from its source."
            raise RegistryError(message)

    @property
    def panel(self) -> GenePanel:
        """Its genes as those of a model, to be found in a file."""
        return GenePanel(genes=Genes(self.genes, ("",) * len(self.genes)), entered=(1,) * len(self.genes))

    @property
    def named(self) -> tuple[str, ...]:
        """What each of its types is called in an answer, (C,)."""
        return tuple(self.renamed.get(name, name) for name in self.types)

    def untaught(self, taught: Sequence[str]) -> tuple[str, ...]:
        """Return the names that are not among those of taught types, in the voter's order."""
        known = set(taught)
        return tuple(dict.fromkeys(name for name in self.named if name not in known))

    @property
    def threshold(self) -> float:
        """The log odds from which it answers: those of the strictest stage, zero at least."""
        return max(0.0, *self.thresholds.values(), 0.0)

    def with_names(self, names: Mapping[str, str]) -> "Voter":
        """Return the voter after types were renamed or merged: new name by old name, as they are called so far."""
        renamed = {}
        for cell_type, called in zip(self.types, self.named, strict=True):
            if names.get(called, called) != cell_type:
                renamed[cell_type] = names.get(called, called)
        return replace(self, renamed=renamed)

    def with_stage(self, key: int, threshold: float) -> "Voter":
        """Return the voter with what the held-out cells of a stage have shown."""
        return replace(self, thresholds={**self.thresholds, key: threshold})

    def without_stage(self, key: int) -> "Voter":
        """Return the voter as if the stage had never been."""
        return replace(self, thresholds={k: v for k, v in self.thresholds.items() if k != key})

    @staticmethod
    def reading_order(match: GeneMatch) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns of a file to read, ascending, and which of these each measured gene is, (S,) each."""
        places = match.columns[match.measured]
        columns = np.sort(places)
        return columns, np.searchsorted(columns, places)

    def scores(self, expression: sp.csr_matrix, match: GeneMatch) -> np.ndarray:
        """Return the scores of cells, float64 (n, C).

        Parameters
        ----------
        expression
            Natural ``log1p`` of values per 10,000, (n, S): the genes of ``match`` that are measured, in the voter's
            order.
        match
            Where the file measures the voter's genes; what it does not measure does not count, as in CellTypist.
        """
        seen = match.measured
        weights, mean, scale = self.weights[:, seen].T, self.mean[seen], self.scale[seen]
        parts = [np.zeros((0, len(self.types)))]
        for start in range(0, expression.shape[0], DENSE_ROWS):
            values = expression[start : start + DENSE_ROWS].toarray().astype(np.float64)
            scaled = np.minimum((values - mean) / scale, CEILING)
            parts.append(scaled @ weights + self.intercept)
        return np.concatenate(parts)

    def save(self, path: Path) -> None:
        """Write the voter to one safetensors file, whole or not at all."""
        table = {
            "format": FORMAT,
            "kind": "voter",
            "name": self.name,
            "types": list(self.types),
            "genes": list(self.genes),
            "description": dict(self.description),
        }
        # Only where there are some, so that an imported voter has the bytes it always had.
        if self.thresholds:
            table["thresholds"] = {str(key): threshold for key, threshold in self.thresholds.items()}
        if self.renamed:
            table["renamed"] = dict(self.renamed)
        arrays = {name: np.asarray(getattr(self, name), dtype=np.float64) for name in _ARRAYS}
        write_file_whole(path, lambda beside: write_tensor_file(beside, arrays, "table", table))

    @classmethod
    def load(cls, path: Path) -> "Voter":
        """Read a voter.

        Raises
        ------
        RegistryError
            If the file is no voter, damaged, or of a newer canal.
        """
        try:
            arrays, table = read_tensor_file(path, "table", "imported voter", FORMAT)
            return cls(
                name=str(table["name"]),
                types=tuple(map(str, table["types"])),
                genes=tuple(map(str, table["genes"])),
                description=dict(table["description"]),
                thresholds={int(key): float(value) for key, value in table.get("thresholds", {}).items()},
                renamed={str(old): str(new) for old, new in table.get("renamed", {}).items()},
                **{name: arrays[name] for name in _ARRAYS},
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"{path} is not a voter ({error!r}). Import it again: canal models import-celltypist FILE.pkl."
            raise RegistryError(message) from error


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the probability of each type by itself, (n, C): they do not add up to one."""
    return np.asarray(expit(scores))


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Which cells the voter answers.

    Attributes
    ----------
    types
        Index of the voter's type, int32 (n,); -1 where a taught type is the better answer.
    confidence
        Probability of that type by itself, as CellTypist gives it, float32 (n,); 0 where there is none.
    """

    types: np.ndarray
    confidence: np.ndarray

    @property
    def voted(self) -> np.ndarray:
        """Whether the voter answers a cell, bool (n,)."""
        return np.asarray(self.types >= 0)

    def over(self, voter: Voter, names: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return type and confidence of each cell, the voter's where it answers, else those given, (n,) each."""
        by_voter = np.array(voter.named, dtype=object)[self.types]
        return np.where(self.voted, by_voter, names), np.where(self.voted, self.confidence, confidence)


class VoterReader:
    """A voter beside taught types, for the genes of one file.

    The types left to the voter and the taught types are compared, as two groups, through the types that both know: how
    much likelier the voter's are than these by the voter, times how likely these are among the taught ones by what was
    taught. Where both know no type in common, the voter's own odds on its best type count. Where the log odds are above
    the threshold, the best of the voter's types is the answer.

    Attributes
    ----------
    voter
        The voter.
    match
        Its genes in the file.
    names
        Names of the types that nobody taught, (U,).

    Parameters
    ----------
    voter
        The voter.
    taught
        Names of the taught types, in the order of their probabilities.
    genes
        Genes of the file.
    """

    def __init__(self, voter: Voter, taught: Sequence[str], genes: Genes) -> None:
        self.voter = voter
        self.match = voter.panel.match(genes)
        known = np.isin(voter.named, list(taught))
        self._own, self._shared = np.flatnonzero(~known), np.flatnonzero(known)
        self._taught_shared = np.flatnonzero(np.isin(list(taught), voter.named))
        self.names = tuple(voter.named[place] for place in self._own.tolist())

    @property
    def speaks(self) -> bool:
        """Whether it can answer at all: some types are left to it, and the file measures some of its genes."""
        return bool(self.names) and bool(self.match.measured.any())

    @property
    def columns(self) -> np.ndarray:
        """Columns of the file that it reads, in the order of its genes, (S,)."""
        return np.asarray(self.match.columns[self.match.measured])

    def log_odds(self, expression: sp.csr_matrix, probabilities: np.ndarray) -> np.ndarray:
        """Return by how much the types left to the voter are likelier than the taught ones, float64 (n,).

        Parameters
        ----------
        expression
            Of its ``columns``, natural ``log1p`` of values per 10,000, (n, S).
        probabilities
            Of the taught types, (n, T).
        """
        return self._log_odds(self.voter.scores(expression, self.match), probabilities)

    def votes(self, expression: sp.csr_matrix, probabilities: np.ndarray) -> Votes:
        """Return which cells the voter answers; arguments as for `log_odds`."""
        scores = self.voter.scores(expression, self.match)
        wins = self._log_odds(scores, probabilities) > self.voter.threshold
        own = self._own[scores[:, self._own].argmax(axis=1)]
        confidence = np.where(wins, expit(scores[np.arange(len(own)), own]), 0.0)
        return Votes(types=np.where(wins, own, -1).astype(np.int32), confidence=confidence.astype(np.float32))

    def _log_odds(self, scores: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        own = scores[:, self._own]
        if not len(self._shared):
            return np.asarray(own.max(axis=1))
        shared = log_expit(scores[:, self._shared])
        by_voter = logsumexp(log_expit(own), axis=1) - logsumexp(shared, axis=1)
        of_shared = np.asarray(probabilities, dtype=np.float64)[:, self._taught_shared].sum(axis=1)
        return np.asarray(by_voter + np.log(np.maximum(of_shared, LEAST_SHARE)))


def measured_threshold(reader: VoterReader, expression: sp.csr_matrix, probabilities: np.ndarray) -> float:
    """Return the log odds that at most `MOST_TAKEN` of some held-out cells of taught types exceed.

    Parameters
    ----------
    reader
        The voter beside the taught types.
    expression, probabilities
        Of the held-out cells, as for `VoterReader.log_odds`.
    """
    if not reader.speaks or not expression.shape[0]:
        return 0.0
    # One of the cells' own values, nothing between two of them.
    return float(np.quantile(reader.log_odds(expression, probabilities), 1.0 - MOST_TAKEN, method="higher"))


def _problem(voter: Voter) -> str:
    """Return why the parts of a voter do not fit together; empty where they do."""
    n_types, n_genes = len(voter.types), len(voter.genes)
    if n_types < 2 or len(set(voter.types)) < n_types:
        return f"it has {n_types} types, {len(set(voter.types))} of them different; expected two at least"
    if not n_genes or len(set(voter.genes)) < n_genes:
        return f"it has {n_genes} genes, {len(set(voter.genes))} of them different"
    expected = {"weights": (n_types, n_genes), "intercept": (n_types,), "mean": (n_genes,), "scale": (n_genes,)}
    for name, shape in expected.items():
        values = getattr(voter, name)
        if values.shape != shape or values.dtype.kind != "f":
            return f"its {name} are {values.dtype} of shape {values.shape}; expected numbers of shape {shape}"
        if not np.isfinite(values).all():
            return f"its {name} are not finite"
    if not (voter.scale > 0).all():
        return "a gene is divided by zero or less"
    return _problem_of_stages(voter)


def _problem_of_stages(voter: Voter) -> str:
    """Return why what stages have added to a voter does not fit it; empty where it does."""
    if not np.isfinite(list(voter.thresholds.values())).all():
        return "its thresholds are no numbers"
    return "" if set(voter.renamed) <= set(voter.types) else "it has new names for types that it does not have"
