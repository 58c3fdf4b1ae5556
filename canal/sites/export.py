"""`canal site export`: what a site gives away so that its annotator can be merged with those of others.

An export holds statistics of types: of each type the number of cells, the mean profile, leading directions of the
spread and the variance of each gene beside them. It holds no cell, no cell's name and no path, and a network that was
trained on cells only where that is asked for. `reduced_model` is what is taken out of a stage's model; the manifest in
the notes of its record says what is left, for people as for programs.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from canal.config import dump_preset
from canal.data.cells import CellPool
from canal.data.gene_list import read_gene_list
from canal.data.panel import GenePanel
from canal.errors import CanalError, StageError
from canal.files import digest_file
from canal.model.bank import bank_contents, bank_digest
from canal.model.memory import AnalyticMemory
from canal.model.model import WEIGHTS, Model
from canal.model.novelty.calibration import HeldOutNovelties, NoveltyCalibration
from canal.model.record import StageRecord
from canal.registry.commit import RECORD_FILE
from canal.registry.package import write_package
from canal.registry.signature import own_key
from canal.sites.manifest import AUDIT, SITE, exported_directions, manifest_of, read_export
from canal.stages.layout import Layout, open_registry
from canal.stages.placing import placement_of

MIN_CELLS = 20  # of a type whose statistics are given away; of fewer the mean is nearly a cell
# Directions of the spread of a type. On the immune stream 5 give the same answers as 50, and none give worse ones; each
# tells more of single cells (docs/privacy.md, and docs/sites.md for pancreas).
MAX_DIRECTIONS = 5
NOVELTIES_TOGETHER = 5  # novelties of held-out cells are given away as means of so many
FEWEST_CELLS = 2  # --min-cells at the least
FEWEST_TYPES = 2


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What of a stage is given away.

    Attributes
    ----------
    site
        Name of the site that the others see; the name of the file by default.
    stage
        Number of the stage; the one in use by default.
    genes
        List of the genes that the sites agreed on; all that the model has statistics of by default.
    min_cells
        Types of fewer cells in a stage are left out.
    max_directions
        Most directions of the spread of a type.
    with_network
        Give the network away, too, which was trained on cells.
    """

    site: str | None = None
    stage: int | None = None
    genes: Path | None = None
    min_cells: int = MIN_CELLS
    max_directions: int = MAX_DIRECTIONS
    with_network: bool = False


def export_site(layout: Layout, out: Path, options: ExportOptions) -> dict[str, Any]:
    """Write the statistics of a stage to one file, and return its manifest.

    Raises
    ------
    StageError, RegistryError, DataError
        If there is no such stage, too little is left of it, or the file exists or cannot be written.
    """
    # 1. What is asked for, before anything is read.
    _check_options(options)
    names = None if options.genes is None else _agreed_genes(options.genes)
    registry = open_registry(layout)
    model = registry.model(registry.record(options.stage))
    # 2. What is left of the model, and what is said of it.
    reduced, facts = reduced_model(model, options, names)
    placement = placement_of(layout, model.stage)
    ids = {name: placement.exact_id(name) or "" for name in reduced.types}
    records = registry.records()
    manifest = manifest_of(
        reduced, options.site or out.stem, facts, ids, _sources(model, records), _donors(model, records)
    )
    # 3. One file, the same bytes each time; signed where the workspace has a key.
    write_export(out, reduced, manifest, with_network=options.with_network, private_key=own_key(layout.keys))
    return manifest


def _check_options(options: ExportOptions) -> None:
    """Refuse numbers that leave nothing, or give away single cells."""
    if options.min_cells < FEWEST_CELLS:
        message = f"--min-cells is {options.min_cells}; expected {FEWEST_CELLS} at least: the mean of one is a cell."
        raise StageError(message)
    if options.max_directions < 0:
        message = f"--max-directions is {options.max_directions}; expected 0 or more directions of each type."
        raise StageError(message)


def _agreed_genes(path: Path) -> frozenset[str]:
    try:
        return frozenset(read_gene_list(path))
    except CanalError as error:
        message = f"{error} `canal site genes FILES --out genes.txt` writes such a list."
        raise StageError(message) from error


