"""Exports become one model: whatever the order, exactly without a site, as good as its statistics."""

from dataclasses import replace

import numpy as np
import pytest

import canal
from canal.errors import CanalError, RegistryError, StageError
from canal.files import digest_file
from canal.model.memory import AnalyticMemory
from canal.registry.package import write_package
from canal.sites.manifest import CELLS_PER_DIRECTION, read_export
from canal.sites.merge import MergeOptions, _joint_memory, _keys_of, merge_sites, write_merged
from canal.workspace import load_model
from tests.labs import add, write
from tests.learning import toy
from tests.make import make_adata
from tests.unit.sites.make import accuracy, export_of, model_of

ALL = ("B", "NK", "CD4 T", "HSC")


@pytest.fixture(scope="module")
def joint(exports, tmp_path_factory):
    """The file of the model that is merged of all toy sites."""
    path = tmp_path_factory.mktemp("joint") / "joint.canal"
    write_merged(path, merge_sites(list(exports.values()), MergeOptions()))
    return path


def test_any_order_gives_the_same_bytes(exports, joint, tmp_path):
    """The files are taken in the order of their hashes, memory and network alike."""
    paths = list(reversed(exports.values()))
    write_merged(tmp_path / "again.canal", merge_sites(paths, MergeOptions()))
    assert (tmp_path / "again.canal").read_bytes() == joint.read_bytes()
    in_order = sorted(map(read_export, paths), key=lambda export: export.digest)
    lineage = load_model(joint).model().stage.notes["merged"]["sites"]
    assert [site["site"] for site in lineage] == [export.site for export in in_order]


def test_without_a_site_is_never_having_had_it(exports, tmp_path):
    """Named by file or by site: byte for byte."""
    rest = [path for site, path in exports.items() if site != "west"]
    write_merged(tmp_path / "never.canal", merge_sites(rest, MergeOptions()))
    for asked in ("west", str(exports["west"])):
        out = tmp_path / f"without-{len(asked)}.canal"
        write_merged(out, merge_sites(list(exports.values()), MergeOptions(without=(asked,))))
        assert out.read_bytes() == (tmp_path / "never.canal").read_bytes()
    with pytest.raises(StageError, match="--without east is none of the exports"):
        merge_sites(rest, MergeOptions(without=("east",)))
    with pytest.raises(StageError, match="No export is left"):
        merge_sites(rest, MergeOptions(without=("north", "south")))


def test_the_joint_model_knows_all_types(joint, models):
    """Types that no single site has are told apart; the lineage names every site."""
    model = load_model(joint).model()
    assert set(model.types) == set(ALL)
    assert accuracy(model, ALL) > 0.9 > accuracy(models["north"], ALL)
    sites = model.stage.notes["merged"]["sites"]
    assert {s["site"]: s["cells"] for s in sites} == {"north": 330, "south": 330, "west": 330}
    assert all(s["digest"].startswith("sha256:") for s in sites)
    assert len(model.bank) == 0
    assert [h.stage for h in model.novelty.stages] == [1, 2, 3]


