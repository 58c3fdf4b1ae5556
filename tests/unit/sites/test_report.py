"""Sites tell numbers alone, and these become one matrix."""

import json

import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import DataError
from canal.sites.merge import MergeOptions, merge_sites, write_merged
from canal.sites.report import join_numbers, numbers_of, read_numbers, site_page
from canal.workspace import load_model, site_report
from tests.make import make_adata


@pytest.fixture(scope="module")
def numbers(exports, tmp_path_factory):
    """Files of numbers that three sites wrote of two models."""
    folder = tmp_path_factory.mktemp("private-folder")
    files = []
    for model, sites in {"joint": tuple(exports), "pair": ("north", "south")}.items():
        path = folder / f"{model}.canal"
        write_merged(path, merge_sites([exports[site] for site in sites], MergeOptions(name=model)))
        for seed, (site, types) in enumerate({"north": ("B", "NK"), "west": ("NK", "CD4 T", "HSC")}.items()):
            cells = folder / f"secret-{site}.h5ad"
            if not cells.exists():
                adata = make_adata(90, types=types, seed=20 + seed, prefix="hidden")
                few = adata.obs["cell_type"].cat.add_categories("DC")
                few.iloc[:3] = "DC"
                adata.obs["cell_type"] = few
                adata.write_h5ad(cells)
            out = folder / f"{model}-{site}.json"
            words = [
                "evaluate",
                "--model",
                path,
                "--data",
                cells,
                "--labels",
                "cell_type",
                "--out",
                out,
                "--site",
                site,
            ]
            done = CliRunner().invoke(app, list(map(str, words)))
            assert done.exit_code == 0, done.output
            files.append(out)
    return files


def test_a_site_tells_numbers_alone(numbers):
    """No path, no cell, no type of few cells."""
    for path in numbers:
        text = path.read_text()
        assert "secret" not in text
        assert "hidden" not in text
        assert "private" not in text
        told = read_numbers(path)
        assert "DC" not in told.per_type
        # The model of two sites was not taught HSC either.
        assert told.cells_of_unknown_types == (32 if path.stem == "pair-west" else 3)
        assert all(figures.support >= 20 for figures in told.per_type.values())


def test_numbers_become_a_matrix(numbers, tmp_path):
    """A row a model, a column a site, whatever the order of the files; the page shows it."""
    report = join_numbers(numbers)
    assert report == join_numbers(list(reversed(numbers)))
    assert [model["name"] for model in report.models] == ["joint", "pair"]
    assert report.sites == ("north", "west")
    # HSC is known to the joint model alone.
    assert report.accuracy[0][1] > report.accuracy[1][1]
    assert report.mean[0]["accuracy"] == pytest.approx(sum(report.accuracy[0]) / 2)
    assert report.per_type["HSC"].keys() == {report.models[0]["digest"]}
    one = site_report(numbers[:3], tmp_path / "page.html")
    assert one.accuracy[1][1] is None
    page = (tmp_path / "page.html").read_text()
    assert page == site_page(one)
    assert "Recall by type" in page


def test_the_same_model_in_a_workspace_has_the_same_row(numbers, tmp_path):
    """A merged model that was imported is the model of the file."""
    folder = numbers[0].parent
    workspace = canal.open_workspace(tmp_path / "w", create=True)
    workspace.import_stage(folder / "joint.canal")
    for annotator in (workspace, load_model(folder / "joint.canal")):
        evaluation = annotator.evaluate(folder / "secret-north.h5ad", labels="cell_type")
        assert numbers_of(evaluation, annotator.model(), "north") == read_numbers(folder / "joint-north.json")


BAD = {
    "no JSON": ("{", "cannot be read as JSON"),
    "no numbers": ("[]", "no file of numbers"),
    "newer": ('{"format": 9}', "newer canal"),
    "of a wrong kind": ('{"format": 1, "site": "a", "accuracy": 3}', "does not fit a file of numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_file_of_numbers(name, tmp_path):
    """One message."""
    text, message = BAD[name]
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DataError, match=message):
        join_numbers([tmp_path / "bad.json"])


def test_a_site_counts_once(numbers, tmp_path):
    """Two measurements of one model at one site are told."""
    again = tmp_path / "again.json"
    again.write_text(json.dumps(json.loads(numbers[0].read_text())))
    with pytest.raises(DataError, match="measured model 'joint' twice"):
        join_numbers([numbers[0], again])
