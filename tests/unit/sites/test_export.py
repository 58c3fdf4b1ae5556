"""An export holds statistics and nothing of a cell, and every change to it is seen."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import canal
from canal.errors import CanalError, RegistryError, StageError
from canal.model.novelty.calibration import NoveltyCalibration
from canal.sites.export import ExportOptions, _rounded_novelty, reduced_model, write_export
from canal.sites.genes import common_genes, write_genes
from canal.sites.manifest import manifest_of, read_export
from canal.workspace import describe_site, load_model
from tests.make import make_adata
from tests.unit.sites.make import export_of, model_of


def test_an_export_holds_no_cell_and_no_network(exports, models):
    """Neither bank nor weights nor a name of a cell is in the file; the manifest says what is."""
    content = exports["north"].read_bytes()
    with zipfile.ZipFile(exports["north"]) as archive:
        names = set(archive.namelist())
    assert b"secret0-" in models["north"].bank.names[0].encode()
    assert b"secret0-" not in content
    assert names & {"model/bank.safetensors", "model/weights.safetensors", "model/sure.json"} == set()
    facts = describe_site(exports["north"])
    assert set(facts["holds"]) == {name.removeprefix("model/") for name in names if name.startswith("model/")}
    unknown = {"cells": 165, "id": "", "donors": None}
    assert facts["types"] == {"B": unknown, "NK": unknown}
    assert facts["stages"][0]["source"] == ["source of north"]


def test_an_export_is_the_same_each_time(exports, models, tmp_path):
    """Same model, same bytes; with the network only where it is asked for."""
    again = export_of(tmp_path, "north", models["north"])
    assert again.read_bytes() == exports["north"].read_bytes()
    whole = export_of(tmp_path, "whole", models["north"], with_network=True)
    assert load_model(whole).model().types == models["north"].types
    with pytest.raises(RegistryError, match=r"no network.*canal merge"):
        load_model(again)


def test_rare_types_are_left_out_and_counted():
    """A type below --min-cells is in no table of the export; directions are bounded."""
    model = model_of(("B", "NK"), seed=5, n=60)
    few = replace(model.memory.statistics[0], name="rare", n=19)
    model = replace(model, memory=replace(model.memory, statistics=(*model.memory.statistics, few)))

    # A direction for every 100 cells, and no more than are asked for.
    large = replace(model.memory.statistics[0], n=400)
    model = replace(model, memory=replace(model.memory, statistics=(large, *model.memory.statistics[1:])))

    reduced, facts = reduced_model(model, ExportOptions(max_directions=3))

    assert facts["left_out"] == {"types": 1, "cells": 19}
    assert reduced.types == ("B", "NK")
    assert [len(s.factors) for s in reduced.memory.statistics] == [3, 0]
    assert len(reduced_model(model, ExportOptions())[0].memory.statistics[0].factors) == 4
    with pytest.raises(StageError, match=r"1 types of 100 cells or more"):
        reduced_model(model, ExportOptions(min_cells=100))


def test_genes_that_sites_agreed_on(models):
    """Statistics of the listed genes alone; genes without any are counted."""
    agreed = frozenset({"GENE3", "GENE1", "elsewhere"})

    reduced, facts = reduced_model(models["south"], ExportOptions(), agreed)

    assert set(reduced.memory.panel.genes.names) == {"GENE1", "GENE3"}
    assert facts["genes_without_statistics"] == 1
    before = {s.name: s.mean for s in models["south"].memory.statistics}
    names = list(models["south"].memory.panel.genes.names)
    for one in reduced.memory.statistics:
        kept = [names.index(name) for name in reduced.memory.panel.genes.names]
        np.testing.assert_array_equal(one.mean, before[one.name][kept])
    # A network looks at some genes, whatever the list.
    short = replace(models["south"], panel=models["south"].panel.subset(np.array([5])))
    assert set(reduced_model(short, ExportOptions(), agreed)[0].panel.genes.names) == {"GENE1", "GENE3"}
    with pytest.raises(StageError, match="none of the genes"):
        reduced_model(models["south"], ExportOptions(), frozenset({"Xkr4"}))


def test_no_novelty_is_of_one_cell(models):
    """Five held-out cells or more share each number; their mean stays."""
    (before,) = models["north"].novelty.stages
    (after,) = _rounded_novelty(models["north"].novelty, {1: 1}).stages
    assert min(np.unique(after.novelty, return_counts=True)[1]) >= 5
    assert len(after.novelty) == len(before.novelty)
    assert after.novelty.mean() == pytest.approx(before.novelty.mean())
    few = NoveltyCalibration(stages=(replace(before, novelty=before.novelty[:4]),))
    assert _rounded_novelty(few, {1: 1}).stages == ()


def test_every_flipped_byte_is_found(exports, tmp_path):
    """Anywhere in the file, also where no hash looks, and behind its end."""
    whole = exports["west"].read_bytes()
    changed = tmp_path / "changed.canal"
    rng = np.random.default_rng(0)
    tail = range(len(whole) - 900, len(whole), 9)  # names, dates and places of the files stand at the end
    for position in [*range(0, 60, 3), *rng.integers(0, len(whole), 40).tolist(), *tail]:
        content = bytearray(whole)
        content[position] ^= 4
        changed.write_bytes(content)
        with pytest.raises(CanalError):
            read_export(changed)
    changed.write_bytes(whole + b"a cell")
    with pytest.raises(CanalError):
        read_export(changed)


def test_statistics_from_which_cells_could_be_told_are_refused(models, tmp_path):
    """More directions than an export has, or fewer cells than the manifest says."""
    reduced, facts = reduced_model(models["north"], ExportOptions())
    first = reduced.memory.statistics[0]
    bad = {
        "from which cells could be told": replace(first, factors=np.repeat(first.factors[:1], 2, axis=0)),
        "fewer than the 20": replace(first, n=19, factors=first.factors[:0]),
        "other types or numbers": replace(first, n=166),
    }
    manifest = manifest_of(reduced, "loose", facts, {}, {1: []})
    for number, (message, one) in enumerate(bad.items()):
        memory = replace(reduced.memory, statistics=(one, *reduced.memory.statistics[1:]))
        write_export(tmp_path / f"{number}.canal", replace(reduced, memory=memory), manifest)
        with pytest.raises(RegistryError, match=message):
            read_export(tmp_path / f"{number}.canal")


def test_options_that_give_away_cells_are_refused(tmp_path):
    """One cell is no statistic."""
    workspace = canal.open_workspace(tmp_path / "w", create=True)
    with pytest.raises(StageError, match="the mean of one is a cell"):
        workspace.export_site(tmp_path / "x.canal", min_cells=1)
    assert not (tmp_path / "x.canal").exists()


def test_genes_that_all_files_have(tmp_path):
    """Names only, from files of cells and from lists; no gene in common is told."""
    a, b = tmp_path / "a.h5ad", tmp_path / "b.txt"
    make_adata(20, 12).write_h5ad(a)
    b.write_text("GENE3\nGENE11\nGENE70\n")
    assert common_genes([a, b]) == ("GENE11", "GENE3")
    write_genes(tmp_path / "genes.txt", ("GENE11", "GENE3"))
    assert (tmp_path / "genes.txt").read_text() == "GENE11\nGENE3\n"
    b.write_text("Xkr4\n")
    with pytest.raises(CanalError, match="no gene in common"):
        common_genes([a, Path(b)])
