"""Novel cells of a file in groups, with the evidence for each."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import CanalError, DataError, StageError
from canal.novel.folder import OURS, name_novel
from tests.integration.novel.conftest import GENES, fill
from tests.make import make_adata


class _Sources(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.found += [str(value) for name, value in attrs if name in {"src", "href"}]


def test_the_new_type_is_one_cluster(lab: Path) -> None:
    """The first cluster holds most cells of the type that nobody taught, and few others."""
    cells = ad.read_h5ad(lab / "found" / "novel.h5ad")
    first = cells.obs[cells.obs["canal_cluster"].astype(str) == "1"]

    assert (first["cell_type"] == "DC").sum() >= 0.8 * 80
    assert (first["cell_type"] == "DC").mean() >= 0.8


def test_the_result_says_what_it_is(lab: Path) -> None:
    """The folder is whole; its summary has evidence for each cluster, its page fetches nothing."""
    summary = json.loads((lab / "found" / "novel.json").read_text())
    page = _Sources()
    page.feed((lab / "found" / "index.html").read_text())
    first = summary["clusters"][0]

    assert {p.name for p in (lab / "found").iterdir()} == OURS - {"named.h5ad"}
    assert not [p for p in lab.iterdir() if p.name.startswith(".")]
    assert summary["known_types"] == ["B", "NK"]
    assert first["apart"]
    assert {m["gene"] for m in first["markers"][:5]} <= {f"GENE{g}" for g in range(40, 48)}
    assert first["suggested"].startswith("near ")
    assert sum(first["batches"].values()) == first["cells"]
    assert set(first["batches"]) == {"batch0", "batch1"}
    assert {n["name"] for n in first["near"]} <= {"B", "NK"}
    assert len(page.found) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.found)
    assert not re.search(r"https?:|@import|url\(|<script", (lab / "found" / "index.html").read_text())


def test_cells_keep_all_they_had(lab: Path) -> None:
    """The novel cells have values, layers and columns of their file, and what canal found."""
    cells, query = ad.read_h5ad(lab / "found" / "novel.h5ad"), ad.read_h5ad(lab / "query.h5ad")

    same = query[cells.obs_names]
    np.testing.assert_array_equal(cells.X.toarray(), same.X.toarray())
    np.testing.assert_array_equal(cells.layers["counts"].toarray(), same.layers["counts"].toarray())
    assert set(query.obs) < set(cells.obs)
    summary = json.loads((lab / "found" / "novel.json").read_text())
    assert (cells.obs["canal_status"] != "novel").sum() == summary["for_neighbours"] < 0.2 * len(cells)
    assert {"canal_novelty", "canal_p_value", "canal_best_known", "canal_confidence"} <= set(cells.obs)


def test_an_earlier_result_survives_a_failure(lab: Path, found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there is there still when a new result cannot be written."""
    before = {p.name: p.read_bytes() for p in found.iterdir()}

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("canal.novel.folder._write_cells", full)
    with pytest.raises(DataError, match="no space left"):
        canal.open_workspace(lab / "ws").find_novel(lab / "query.h5ad", found)

    assert {p.name: p.read_bytes() for p in found.iterdir()} == before
    assert [p.name for p in found.parent.iterdir()] == ["found"]


def test_finding_is_deterministic(lab: Path, tmp_path: Path) -> None:
    """The same cells give the same evidence, from a file or an AnnData; an earlier result is replaced."""
    workspace = canal.open_workspace(lab / "ws")
    once = json.loads((lab / "found" / "novel.json").read_text())

    for _ in range(2):
        again = workspace.find_novel(ad.read_h5ad(lab / "query.h5ad"), tmp_path / "again")

    assert json.loads(json.dumps(again.to_dict())) | {"data": ""} == once | {"data": ""}
    assert (tmp_path / "again" / "umap.png").read_bytes() == (lab / "found" / "umap.png").read_bytes()


