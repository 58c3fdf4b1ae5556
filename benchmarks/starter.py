"""Build a model to give away from its declaration: statistics only, with a card, the same bytes each time.

    python benchmarks/starter.py stages/starter/blood.toml --data FOLDER --out stages/starter/blood.canal
    python benchmarks/starter.py stages/starter/blood.toml --data FOLDER --check stages/starter/blood.canal

FOLDER (or CANAL_STARTER_DATA) holds the files that the declaration names. Every data set is left out in turn, and
annotated by a model of the others; the figures stand in the card. While the stages are learned cells are kept as
examples; the model that is written has none: no cell, no cell's name, no path. ``--check`` builds anew and compares
every byte. Another processor or library may compute other last digits.
"""

import argparse
import json
import os
import sys
import tempfile
import tomllib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import anndata as ad
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.config import dump_preset, explain_misfit, load_preset
from canal.data.cells import CellPool
from canal.data.stream import read_cells
from canal.data.threads import single_threaded
from canal.errors import CanalError, ConfigError
from canal.figures import score
from canal.files import digest_file
from canal.model.bank import bank_contents, bank_digest
from canal.model.model import Model
from canal.model.record import StageRecord
from canal.registry.commit import RECORD_FILE
from canal.registry.package import write_package
from canal.registry.shipped import CARD
from canal.training.run import Run
from canal.training.stage import learn_stage
from canal.workspace import LoadedModel

DATA_VARIABLE = "CANAL_STARTER_DATA"  # of the environment: the folder of the files, where --data is not given
DIGITS = 4  # of the figures in the card
Row = dict[str, Any]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TypeId(_Frozen):
    """Id and name of a type in the Cell Ontology."""

    id: str = Field(pattern=r"^CL:\d{7}$")
    label: str = Field(min_length=1)


class DataSet(_Frozen):
    """One data set: files of labelled cells that are joined, and where they come from."""

    name: str = Field(min_length=1)
    files: tuple[str, ...] = Field(min_length=1)
    source: str = Field(min_length=1)
    accession: str = Field(min_length=1)
    obtained_from: Annotated[str, Field(alias="from")] = ""