def reduced_model(
    model: Model, options: ExportOptions, genes: frozenset[str] | None = None
) -> tuple[Model, dict[str, Any]]:
    """Return what a site gives away of a model, and what was left out.

    Parameters
    ----------
    model
        Of a committed stage.
    options
        What is given away.
    genes
        Names of the genes that are kept; all by default.

    Raises
    ------
    StageError
        If the model keeps no statistics, or too few types are left.
    """
    if model.memory is None:
        message = (
            f"Stage {model.stage.number} ({model.stage.name}) keeps no statistics of its types, and there is nothing "
            "to give away but cells. Teach it with a preset whose analytic.enabled is true, such as compact."
        )
        raise StageError(message)
    # 1. Types of too few cells are left out, and counted; of the others the leading directions stay.
    statistics, small = [], []
    for one in model.memory.statistics:
        if one.n < options.min_cells:
            small.append(one.n)
        else:
            statistics.append(one.with_rank(exported_directions(one.n, options.max_directions)))
    types = tuple(sorted({one.name for one in statistics}))
    if len(types) < FEWEST_TYPES:
        message = (
            f"Stage {model.stage.number} ({model.stage.name}) has {len(types)} types of {options.min_cells} cells or "
            f"more; expected {FEWEST_TYPES} at least. Teach it more cells; a lower --min-cells gives away more of each "
            "cell (docs/privacy.md)."
        )
        raise StageError(message)
    memory = replace(model.memory, statistics=tuple(statistics))
    # A voter is of somebody else, and says nothing of this site's cells.
    model = replace(model, voter=None)
    # 2. Keys from 1, so that nobody learns how the stages were numbered here.
    kept = sorted({one.stage for one in statistics})
    keys = {key: place for place, key in enumerate(kept, 1)}
    memory = renumbered(memory, keys)
    memory, missing = memory_of_genes(memory, genes)
    novelty = _rounded_novelty(model.novelty, keys)
    # 3. The network's own genes are names alone; a network itself cannot be cut to the types that are left.
    panel = model.panel if options.with_network or genes is None else _panel_of(model.panel, genes)
    # Where none of them is, those that the statistics are of.
    panel = panel if len(panel) else memory.panel
    panel = GenePanel(genes=panel.genes, entered=(1,) * len(panel))
    if options.with_network:
        types = model.types
    reduced = replace(model, types=types, memory=memory, novelty=novelty, panel=panel, bank=CellPool.empty(), sure=None)
    facts = {
        "left_out": {"types": len(small), "cells": sum(small)},
        "min_cells": options.min_cells,
        "max_directions": options.max_directions,
        "genes_without_statistics": missing,
        "network": bool(options.with_network),
        "keys": {place: key for key, place in keys.items()},
    }
    return reduced, facts


def renumbered(memory: AnalyticMemory, keys: Mapping[int, int]) -> AnalyticMemory:
    """Return a memory with other numbers for its stages; stages without a new one are left out."""
    statistics, measured = [], {}
    for key, new in keys.items():
        measured[new] = memory.measured[key]
    for one in memory.statistics:
        if one.stage in keys:
            statistics.append(replace(one, stage=keys[one.stage]))
    return replace(memory, measured=dict(sorted(measured.items())), statistics=tuple(statistics))


def memory_of_genes(memory: AnalyticMemory, genes: frozenset[str] | None) -> tuple[AnalyticMemory, int]:
    """Return a memory of some genes only, and how many of these it has no statistics of.

    Parameters
    ----------
    memory
        The memory; genes that no stage measured are left out in any case.
    genes
        Names of the genes to keep; all by default.

    Raises
    ------
    StageError
        If none is left.
    """
    # 1. Genes that are asked for and that some stage has statistics of.
    measured = np.zeros(len(memory.panel), dtype=bool)
    for positions in memory.measured.values():
        measured[positions] = True
    wanted = measured
    if genes is not None:
        wanted = measured & np.array([name in genes for name in memory.panel.genes.names])
    kept = np.flatnonzero(wanted)
    if not len(kept):
        message = (
            "The model has statistics of none of the genes in the list. Check that the list names genes as the file "
            "that was taught does, such as by symbols, and that it is of the same species."
        )
        raise StageError(message)
    # 2. Everything else follows them.
    place = np.full(len(memory.panel), -1)
    place[kept] = np.arange(len(kept))
    columns = {key: np.flatnonzero(wanted[positions]) for key, positions in memory.measured.items()}
    statistics = []
    for one in memory.statistics:
        own = columns[one.stage]
        cut = replace(one, mean=one.mean[own], factors=one.factors[:, own], rest=one.rest[own])
        statistics.append(cut)
    panel = memory.panel.subset(kept)
    reduced = AnalyticMemory(
        panel=GenePanel(genes=panel.genes, entered=(1,) * len(panel)),
        measured={key: place[positions[columns[key]]] for key, positions in memory.measured.items()},
        statistics=tuple(statistics),
        ridge=memory.ridge,
    )
    return reduced, 0 if genes is None else len(genes) - len(kept)


