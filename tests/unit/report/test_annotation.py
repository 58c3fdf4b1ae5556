"""An annotation is written beside the cells, and nothing of the cells is lost or changed."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from canal.errors import DataError
from canal.report import annotation as module
from canal.report.annotation import Annotation, check_target, write_annotation, write_csv, write_h5ad
from tests.make import make_adata


def make_annotation(names, **changes) -> Annotation:
    """Return an annotation of cells with these names."""
    n = len(names)
    fields = {
        "cell_names": np.array(names, dtype=object),
        "cell_type": np.array(["B", "NK"] * n, dtype=object)[:n],
        "confidence": np.linspace(0, 1, n),
        "representation": np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        "facts": {"model": "blood", "stage": 2, "none": None, "types": ["B", "NK"], "nested": {"share": 0.5}},
    }
    return Annotation(**(fields | changes))


def make_file(path: Path, **options) -> ad.AnnData:
    """Write toy cells with one of everything that an h5ad file holds, and return them."""
    adata = make_adata(20, 10, **options)
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata
    adata.obs["score"] = np.linspace(0, 1, 20)
    adata.obsm["X_pca"] = np.ones((20, 3))
    adata.obsp["distances"] = adata.X @ adata.X.T
    adata.uns["neighbors"] = {"params": {"n": 3}, "names": np.array(["a", "b"], dtype=object)}
    adata.write_h5ad(path)
    return adata


def contents(path: Path) -> dict[str, tuple]:
    """Return every dataset of an HDF5 file and every attribute, by place."""
    found: dict[str, tuple] = {}

    def note(name, item):
        value = item[()].tobytes() if isinstance(item, h5py.Dataset) and item.dtype.kind != "O" else None
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "O":
            value = np.asarray(item[()]).tolist()
        found[name] = (value, {k: str(v) for k, v in item.attrs.items() if k != "column-order"})

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def test_the_input_is_whole_in_the_output(tmp_path):
    """Every element of the input is in the output as it was, and the input is not touched."""
    adata = make_file(tmp_path / "in.h5ad")
    before = (tmp_path / "in.h5ad").read_bytes()
    write_h5ad(tmp_path / "in.h5ad", make_annotation(adata.obs_names), tmp_path / "out.h5ad")
    assert (tmp_path / "in.h5ad").read_bytes() == before
    old, new = contents(tmp_path / "in.h5ad"), contents(tmp_path / "out.h5ad")
    assert {name: new[name] for name in old} == old
    assert {name.split("/")[1] for name in set(new) - set(old)} == {
        "canal_cell_type",
        "canal_confidence",
        "X_canal",
        "canal",
    }


def test_what_is_added(tmp_path):
    """Columns, representation and facts are read back by anndata, behind the columns there were."""
    adata = make_file(tmp_path / "in.h5ad")
    annotation = make_annotation(adata.obs_names, columns={"cluster": np.array(["1"] * 20, dtype=object)})
    write_annotation(tmp_path / "in.h5ad", annotation, tmp_path / "out.h5ad", "mine")
    out = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(out.obs) == [*adata.obs, "mine_cell_type", "mine_confidence", "mine_cluster"]
    assert isinstance(out.obs["mine_cell_type"].dtype, pd.CategoricalDtype)
    np.testing.assert_allclose(out.obs["mine_confidence"], annotation.confidence, rtol=1e-6)
    np.testing.assert_array_equal(out.obsm["X_mine"], annotation.representation)
    facts = out.uns["mine"]
    assert (facts["model"], facts["stage"], facts["nested"]["share"]) == ("blood", 2, 0.5)
    assert list(facts["types"]) == ["B", "NK"]
    assert "none" not in facts


def test_the_matrix_is_never_read(tmp_path, monkeypatch):
    """An h5ad file of any size is copied, not loaded."""
    adata = make_file(tmp_path / "in.h5ad")

    def refuse(*_):
        message = "the file was read"
        raise AssertionError(message)

    monkeypatch.setattr(module, "_annotated", refuse)
    write_h5ad(tmp_path / "in.h5ad", make_annotation(adata.obs_names), tmp_path / "out.h5ad")


def test_a_second_annotation_replaces_the_first(tmp_path):
    """The file may be annotated in place and again, with the same key or another."""
    path = tmp_path / "in.h5ad"
    names = make_file(path).obs_names
    write_h5ad(path, make_annotation(names), path)
    write_h5ad(path, make_annotation(names, cell_type=np.array(["MK"] * 20, dtype=object)), path)
    write_h5ad(path, make_annotation(names), path, "other")
    obs = ad.read_h5ad(path).obs
    assert set(obs["canal_cell_type"]) == {"MK"}
    assert set(obs["other_cell_type"]) == {"B", "NK"}
    assert obs.columns.is_unique


@pytest.mark.parametrize("part", ["obs", "obsm", "uns"])
@pytest.mark.parametrize("kind", ["file", "adata"])
def test_nothing_of_others_is_replaced(tmp_path, part, kind):
    """A name that is taken by something else is refused, and nothing is written."""
    adata = make_adata(20, 10)
    if part == "obs":
        adata.obs["canal_cell_type"] = "mine"
    elif part == "obsm":
        adata.obsm["X_canal"] = np.ones((20, 2))
    else:
        adata.uns["canal"] = "mine"
    adata.write_h5ad(tmp_path / "in.h5ad")
    source = tmp_path / "in.h5ad" if kind == "file" else adata
    with pytest.raises(DataError, match="--key-added"):
        write_h5ad(source, make_annotation(adata.obs_names), tmp_path / "out.h5ad")
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_other_containers_are_written_by_anndata(tmp_path):
    """A zarr folder and an AnnData become h5ad; the AnnData is not changed."""
    adata = make_adata(20, 10)
    adata.write_zarr(tmp_path / "in.zarr")
    annotation = make_annotation(adata.obs_names)
    write_h5ad(tmp_path / "in.zarr", annotation, tmp_path / "a.h5ad")
    write_h5ad(adata, annotation, tmp_path / "b.h5ad")
    for name in ("a.h5ad", "b.h5ad"):
        out = ad.read_h5ad(tmp_path / name)
        np.testing.assert_array_equal(out.X.toarray(), adata.X.toarray())
        assert list(out.obs["canal_cell_type"]) == list(annotation.cell_type)
    assert "canal_cell_type" not in adata.obs


def test_file_without_obsm_and_uns(tmp_path):
    """Groups that are missing are made."""
    adata = make_file(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        del file["obsm"], file["uns"]
    write_h5ad(tmp_path / "in.h5ad", make_annotation(adata.obs_names), tmp_path / "out.h5ad")
    assert ad.read_h5ad(tmp_path / "out.h5ad").uns["canal"]["model"] == "blood"


def test_csv(tmp_path):
    """One row a cell, under plain names."""
    write_csv(make_annotation(["c0", "c1"]), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "cell,cell_type,confidence\nc0,B,0.0\nc1,NK,1.0\n"


def test_to_adata_needs_the_same_cells():
    """Cells in another order are refused; without a copy the AnnData itself is changed."""
    adata = make_adata(20, 10)
    annotation = make_annotation(adata.obs_names)
    with pytest.raises(DataError, match="another order"):
        annotation.to_adata(adata[::-1])
    assert annotation.to_adata(adata) is not adata
    assert annotation.to_adata(adata, copy=False) is adata
    assert len(annotation) == 20


def test_annotation_checks_its_shapes():
    """Parts of unequal length are a bug."""
    with pytest.raises(AssertionError):
        make_annotation(["a", "b"], confidence=np.zeros(3))


@pytest.mark.parametrize("name", ["out.txt", "out", "none/out.h5ad", "folder.h5ad"])
def test_bad_targets(tmp_path, name):
    """What cannot be written is refused before the work."""
    (tmp_path / "folder.h5ad").mkdir()
    with pytest.raises(DataError):
        check_target(tmp_path / name)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    """No half a file stays, and what was there before stays."""
    adata = make_file(tmp_path / "in.h5ad")
    (tmp_path / "out.h5ad").write_text("before")

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("canal.report.h5ad.shutil.copyfile", full)
    with pytest.raises(DataError, match="No space left"):
        write_h5ad(tmp_path / "in.h5ad", make_annotation(adata.obs_names), tmp_path / "out.h5ad")
    assert (tmp_path / "out.h5ad").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2