class Declaration(_Frozen):
    """What a model to give away is built from."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    title: str
    tissue: str
    species: str
    licence: str
    created: str
    labels: str
    preset: str
    seed: int = Field(ge=0)
    set: tuple[str, ...] = ()
    least_cells: int = Field(default=10, ge=2)
    limits: tuple[str, ...] = Field(min_length=1)
    types: dict[str, TypeId]
    stages: Annotated[tuple[DataSet, ...], Field(alias="stage", min_length=2)]


def read_declaration(path: Path) -> Declaration:
    """Read a declaration.

    Raises
    ------
    ConfigError
        If it cannot be read, or does not fit.
    """
    try:
        return Declaration.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read as TOML: {error}. stages/starter/blood.toml shows a declaration."
        raise ConfigError(message) from error
    except ValidationError as error:
        raise ConfigError(explain_misfit(error, str(path), "stages/starter/blood.toml shows a declaration")) from error


def read_stages(declaration: Declaration, folder: Path) -> list[ad.AnnData]:
    """Return the cells of each data set, its files joined, with their labels and without their names.

    Raises
    ------
    ConfigError
        If a file is missing, has no column of labels, or a label has no id in the declaration.
    """
    stages = []
    for data_set in declaration.stages:
        parts = []
        for name in data_set.files:
            if not (folder / name).is_file():
                message = (
                    f"{folder} has no file {name}, which data set {data_set.name} needs. Name the folder with --data."
                )
                raise ConfigError(message)
            part = ad.read_h5ad(folder / name)
            if declaration.labels not in part.obs:
                message = f"{name} has no column obs[{declaration.labels!r}]; it has {', '.join(part.obs.columns)}."
                raise ConfigError(message)
            part.obs = part.obs[[declaration.labels]]
            parts.append(part)
        cells = ad.concat(parts, merge="same", index_unique="-")
        # Whoever gets the model learns no name of a cell.
        cells.obs_names = [f"cell {i}" for i in range(cells.n_obs)]
        unknown = sorted(set(cells.obs[declaration.labels].astype(str)) - set(declaration.types))
        if unknown:
            message = f"Data set {data_set.name} has the types {', '.join(unknown)}; give each an id under [types]."
            raise ConfigError(message)
        stages.append(cells)
    return stages


def taught_cells(declaration: Declaration, cells: ad.AnnData) -> ad.AnnData:
    """Return the cells of a data set without types of fewer than ``least_cells``: their mean is nearly a cell."""
    labels = cells.obs[declaration.labels].astype(str)
    return cells[(labels.map(labels.value_counts()) >= declaration.least_cells).to_numpy()].copy()


def teach(declaration: Declaration, stages: Sequence[ad.AnnData], names: Sequence[str]) -> Model:
    """Learn data sets one after the other, and return the model without an example, with a record but no card.

    Parameters
    ----------
    declaration
        Preset, seed and column of the labels.
    stages, names
        Cells and name of each data set.
    """
    preset = load_preset(declaration.preset, declaration.set)
    model: Model | None = None
    data: list[Row] = []
    for number, (adata, name) in enumerate(zip(stages, names, strict=True), 1):
        cells = read_cells(taught_cells(declaration, adata), labels=declaration.labels)
        model = learn_stage(model, cells, preset, Run(number=number, seed=declaration.seed)).model
        # As `canal stage add` records cells that were given in memory: there is no file to read them from.
        source = {"path": name, "file": None, "labels": declaration.labels, "gene_key_given": None}
        data.append(asdict(cells.report) | source)
    assert model is not None
    model = replace(model, bank=CellPool.empty())
    return replace(model, record=record_of(declaration, model, data))


def record_of(declaration: Declaration, model: Model, data: Sequence[Row]) -> StageRecord:
    """Return the record of the model: nothing in it depends on when or where it was built."""
    return StageRecord(
        number=len(data),  # the memory keeps each data set under its number
        name=declaration.name,
        created=declaration.created,
        seed=declaration.seed,
        preset=dump_preset(model.preset),
        types=model.types,
        new_types=model.types,
        cells=sum(source["cells"] for source in data),
        genes=len(model.panel),
        data=tuple(data),
        bank=bank_contents(model.bank) | {"digest": bank_digest(model.bank)},
    )


def leave_out(declaration: Declaration, stages: list[ad.AnnData], k: int) -> Row:
    """Return how well a model of all data sets but one annotates that one, plainly and with ``--adapt``."""
    others = [i for i in range(len(stages)) if i != k]
    model = teach(declaration, [stages[i] for i in others], [declaration.stages[i].name for i in others])
    # Only cells whose type the others taught can be answered rightly.
    truth = stages[k].obs[declaration.labels].astype(str).to_numpy()
    known = np.isin(truth, list(model.types))
    row: Row = {
        "name": declaration.stages[k].name,
        "cells": int(known.sum()),
        "not_taught": dict(sorted(Counter(truth[~known].tolist()).items())),
    }
    for kind, adapt in (("plain", False), ("adapt", True)):
        annotation = LoadedModel(model).annotate(stages[k], adapt=adapt)
        figures = score(truth[known], annotation.cell_type.astype(str)[known])
        row[kind] = {name: round(float(figures[name]), DIGITS) for name in ("accuracy", "macro_f1")}
    return row


def card_of(declaration: Declaration, stages: list[ad.AnnData], left_out: list[Row]) -> Row:
    """Return the card: what the model is, of what it was made, how well it does, and what it cannot tell."""
    labels = [taught_cells(declaration, cells).obs[declaration.labels].astype(str) for cells in stages]
    totals = Counter(name for column in labels for name in column)
    types = {}
    for name, entry in declaration.types.items():
        types[name] = entry.model_dump() | {"cells": totals[name]}
    sources = []
    for data_set, cells, column in zip(declaration.stages, stages, labels, strict=True):
        facts = {"cells": len(column), "genes": cells.n_vars, "types": dict(sorted(Counter(column).items()))}
        origin = data_set.model_dump(by_alias=True)
        del origin["files"]
        sources.append(origin | facts)
    described = {key: getattr(declaration, key) for key in ("title", "tissue", "species", "licence", "limits")}
    return described | {"types": types, "sources": sources, "left_out": left_out, "mean": mean_figures(left_out)}


def mean_figures(left_out: list[Row]) -> Row:
    """Return the mean of the figures over the data sets that were left out."""
    mean: Row = {}
    for kind in ("plain", "adapt"):
        for name in ("accuracy", "macro_f1"):
            values = [row[kind][name] for row in left_out]
            mean.setdefault(kind, {})[name] = round(float(np.mean(values)), DIGITS)
    return mean


def build(declaration: Declaration, folder: Path, out: Path) -> StageRecord:
    """Build the model, write it to a file that is not there yet, and return its record.

    Raises
    ------
    CanalError
        If the declaration or its files do not fit, or the file cannot be written.
    """
    stages = read_stages(declaration, folder)
    left_out = []
    for k in range(len(stages)):
        left_out.append(leave_out(declaration, stages, k))
        print(line(left_out[-1]), flush=True)
    model = teach(declaration, stages, [data_set.name for data_set in declaration.stages])
    card = card_of(declaration, stages, left_out)
    figures = {f"left_out/{row['name']}/accuracy": row["plain"]["accuracy"] for row in left_out}
    with tempfile.TemporaryDirectory(prefix="canal-starter-") as temporary:
        digests = {name: digest_file(path) for name, path in model.save(Path(temporary)).items()}
        record = model.stage.with_fields(artifacts=digests, metrics=figures, notes={CARD: card})
        (Path(temporary) / RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
        write_package(out, declaration.name, record, Path(temporary))
    return record


def line(row: Row) -> str:
    """Return the figures of a data set that was left out as a line."""
    plain, adapted = row["plain"], row["adapt"]
    return (
        f"without {row['name']}: accuracy {plain['accuracy']:.3f}, macro-F1 {plain['macro_f1']:.3f}; "
        f"--adapt {adapted['accuracy']:.3f}, {adapted['macro_f1']:.3f}"
    )


def main() -> None:
    """Build and write, or build and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("declaration", type=Path)
    parser.add_argument("--data", type=Path, help=f"folder of the files; {DATA_VARIABLE} by default")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, help="file to write, NAME.canal; one that is there is replaced")
    target.add_argument("--check", type=Path, metavar="FILE", help="build anew and compare every byte with this file")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    # Several threads add numbers in another order, and the bytes would differ.
    torch.set_num_threads(1)
    folder = asked.data or Path(os.environ.get(DATA_VARIABLE, "."))
    try:
        with single_threaded(), tempfile.TemporaryDirectory(prefix="canal-starter-") as temporary:
            built = Path(temporary) / "built.canal"
            record = build(read_declaration(asked.declaration), folder, built)
            print(json.dumps(record.notes[CARD]["mean"]))
            same = asked.check is not None and asked.check.is_file() and asked.check.read_bytes() == built.read_bytes()
            if asked.out is not None:
                asked.out.write_bytes(built.read_bytes())
    except CanalError as error:
        parser.exit(2, f"error: {error}\n")
    if asked.check is not None:
        print("identical" if same else f"{asked.check} is not what was built")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