def _panel_of(panel: GenePanel, genes: frozenset[str]) -> GenePanel:
    """Return the network's genes that are in the list."""
    return panel.subset(np.flatnonzero([name in genes for name in panel.genes.names]))


def _rounded_novelty(novelty: NoveltyCalibration, keys: Mapping[int, int]) -> NoveltyCalibration:
    """Return the calibration with no number of a single cell: sorted novelties, in groups that have their mean."""
    stages = []
    for held_out in novelty.stages:
        if held_out.stage not in keys or len(held_out.novelty) < NOVELTIES_TOGETHER:
            continue
        ordered = np.sort(held_out.novelty)
        # What is left over at the end joins the last whole group.
        groups = np.minimum(np.arange(len(ordered)) // NOVELTIES_TOGETHER, len(ordered) // NOVELTIES_TOGETHER - 1)
        means = np.bincount(groups, weights=ordered) / np.bincount(groups)
        stages.append(
            HeldOutNovelties(
                stage=keys[held_out.stage],
                genes=held_out.genes,
                novelty=means[groups],
                low=held_out.low,
                high=held_out.high,
            )
        )
    return NoveltyCalibration(stages=tuple(stages))


def _sources(model: Model, records: Sequence[StageRecord]) -> dict[int, list[str]]:
    """Return, by key, what tells that two exports were made of the same cells: hashes of the digests of their files."""
    by_number = {record.number: record for record in records}
    sources = {}
    for key, number in model.stage_of_key.items():
        record = by_number.get(number)
        digests = [] if record is None else [str(source.get("digest", "")) for source in record.data]
        sources[key] = [_source(digest) for digest in digests if digest]
    return sources


def _donors(model: Model, records: Sequence[StageRecord]) -> dict[int, dict[str, int]]:
    """Return, by key and type, of how many donors the cells are, as far as the files that were taught named them."""
    by_number = {record.number: record for record in records}
    donors: dict[int, dict[str, int]] = {}
    for key, number in model.stage_of_key.items():
        for source in by_number[number].data if number in by_number else ():
            donors.setdefault(key, {}).update(source.get("donors") or {})
    return donors


def _source(digest: str) -> str:
    return "sha256:" + hashlib.sha256(f"canal site {digest}".encode()).hexdigest()


def write_export(
    out: Path,
    reduced: Model,
    manifest: Mapping[str, Any],
    *,
    with_network: bool = False,
    private_key: bytes | None = None,
) -> int:
    """Write a reduced model with its manifest to one file, signed where there is a key; return its size in bytes."""
    with tempfile.TemporaryDirectory(prefix="canal-site-") as temporary:
        folder = Path(temporary)
        saved = replace(reduced, weights=reduced.weights if with_network else {}).save(folder)
        if not with_network:
            saved.pop(WEIGHTS).unlink()
        record = site_record(reduced, manifest, saved)
        (folder / RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
        name = str(manifest["site"])
        return write_package(out, name, record, folder, compressed=False, private_key=private_key)


def site_record(reduced: Model, manifest: Mapping[str, Any], files: Mapping[str, Path]) -> StageRecord:
    """Return the record of an export: nothing in it is of a file, a workspace or a moment of exporting."""
    return StageRecord(
        number=1,
        name=str(manifest["site"]),
        created=reduced.stage.created,
        seed=reduced.stage.seed,
        preset=dump_preset(reduced.preset),
        types=reduced.types,
        new_types=reduced.types,
        cells=int(manifest["cells"]),
        genes=len(reduced.panel),
        bank=bank_contents(reduced.bank) | {"digest": bank_digest(reduced.bank)},
        artifacts={name: digest_file(path) for name, path in files.items()},
        notes={SITE: dict(manifest)},
    )


def with_audit(path: Path, out: Path, audit: Mapping[str, Any], private_key: bytes | None) -> None:
    """Write an export anew, with the outcome of an audit in its manifest.

    Parameters
    ----------
    path, out
        The export, and the file to write.
    audit
        Plain values.
    private_key
        Signs the new file; none by default.
    """
    export = read_export(path)
    network = bool(export.manifest["network"])
    write_export(
        out, export.model, {**export.manifest, AUDIT: dict(audit)}, with_network=network, private_key=private_key
    )
