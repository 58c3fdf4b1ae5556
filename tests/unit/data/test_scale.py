"""Where the values stand, and on which scale."""

import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from canal.data.genes import Genes
from canal.data.panel import GenePanel
from canal.data.source import from_adata
from canal.data.stream import open_stream, read_cells
from canal.data.values import find_values, judge_scale, normalise, to_linear
from canal.errors import DataError
from tests.make import make_adata, make_counts, to_scale


def _counts(seed: int = 0, cells: int = 60, genes: int = 50) -> np.ndarray:
    nothing = np.zeros(cells, dtype=int)
    return make_counts(nothing, nothing, genes, seed)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from(["counts", "ln", "log2", "linear"]),
    rounding=st.sampled_from([3, 9]),
    part=st.floats(0.3, 1.0),
)
def test_scales_are_recognised(seed: int, scale: str, rounding: int, part: float) -> None:
    """Counts, logarithms and linear values are told apart, also rounded, and on some genes."""
    values = np.round(to_scale(_counts(seed, genes=200), scale), rounding)[:, : int(200 * part)]

    verdict = judge_scale(sp.csr_matrix(values), "X")

    assert verdict.scale == scale, verdict


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from(["ln", "log2", "linear"]))
def test_counts_come_back_from_any_scale(seed: int, scale: str) -> None:
    """Undoing a scale and normalising gives what the counts give."""
    counts = _counts(seed)
    expected = normalise(sp.csr_matrix(counts), "counts", "X", "toy")

    block = sp.csr_matrix(to_scale(counts, scale))

    back = normalise(block, scale, "X", "toy")  # type: ignore[arg-type]
    np.testing.assert_allclose(back.toarray(), expected.toarray(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("scale", ["ln", "log2"])
def test_deep_cells_without_molecules(scale: str) -> None:
    """Reads of full-length protocols are no multiples of anything; equal totals decide."""
    rng = np.random.default_rng(1)
    values = to_scale(rng.lognormal(0, 2, (50, 300)) * (rng.random((50, 300)) < 0.4), scale)

    verdict = judge_scale(sp.csr_matrix(values), "X")

    assert verdict.scale == scale
    assert "same total" in verdict.evidence


@pytest.mark.parametrize(("top", "scale", "doubtful"), [(8.0, "ln", True), (11.0, "log2", True), (18.0, "log2", False)])
def test_range_is_the_last_resort(top: float, scale: str, doubtful: bool) -> None:
    """Where neither molecules nor totals decide, the range does, and says when it is a guess."""
    rng = np.random.default_rng(0)
    values = rng.random((40, 30)) * top
    values[0, 0] = top

    verdict = judge_scale(sp.csr_matrix(values), "X")

    assert (verdict.scale, verdict.doubtful) == (scale, doubtful)


def test_a_stated_base_decides_where_values_do_not() -> None:
    """uns["log1p"] is believed where nothing speaks against it."""
    values = sp.csr_matrix(np.random.default_rng(0).random((40, 30)) * 8)

    assert judge_scale(values, "X", 2.0).scale == "log2"
    assert judge_scale(values, "X", float(np.e)).scale == "ln"
    assert not judge_scale(values, "X", float(np.e)).doubtful
    assert judge_scale(sp.csr_matrix(_counts()), "X", 2.0).scale == "counts"
    assert judge_scale(sp.csr_matrix(to_scale(_counts(), "ln")), "X", 2.0).scale == "ln"


@pytest.mark.parametrize(
    ("stated", "scale"),
    [({}, "ln"), ({"base": None}, "ln"), ({"base": 2}, "log2"), ({"base": "odd"}, "ln"), (3, "ln")],
)
def test_the_base_is_read_from_files(stated: object, scale: str, tmp_path: Path) -> None:
    """The base stands in uns["log1p"]; older files leave the natural one out."""
    adata = _placed(X=np.random.default_rng(0).random((40, 30)) * 8)
    adata.uns["log1p"] = stated
    adata.write_h5ad(tmp_path / "x.h5ad")

    report = read_cells(tmp_path / "x.h5ad", labels=None).report

    assert report.scale == scale
    assert report.scale == read_cells(adata, labels=None).report.scale
    assert bool(report.warnings) == (stated in ({"base": "odd"}, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint16"])
def test_counts_in_any_type(dtype: str) -> None:
    """Counts are counts however they are stored, and give the same digest."""
    adata = make_adata(layout="dense")
    expected = read_cells(adata, labels=None).report.digest
    adata.X = adata.X.astype(dtype)

    report = read_cells(adata, labels=None).report

    assert report.scale == "counts"
    assert report.digest == expected


def _placed(**places: np.ndarray) -> ad.AnnData:
    adata = ad.AnnData(places["X"])
    adata.var_names = [f"G{g}" for g in range(adata.n_vars)]
    adata.obs_names = [f"c{c}" for c in range(adata.n_obs)]
    if "raw" in places:
        raw = ad.AnnData(places["raw"], obs=adata.obs)
        raw.var_names = [f"G{g}" for g in range(raw.n_vars)]
        adata.raw = raw
    for name in set(places) - {"X", "raw"}:
        adata.layers[name] = places[name]
    return adata


COUNTS = _counts(genes=80)
LN = to_scale(COUNTS, "ln")
SCALED = (LN - LN.mean(0)) / (LN.std(0) + 1)


@pytest.mark.parametrize(
    ("places", "where", "scale"),
    [
        ({"X": LN, "counts": COUNTS}, "layers['counts']", "counts"),
        ({"X": COUNTS, "raw": COUNTS}, "X", "counts"),
        ({"X": LN, "raw": COUNTS}, "raw.X", "counts"),
        ({"X": SCALED, "raw": LN}, "raw.X", "ln"),
        ({"X": SCALED[:, :40], "raw": LN, "counts": COUNTS[:, :40]}, "raw.X", "ln"),
        ({"X": SCALED[:, :78], "raw": LN, "counts": COUNTS[:, :78]}, "layers['counts']", "counts"),
        ({"X": SCALED[:, :40], "raw": SCALED, "counts": COUNTS[:, :40]}, "layers['counts']", "counts"),
        ({"X": LN[:, :40], "raw": LN}, "raw.X", "ln"),
        ({"X": LN, "raw": LN}, "X", "ln"),
        ({"X": LN, "counts": SCALED}, "X", "ln"),
        ({"X": LN, "raw_counts": COUNTS}, "layers['raw_counts']", "counts"),
        ({"X": LN, "spliced": COUNTS}, "X", "ln"),
        ({"X": SCALED, "lognorm": LN}, "layers['lognorm']", "ln"),
    ],
)
def test_values_are_found(places: dict[str, np.ndarray], where: str, scale: str) -> None:
    """Counts come first wherever they are, unless raw is whole and they were cut; then the values with most genes."""
    verdict = find_values(from_adata(_placed(**places)))

    assert (verdict.where, verdict.scale) == (where, scale)


def test_the_place_is_chosen_by_the_genes_that_the_model_knows() -> None:
    """Raw is taken for the panel's genes that it has more of, and that is told; not for genes of other names."""
    adata = _placed(X=COUNTS[:, :40], raw=LN)
    panel = GenePanel.empty().extended(Genes.of([f"G{g}" for g in range(80)]), 1)
    inner = panel.subset(np.arange(40))

    with open_stream(adata, wanted=panel) as stream:
        assert stream.report.where == "raw.X"
        assert any("has 80 genes" in text and "cut to 40" in text for text in stream.report.warnings)
    with open_stream(adata, wanted=inner) as stream:
        assert stream.report.where == "X"
    raw = ad.AnnData(LN, obs=adata.obs)
    raw.var_names = [f"ENSG{g:011d}" for g in range(raw.n_vars)]
    adata.raw = raw
    assert read_cells(adata, labels=None).report.where == "X"


@pytest.mark.parametrize(("scale", "base"), [("log10", None), ("log10", float(np.e)), ("ln twice", float(np.e))])
def test_unusual_logarithms_are_undone_and_told(scale: str, base: float | None) -> None:
    """log10, and log1p taken twice, are seen by what they come to, whatever uns["log1p"] states."""
    ln = to_scale(_counts(genes=200), "ln").astype(np.float64)
    adata = _placed(X=ln / np.log(10) if scale == "log10" else np.log1p(ln))
    if base is not None:
        adata.uns["log1p"] = {"base": base}

    cells = read_cells(adata, labels=None)

    assert cells.report.scale == scale
    assert "it was undone" in cells.report.warnings[0]
    np.testing.assert_allclose(cells.expression.toarray(), ln, atol=1e-4)


def test_a_stated_base_of_ten_is_believed() -> None:
    """uns["log1p"] with base 10 decides where the values do not."""
    values = sp.csr_matrix(np.random.default_rng(0).random((40, 30)) * 4)

    assert judge_scale(values, "X", 10.0).scale == "log10"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_estimated_counts_are_scaled_like_counts(share: float) -> None:
    """Estimated counts (RSEM) are used and told, alone as beside cells with counts."""
    counts = _counts(genes=200) * 20
    estimated = counts * np.random.default_rng(0).uniform(0.6, 1.4, counts.shape)
    estimated[: int(share * len(counts))] = counts[: int(share * len(counts))]

    cells = read_cells(_placed(X=estimated), labels=None)

    assert cells.report.scale == ("counts" if share == 1 else "linear")
    np.testing.assert_allclose(np.expm1(cells.expression.toarray()).sum(axis=1), 1e4, rtol=1e-3)
    if share == 0:
        assert "estimated" in cells.report.warnings[0]


def test_every_place_is_named_when_none_is_usable() -> None:
    """The error says what is wrong with each matrix, and how to mend it."""
    with pytest.raises(DataError, match=r"X: values are negative.*raw\.X: values are negative.*layers\['counts'\]"):
        read_cells(_placed(X=SCALED, raw=SCALED), labels=None)


def test_a_guess_is_a_warning() -> None:
    """A scale that was guessed from the range is told to the person."""
    adata = _placed(X=np.random.default_rng(0).random((40, 30)) * 8)

    report = read_cells(adata, labels=None).report

    assert "likeliest reading" in report.warnings[0]


def test_pbmc68k_is_found_in_raw() -> None:
    """scanpy's file: X is scaled; raw.X is the natural logarithm, rounded, of 765 genes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scanpy as sc

        adata = sc.datasets.pbmc68k_reduced()

    report = read_cells(adata, labels="bulk_labels").report

    assert (report.where, report.scale, report.genes) == ("raw.X", "ln", 765)


def test_undoing_is_exact() -> None:
    """expm1 and 2^x - 1 in float64."""
    values = np.array([0.0, 1.0, 10.0], dtype=np.float32)

    np.testing.assert_allclose(to_linear(values, "ln"), np.exp([0, 1, 10]) - 1, rtol=1e-12)
    np.testing.assert_allclose(to_linear(values, "log2"), [0, 1, 1023], rtol=1e-12)


@pytest.mark.parametrize("scale", ["counts", "linear", "ln"])
def test_cells_are_scaled_over_all_their_genes_whichever_are_asked_for(scale):
    """The same value for a cell whatever columns are read."""
    block = make_adata(20, 30, scale=scale).X
    columns = np.array([0, 3, 29])

    some = normalise(block, scale, "X", "toy", columns)

    np.testing.assert_array_equal(some.toarray(), normalise(block, scale, "X", "toy").toarray()[:, columns])
