"""A voter: one linear score a type, as CellTypist models are, kept as numbers and text alone.

Each gene is centred, divided by its spread and cut at `CEILING`; the score of a type is a weighted sum of the genes,
and its probability the logistic function of the score, for each type by itself. A voter keeps no statistics of cells:
it cannot tell a cell of a type it does not know, and adapts to no file.

Shapes: n cells, G genes of the voter, S of them that a file measures, C types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from canal.data.genes import Genes
from canal.data.panel import GeneMatch, GenePanel
from canal.errors import RegistryError
from canal.files import read_tensor_file, write_file_whole, write_tensor_file

FORMAT = 1
SUFFIX = ".voter"
CEILING = 10.0  # of a centred and scaled value, as CellTypist cuts it
DENSE_ROWS = 1024  # cells that are made dense at a time
_ARRAYS = ("weights", "intercept", "mean", "scale")


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
    """

    name: str
    types: tuple[str, ...]
    genes: tuple[str, ...]
    weights: np.ndarray
    intercept: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    description: Mapping[str, Any]

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            message = f"The voter {self.name!r} cannot be used: {problem}. Import it again from its source."
            raise RegistryError(message)

    @property
    def panel(self) -> GenePanel:
        """Its genes as those of a model, to be found in a file."""
        return GenePanel(genes=Genes(self.genes, ("",) * len(self.genes)), entered=(1,) * len(self.genes))

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
                **{name: arrays[name] for name in _ARRAYS},
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"{path} is not a voter ({error!r}). Import it again: canal models import-celltypist FILE.pkl."
            raise RegistryError(message) from error


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Return the probability of each type by itself, (n, C): they do not add up to one."""
    return np.asarray(expit(scores))


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
    return "" if (voter.scale > 0).all() else "a gene is divided by zero or less"
