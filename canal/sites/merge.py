"""`canal merge`: the exports of several sites become one model, without a cell.

`merge_sites` is the whole of it, top to bottom. The memory of the model is the union of the statistics of the sites;
its network is trained on cells drawn from them. Exports are taken in the order of their hashes, so that the same files
give the same bytes in whatever order they are named. A site withdraws by merging the others again.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from canal.config import Preset, dump_preset, load_preset
from canal.data.cells import CellPool
from canal.data.panel import GenePanel
from canal.errors import StageError
from canal.files import digest_file
from canal.model.bank import bank_contents, bank_digest
from canal.model.memory import MOST_FACTORS, AnalyticMemory, TypeStatistics, rank_within
from canal.model.model import Fusion, Model
from canal.model.novelty.calibration import NoveltyCalibration
from canal.model.record import StageRecord
from canal.model.stage_keys import free_key
from canal.progress import Progress, Silent
from canal.registry.commit import RECORD_FILE
from canal.registry.package import write_package
from canal.registry.signature import check_signer
from canal.sites.export import renumbered
from canal.sites.manifest import FORMAT, MERGED, SiteExport, read_export
from canal.sites.types import SiteTypes, common_names, read_type_map
from canal.training.rehearsal import rehearsed_network
from canal.training.run import Run

LEAST_COMMON_GENES = 0.05  # of the smaller of a site's genes and all others': less is another species or other names
SEED = 0  # of the network


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """How exports are merged.

    Attributes
    ----------
    without
        Files or names of sites that are left out.
    type_map
        Table with the columns ``name`` and ``to``, and if wanted ``site``.
    preset
        Name of the preset of the joint model; that of the sites by default.
    disjoint
        Whether a site may have no type in common with any other.
    name
        Name of the joint model.
    keys
        Folder of the keys that are trusted; ``None`` takes exports of anybody.
    """

    without: Sequence[str] = ()
    type_map: Path | None = None
    preset: str | None = None
    disjoint: bool = False
    name: str = "joint"
    keys: Path | None = None


def merge_sites(paths: Sequence[Path], options: MergeOptions, progress: Progress | None = None) -> Model:
    """Merge exports into one model, which has a record and is not written anywhere.

    Parameters
    ----------
    paths
        The exports.
    options
        How they are merged.
    progress
        Told how far the training of the network is.

    Raises
    ------
    RegistryError, StageError, DataError
        If an export cannot be used, or the exports do not fit together.
    """
    # 1. The exports, in an order that is theirs alone; those of sites that withdrew are not even opened further.
    exports = _remaining([_without_directions(read_export(path)) for path in paths], options.without)
    if options.keys is not None:
        for export in exports:
            check_signer(export.path, export.signer, options.keys)
    _refuse_repeated(exports)
    preset = _common_preset(exports, options.preset)
    # 2. Which types are the same, and whether the genes are.
    table = read_type_map(options.type_map, [export.site for export in exports])
    names = common_names([_types_of(export) for export in exports], table)
    if len(exports) > 1:
        _check_common_genes(exports)
        if not options.disjoint:
            _check_common_types(names)
    # 3. The union of the statistics; directions are cut to the bound once, now.
    keys = _keys_of(exports)
    memory = _joint_memory(exports, names, keys, preset)
    # 4. Calibrations are joined.
    base = Model(
        preset=preset,
        panel=_joint_panel(exports),
        types=tuple(sorted({name for _, name in memory.counts()})),
        weights={},
        memory=memory,
        fusion=_joint_fusion([export.model.fusion for export in exports]),
        novelty=_joint_novelty(exports, keys),
        bank=CellPool.empty(),
        name=options.name,
    )
    base = replace(base, record=_record(base, exports, names, keys))
    # 5. A network that is trained on cells drawn from the statistics; the exports need no room any more.
    exports.clear()
    run = Run(number=base.stage.number, seed=SEED, progress=progress or Silent(), key=free_key(1, base))
    weights, _ = rehearsed_network(base, run)
    return replace(base, weights=weights)


def _remaining(exports: Sequence[SiteExport], without: Sequence[str]) -> list[SiteExport]:
    """Return the exports that are merged, ordered by their hashes.

    Raises
    ------
    StageError
        If a site to leave out is not there, or none is left.
    """
    left_out = set()
    for asked in without:
        digests = {export.digest for export in exports if asked in (export.site, str(export.path))}
        if not digests and Path(asked).is_file():
            digests = {read_export(Path(asked)).digest} & {export.digest for export in exports}
        if not digests:
            message = (
                f"--without {asked} is none of the exports: they are of {', '.join(sorted(e.site for e in exports))}. "
                "Name the file or the site."
            )
            raise StageError(message)
        left_out |= digests
    remaining = sorted((e for e in exports if e.digest not in left_out), key=lambda export: export.digest)
    if not remaining:
        message = "No export is left to merge. Name the exports of the sites that stay."
        raise StageError(message)
    return remaining


def _without_directions(export: SiteExport) -> SiteExport:
    """Return an export whose statistics have their directions as rows of no genes: most of its size, read again later.

    So the exports of many sites are never all in memory.
    """
    memory = _memory(export)
    statistics = tuple(replace(one, factors=one.factors[:, :0].copy()) for one in memory.statistics)
    return replace(export, model=replace(export.model, memory=replace(memory, statistics=statistics)))


def _refuse_repeated(exports: Sequence[SiteExport]) -> None:
    """Refuse two exports of one name, or of the same cells: they would count twice."""
    by_site: dict[str, SiteExport] = {}
    by_source: dict[str, SiteExport] = {}
    for export in exports:
        before = by_site.setdefault(export.site, export)
        if before is not export:
            message = (
                f"{before.path} and {export.path} are both of a site {export.site!r}. Take the newer one alone, or "
                "export one of them under another name with --site."
            )
            raise StageError(message)
        for stage in export.manifest["stages"]:
            for source in stage["source"]:
                before = by_source.setdefault(source, export)
                if before is not export:
                    message = (
                        f"{before.path} and {export.path} hold statistics of the same cells, which would count twice. "
                        "Take one of them."
                    )
                    raise StageError(message)


def _common_preset(exports: Sequence[SiteExport], asked: str | None) -> Preset:
    """Return the preset of the joint model: the one that was asked for, or that of all sites."""
    first = exports[0].model.preset
    if asked is not None:
        preset = load_preset(asked)
    else:
        preset = first
        for export in exports:
            different = _differences(first, export.model.preset)
            if different:
                message = (
                    f"{exports[0].path} and {export.path} were taught with other settings ({', '.join(different)}). "
                    "Say which preset the joint model takes: --preset compact."
                )
                raise StageError(message)
    if not preset.analytic.enabled:
        message = f"Preset {preset.name!r} keeps no statistics (analytic.enabled is false); choose one that does."
        raise StageError(message)
    return preset


def _differences(one: Preset, other: Preset) -> list[str]:
    """Return the names of the parts of two presets that differ; their names do not count."""
    ours, theirs = dump_preset(one), dump_preset(other)
    keys = sorted((set(ours) | set(theirs)) - {"name", "description"})
    return [key for key in keys if ours.get(key) != theirs.get(key)]


def _types_of(export: SiteExport) -> SiteTypes:
    types = export.manifest["types"]
    cells = {name: int(facts["cells"]) for name, facts in types.items()}
    ids = {name: str(facts.get("id", "")) for name, facts in types.items()}
    return SiteTypes(site=export.site, cells=cells, ids=ids)


def _check_common_genes(exports: Sequence[SiteExport]) -> None:
    """Refuse a site whose genes hardly any other site has."""
    for export in exports:
        own = set(_memory(export).panel.genes.names)
        others: set[str] = set()
        for other in exports:
            if other is not export:
                others.update(_memory(other).panel.genes.names)
        common, fewest = len(own & others), min(len(own), len(others))
        if common < LEAST_COMMON_GENES * fewest:
            ours, theirs = ", ".join(sorted(own)[:3]), ", ".join(sorted(others)[:3])
            message = (
                f"{export.path} has {common} of its {len(own):,} genes in common with the other sites: its genes are "
                f"named {ours}, theirs {theirs}. Is it of another species, or named by ids and not by symbols? Leave "
                f"it out with --without {export.site}."
            )
            raise StageError(message)


def _check_common_types(names: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse a site of whose types no other site has any."""
    for site, own in names.items():
        others: set[str] = set()
        for other, theirs in names.items():
            if other != site:
                others.update(theirs.values())
        if not others & set(own.values()):
            message = (
                f"{site} has no type in common with the other sites: its types are {', '.join(sorted(own)[:6])}; "
                f"theirs {', '.join(sorted(others)[:6])}. Where they mean the same by other names, say so in a table "
                "(--map); where they are right as they are, merge with --disjoint."
            )
            raise StageError(message)


