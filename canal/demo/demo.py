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

RESULTS, ANNOTATED, PICTURE = "demo.json", "annotated.h5ad", "demo.png"
# What a demonstration writes into its folder, and what the next one may therefore replace.
WRITTEN = ("data", "configs", "stages", "registry", SETTINGS_FILE, ANNOTATED, PICTURE, RESULTS)
# What remains without example bank, distillation and analytic memory.
NAIVE = ("bank.size=0", "training.distillation=0.0", "analytic.enabled=false", "promotion.max_fall=1.0")


def _say_nothing(_line: str) -> None:
    """Take a line and do nothing."""


@dataclass(kw_only=True)
class Scores:
    """Figures on each stage's held-out cells after each stage.

    Attributes
    ----------
    accuracy, macro_f1
        Row k holds the figures after stage k + 1, one for each stage so far.
    seconds
        How long each stage took to learn.
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

    def means(self, row: int) -> tuple[float, float]:
        """Return the mean accuracy and the mean macro-F1 of a row."""
        return float(np.mean(self.accuracy[row])), float(np.mean(self.macro_f1[row]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        accuracy, macro_f1 = self.means(-1)
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "mean_accuracy": accuracy,
            "mean_macro_f1": macro_f1,
            "forgetting": self.forgetting,
            "stage_seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Results of the demonstration.

    Attributes
    ----------
    folder
        The workspace that was made; data, annotated cells and picture are in it.
    stages
        Names of the stages.
    canal, naive
        The annotator, and fine-tuning without any memory.
    joint
        Logistic regression that sees the cells of all stages at once: one row.
    seconds
        How long the whole took.
    """

    folder: Path
    stages: tuple[str, ...]
    canal: Scores
    naive: Scores
    joint: Scores
    seconds: float

    @property
    def annotated(self) -> Path:
        """The held-out cells with their annotation."""
        return self.folder / ANNOTATED

    @property
    def picture(self) -> Path:
        """UMAP coloured by given labels and by annotation, and the tables of accuracy."""
        return self.folder / PICTURE

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        accuracy, macro_f1 = self.joint.means(-1)
        joint = {
            "accuracy": self.joint.accuracy[-1],
            "macro_f1": self.joint.macro_f1[-1],
            "mean_accuracy": accuracy,
            "mean_macro_f1": macro_f1,
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
    say: Callable[[str], object] = _say_nothing,
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
        Called with a line for each step.

    Raises
    ------
    ConfigError
        If the folder holds something else.
    """
    begin = time.monotonic()
    folder = _prepare_folder(Path(folder))
    cells = write_cells(folder / "data", seed)
    say(f"{cells.count} blood cells of 10 types in {len(STAGES)} stages; a quarter is held out.")
    workspace = open_workspace(folder, create=True)
    ours = _learn_stages(workspace, cells, (), seed, progress, say)
    # The same stages without any memory, in a workspace that nobody keeps, and all stages at once.
    say("For comparison: fine-tuning without a memory, and logistic regression on all stages.")
    with tempfile.TemporaryDirectory(prefix="canal-naive-") as other:
        naive = _learn_stages(open_workspace(other, create=True), cells, NAIVE, seed, None, _say_nothing)
    joint = _score_joint(cells)
    # The held-out cells of all stages, annotated and drawn.
    annotation = workspace.annotate(cells.held_out, out=folder / ANNOTATED)
    demo_picture(
        folder / PICTURE,
        coordinates=cells.coordinates,
        held_out=cells.held_out_rows,
        given=cells.labels[cells.held_out_rows],
        annotated=annotation.cell_type,
        stages=tuple(STAGES),
        accuracy={"canal": ours.accuracy, "fine-tuning": naive.accuracy},
    )
    seconds = round(time.monotonic() - begin, 1)
    report = DemoReport(folder=folder, stages=tuple(STAGES), canal=ours, naive=naive, joint=joint, seconds=seconds)
    (folder / RESULTS).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return report


def _prepare_folder(folder: Path) -> Path:
    """Return the folder, made if missing, without an earlier demonstration."""
    if not Layout(folder).vacant:
        if not (folder / RESULTS).is_file():
            message = f"{folder} holds something else than a demonstration. Name another with --out."
            raise ConfigError(message)
        for name in WRITTEN:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text("{}\n", encoding="utf-8")  # marks the folder as that of a demonstration
    return folder


def _learn_stages(
    workspace: Workspace,
    cells: DemoCells,
    overrides: Sequence[str],
    seed: int,
    progress: Progress | None,
    say: Callable[[str], object],
) -> Scores:
    """Add the stages one after another, and score the model on the held-out cells of each stage so far."""
    scores = Scores()
    for k, (name, path) in enumerate(zip(STAGES, cells.train, strict=True)):
        result = workspace.add_stage(path, labels=LABELS, name=name, overrides=overrides, seed=seed, progress=progress)
        # The model in use is now that of this stage.
        accuracy, macro_f1 = [], []
        for test in cells.test[: k + 1]:
            evaluation = workspace.evaluate(test, labels=LABELS)
            accuracy.append(evaluation.accuracy)
            macro_f1.append(evaluation.macro_f1)
        scores.accuracy.append(accuracy)
        scores.macro_f1.append(macro_f1)
        scores.seconds.append(result.seconds)
        say(f"Stage {k + 1}, {name}: {result.cells} cells, {len(result.new_types)} new types, {result.seconds:.0f} s")
    return scores


def _score_joint(cells: DemoCells) -> Scores:
    """Return the figures of logistic regression on the cells of all stages at once, as one row."""
    train = [read_cells(path, labels=LABELS) for path in cells.train]
    test = [read_cells(path, labels=LabelOptions(column=LABELS, keep_rare=True)) for path in cells.test]
    accuracy, macro_f1 = [], []
    for stage_accuracy, stage_macro_f1 in joint_logistic_regression(train, test):
        accuracy.append(stage_accuracy)
        macro_f1.append(stage_macro_f1)
    return Scores(accuracy=[accuracy], macro_f1=[macro_f1])
