"""Measure merging of sites: how good the joint model is, and what merging many sites costs.

    python benchmarks/sites.py stream FOLDER --labels cell_type --min-cells 20 --max-directions 50
    python benchmarks/sites.py many --sites 50 --types 10
    python benchmarks/sites.py donors FILE --labels cell_type
    python benchmarks/sites.py pooled FOLDER --labels cell_type

``stream`` takes each ``*.train.h5ad`` of a folder for a site of its own: it teaches a model there, exports its
statistics, merges all exports, and tests the joint model on every ``*.test.h5ad``. ``many`` merges exports of generated
statistics, and prints the seconds and the memory of the process that merges. ``donors`` generates donors from the cells
of a file, whose genes differ between them by a known amount, and audits who of them is in an export. ``pooled`` asks
what a secure sum could reach: all that the merging party saw would be one mean and one variance of each type.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import canal
from canal.config import dump_preset, load_preset
from canal.data.genes import Genes
from canal.data.labels import LabelOptions
from canal.data.panel import GenePanel
from canal.data.stream import collect, open_stream
from canal.data.values import unit_rows
from canal.model.memory import AnalyticMemory, TypeStatistics, joined_statistics
from canal.model.model import Fusion, Model
from canal.model.record import StageRecord
from canal.sites.audit import attack_donors
from canal.sites.export import ExportOptions, memory_of_genes, reduced_model, write_export
from canal.sites.manifest import manifest_of, read_export
from canal.workspace import load_model, site_genes

COUNTS = 2_000  # of a generated cell


def merge_stream(folder: Path, labels: str, min_cells: int, max_directions: int) -> dict[str, Any]:
    """Return sizes of the exports, seconds of the merge, and the joint model's figures on every test file."""
    exports, sizes = [], {}
    with tempfile.TemporaryDirectory(prefix="canal-sites-") as temporary:
        # 1. Every site by itself.
        for train in sorted(folder.glob("*.train.h5ad")):
            site = train.name.split(".")[0]
            workspace = canal.open_workspace(Path(temporary) / site, create=True)
            workspace.add_stage(train, labels=labels)
            out = Path(temporary) / f"{site}.canal"
            manifest = workspace.export_site(out, min_cells=min_cells, max_directions=max_directions)
            sizes[site] = {"MB": round(out.stat().st_size / 1e6, 2), "left_out": manifest["left_out"]}
            exports.append(out)
        # 2. One model of all.
        begin = time.monotonic()
        joint = Path(temporary) / "joint.canal"
        workspace.merge_sites(exports, joint, unsigned=True)
        seconds = time.monotonic() - begin
        # 3. Its figures on the test cells of every site.
        figures = {}
        model = load_model(joint)
        for test in sorted(folder.glob("*.test.h5ad")):
            evaluation = model.evaluate(test, labels=labels)
            figures[test.name.split(".")[0]] = [round(evaluation.accuracy, 4), round(evaluation.macro_f1, 4)]
    mean = [round(float(value), 4) for value in np.mean(list(figures.values()), axis=0)]
    return {"sites": sizes, "seconds": round(seconds, 1), "accuracy, macro-F1": figures, "mean": mean}


def merge_pooled(folder: Path, labels: str) -> dict[str, Any]:
    """Return mean accuracy and macro-F1 over the test files of three joint models of the genes that all sites have.

    The first is merged as it is shipped, the second without directions, the third of sums over the sites alone.
    """
    with tempfile.TemporaryDirectory(prefix="canal-sites-") as temporary:
        place = Path(temporary)
        trains = sorted(folder.glob("*.train.h5ad"))
        agreed = site_genes(trains, place / "genes.txt")
        # 1. Every site exports what is shipped, and means and variances alone.
        exports: dict[str, list[Path]] = {"shipped": [], "no directions": []}
        for train in trains:
            site = train.name.split(".")[0]
            workspace = canal.open_workspace(place / site, create=True)
            workspace.add_stage(train, labels=labels)
            for kind, most in (("shipped", ExportOptions.max_directions), ("no directions", 0)):
                out = place / f"{site} {kind}.canal"
                workspace.export_site(out, site=site, genes=place / "genes.txt", max_directions=most)
                exports[kind].append(out)
        # 2. What a sum over the sites leaves of the second.
        exports["pooled"] = [_pooled(exports["no directions"], place / "pooled.canal")]
        # 3. Each merged, and tested everywhere.
        figures = {}
        for kind, files in exports.items():
            joint = place / f"joint {kind}.canal"
            workspace.merge_sites(files, joint, unsigned=True)
            evaluations = [
                load_model(joint).evaluate(test, labels=labels) for test in sorted(folder.glob("*.test.h5ad"))
            ]
            mean = [np.mean([one.accuracy for one in evaluations]), np.mean([one.macro_f1 for one in evaluations])]
            figures[kind] = [round(float(value), 4) for value in mean]
    return {"common_genes": len(agreed), "accuracy, macro-F1": figures}


