"""The demonstration: three stages on the real cells that come with scanpy, and what they are to be compared with."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from canal.data.example_cells import LABELS, STAGES, DemoCells, write_cells
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.errors import ConfigError
from canal.figures import forgetting
from canal.progress import Progress
from canal.report.plots import demo_picture
from canal.stages.evaluate import joint_logistic_regression
from canal.stages.layout import SETTINGS_FILE, Layout
from canal.workspace import Workspace, open_workspace

RESULTS = "demo.json"
OURS = ("data", "configs", "stages", "registry", SETTINGS_FILE, "annotated.h5ad", "demo.png", RESULTS)
# What remains without example bank, distillation and analytic memory.
NAIVE = ("bank.size=0", "training.distillation=0.0", "analytic.enabled=false", "promotion.max_fall=1.0")


@dataclass(kw_only=True)
class Scores:
    """Figures on each stage's held-out cells after each stage.

    Attributes
    ----------
    accuracy, macro_f1
        Row k holds the figures after stage k + 1, one for each stage so far.
    seconds
        What each stage took to learn.
    """

    accuracy: list[list[float]] = field(default_factory=list)
    macro_f1: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def forgetting(self) -> float:
        """Mean over earlier stages of the best accuracy before less the last one (Chaudhry et al. 2018)."""
        stages = len(self.accuracy)
        if stages < 2:
            return 0.0
        table = np.full((stages, stages), np.nan)
        for k, row in enumerate(self.accuracy):
            table[k, : len(row)] = row
        return forgetting(table, range(stages))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "mean_accuracy": float(np.mean(self.accuracy[-1])),
            "mean_macro_f1": float(np.mean(self.macro_f1[-1])),
            "forgetting": self.forgetting,
            "stage_seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demonstration has shown.

    Attributes
    ----------
    folder
        The workspace that was made; data, annotated cells and picture are in it.
    stages
        Names of the stages.
    canal, naive
        The annotator, and fine-tuning without any memory.
    joint
        Accuracy and macro-F1 of logistic regression that sees the cells of all stages at once.
    """

    folder: Path
    stages: tuple[str, ...]
    canal: Scores
    naive: Scores
    joint: list[tuple[float, float]]
    seconds: float

    @property
    def annotated(self) -> Path:
        """The held-out cells with their annotation."""
        return self.folder / "annotated.h5ad"

    @property
    def picture(self) -> Path:
        """UMAP coloured by given labels and by annotation, and the tables of accuracy."""
        return self.folder / "demo.png"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        accuracy, macro_f1 = (list(column) for column in zip(*self.joint, strict=True))
        joint = {
            "accuracy": accuracy,
            "macro_f1": macro_f1,
            "mean_accuracy": float(np.mean(accuracy)),
            "mean_macro_f1": float(np.mean(macro_f1)),
        }
        return {
            "workspace": str(self.folder),
            "stages": list(self.stages),
            "canal": self.canal.to_dict(),
            "naive_fine_tuning": self.naive.to_dict(),
            "joint_logistic_regression": joint,
            "annotated": str(self.annotated),
            "picture": str(self.picture),
            "seconds": self.seconds,
        }


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], object] = lambda _line: None,
) -> DemoReport:
    """Add three stages of `scanpy.datasets.pbmc68k_reduced` to a new workspace and score them.

    Parameters
    ----------
    folder
        Made if missing; an earlier demonstration in it is replaced, anything else refused.
    seed
        Decides which cells are held out, and the training.
    progress
        Told how far each training is.
    say
        Told what happens.

    Raises
    ------
    ConfigError
        If the folder holds something else.
    """
    begin = time.monotonic()
    folder = _fresh(Path(folder))
    cells = write_cells(folder / "data", seed)
    say(f"{cells.count} blood cells of 10 types in {len(STAGES)} stages; a quarter is held out.")
    workspace = open_workspace(folder, create=True)
    ours = _stream(workspace, cells, (), seed, progress, say)
    say("For comparison: fine-tuning without a memory, and logistic regression on all stages.")
    with tempfile.TemporaryDirectory(prefix="canal-naive-") as other:
        naive = _stream(open_workspace(other, create=True), cells, NAIVE, seed, None, None)
    joint = joint_logistic_regression(
        [read_cells(path, labels=LABELS) for path in cells.train],
        [read_cells(path, labels=LabelOptions(column=LABELS, keep_rare=True)) for path in cells.test],
    )
    report = DemoReport(
        folder=folder,
        stages=tuple(STAGES),
        canal=ours,
        naive=naive,
        joint=joint,
        seconds=0.0,
    )
    _show(workspace, cells, report)
    return _kept(report, time.monotonic() - begin)


def _fresh(folder: Path) -> Path:
    """Return the folder without an earlier demonstration."""
    if not Layout(folder).vacant:
        if not (folder / RESULTS).is_file():
            message = f"{folder} holds something else than a demonstration. Name another with --out."
            raise ConfigError(message)
        for name in OURS:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text("{}\n", encoding="utf-8")  # marks the folder as ours
    return folder


def _stream(
    workspace: Workspace,
    cells: DemoCells,
    overrides: Sequence[str],
    seed: int,
    progress: Progress | None,
    say: Callable[[str], object] | None,
) -> Scores:
    scores = Scores()
    for k, (name, path) in enumerate(zip(STAGES, cells.train, strict=True)):
        result = workspace.add_stage(path, labels=LABELS, name=name, overrides=overrides, seed=seed, progress=progress)
        found = [workspace.evaluate(test, labels=LABELS) for test in cells.test[: k + 1]]
        scores.accuracy.append([f.accuracy for f in found])
        scores.macro_f1.append([f.macro_f1 for f in found])
        scores.seconds.append(result.seconds)
        if say is not None:
            say(
                f"Stage {k + 1}, {name}: {result.cells} cells, {len(result.new_types)} new types, "
                f"{result.seconds:.0f} s"
            )
    return scores


def _show(workspace: Workspace, cells: DemoCells, report: DemoReport) -> None:
    """Annotate the held-out cells of all stages and draw them."""
    annotation = workspace.annotate(cells.held_out, out=report.annotated)
    demo_picture(
        report.picture,
        coordinates=cells.coordinates,
        held_out=cells.held_out_rows,
        given=cells.labels[cells.held_out_rows],
        annotated=annotation.cell_type,
        stages=report.stages,
        accuracy={"canal": report.canal.accuracy, "fine-tuning": report.naive.accuracy},
    )


def _kept(report: DemoReport, seconds: float) -> DemoReport:
    from dataclasses import replace

    report = replace(report, seconds=round(seconds, 1))
    text = json.dumps(report.to_dict(), indent=2)
    (report.folder / RESULTS).write_text(text + "\n", encoding="utf-8")
    return report
