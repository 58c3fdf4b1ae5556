"""How long the pages of `canal review` take: points, a lasso, a gene, in chromium without a graphics card.

    python -m benchmarks.review --cells 20000
    python -m benchmarks.review --points 1000000

Toy cells with their own UMAP, a workspace of one stage, the server of the command, Debian's chromium driven by
Playwright. Times are those that a person waits: from the request to the last pixel. With ``--points`` nothing is
annotated: the same server and pages show so many made-up points.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.review.values import Colour, MapPoints, Queue
from canal.review.web.app import make_app
from canal.review.web.security import ENTRANCE, Visitors
from tests.integration.review.driver import Visit, chromium, commanded
from tests.make import make_adata
from tests.review_client import served

TYPES = ("B", "NK", "CD4 T", "CD14 Mono")
GENES = 200
BLOCK = 10_000  # cells that are made at a time
LASSO = 100_000  # cells, about
REPEATS = 5


def make_lab(folder: Path, cells: int, genes: int = GENES, *, mapped: bool = True) -> Path:
    """Make a workspace that knows all types but one, and a file of so many cells, with their map or without."""
    import anndata as ad
    import pandas as pd

    import canal

    workspace = canal.open_workspace(folder / "ws", create=True)
    known = make_adata(400, genes, types=TYPES[:3], prefix="known", seed=0)
    workspace.add_stage(known, labels="cell_type", name="known")
    # No two cells are the same: copies would be each other's neighbours, and hundreds of clusters.
    blocks = []
    for first in range(0, cells, BLOCK):
        block = make_adata(min(BLOCK, cells - first), genes, types=TYPES, prefix="cell", seed=1 + first)
        blocks.append(sp.csr_matrix(block.X))
    obs = pd.DataFrame(
        {"donor": pd.Categorical([f"d{k % 8}" for k in range(cells)])}, index=[f"c{k}" for k in range(cells)]
    )
    adata = ad.AnnData(X=sp.vstack(blocks, format="csr"), obs=obs, var=block.var)
    if mapped:
        # A cloud for each type.
        rng = np.random.default_rng(0)
        kinds = np.arange(cells) % BLOCK % len(TYPES)
        centres = rng.normal(size=(len(TYPES), 2))
        adata.obsm["X_umap"] = (centres[kinds] + rng.normal(scale=0.2, size=(cells, 2))).astype(np.float32)
    path = folder / "cells.h5ad"
    adata.write_h5ad(path)
    return path


class Points:
    """In place of a review: points with a type each and one number, and an empty queue."""

    title, path, notes, decisions_path = "points", Path("points.h5ad"), (), Path("points.h5ad.review.jsonl")

    def __init__(self, cells: int) -> None:
        rng = np.random.default_rng(0)
        self.cells = cells
        self._types = rng.integers(0, len(TYPES), cells).astype(np.uint16)
        places = rng.normal(size=(len(TYPES), 2))[self._types] * 0.4 + rng.normal(scale=0.1, size=(cells, 2))
        self._points = MapPoints(coordinates=places.astype(np.float32), basis="X_umap", note="made up")
        self._numbers = rng.random(cells).astype(np.float32)

    def queue(self, *_: Any, **__: Any) -> Queue:
        """Return no groups."""
        return Queue(groups=(), counts={}, cells=0, cells_decided=0)

    def history(self) -> list[Any]:
        """Return no decisions."""
        return []

    def columns(self) -> list[Any]:
        """Return no columns."""
        return []

    def map_progress(self) -> None:
        """Return that no map is being drawn."""

    def map(self) -> MapPoints:
        """Return the points."""
        return self._points

    def colour(self, by: str, name: str = "") -> Colour:
        """Return the types, or the numbers."""
        if by == "gene":
            return Colour(kind="number", values=self._numbers, title=name, high=1.0)
        return Colour(kind="category", values=self._types, title=by, names=TYPES)


def measure_points(cells: int) -> dict[str, Any]:
    """Return the times of one visit to so many points."""
    visitors = Visitors(cookie_name="canal_review")
    review: Any = Points(cells)
    with served(lambda port: make_app(review, visitors, port)) as address, chromium() as browser:
        return measure(browser, f"{address}{ENTRANCE}?token={visitors.invite('ann')}")


def lasso(visit: Visit, share: float) -> tuple[int, float]:
    """Draw around the left part of the map; return the cells that were selected, and the milliseconds that it took."""
    box = visit.page.locator("#cells").bounding_box()
    left, top, width, height = box["x"] + 1, box["y"] + 1, box["width"] * share, box["height"] - 2
    mouse = visit.page.mouse
    mouse.move(left, top)
    mouse.down()
    for place in ((left + width, top), (left + width, top + height), (left, top + height)):
        mouse.move(*place, steps=20)
    begun = time.perf_counter()
    mouse.up()
    visit.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    taken = 1000 * (time.perf_counter() - begun)
    return int(visit.page.get_attribute("#map", "data-selected")), taken


def median_colour(visit: Visit, by: list[str]) -> float:
    """Return the median milliseconds of colouring, from the request to the last pixel."""
    return float(
        statistics.median(
            visit.page.evaluate(
                "async by => { await colour(by); return +map.canvas.closest('#map').dataset.milliseconds }", one
            )
            for one in by
        )
    )


def measure(browser: Any, link: str) -> dict[str, Any]:
    """Return all times of one visit; of a file without a map it is drawn meanwhile."""
    begun = time.perf_counter()
    visit = Visit(browser, link)
    entered = time.perf_counter() - begun
    marks = visit.page.evaluate(
        "['points-asked', 'points-shown'].map(name => performance.getEntriesByName(name)[0].startTime)"
    )
    # A lasso of about so many cells: its width is found by trying.
    cells = visit.page.evaluate("map.count")
    low, high = 0.0, 1.0
    tried = []
    for _ in range(8):
        share = (low + high) / 2
        selected, taken = lasso(visit, share)
        tried.append((selected, taken))
        low, high = (share, high) if selected < min(LASSO, cells / 2) else (low, share)
    nearest = min(tried, key=lambda one: abs(one[0] - min(LASSO, cells / 2)))
    figures = {
        "cells": cells,
        "entered_s": round(entered, 2),
        "points_s": round((marks[1] - marks[0]) / 1000, 2),
        "lasso_cells": nearest[0],
        "lasso_ms": round(nearest[1]),
        "colour_type_ms": median_colour(visit, ["type"] * REPEATS),
        "colour_gene_ms": median_colour(visit, [f"gene:GENE{k}" for k in range(REPEATS)]),
        "elsewhere": len(visit.elsewhere),
    }
    visit.close()
    return figures


def main() -> None:
    """Make, serve, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=GENES)
    parser.add_argument("--no-map", action="store_true", help="the file has no UMAP: it is computed")
    parser.add_argument("--points", type=int)
    given = parser.parse_args()
    cells = given.cells
    if given.points:
        print(json.dumps(measure_points(given.points), indent=2))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = make_lab(Path(folder), cells, given.genes, mapped=not given.no_map)
        begun = time.perf_counter()
        with commanded(Path(folder) / "ws", path) as told, chromium() as browser:
            opened = time.perf_counter() - begun
            print(json.dumps({"open_s": round(opened, 1), **measure(browser, told["link"])}, indent=2))


if __name__ == "__main__":
    main()
