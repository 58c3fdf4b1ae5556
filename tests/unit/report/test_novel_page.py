"""The page of `canal novel find`: names of any length stay within it."""

import io

import numpy as np
from matplotlib.image import imread

from canal.novel.page import dot_plot, novel_page, shortened
from canal.novel.report import NovelCluster, NovelReport
from canal.report.groups import MarkerGene, NearestType

LONG = "ENSG00000167286_CD3D_delta_subunit_of_T_cell_receptor_complex"


def make_report(gene: str) -> NovelReport:
    """Return a report of one cluster with one marker."""
    marker = MarkerGene(gene=gene, fold=2.0, share=0.9, share_others=0.1, p_value=0.001)
    cluster = NovelCluster(
        name="1", cells=30, suggested=f"near B ({gene})", apart=True, silhouette=0.4, own_share=0.9, batches={"a": 30},
        markers=(marker,), markers_others=(), near=(NearestType(name="B", share=1.0, distance=None),),
        novelty=3.0, p_value=0.01, confidence=0.6,
    )  # fmt: skip
    return NovelReport(
        model="blood", stage=2, canal_version="0.1", data="cells.h5ad", data_digest="sha256:0", alpha=0.05,
        uncertain_too=False, resolution=1.0, min_size=10, seed=0, cells=100, cells_by_status={"known": 60, "novel": 40},
        taken=30, for_neighbours=0, aside=0, batch="donor", known_types=("B",), clusters=(cluster,),
        sanity="331 of 3,721 genes of the model measured",
    )  # fmt: skip


def test_long_names_break_on_the_page():
    """The name is whole, and the table may break it anywhere: it does not widen the page."""
    page = novel_page(make_report(LONG), None, None)

    assert f'<td class="gene">{LONG}</td>' in page
    style = page.split("<style>")[1].split("</style>")[0]
    assert "td.gene { white-space: normal }" in style
    assert "overflow-wrap: anywhere" in style


def test_the_page_says_whether_the_file_fits():
    """As annotating does."""
    assert "331 of 3,721 genes of the model measured" in novel_page(make_report("CD3D"), None, None)


def test_the_dot_plot_keeps_its_dots_beside_long_names():
    """Long names are cut in the middle, and the picture grows for them: the dots lie as far apart as before."""
    share, mean = np.ones((2, 3)), np.ones((2, 3))
    genes = [f"{k}{LONG}" for k in range(3)]

    picture = imread(io.BytesIO(dot_plot(genes, ["1", "B"], share, mean, {"1": LONG, "B": "B"})))
    short = imread(io.BytesIO(dot_plot(["A", "C", "D"], ["1", "B"], share, mean, {"1": "1", "B": "B"})))

    assert picture.shape[0] > short.shape[0]
    assert picture.shape[0] < 2 * short.shape[0] + 200
    assert red_rows(picture) >= 0.8 * red_rows(short)


def red_rows(picture: np.ndarray) -> int:
    """Return how many rows of a picture hold the dark red of a full dot."""
    red = (picture[..., 0] > 0.3) & (picture[..., 1] < 0.1) & (picture[..., 2] < 0.2)
    return int(red.any(axis=1).sum())


def test_names_are_cut_in_the_middle():
    """What tells long names apart stands at either end."""
    assert shortened("CD3D") == "CD3D"
    cut = shortened(LONG)
    assert len(cut) <= 28
    assert cut.startswith("ENSG00000")
    assert cut.endswith("complex")
