"""Pictures of every view, for docs/review.md: `python -m tests.integration.review.screenshots docs/review`.

The cells are those of `canal demo`: B cells, monocytes, dendritic and T cells are taught, NK and stem cells are not.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import canal
from canal.data.example_cells import LABELS, write_cells
from canal.progress import Silent
from canal.review.review import open_review
from canal.review.web.app import make_app
from canal.review.web.security import ENTRANCE, Visitors
from tests.integration.review.driver import Visit, chromium
from tests.review_client import served

LARGEST = 150_000  # bytes of a picture
USERS = ("Ada", "Grace")


def make_lab(folder: Path) -> Path:
    """Make a workspace of two stages, and return a file with types that neither taught."""
    import anndata as ad

    cells = write_cells(folder / "cells", seed=0)
    workspace = canal.open_workspace(folder / "ws", create=True)
    for name, file in zip(("myeloid-b", "t-cells"), cells.train, strict=False):
        workspace.add_stage(file, labels=LABELS, name=name, progress=Silent())
    # A new file: the held-out cells of all types, and the cells of the stage that is not taught.
    new = ad.concat([ad.read_h5ad(cells.held_out), ad.read_h5ad(cells.train[2])], merge="same")
    new.obs["donor"] = [f"donor {1 + row % 3}" for row in range(new.n_obs)]
    del new.obs[LABELS]
    path = folder / "patient7.h5ad"
    new.write_h5ad(path)
    return path


def take_all(browser: Any, links: list[str], out: Path) -> None:
    """Go through the views as two people do, and take a picture of each."""
    ada, grace = Visit(browser, links[0], color_scheme="light"), Visit(browser, links[1], color_scheme="dark")

    def take(visit: Visit, name: str, **options: Any) -> None:
        visit.page.wait_for_timeout(700)  # messages and pictures have settled
        if visit.page.locator("#message").inner_text():
            visit.page.wait_for_timeout(5000)
        path = out / f"{name}.png"
        visit.page.screenshot(path=path, **options)
        shrink(path)

    # The review as it opens, its evidence, and a gene on the map.
    ada.wait("svg.dots")
    take(ada, "review")
    ada.page.evaluate("document.querySelector('#evidence h3:nth-of-type(3)').scrollIntoView()")
    ada.page.locator("button[data-gene]").first.click()
    ada.wait("#map[data-colour^='gene:']")
    take(ada, "evidence")
    # A selection by lasso, in the dark, with a name being written.
    grace.wait("svg.dots")
    box = grace.page.locator("#cells").bounding_box()
    left, top, width, height = box["x"], box["y"], box["width"], box["height"]
    grace.page.mouse.move(left + 0.05 * width, top + 0.05 * height)
    grace.page.mouse.down()
    for across, down in ((0.5, 0.03), (0.55, 0.5), (0.3, 0.6), (0.04, 0.5)):
        grace.page.mouse.move(left + across * width, top + down * height, steps=4)
    grace.page.mouse.up()
    grace.wait("#selection:not([hidden])")
    grace.page.fill("#name", "hematopoietic")
    grace.wait("#name-list li")
    take(grace, "map")
    # Decisions, a conflict, and an approval.
    ada.fill("#name", "CD34+ progenitor")
    ada.click("#give-name")
    ada.wait("#evidence .tag.done")
    ada.fill("#comment", "PRSS57 and SMIM24 (C19ORF77): progenitors")
    ada.page.press("#comment", "Enter")
    ada.wait("text=PRSS57 and SMIM24 (C19ORF77): progenitors")
    grace.page.reload()
    grace.wait("#approve")
    grace.click("#approve")
    grace.wait("text=Approved by")
    groups = grace.page.locator("#queue button[data-group]")
    if groups.count() > 1:
        for visit, button in ((ada, "#doublet"), (grace, "#reject")):
            visit.page.locator("#queue button[data-group]").nth(1).click()
            visit.wait("#evidence .tag.open" if visit is ada else "#evidence .tag.done")
            visit.click(button)
            visit.wait("#evidence .tag.done" if visit is ada else "#evidence .tag.conflict")
    ada.page.goto(f"{ada.address}/decisions")
    take(ada, "decisions")
    # Teaching and the stages.
    ada.page.goto(f"{ada.address}/teach")
    ada.click("#teach")
    ada.wait("#teaching progress[value]")
    take(ada, "teaching")
    ada.wait("#promote")
    take(ada, "teach", full_page=True)
    ada.click("#promote")
    ada.wait("#annotate")
    ada.page.goto(f"{ada.address}/stages")
    take(ada, "stages", full_page=True)
    assert ada.errors + grace.errors == [], ada.errors + grace.errors
    ada.close()
    grace.close()


def shrink(path: Path) -> None:
    """Write a picture again, small; with fewer colours only where it is too large."""
    from PIL import Image

    with Image.open(path) as picture:
        whole = picture.convert("RGB")
    whole.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        whole.quantize(256).save(path, optimize=True)


def main(out: Path) -> None:
    """Take all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        file = make_lab(Path(folder))
        review = open_review(canal.open_workspace(Path(folder) / "ws"), file)
        visitors = Visitors(cookie_name="canal_review")
        with served(lambda port: make_app(review, visitors, port)) as address:
            take_all(browser, [f"{address}{ENTRANCE}?token={visitors.invite(user)}" for user in USERS], out)
        review.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
