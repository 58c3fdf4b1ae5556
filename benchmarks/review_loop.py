"""The loop of `canal review` on real cells, by clicking: a type that nobody taught is named, taught and promoted.

    python -m benchmarks.review_loop --taught 1.train.h5ad --review 2.train.h5ad --test 2.test.h5ad --type "B"

The stages are taught without the type. The file to review has no labels; the command opens it, and chromium, driven by
Playwright, does what a biologist would: look at one novel group after the other, name those of which most cells are of
the type (the labels say so in place of the biologist's eye), teach, promote, annotate. Printed are the groups, the
clicks and texts that it took, the seconds, and the recall of the type in the reviewed file and in a test file whose
cells nobody has looked at. With ``--pictures FOLDER`` a picture of each step is kept.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import canal
from canal.progress import Silent
from tests.integration.review.driver import Visit, chromium, commanded

LABELS = "cell_type"


def make_lab(folder: Path, taught: list[Path], review: Path, left_out: str) -> tuple[Path, pd.Series]:
    """Teach the stages without the type; return the file to review, without labels, and its labels."""
    import anndata as ad

    workspace = canal.open_workspace(folder / "ws", create=True)
    for path in taught:
        cells = ad.read_h5ad(path)
        kept = cells[(cells.obs[LABELS] != left_out).to_numpy()].copy()
        # As a file: later stages are tested on some of its cells.
        file = folder / path.name
        kept.write_h5ad(file)
        workspace.add_stage(file, labels=LABELS, name=path.name.split(".")[0], drop_rare=True, progress=Silent())
    cells = ad.read_h5ad(review)
    truth = cells.obs[LABELS].astype(str)
    # What says the type in other words goes, too.
    cells.obs = cells.obs[[name for name in cells.obs if "type" not in name and name != "subpop"]]
    path = folder / "new.h5ad"
    cells.write_h5ad(path)
    return path, truth


def name_groups(visit: Visit, is_type: np.ndarray, left_out: str) -> list[dict[str, Any]]:
    """Go through the novel groups of the queue, and name those that are mostly of the type."""
    visit.wait("#evidence [data-group] #facts")
    ids = visit.page.eval_on_selector_all("#queue button[data-group]", "all => all.map(one => one.dataset.group)")
    groups = []
    for group in [id_ for id_ in ids if id_.startswith("novel")]:
        if visit.group != group:
            visit.click(f"#queue button[data-group={group}]")
            visit.wait(f"#evidence [data-group={group}] #facts")
        rows = visit.page.evaluate(
            "async id => Array.from(new Uint32Array(await bytes(`/map/rows?group=${id}`)))", group
        )
        title, own = visit.page.inner_text("#evidence h2 >> nth=0"), float(is_type[rows].mean())
        groups.append({"group": group, "title": title, "cells": len(rows), "of_type": round(own, 3)})
        if own > 0.5:
            visit.fill("#name", left_out)
            visit.click("#give-name")
            visit.wait("#evidence .tag.done")
    return groups


def go_through(browser: Any, link: str, is_type: np.ndarray, left_out: str, pictures: Path | None) -> dict[str, Any]:
    """Return the groups, actions and seconds of one visit."""
    begun = time.perf_counter()
    visit = Visit(browser, link)

    def take(name: str, **options: Any) -> None:
        if pictures is not None:
            visit.page.wait_for_timeout(500)
            visit.page.screenshot(path=pictures / f"{name}.png", **options)

    take("opened")
    groups = name_groups(visit, is_type, left_out)
    take("named")
    figures: dict[str, Any] = {"groups": groups, "naming_s": round(time.perf_counter() - begun, 1)}
    if not any(group["of_type"] > 0.5 for group in groups):
        visit.close()
        return {**figures, "actions": visit.actions}
    visit.click("nav >> text=Teach")
    visit.click("#teach")
    visit.wait("#promote")
    take("taught", full_page=True)
    visit.click("#promote")
    visit.wait("#annotate")
    visit.click("#annotate")
    visit.wait("#annotated .good")
    take("annotated", full_page=True)
    figures |= {"actions": visit.actions, "loop_s": round(time.perf_counter() - begun, 1)}
    figures |= {"elsewhere": len(visit.elsewhere), "errors": visit.errors}
    visit.close()
    return figures


def recall_and_precision(answered: np.ndarray, truth: np.ndarray, left_out: str) -> dict[str, float]:
    """Return how many cells of the type are answered so, and how many that are answered so are of it."""
    of_type, says = truth == left_out, answered == left_out
    both = float((of_type & says).sum())
    return {"recall": round(both / of_type.sum(), 3), "precision": round(both / max(says.sum(), 1), 3)}


def main() -> None:
    """Teach, review, measure."""
    import anndata as ad

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--taught", type=Path, nargs="+", required=True)
    parser.add_argument("--review", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--type", required=True)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path, truth = make_lab(folder, given.taught, given.review, given.type)
        workspace = canal.open_workspace(folder / "ws")
        test = ad.read_h5ad(given.test)
        test_truth = test.obs[LABELS].astype(str).to_numpy()
        others = (test_truth != given.type) & np.isin(test_truth, workspace.stage().types)
        before = workspace.annotate(test).cell_type.astype(str)
        figures: dict[str, Any] = {"type": given.type, "cells": len(truth), "of_type": int((truth == given.type).sum())}
        begun = time.perf_counter()
        with commanded(folder / "ws", path, "--user", "ann") as told, chromium() as browser:
            figures["opening_s"] = round(time.perf_counter() - begun, 1)
            is_type = (truth == given.type).to_numpy()
            figures |= go_through(browser, told["link"], is_type, given.type, given.pictures)
        annotated = folder / "new.annotated.h5ad"
        if annotated.exists():
            answered = ad.read_h5ad(annotated, backed="r").obs["canal_cell_type"].astype(str).to_numpy()
            figures["reviewed_file"] = recall_and_precision(answered, truth.to_numpy(), given.type)
            after = canal.open_workspace(folder / "ws").annotate(test).cell_type.astype(str)
            figures["test_file"] = recall_and_precision(after, test_truth, given.type)
            for name, answers in (("others_before", before), ("others_after", after)):
                figures[name] = round(float((answers[others] == test_truth[others]).mean()), 3)
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
