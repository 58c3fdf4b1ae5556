"""Four sites, each a process of its own whose cells stay in its folder: from export to report, by the command line."""

import importlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import pytest

from canal.registry.store import import_mlflow
from canal.workspace import describe_site
from tests.commands import run
from tests.labs import QUICK
from tests.make import make_adata

SITES = {"north": ("B", "NK"), "south": ("B", "CD4 T"), "east": ("NK", "CD4 T"), "west": ("NK", "CD4 T", "HSC")}
PROCESSES = multiprocessing.get_context("fork")


def at_home(site: str, folder: Path) -> None:
    """Teach an annotator at a site, and export it: what a site does before anybody else has done anything."""
    adata = make_adata(240, types=SITES[site], seed=len(site), prefix=f"secret-{site}-")
    adata.obs["donor_id"] = [f"person{k % 4}" for k in range(240)]
    home = folder / site
    home.mkdir()
    adata[:180].copy().write_h5ad(home / "mine.h5ad")
    adata[180:].copy().write_h5ad(home / "held_out.h5ad")
    quickly = [word for override in QUICK for word in ("--set", override)]
    run(home, "init")
    run(home, "site", "key")
    run(home, "stage", "add", "--data", home / "mine.h5ad", "--labels", "cell_type", *quickly)
    # The one file that leaves the house.
    run(home, "site", "export", folder / f"{site}.canal", "--site", site)


def measured_at_home(site: str, folder: Path) -> None:
    """Let a site measure the joint model on its own cells, and tell numbers."""
    home = folder / site
    words = ("--model", folder / "joint.canal", "--data", home / "held_out.h5ad", "--labels", "cell_type")
    run(home, "evaluate", *words, "--site", site, "--out", folder / f"{site}.json")


def all_at_once(task: Callable[[str, Path], None], folder: Path) -> None:
    """Run a task at every site, each in a process of its own, and fail if one did."""
    processes = {site: PROCESSES.Process(target=task, args=(site, folder)) for site in SITES}
    for process in processes.values():
        process.start()
    for process in processes.values():
        process.join()
    assert {site: process.exitcode for site, process in processes.items()} == dict.fromkeys(SITES, 0)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of what left the houses, and what the merging party was told."""
    # What takes long to import is imported once, and not by each of the four.
    import_mlflow()
    for module in ("canal.training.avalanche", "canal.training.stage", "canal.model.novelty.neighbours", "scanpy"):
        importlib.import_module(module)
    folder = tmp_path_factory.mktemp("four-sites")
    all_at_once(at_home, folder)
    # Somebody without any cells, who trusts the four.
    party = folder / "party"
    party.mkdir()
    run(party, "init")
    for site in SITES:
        key = run(folder / site, "site", "key")["key"]
        run(party, "site", "trust", site, key)
    merged = run(party, "merge", *(folder / f"{site}.canal" for site in SITES), "--out", folder / "joint.canal")
    return folder, merged


def test_four_processes_as_four_sites(joint):
    """Export, merge, evaluate at home, report: the joint model knows all types at all sites."""
    folder, merged = joint
    assert merged["types"] == ["B", "CD4 T", "HSC", "NK"]
    assert {one["site"] for one in merged["sites"]} == set(SITES)

    all_at_once(measured_at_home, folder)
    files = [folder / f"{site}.json" for site in SITES]
    report = run(folder, "site", "report", *files, "--html", folder / "sites.html")

    assert set(report["sites"]) == set(SITES)
    assert min(report["accuracy"][0]) > 0.9
    assert (folder / "sites.html").is_file()
    # Nothing that left a house names a cell of it, or where it was.
    for leaving in (*files, *(folder / f"{site}.canal" for site in SITES), folder / "joint.canal"):
        content = leaving.read_bytes()
        assert b"secret-" not in content
        assert b"person1" not in content
        assert str(folder).encode() not in content


def test_of_how_many_donors_a_type_is(joint):
    """Counted where the file names donors; on the page for whoever has to allow the export, too."""
    folder, _ = joint
    page = folder / "north.html"
    facts = describe_site(folder / "north.canal", page)
    donors = {name: type_facts["donors"] for name, type_facts in facts["types"].items()}
    adata = anndata.read_h5ad(folder / "north" / "mine.h5ad")
    assert donors == adata.obs.groupby("cell_type", observed=True)["donor_id"].nunique().to_dict()
    text = page.read_text()
    assert "holds no cell" in text
    assert all(name in text for name in facts["types"])
    assert "ed25519:" in text
