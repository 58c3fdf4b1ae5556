"""CANAL's own experiments on the authors' files, with the paper's printed figures beside ours.

    python -m benchmarks.paper stages/paper/pancreas.toml --out pancreas
    python -m benchmarks.paper stages/paper/pancreas.toml --out quick --set encoder.depth=2 --set genes.per_stage=200

A declaration in stages/paper/ names the authors' files, how they are split into stages and what the authors' notebooks
print. Files of the stages are written to OUT/cells, the workspace to OUT/workspace, the figures to OUT/figures.json.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from benchmarks.paper_cells import Experiment, Test, read_experiment, split
from canal.errors import CanalError, ConfigError
from canal.figures import score
from canal.workspace import Workspace, open_workspace

FIGURES = ("cells", "accuracy", "macro_f1", "ari")


def run(
    experiment: Experiment, out: Path, overrides: tuple[str, ...] = (), weights: str | None = None
) -> dict[str, Any]:
    """Learn the stages, test, and return the figures beside the printed ones.

    Raises
    ------
    ConfigError, DataError, StageError
        If the folder holds something, or the files do not fit.
    """
    if (out / "workspace").exists():
        message = f"{out} holds a workspace already. Name another folder with --out."
        raise ConfigError(message)
    parts = split(experiment)
    folder = out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    workspace, stages = open_workspace(out / "workspace", create=True), []
    for part in experiment.stages:
        train, test = parts[part.name]
        if test is not None:
            test.write_h5ad(folder / f"{part.name}.test.h5ad")
        if train is None:
            continue
        train.write_h5ad(path := folder / f"{part.name}.train.h5ad")
        result = workspace.add_stage(
            path, labels=experiment.labels, name=part.name, preset=experiment.preset, seed=experiment.seed,
            overrides=(*part.set, *overrides, "promotion.max_fall=1.0"), drop_rare=True, weights=weights,
        )  # fmt: skip
        stages.append({"stage": part.name, "cells": result.cells, "printed": part.printed_cells,
                       "champion": result.champion})  # fmt: skip
    tests = [_tested(workspace, t, folder, experiment.labels) for t in experiment.tests]
    return {"experiment": experiment.name, "stages": stages, "tests": tests}


def _tested(workspace: Workspace, test: Test, folder: Path, labels: str) -> dict[str, Any]:
    truth, said = [], []
    number = max(record.number for record in workspace.stages())
    for name in test.stages:
        path = folder / f"{name}.test.h5ad"
        truth.append(ad.read_h5ad(path).obs[labels].to_numpy(str))
        said.append(np.asarray(workspace.annotate(path, stage=number).cell_type).astype(str))
    both = np.concatenate(truth), np.concatenate(said)
    found = {k: v for k, v in score(*both).items() if k in FIGURES} | {"cells": len(both[0])}
    return {"test": test.name, "ours": found, "printed": test.printed}


def table(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown, the paper's beside ours."""
    lines = ["| stage | cells, ours | cells, paper |", "|---|---|---|"]
    lines += [f"| {s['stage']} | {s['cells']} | {s['printed'] or ''} |" for s in figures["stages"]]
    lines += ["", "| test | " + " | ".join(f"{k}, {who}" for k in FIGURES for who in ("ours", "paper")) + " |"]
    lines.append("|---" * (2 * len(FIGURES) + 1) + "|")
    for t in figures["tests"]:
        both = [_text(who.get(k), k) for k in FIGURES for who in (t["ours"], t["printed"])]
        lines.append(f"| {t['test']} | " + " | ".join(both) + " |")
    return "\n".join(lines)


def _text(value: float | None, name: str) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if name == "cells" else f"{value:.4f}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("declaration", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of the authors' files")
    parser.add_argument("--weights", help="folder of pre-trained weights: the paper starts from scBERT's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    o = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        figures = run(read_experiment(o.declaration, o.data), o.out, tuple(o.overrides), o.weights)
    except CanalError as error:
        parser.exit(2, f"{error}\n")
    (o.out / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