def test_nothing_novel_is_an_answer(lab: Path, tmp_path: Path) -> None:
    """A file of known cells gives a page that says so, and nothing to name."""
    workspace = canal.open_workspace(lab / "ws")
    cells = make_adata(60, GENES, types=("B", "NK"), seed=0, prefix="known")

    report = workspace.find_novel(cells, tmp_path / "none", alpha=0.001)

    assert report.clusters == ()
    assert "Nothing to name" in (tmp_path / "none" / "index.html").read_text()
    with pytest.raises(StageError, match="names no cluster"):
        name_novel(tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": "lane"}, r"no column obs\['lane'\].*--batch"),
        ({"alpha": 1.5}, "alpha"),
        ({"min_size": 1}, "min-size is 1"),
        ({"resolution": 0.0}, "resolution 0"),
        ({"stage": 9}, "9"),
    ],
)
def test_bad_requests_write_nothing(lab: Path, tmp_path: Path, options, message) -> None:
    """What cannot be done is refused with the reason."""
    with pytest.raises(CanalError, match=message):
        canal.open_workspace(lab / "ws").find_novel(lab / "query.h5ad", tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_others_are_left_alone(lab: Path, found: Path, tmp_path: Path) -> None:
    """Neither other files nor names that were given are overwritten."""
    workspace = canal.open_workspace(lab / "ws")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    fill(found, {"1": "dendritic"})

    with pytest.raises(DataError, match=r"not empty.*notes\.txt"):
        workspace.find_novel(lab / "query.h5ad", tmp_path / "mine")
    with pytest.raises(StageError, match="would be lost"):
        workspace.find_novel(lab / "query.h5ad", found)
    with pytest.raises(DataError, match="is a file"):
        workspace.find_novel(lab / "query.h5ad", tmp_path / "mine" / "notes.txt")
    with pytest.raises(DataError, match="no folder"):
        workspace.find_novel(lab / "query.h5ad", tmp_path / "no" / "where")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_the_commands_answer_in_json(lab: Path, tmp_path: Path) -> None:
    """Both commands print their summary; spreadsheets' semicolons and byte-order marks are read."""
    out = tmp_path / "out"
    line = ["-C", str(lab / "ws"), "novel", "find", "--data", str(lab / "query.h5ad"), "--out", str(out)]

    done = CliRunner().invoke(app, [*line, "--batch", "donor", "--uncertain", "--json"])
    answer = json.loads(done.stdout)
    (tmp_path / "filled.csv").write_text("\ufeffCluster;Name\n1;dendritic, new\n")
    named = CliRunner().invoke(
        app, ["novel", "name", str(out), "--names", str(tmp_path / "filled.csv"), "--labels", "type", "--json"]
    )

    assert done.exit_code == named.exit_code == 0
    assert answer["batch"] == "donor"
    assert answer["uncertain_too"]
    assert answer["clusters"][0]["cells"] >= 64
    assert json.loads(named.stdout)["types"].keys() == {"dendritic, new"}
    assert set(ad.read_h5ad(out / "named.h5ad").obs["type"]) == {"dendritic, new", "B", "NK"}


def test_a_file_of_new_types_alone_is_doubted(lab: Path, tmp_path: Path) -> None:
    """Nearly all novel, and no known cell to compare with: both are said, and no cluster is called apart or an edge."""
    query = make_adata(120, GENES, types=("DC", "MK"), prefix="alone", seed=8)

    report = canal.open_workspace(lab / "ws").find_novel(query, tmp_path / "alone")

    text = " ".join(report.warnings)
    assert "of the cells are called novel" in text
    assert "known cells to compare with" in text
    assert report.clusters
    for cluster in report.clusters:
        assert (cluster.silhouette, cluster.own_share, cluster.apart) == (None, None, False)
        assert cluster.suggested.startswith("near ")
    assert "too few known cells to compare with" in (tmp_path / "alone" / "index.html").read_text()
