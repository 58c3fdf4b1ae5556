"""Reading and checking files of cells."""

import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from canal.data.formats import read_adata
from canal.data.labels import LabelOptions
from canal.data.stream import open_stream, read_cells
from canal.errors import DataError
from tests.make import make_adata
from tests.unit.data.containers import CONTAINERS, write


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_cells(container: str, tmp_path: Path) -> None:
    """Values, names, genes and digest do not depend on how they are stored."""
    adata = make_adata()
    reference = read_cells(adata, labels=None)

    cells = read_cells(write(adata, container, tmp_path), labels=None)

    assert abs(cells.expression - reference.expression).max() == 0
    assert cells.genes.names == reference.genes.names
    assert cells.names.tolist() == reference.names.tolist()
    if container.startswith(("tenx", "mtx")):  # these hold Ensembl ids as well
        assert cells.genes.ensembl[1] == "ENSG00000000001"
    else:
        assert cells.report.digest == reference.report.digest


@pytest.mark.parametrize("container", ["csr", "csc", "dense", "zarr", "old_h5ad"])
def test_labels_come_with_the_cells(container: str, tmp_path: Path) -> None:
    """The labels of a file are those of its obs, and part of its digest."""
    adata = make_adata()
    path = write(adata, container, tmp_path)

    cells = read_cells(path, labels="cell_type")

    assert cells.labels is not None
    assert cells.labels.tolist() == adata.obs["cell_type"].tolist()
    assert cells.report.digest == read_cells(adata, labels="cell_type").report.digest
    assert cells.report.digest != read_cells(path, labels=None).report.digest


def test_expression_is_log1p_of_ten_thousand() -> None:
    """Expression is ln(1 + 1e4 * count / total), computed here by hand."""
    adata = make_adata(scale="counts", layout="dense")
    counts = adata.X.astype(float)
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)

    cells = read_cells(adata, labels=None)

    assert cells.expression.dtype == np.float32
    assert cells.expression.has_sorted_indices
    np.testing.assert_allclose(cells.expression.toarray(), expected, rtol=1e-6)


def test_the_input_is_left_alone() -> None:
    """Checking changes nothing of the AnnData, not even the order of its indices."""
    adata = make_adata()
    matrix = sp.csr_matrix((adata.X.data.copy(), adata.X.indices.copy(), adata.X.indptr.copy()), shape=adata.shape)
    matrix.data[0] = 0  # a stored zero
    matrix.indices[:2] = matrix.indices[:2][::-1].copy()
    adata.X = matrix
    before = (matrix.data.copy(), matrix.indices.copy())

    read_cells(adata, labels="cell_type")

    assert (before[0] == adata.X.data).all()
    assert (before[1] == adata.X.indices).all()


def test_unlabelled_cells_are_left_out_and_counted() -> None:
    """NaN, empty and unknown labels are no type."""
    adata = make_adata(n_cells=30)
    labels = adata.obs["cell_type"].astype(object)
    labels.iloc[:4] = [np.nan, "", "Unknown", " n/a "]
    adata.obs["cell_type"] = labels

    cells = read_cells(adata, labels="cell_type")

    assert len(cells) == 26
    assert cells.report.unlabelled == 4
    assert cells.names[0] == "cell4"


def test_empty_cells_stay_as_zeros() -> None:
    """Cells without counts stay, with a warning."""
    adata = make_adata(layout="dense")
    adata.X[:3] = 0

    cells = read_cells(adata, labels=None)

    assert cells.expression[:3].nnz == 0
    assert any("3 cells" in w for w in cells.report.warnings)


@settings(max_examples=15, deadline=None)
@given(chunk=st.integers(1, 130), seed=st.integers(0, 5))
def test_chunks_are_the_whole(chunk: int, seed: int) -> None:
    """Blocks of any size make up the same cells and the same digest."""
    adata = make_adata(seed=seed)
    whole = read_cells(adata, labels="cell_type")

    with open_stream(adata, labels="cell_type", chunk=chunk) as stream:
        blocks = list(stream.chunks())

    assert max(b.shape[0] for b in blocks) <= chunk
    assert abs(sp.vstack(blocks) - whole.expression).max() == 0
    assert stream.report.digest == whole.report.digest
    assert stream.labels is not None
    assert stream.labels.tolist() == adata.obs["cell_type"].tolist()


def test_streams_keep_unlabelled_cells_and_rare_types() -> None:
    """What is annotated needs no labels."""
    adata = make_adata(n_cells=30)
    labels = adata.obs["cell_type"].astype(object)
    labels.iloc[:2] = ["", "lone"]
    adata.obs["cell_type"] = labels

    with open_stream(adata, labels="cell_type") as stream:
        assert len(stream) == 30
        assert stream.labels is not None
        assert stream.labels[:2].tolist() == ["", "lone"]
        assert stream.report.digest == ""


def test_a_backed_adata_can_be_read(tmp_path: Path) -> None:
    """An AnnData that lies on disk is read by blocks."""
    path = write(make_adata(), "csr", tmp_path)
    backed = ad.read_h5ad(path, backed="r")

    cells = read_cells(backed, labels="cell_type")

    assert cells.report.digest == read_cells(path, labels="cell_type").report.digest
    backed.file.close()


