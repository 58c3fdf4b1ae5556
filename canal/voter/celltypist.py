"""A model of CellTypist becomes a voter."""

from pathlib import Path
from typing import Any

import numpy as np

from canal.data.genes import name_genes
from canal.errors import DataError, RegistryError, WeightsError
from canal.files import check_file, digest_file
from canal.model.voter import SUFFIX, Voter
from canal.voter.pickles import Estimator, array_in, read_pickle

_CLASSIFIERS = ("LogisticRegression", "SGDClassifier")
_DESCRIBED = ("date", "details", "url", "source", "version")  # what CellTypist says of its models


def import_celltypist(file: Path, out: Path | None = None) -> tuple[Voter, Path]:
    """Read a model of CellTypist, run nothing of it, and write it as a voter.

    Parameters
    ----------
    file
        ``.pkl`` as CellTypist writes it.
    out
        File to write, ``NAME.voter``; beside the current folder's files under the model's name by default.

    Returns
    -------
    The voter, and the file it was written to.

    Raises
    ------
    WeightsError
        If the file is not such a model, or what it holds does not fit together.
    DataError
        If the voter cannot be written there, or the file is there already.
    """
    target = check_file(Path(f"{file.stem}{SUFFIX}") if out is None else out, SUFFIX, "--out")
    if target.exists():
        message = f"{target} exists already. Name another file with --out, or delete it first."
        raise WeightsError(message)
    voter = voter_of(read_pickle(file), file)
    voter.save(target)
    return voter, target


def voter_of(content: Any, file: Path) -> Voter:
    """Return the voter of what `read_pickle` read.

    Raises
    ------
    WeightsError
        If classifier, scaler or description are missing, or do not fit together.
    """
    # 1. The three parts of a model.
    parts = content if isinstance(content, dict) else {}
    classifier, scaler, description = parts.get("Model"), parts.get("Scaler_"), parts.get("description")
    if not isinstance(classifier, Estimator) or classifier.kind not in _CLASSIFIERS:
        raise WeightsError(_unfit(file, f"it has no classifier under 'Model' but {_short(parts)}"))
    if not isinstance(scaler, Estimator) or scaler.kind != "StandardScaler":
        raise WeightsError(_unfit(file, "it has no StandardScaler under 'Scaler_'"))
    # 2. Weights: of two types CellTypist keeps one row, the second type's.
    weights, intercept = _numbers(classifier, "coef_", file), _numbers(classifier, "intercept_", file)
    if weights.ndim == 2 and len(weights) == 1:
        weights, intercept = np.concatenate([-weights, weights]), np.concatenate([-intercept, intercept])
    scale = _numbers(scaler, "scale_", file)
    centred = scaler.attributes.get("with_mean", True) is not False
    mean = _numbers(scaler, "mean_", file) if centred else np.zeros_like(scale)
    # 3. Genes as canal names those of a file; of two that come to one name the first stays.
    spelled = _names(classifier, "features", file)
    if weights.ndim != 2 or not weights.shape[1] == len(mean) == len(scale) == len(spelled):
        sizes = f"weights {weights.shape}, mean {mean.shape}, scale {scale.shape} and {len(spelled)} genes"
        raise WeightsError(_unfit(file, f"it has {sizes}"))
    genes, columns = _canonical_genes(spelled, file)
    # 4. What it says of itself; text only.
    described = {"source_file": file.name, "source_digest": digest_file(file), "origin": "CellTypist"}
    if isinstance(description, dict):
        described |= {key: str(description[key]) for key in _DESCRIBED if description.get(key)}
    try:
        return Voter(
            name=file.stem,
            types=_names(classifier, "classes_", file),
            genes=genes,
            weights=weights[:, columns],
            intercept=intercept,
            mean=mean[columns],
            scale=scale[columns],
            description=described,
        )
    except RegistryError as error:
        raise WeightsError(_unfit(file, str(error))) from error


def _canonical_genes(spelled: tuple[str, ...], file: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the genes as canal spells them, each once, and their places in the model."""
    import pandas as pd

    try:
        named = name_genes(pd.DataFrame(index=list(spelled)), source=str(file))
    except DataError as error:
        raise WeightsError(_unfit(file, str(error))) from error
    return named.genes.names, named.columns


def _numbers(estimator: Estimator, name: str, file: Path) -> np.ndarray:
    """Return an attribute that is an array of numbers, as float64."""
    values = array_in(estimator.attributes.get(name))
    if values is None or values.dtype.kind not in "fiu":
        raise WeightsError(_unfit(file, f"its {estimator.kind} has no numbers {name}"))
    return np.ascontiguousarray(values, dtype=np.float64)


def _names(estimator: Estimator, name: str, file: Path) -> tuple[str, ...]:
    """Return an attribute that is an array of text."""
    values = array_in(estimator.attributes.get(name))
    if values is None or values.ndim != 1 or values.dtype.kind not in "OU":
        raise WeightsError(_unfit(file, f"its {estimator.kind} has no names {name}"))
    return tuple(map(str, values.tolist()))


def _short(parts: dict[str, Any]) -> str:
    return ", ".join(key[:20] for key in list(parts)[:5]) or "nothing"


def _unfit(file: Path, reason: str) -> str:
    return f"{file} is no model of CellTypist that can be used: {reason}. Nothing was written."
