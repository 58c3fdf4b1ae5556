"""What the declarations in stages/paper/ say, and the authors' files split into stages as they say."""

import tomllib
from pathlib import Path

import anndata as ad
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.errors import ConfigError, DataError


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HoldOut(_Frozen):
    """Cells that are drawn for the test before anything else, by NumPy's legacy generator as the authors do."""

    cells: int = Field(ge=1)
    seed: int


class Part(_Frozen):
    """One stage: which cells of the file it has, which types it teaches, and which cells are kept for the test."""

    name: str
    contains: str | tuple[str, ...]
    types: tuple[str, ...] = ()
    hold_out: HoldOut | None = None
    tested_only: bool = False
    printed_cells: int | None = None
    set: tuple[str, ...] = ()
    cells: Path | None = None


class Test(_Frozen):
    """Held-out cells of some parts together, and what the paper prints of them."""

    name: str
    stages: tuple[str, ...]
    printed: dict[str, float] = Field(default_factory=dict)


class Experiment(_Frozen):
    """One experiment; see the comments in stages/paper/."""

    schema_: int = Field(alias="schema", ge=1, le=1)
    name: str
    preset: str
    seed: int
    source: str
    labels: str
    min_genes: int
    cells: Path
    shared_types: bool = False
    rename: dict[str, str] = Field(default_factory=dict)
    stages: tuple[Part, ...] = Field(alias="stage", min_length=1)
    tests: tuple[Test, ...] = Field(alias="test", min_length=1)


def read_experiment(path: Path, data: Path | None = None) -> Experiment:
    """Read a declaration; ``data`` is the folder of the files in place of the one it names.

    Raises
    ------
    ConfigError
        If there is none, it does not fit, or a file that it names is missing.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        experiment = Experiment.model_validate(table)
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        message = f"{path} is no declaration of an experiment: {error}. See stages/README.md."
        raise ConfigError(message) from error
    parts = tuple(p.model_copy(update={"cells": _file(p.cells or experiment.cells, path, data)})
                  for p in experiment.stages)  # fmt: skip
    missing = sorted({str(p.cells) for p in parts if not p.cells.is_file()})
    if missing:
        message = (
            f"{path} is about files that are not here: {', '.join(missing)}. They are the authors' to give: the "
            "comment on top of the declaration says which they are. Put them there, or name their folder with --data."
        )
        raise ConfigError(message)
    return experiment.model_copy(update={"stages": parts})


def _file(path: Path, declaration: Path, data: Path | None) -> Path:
    return declaration.parent / path if data is None else data / path.name


def split(experiment: Experiment) -> dict[str, tuple[ad.AnnData | None, ad.AnnData | None]]:
    """Return cells to learn and cells to test on of each part, ``None`` where there are none.

    Raises
    ------
    DataError
        If a column is missing or a part has no cell.
    """
    opened: dict[Path, ad.AnnData] = {}
    found: dict[str, tuple[ad.AnnData | None, ad.AnnData | None]] = {}
    for part in experiment.stages:
        if part.cells not in opened:
            opened[part.cells] = _prepared(part.cells, experiment)
        found[part.name] = _of_part(opened[part.cells], part, experiment)
    taught = [train for train, _ in found.values() if train is not None]
    if experiment.shared_types:
        shared = set.intersection(*(set(t.obs[experiment.labels]) for t in taught))
        found = {k: tuple(_only(x, shared, experiment.labels) for x in pair) for k, pair in found.items()}
    known = set().union(*(set(train.obs[experiment.labels]) for train, _ in found.values() if train is not None))
    return {k: (train, _only(test, known, experiment.labels)) for k, (train, test) in found.items()}


def _prepared(path: Path, experiment: Experiment) -> ad.AnnData:
    cells = ad.read_h5ad(path)
    for column in (experiment.source, experiment.labels):
        if column not in cells.obs:
            message = (
                f"{path} has no column {column!r} in obs; it has {', '.join(cells.obs.columns)}. Mend `source` or "
                "`labels` in the declaration."
            )
            raise DataError(message)
    expressed = np.asarray((cells.X != 0).sum(axis=1)).ravel()
    cells = cells[expressed >= experiment.min_genes].copy()
    names = cells.obs[experiment.labels].astype(str)
    cells.obs[experiment.labels] = names.replace(experiment.rename)
    return cells


def _of_part(cells: ad.AnnData, part: Part, experiment: Experiment) -> tuple[ad.AnnData | None, ad.AnnData | None]:
    words = (part.contains,) if isinstance(part.contains, str) else part.contains
    source = cells.obs[experiment.source].astype(str)
    own = cells[np.array([any(w in s for w in words) for s in source])]
    if not own.n_obs:
        message = (
            f"{part.cells} has no cell of stage {part.name}: no value of {experiment.source!r} contains "
            f"{' or '.join(words)}; it has {', '.join(sorted(set(source))[:8])}. Mend `contains` in the declaration."
        )
        raise DataError(message)
    absent = sorted(set(part.types) - set(own.obs[experiment.labels]))
    if absent:
        message = (
            f"{part.cells}, stage {part.name}, has no cell of {', '.join(absent)}; it has "
            f"{', '.join(sorted(set(own.obs[experiment.labels])))}. Mend `types` or `rename` in the declaration."
        )
        raise DataError(message)
    held = np.arange(own.n_obs)
    if part.hold_out is not None:
        # The generator the authors used: with another the test would be other cells.
        order = np.random.RandomState(part.hold_out.seed).permutation(own.n_obs)
        held = order[: part.hold_out.cells]
    test = own[np.sort(held)].copy()
    if part.tested_only:
        return None, test
    train = own[np.setdiff1d(np.arange(own.n_obs), held)]
    return _only(train, set(part.types), experiment.labels) if part.types else train.copy(), test


def _only(cells: ad.AnnData | None, types: set[str], labels: str) -> ad.AnnData | None:
    return None if cells is None else cells[cells.obs[labels].isin(sorted(types)).to_numpy()].copy()