def test_the_memory_is_that_of_learning_one_after_the_other(models, exports):
    """Scores equal those of the stages added in turn, to 1e-6, when the sites have the same genes."""
    exported = sorted((read_export(exports[site]) for site in ("north", "south")), key=lambda e: e.digest)
    names = {e.site: {name: name for name in e.model.types} for e in exported}
    merged = _joint_memory(exported, names, _keys_of(exported), models["north"].preset)
    types = ("B", "NK", "CD4 T")
    # Learned in turn from the cells themselves.
    seeds = {"north": 0, "south": 1}
    memory = AnalyticMemory.empty(models["north"].preset.analytic.ridge)
    for number, one in enumerate(exported, 1):
        cells = toy({"north": ("B", "NK"), "south": ("B", "CD4 T")}[one.site], n=330, seed=seeds[one.site])
        memory = memory.with_stage(cells, np.arange(len(cells.genes)), stage=number, rank=50)
    test = toy(types, n=60, seed=9)
    ours = merged.solved_for(test.genes, types).scores(test.expression)
    # As many directions as are exported, in half precision as in every file of a model.
    rounded = []
    for one in memory.statistics:
        cut = one.with_rank(one.n // CELLS_PER_DIRECTION)
        rounded.append(replace(cut, factors=cut.factors.astype(np.float16).astype(np.float32)))
    theirs = replace(memory, statistics=tuple(rounded)).solved_for(test.genes, types).scores(test.expression)
    assert [len(one.factors) for one in merged.statistics] == [1, 1, 1, 1]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_genes_in_another_order_and_number(models, exports, tmp_path):
    """Statistics follow their genes: a site with some genes in another order adds what it measured."""
    genes = [f"GENE{g}" for g in range(59, 19, -1)]
    other = model_of(("B", "NK"), seed=7, n_genes=40, genes=genes)
    path = export_of(tmp_path, "east", other)
    exported = sorted((read_export(p) for p in (exports["north"], path)), key=lambda e: e.digest)
    names = {e.site: {name: name for name in e.model.types} for e in exported}
    keys = _keys_of(exported)
    merged = _joint_memory(exported, names, keys, other.preset)
    for one in merged.statistics:
        site = next(e for e in exported if one.stage in keys[e.site].values())
        own = {s.name: s for s in site.model.memory.statistics}[one.name]
        columns = merged.panel.genes.take(merged.measured[one.stage]).names
        ours = dict(zip(columns, one.mean.tolist(), strict=True))
        theirs = site.model.memory.panel.genes.take(site.model.memory.measured[1]).names
        assert ours == dict(zip(theirs, own.mean.tolist(), strict=True))


def test_the_joint_model_is_one_as_any_other(exports, joint, tmp_path):
    """It annotates with novelty, explains, becomes a stage, and learns a further one."""
    cells = make_adata(80, types=ALL, seed=5)
    table = load_model(joint).annotate(cells).to_frame()
    status = next(column for column in table.columns if column.endswith("status"))
    assert (table[status] == "known").mean() > 0.7
    assert len(load_model(joint).markers("HSC")) > 0
    workspace = canal.open_workspace(tmp_path / "w", create=True)
    record = workspace.merge_sites(list(exports.values()), unsigned=True)
    assert (record.number, workspace.champion(), len(record.notes["merged"]["sites"])) == (1, 1, 3)
    result = add(workspace, write(tmp_path, "more", ("B", "MK"), seed=4))
    assert set(result.types) == {*ALL, "MK"}
    after = workspace.annotate(make_adata(100, types=(*ALL, "MK"), seed=6))
    truth = make_adata(100, types=(*ALL, "MK"), seed=6).obs["cell_type"]
    assert (after.cell_type == truth).mean() > 0.85
    workspace.export(tmp_path / "again.canal")


def test_directions_are_cut_once(models, exports, tmp_path, monkeypatch):
    """To the bound of a memory, over all sites."""
    whole = merge_sites(list(exports.values()), MergeOptions())
    assert sum(len(s.factors) for s in whole.memory.statistics) == 7
    loose = {}
    for site, model in models.items():
        more = tuple(replace(s, n=400, factors=np.repeat(s.factors[:1], 4, axis=0)) for s in model.memory.statistics)
        loose[site] = replace(model, memory=replace(model.memory, statistics=more))
    paths = [export_of(tmp_path, site, model) for site, model in loose.items()]
    monkeypatch.setattr("canal.sites.merge.MOST_FACTORS", 15)
    model = merge_sites(paths, MergeOptions())
    assert {len(s.factors) for s in model.memory.statistics} == {2}


def _other_species(models, folder):
    genes = [f"Gene{g}x" for g in range(60)]
    return export_of(folder, "mouse", model_of(("B", "NK"), seed=8, genes=genes))


def _no_type_in_common(models, folder):
    return export_of(folder, "far", model_of(("DC", "MK"), seed=8))


def _same_cells(models, folder):
    return export_of(folder, "copy", models["south"], source="source of north")


def _same_name(models, folder):
    (folder / "x").mkdir()
    return export_of(folder / "x", "north", models["south"], source="other")


def _other_settings(models, folder):
    preset = models["south"].preset.model_copy(deep=True)
    analytic = preset.analytic.model_copy(update={"ridge": 3.0})
    changed = replace(models["south"], preset=preset.model_copy(update={"analytic": analytic}))
    return export_of(folder, "other", changed)


def _holds_cells(models, folder):
    model = models["south"]
    (folder / "files").mkdir()
    digests = {name: digest_file(path) for name, path in model.save(folder / "files").items()}
    bank = {"size": len(model.bank), "per_type": {}, "per_stage": {}}
    record = model.stage.with_fields(artifacts=digests, bank=bank)
    (folder / "files" / "record.json").write_text(record.to_json())
    write_package(folder / "cells.canal", "toy", record, folder / "files")
    return folder / "cells.canal"


def _merged_already(models, folder):
    exported = export_of(folder, "alone", models["south"])
    write_merged(folder / "done.canal", merge_sites([exported], MergeOptions()))
    return folder / "done.canal"


def _cut_off(models, folder):
    path = export_of(folder, "later", models["south"])
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    return path


BAD = {
    "other species": (_other_species, "in common with the other sites"),
    "no type in common": (_no_type_in_common, "no type in common.*--disjoint"),
    "same cells": (_same_cells, "statistics of the same cells"),
    "same name": (_same_name, "both of a site 'north'"),
    "other settings": (_other_settings, "other settings \\(analytic\\).*--preset"),
    "holds cells": (_holds_cells, "holds \\d+ cells with their names"),
    "merged already": (_merged_already, "was merged from exports"),
    "cut off": (_cut_off, "damaged"),
    "not there": (lambda _models, folder: folder / "no.canal", "is not there"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_merged(name, models, exports, tmp_path):
    """One message, and nothing written."""
    make, message = BAD[name]
    bad = make(models, tmp_path)
    workspace = canal.open_workspace(tmp_path / "new", create=True)
    with pytest.raises(CanalError, match=message):
        workspace.merge_sites([exports["north"], bad], tmp_path / "joint.canal", unsigned=True)
    assert not (tmp_path / "joint.canal").exists()


def test_a_newer_export_is_told(models, exports, tmp_path, monkeypatch):
    """Its format says so."""
    with monkeypatch.context() as later:
        later.setattr("canal.sites.manifest.FORMAT", 2)
        path = export_of(tmp_path, "later", models["south"])
    with pytest.raises(RegistryError, match="newer canal"):
        merge_sites([exports["north"], path], MergeOptions())


def test_what_is_there_is_not_replaced(exports, tmp_path):
    """Told before anything is computed."""
    (tmp_path / "joint.canal").write_text("mine")
    workspace = canal.open_workspace(tmp_path / "new", create=True)
    with pytest.raises(RegistryError, match="exists already"):
        workspace.merge_sites([exports["north"]], tmp_path / "joint.canal")
    assert (tmp_path / "joint.canal").read_text() == "mine"
