"""One table of what is wrong with files, one of what is wrong with cells."""

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from canal.data.labels import LabelOptions
from canal.data.stream import open_stream, read_cells
from canal.errors import DataError
from tests.make import make_adata
from tests.unit.data import spoiled


@pytest.mark.parametrize(
    ("make", "match"),
    [
        pytest.param(spoiled.missing, "There is no file", id="missing file"),
        pytest.param(spoiled.not_hdf5, "not an h5ad file", id="not an h5ad"),
        pytest.param(spoiled.truncated, "truncated or damaged", id="truncated h5ad"),
        pytest.param(spoiled.garbled, "damaged", id="garbled values"),
        pytest.param(spoiled.other_hdf5, "HDF5 but not an h5ad", id="other HDF5"),
        pytest.param(spoiled.folder, "neither a zarr store nor a 10x folder", id="folder"),
        pytest.param(spoiled.damaged_obs, "truncated or damaged", id="damaged table"),
        pytest.param(spoiled.zarr_without_cells, "holds no AnnData", id="other zarr"),
        pytest.param(spoiled.matrix_market, "Name its folder", id="matrix.mtx itself"),
        pytest.param(spoiled.two_genomes, "2 genomes", id="two genomes"),
        pytest.param(spoiled.other_features, "no features of type", id="no gene expression"),
        pytest.param(spoiled.mixed_mtx, "do not belong together", id="mtx of two samples"),
        pytest.param(spoiled.mtx_without_barcodes, "no barcodes.tsv", id="mtx without barcodes"),
    ],
)
def test_bad_files_say_what_is_wrong(make: Callable[[Path], Path], match: str, tmp_path: Path) -> None:
    """A file that cannot be read is a DataError that names it, whichever way it is opened."""
    path = make(tmp_path)

    with pytest.raises(DataError, match=match) as caught:
        read_cells(path, labels=None)
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match=match), open_stream(path) as stream:
        list(stream.chunks())


def _with_x(change: Callable[[np.ndarray], object]) -> Callable[[ad.AnnData], None]:
    def apply(adata: ad.AnnData) -> None:
        values = adata.X.toarray()
        result = change(values)
        adata.X = values if result is None else result

    return apply


def _rename(axis: str, names: dict[int, str]) -> Callable[[ad.AnnData], None]:
    def apply(adata: ad.AnnData) -> None:
        index = getattr(adata, axis).index.to_numpy().copy()
        for position, name in names.items():
            index[position] = name
        getattr(adata, axis).index = index

    return apply


def _label(values: object) -> Callable[[ad.AnnData], None]:
    def apply(adata: ad.AnnData) -> None:
        adata.obs["cell_type"] = values

    return apply


def _one_lone(adata: ad.AnnData) -> None:
    labels = adata.obs["cell_type"].astype(object)
    labels.iloc[0] = "lone"
    adata.obs["cell_type"] = labels


BAD = [
    pytest.param(lambda a: a.obs.pop("cell_type"), "no column 'cell_type'.*batch", id="no such column"),
    pytest.param(_label(np.nan), "all 120 labels", id="all labels missing"),
    pytest.param(_label("unknown"), "all 120 labels", id="all labels unknown"),
    pytest.param(_label("B"), "one type, 'B'", id="one type only"),
    pytest.param(_label(np.arange(120) % 3), "are numbers or other values", id="labels not strings"),
    pytest.param(_one_lone, "single cell: lone", id="rare type"),
    pytest.param(_label([f"t{i}" for i in range(120)]), "have a single cell", id="all types rare"),
    pytest.param(_with_x(lambda x: (x - x.mean(0)) / (x.std(0) + 1)), "scaled or centred", id="scaled matrix"),
    pytest.param(_with_x(lambda x: x.__setitem__((0, 0), np.nan)), "NaN or infinite", id="NaN"),
    pytest.param(_with_x(lambda x: x.__setitem__((0, 0), np.inf)), "NaN or infinite", id="infinite"),
    pytest.param(
        _with_x(lambda x: x.__setitem__((0, 0), -1)),
        "counts are negative, down to -1",
        id="negative counts",
    ),
    pytest.param(_with_x(lambda x: x.fill(0)), "every value is zero", id="all zeros"),
    pytest.param(_rename("var", {1: "GENE0"}), "var_names: GENE0", id="duplicated gene names"),
    pytest.param(_rename("obs", {1: "cell0"}), "obs_names: cell0", id="duplicated cell names"),
    pytest.param(
        lambda a: setattr(a.var, "index", a.var.index.str[4:]),
        "row numbers",
        id="genes are numbers",
    ),
]


@pytest.mark.parametrize(("spoil", "match"), BAD)
def test_bad_cells_say_what_is_wrong(spoil: Callable[[ad.AnnData], None], match: str) -> None:
    """Cells that cannot be used are a DataError that says what was found."""
    adata = make_adata(batches=2)
    spoil(adata)

    with pytest.raises(DataError, match=match) as caught:
        read_cells(adata, labels=LabelOptions(column="cell_type", require_two=True))
    assert str(caught.value).startswith("AnnData")


@pytest.mark.parametrize(
    ("rows", "columns", "match"),
    [(0, 60, "no cells"), (120, 0, "no genes")],
    ids=["zero cells", "zero genes"],
)
def test_nothing_to_read(rows: int, columns: int, match: str) -> None:
    """A matrix without rows or columns is refused."""
    adata = make_adata()[:rows, :columns].copy()

    with pytest.raises(DataError, match=match):
        read_cells(adata, labels=None)


def test_bad_values_outside_the_sample_are_found() -> None:
    """The scale is decided from a sample, but every value is looked at."""
    adata = make_adata(3000, 20, layout="dense")
    adata.X[50, 3] = -2

    with pytest.raises(DataError, match="negative"):
        read_cells(adata, labels=None)


def test_no_counts_in_the_labelled_cells() -> None:
    """Cells that are used must have counts, whatever the others have."""
    adata = make_adata(layout="dense")
    adata.X[:60] = 0
    adata.obs["cell_type"] = ["B"] * 60 + [""] * 60

    with pytest.raises(DataError, match="none of the 60 cells has any counts"):
        read_cells(adata, labels="cell_type")


def test_two_scales_in_one_matrix() -> None:
    """Counts in the sample and fractions elsewhere are refused."""
    adata = make_adata(3000, 20, layout="dense")
    adata.X[50, 3] = 0.5

    with pytest.raises(DataError, match="two scales in one matrix"):
        read_cells(adata, labels=None)


def test_no_matrix() -> None:
    """Tables alone are no cells."""
    adata = ad.AnnData(obs=make_adata().obs, var=make_adata().var)

    with pytest.raises(DataError, match="holds no matrix"):
        read_cells(adata, labels=None)


def test_values_that_are_no_numbers() -> None:
    """Text in X is refused."""
    adata = make_adata()
    adata.layers["counts"] = np.full(adata.shape, "many", dtype=object)

    with pytest.raises(DataError, match=r"layers\['counts'\] holds values of type object"):
        read_cells(adata, labels=None)


def test_a_column_that_is_there_twice() -> None:
    """Two columns of one name are refused."""
    adata = make_adata()
    adata.obs.columns = ["cell_type", "cell_type"]

    with pytest.raises(DataError, match="several columns"):
        read_cells(adata, labels="cell_type")


def test_no_gene_column() -> None:
    """A gene column that is not there is named, with those that are."""
    adata = make_adata()
    adata.var["other"] = "x"

    with pytest.raises(DataError, match=r"no gene column 'symbol'.*other"):
        read_cells(adata, labels=None, gene_key="symbol")