def _pooled(files: list[Path], out: Path) -> Path:
    """Write the statistics of several sites as those of one: of each type over all sites, a mean and a variance."""
    exports = [read_export(path) for path in files]
    memories = [export.model.memory for export in exports if export.model.memory is not None]
    common = frozenset.intersection(*[frozenset(memory.panel.genes.names) for memory in memories])
    memories = [memory_of_genes(memory, common)[0] for memory in memories]
    order = memories[0].panel.genes.names
    by_type: dict[str, list[TypeStatistics]] = {}
    for memory in memories:
        # The genes of every site in the order of the first.
        column = {memory.panel.genes.names[position]: k for k, position in enumerate(memory.measured[1])}
        o = [column[order[position]] for position in memories[0].measured[1]]
        for one in memory.statistics:
            moved = replace(one, mean=one.mean[o], factors=one.factors[:, o], rest=one.rest[o])
            by_type.setdefault(one.name, []).append(moved)
    pooled = tuple(joined_statistics(parts, name=name, rank=0) for name, parts in sorted(by_type.items()))
    model = replace(exports[0].model, memory=replace(memories[0], statistics=pooled), types=tuple(sorted(by_type)))
    types = {one.name: {"cells": one.n, "id": "", "donors": None} for one in pooled}
    manifest = {**exports[0].manifest, "site": "pooled", "types": types, "cells": sum(one.n for one in pooled)}
    write_export(out, model, manifest)
    return out


def generated_site(number: int, types: int, genes: int, directions: int) -> tuple[Model, dict[str, Any]]:
    """Return a model whose statistics are of no cells, and what its export says."""
    rng = np.random.default_rng(number)
    preset = load_preset("compact")
    names = Genes(tuple(f"GENE{g}" for g in range(genes)), ("",) * genes)
    panel = GenePanel(genes=names, entered=(1,) * genes)
    level = np.random.default_rng(0).gamma(0.3, 1.0, genes)
    statistics = []
    for k in range(types):
        # Types are the same at every site: each raises genes of its own.
        mean = level * np.random.default_rng(1000 + k).lognormal(0.0, 1.0, genes)
        mean /= np.linalg.norm(mean)
        factors = rng.normal(0.0, 0.1, (directions, genes)).astype(np.float32)
        one = TypeStatistics(
            stage=1,
            name=f"type {k}",
            n=int(rng.integers(4 * directions, 2000)),
            mean=mean.astype(np.float32),
            factors=factors,
            rest=np.full(genes, 1e-5, dtype=np.float32),
        )
        statistics.append(one)
    memory = AnalyticMemory(
        panel=panel, measured={1: np.arange(genes)}, statistics=tuple(statistics), ridge=preset.analytic.ridge
    )
    kinds = tuple(one.name for one in statistics)
    model = Model(
        preset=preset,
        # The network of each site looks at the genes that vary most there.
        panel=panel.subset(np.sort(rng.permutation(genes)[: preset.genes.per_stage])),
        types=kinds,
        weights={},
        memory=memory,
        fusion=Fusion(memory=2.0, temperature=9.0, rule="discriminants"),
    )
    record = StageRecord(
        number=1,
        name=f"site{number}",
        created="2026-01-01T00:00:00+00:00",
        seed=0,
        preset=dump_preset(preset),
        types=kinds,
        new_types=kinds,
        cells=1,
        genes=genes,
    )
    reduced, facts = reduced_model(replace(model, record=record), ExportOptions())
    return reduced, manifest_of(reduced, f"site{number}", facts, {}, {1: [f"site {number}"]})