def _memory(export: SiteExport) -> AnalyticMemory:
    assert export.model.memory is not None  # every export that was read has one
    return export.model.memory


def _keys_of(exports: Sequence[SiteExport]) -> dict[str, dict[int, int]]:
    """Return the key in the joint model of each key of each site, by site: 1, 2, ... in the order of the exports."""
    keys: dict[str, dict[int, int]] = {}
    last = 0
    for export in exports:
        keys[export.site] = {}
        for key in sorted(_memory(export).measured):
            last += 1
            keys[export.site][key] = last
    return keys


def _joint_memory(
    exports: Sequence[SiteExport],
    names: Mapping[str, Mapping[str, str]],
    keys: Mapping[str, Mapping[int, int]],
    preset: Preset,
) -> AnalyticMemory:
    """Return the union of the statistics of the sites, with the most directions that a memory has."""
    most = rank_within([len(one.factors) for export in exports for one in _memory(export).statistics], MOST_FACTORS)
    panel = GenePanel.empty()
    measured: dict[int, np.ndarray] = {}
    statistics: list[TypeStatistics] = []
    for export in exports:
        # 1. Common names, and keys of the joint model.
        rank = min(preset.analytic.rank, int(export.manifest["max_directions"]))
        whole = _memory(_read_again(export))
        own = renumbered(whole.renamed(names[export.site], rank=rank), keys[export.site])
        # 2. Genes that nobody had before come at the end; a stage's genes stand in the order of the panel.
        panel = panel.extended(own.panel.genes, min(own.measured))
        columns = panel.match(own.panel.genes).columns
        place = np.full(len(own.panel), -1)
        place[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
        order = {}
        for key, positions in own.measured.items():
            moved = place[positions]
            # A gene that the panel has under another name already counts once.
            order[key] = np.argsort(moved, kind="stable")[int((moved < 0).sum()) :]
            measured[key] = moved[order[key]]
        # 3. The statistics follow their genes.
        for one in own.statistics:
            cut, o = one.with_rank(most), order[one.stage]
            statistics.append(replace(cut, mean=cut.mean[o], factors=cut.factors[:, o], rest=cut.rest[o]))
    joint = AnalyticMemory(panel=panel, measured=measured, statistics=tuple(statistics), ridge=preset.analytic.ridge)
    # Types of a site that became one have directions anew.
    return joint.within(MOST_FACTORS)


def _read_again(export: SiteExport) -> SiteExport:
    """Return an export with its directions.

    Raises
    ------
    StageError
        If the file was replaced meanwhile.
    """
    again = read_export(export.path)
    if again.digest != export.digest:
        message = f"{export.path} was replaced while it was merged. Run this again."
        raise StageError(message)
    return again


def _joint_panel(exports: Sequence[SiteExport]) -> GenePanel:
    """Return the genes of the joint network: those of the networks of all sites."""
    panel = GenePanel.empty()
    for export in exports:
        panel = panel.extended(export.model.panel.genes, 1)
    return panel


def _joint_fusion(fusions: Sequence[Fusion]) -> Fusion:
    """Return the fusion whose temperature is the geometric mean over the stages of all sites."""
    stages = sum(fusion.stages for fusion in fusions)
    log_mean = sum(fusion.stages * float(np.log(fusion.temperature)) for fusion in fusions) / stages
    return replace(fusions[0], temperature=float(np.exp(log_mean)), stages=stages)


def _joint_novelty(exports: Sequence[SiteExport], keys: Mapping[str, Mapping[int, int]]) -> NoveltyCalibration:
    """Return the tables of all sites."""
    stages = []
    for export in exports:
        for held_out in export.model.novelty.stages:
            stages.append(replace(held_out, stage=keys[export.site][held_out.stage]))
    return NoveltyCalibration(stages=tuple(stages))


def _record(
    model: Model,
    exports: Sequence[SiteExport],
    names: Mapping[str, Mapping[str, str]],
    keys: Mapping[str, Mapping[int, int]],
) -> StageRecord:
    """Return the record of the joint model: what came from which export, and nothing of when or where it was merged."""
    sites = []
    for export in exports:
        renamed = {old: new for old, new in names[export.site].items() if old != new}
        facts: dict[str, Any] = {
            "site": export.site,
            "digest": export.digest,
            "signed_by": export.signer,
            "cells": int(export.manifest["cells"]),
            "types": sorted(set(names[export.site].values())),
            "renamed": renamed,
            "keys": sorted(keys[export.site].values()),
        }
        sites.append(facts)
    return StageRecord(
        number=sum(len(own) for own in keys.values()),
        name=model.name,
        created=max(export.model.stage.created for export in exports),
        seed=SEED,
        preset=dump_preset(model.preset),
        types=model.types,
        new_types=model.types,
        cells=sum(int(export.manifest["cells"]) for export in exports),
        genes=len(model.panel),
        bank=bank_contents(model.bank) | {"digest": bank_digest(model.bank)},
        notes={MERGED: {"format": FORMAT, "sites": sites}},
    )


def write_merged(out: Path, model: Model) -> int:
    """Write a merged model to one file, as `canal registry export` writes a stage; return its size in bytes."""
    with tempfile.TemporaryDirectory(prefix="canal-merge-") as temporary:
        folder = Path(temporary)
        digests = {name: digest_file(path) for name, path in model.save(folder).items()}
        record = model.stage.with_fields(artifacts=digests)
        (folder / RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
        return write_package(out, model.name, record, folder)