@settings(max_examples=15, deadline=None)
@given(cell=st.integers(0, 39), gene=st.integers(0, 19))
def test_digest_sees_every_value(cell: int, gene: int) -> None:
    """One count more is another digest."""
    adata = make_adata(40, 20, layout="dense")
    before = read_cells(adata, labels=None).report.digest
    adata.X[cell, gene] += 1

    assert read_cells(adata, labels=None).report.digest != before


def test_scanpy_is_not_imported(tmp_path: Path) -> None:
    """Reading a file stays light: scanpy takes seconds to import."""
    path = write(make_adata(), "csr", tmp_path)
    code = (
        "import sys; from canal.data.stream import read_cells; "
        f"read_cells({str(path)!r}, labels='cell_type'); print('scanpy' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_raw_genes_take_the_columns_of_var() -> None:
    """raw.var has no symbols; var, which has the same genes, does."""
    adata = make_adata()
    adata.raw = adata.copy()
    adata.X = sp.csr_matrix(make_adata(scale="ln").X)
    adata.var["mine"] = [f"S{g}" for g in range(adata.n_vars)]

    cells = read_cells(adata, labels=None, gene_key="mine")

    assert cells.report.where == "raw.X"
    assert cells.genes[:2] == ("S0", "S1")


@pytest.mark.parametrize("container", ["csr", "zarr", "tenx_h5", "mtx"])
def test_a_whole_file_can_be_read_as_anndata(container: str, tmp_path: Path) -> None:
    """Those who write a file back get all of it."""
    adata = make_adata()

    read = read_adata(write(adata, container, tmp_path))

    assert read.obs_names.tolist() == adata.obs_names.tolist()
    assert abs(sp.csr_matrix(read.X) - adata.X).max() == 0


def test_repeated_symbols_of_a_10x_file_are_no_error(tmp_path: Path) -> None:
    """Cell Ranger writes a few symbols twice, for two Ensembl ids; the most expressed stays."""
    adata = make_adata()
    folder = write(adata, "mtx", tmp_path)
    features = (folder / "features.tsv").read_text()
    (folder / "features.tsv").write_text(features.replace("GENE1\t", "GENE0\t"))

    cells = read_cells(folder, labels=None)

    assert len(cells.genes) == adata.n_vars - 1
    assert "GENE0" in cells.report.warnings[0]


def test_cells_can_be_taken() -> None:
    """Taking rows keeps everything in step."""
    cells = read_cells(make_adata(), labels="cell_type")

    some = cells.take(np.array([5, 2]))

    assert some.names.tolist() == ["cell5", "cell2"]
    assert abs(some.expression[1] - cells.expression[2]).max() == 0


@pytest.mark.shared_data
@pytest.mark.parametrize("part", ["train", "test"])
def test_real_files_are_recognised(streams: Path, part: str) -> None:
    """Real files are read on the scale that is stated; the mouse file warns."""
    stated = {"3_pbmc_3tech": "ln", "3_xin": "log2"}
    for path in sorted(streams.glob(f"*/*.{part}.h5ad")):
        cells = read_cells(path, labels=LabelOptions(column="cell_type", require_two=True, keep_rare=True))
        stage = path.name.split(".")[0]

        assert cells.report.scale == stated.get(stage, "counts"), path
        assert cells.report.where == "X"
        assert any("mouse" in w for w in cells.report.warnings) == (stage == "2_baron_mouse"), path
        np.testing.assert_allclose(np.expm1(cells.expression.toarray()).sum(axis=1), 1e4, rtol=1e-3)


def test_only_gene_expression_counts():
    """Antibodies among the genes are left out and counted, also where the table of raw does not name them."""
    genes = make_adata(40, 30)
    proteins = make_adata(40, 4, genes=["CD3", "CD19", "GENE_Hash", "CD8"], seed=1)
    both = ad.concat([genes, proteins], axis=1)
    both.obs = genes.obs
    both.var["feature_types"] = ["Gene Expression"] * 30 + ["Antibody Capture"] * 3 + ["Multiplexing Capture"]
    alone = read_cells(genes, labels="cell_type")

    cells = read_cells(both, labels="cell_type")

    assert cells.genes == alone.genes
    np.testing.assert_array_equal(cells.expression.toarray(), alone.expression.toarray())
    assert "4 of 34 rows" in cells.report.warnings[0]
    assert "3 Antibody Capture, 1 Multiplexing Capture" in cells.report.warnings[0]
    raw = ad.AnnData(both.X, obs=both.obs, var=both.var[[]])
    cut = both[:, [*range(10), 30]].copy()
    cut.raw = raw
    cut.var["feature_types"] = ["Gene Expression"] * 10 + ["Antibody Capture"]
    found = read_cells(cut, labels="cell_type")
    assert found.report.where == "raw.X"
    assert "CD3" not in found.genes.names


@pytest.mark.parametrize("named", ["cells like genes", "genes like cells"])
def test_a_transposed_file_is_refused(named):
    """Genes as rows are told by their names."""
    adata = make_adata(40, 30)
    if named == "cells like genes":
        adata.obs_names = [f"ENSG{k:011d}" for k in range(40)]
    else:
        adata.var_names = ["ACGT" * 3 + "".join("ACGT"[k // 4**d % 4] for d in range(4)) + "-1" for k in range(30)]

    with pytest.raises(DataError, match=r"is transposed.*write adata\.T"):
        read_cells(adata, labels=None)