def merge_many(sites: int, types: int, genes: int, directions: int) -> dict[str, Any]:
    """Return seconds and peak memory of a process that merges generated exports."""
    with tempfile.TemporaryDirectory(prefix="canal-sites-") as temporary:
        paths = []
        for number in range(sites):
            reduced, manifest = generated_site(number, types, genes, directions)
            paths.append(Path(temporary) / f"site{number}.canal")
            write_export(paths[-1], reduced, manifest)
        size = max(path.stat().st_size for path in paths)
        # A process of its own, so that the memory is that of merging alone.
        line = [sys.executable, "-m", "canal.cli.main", "merge", *map(str, paths)]
        line += ["--out", str(Path(temporary) / "joint.canal"), "--unsigned", "--json"]
        begin = time.monotonic()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=os.environ)
        seconds = time.monotonic() - begin
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        joint = (Path(temporary) / "joint.canal").stat().st_size
    return {
        "sites": sites,
        "types": types,
        "genes": genes,
        "seconds": round(seconds, 1),
        "peak_GB": round(peak, 2),
        "MB_a_site": round(size / 1e6, 1),
        "MB_joint": round(joint / 1e6, 1),
    }


def audit_donors(file: Path, labels: str) -> list[dict[str, Any]]:
    """Return the AUROC of the attacks on donors, by number of donors and how much their genes differ."""
    cells = collect(open_stream(file, labels=LabelOptions(column=labels, drop_rare=True)))
    assert cells.labels is not None
    # Mean of each type, as shares of a cell's counts.
    levels = cells.expression.copy()
    levels.data = np.expm1(levels.data)
    means = {name: np.asarray(levels[cells.labels == name].mean(axis=0)).ravel() for name in set(cells.labels)}
    expected = np.array([means[name] / means[name].sum() * COUNTS for name in cells.labels])
    outcomes = []
    for spread in (0.0, 0.1, 0.3):
        for donors in (6, 12, 24, 48):
            # Every donor has a factor of its own for each gene; the counts of its cells are drawn with it.
            rng = np.random.default_rng(donors)
            owner = rng.integers(donors, size=len(cells))
            factors = rng.lognormal(0.0, spread, (donors, len(cells.genes)))
            counts = rng.poisson(expected * factors[owner])
            rows = sp.csr_matrix(np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4), dtype="f4")
            names = np.array([f"donor{k}" for k in owner])
            findings, _ = attack_donors(unit_rows(rows), cells.labels, names, 0)
            for finding in findings:
                figures = {"auroc": finding.auroc, "low": finding.low, "high": finding.high}
                outcomes.append({"attack": finding.attack, "spread": spread, "donors": donors, **figures})
    return outcomes


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    stream = kinds.add_parser("stream")
    stream.add_argument("folder", type=Path)
    stream.add_argument("--labels", default="cell_type")
    stream.add_argument("--min-cells", type=int, default=ExportOptions.min_cells)
    stream.add_argument("--max-directions", type=int, default=ExportOptions.max_directions)
    many = kinds.add_parser("many")
    many.add_argument("--sites", type=int, default=50)
    many.add_argument("--types", type=int, default=10)
    many.add_argument("--genes", type=int, default=6000)
    many.add_argument("--directions", type=int, default=ExportOptions.max_directions)
    sums = kinds.add_parser("pooled")
    sums.add_argument("folder", type=Path)
    sums.add_argument("--labels", default="cell_type")
    generated = kinds.add_parser("donors")
    generated.add_argument("file", type=Path)
    generated.add_argument("--labels", default="cell_type")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    outcome: Any
    if asked.kind == "donors":
        outcome = audit_donors(asked.file, asked.labels)
    elif asked.kind == "pooled":
        outcome = merge_pooled(asked.folder, asked.labels)
    elif asked.kind == "stream":
        outcome = merge_stream(asked.folder, asked.labels, asked.min_cells, asked.max_directions)
    else:
        outcome = merge_many(asked.sites, asked.types, asked.genes, asked.directions)
    print(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    main()
