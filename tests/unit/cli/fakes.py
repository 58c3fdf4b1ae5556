"""A workspace that learns nothing and answers at once, for tests of parsing and printing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from canal.errors import StageError
from canal.model.record import StageRecord
from canal.model.reliability import Reliability
from canal.report.annotation import Annotation
from canal.stages.evaluate import Evaluation
from canal.stages.request import StageResult
from canal.workspace import Annotator

TYPES = ("B", "NK [bright]")  # brackets are text, not markup


@dataclass
class FakeWorkspace(Annotator):
    """Remembers what it was asked; its one stage knows two types."""

    root: Path = Path("blood")
    asked: dict[str, Any] = field(default_factory=dict)
    empty: bool = False

    def add_stage(self, data: Path, **options: Any) -> StageResult:
        """Answer as a first stage would."""
        self.asked = {"data": data, **options}
        print("chatter of a library")  # noqa: T201
        options["progress"].start(2, "stage 1")
        options["progress"].advance(2, "epoch 2")
        options["progress"].close()
        return StageResult(
            stage=1, name="first", version=1, parent=None, champion=True, types=TYPES,
            new_types=TYPES, cells=20, genes=50, gene_report={"share": 1.0},
            bank={"size": 10, "per_type": {"B": 5, "NK [bright]": 5}},
            metrics={"validation_accuracy": 0.75, "validation_cells": 4.0}, warnings=("mind this",),
            left_out={"unlabelled": 0, "dropped_labels": 7, "rare_types": 1},
        )  # fmt: skip

    def annotate(self, data: Path, **options: Any) -> Annotation:
        """Answer for three cells."""
        self.asked = {"data": data, **options}
        return Annotation(
            cell_names=np.array(["c0", "c1", "c2"], dtype=object),
            cell_type=np.array(["B", "NK [bright]", "B"], dtype=object),
            confidence=np.array([0.5, 1.0, 1.0], dtype=np.float32),
            representation=np.zeros((3, 2), dtype=np.float32),
            facts={"model": "blood", "stage": 1},
        )

    def annotate_files(self, files: list[Path], out: Path, *, dask: str | None = None, **options: Any) -> list[Any]:
        """Annotate one after the other, as on one machine."""
        assert dask is None
        return super().annotate_files(files, out, **options)

    def evaluate(self, data: Path, **options: Any) -> Evaluation:
        """Answer with made-up figures."""
        self.asked = {"data": data, **options}
        figures = {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 3.0}
        return Evaluation(
            stage=1, cells=3, accuracy=0.5, macro_f1=2 / 3, ari=0.1, per_type={"B": figures},
            unknown_types=("HSC",),
        )  # fmt: skip

    def stages(self) -> list[StageRecord]:
        """Return the one record."""
        return [] if self.empty else [self.stage(1)]

    def champion(self) -> int | None:
        """Return the one stage."""
        return None if self.empty else 1

    def stage(self, number: int) -> StageRecord:
        """Return the record of stage 1."""
        if number != 1:
            message = f"There is no stage {number}. Stages: 1."
            raise StageError(message)
        return StageRecord(
            number=1, name="first", version=1, seed=0, preset={"name": "compact"}, types=TYPES,
            new_types=TYPES, cells=20, genes=50, bank=self.bank(), metrics={"validation_accuracy": 0.75},
            data=({"path": "a.h5ad", "scale": "counts", "digest": "sha256:1"},),
            label_warnings=({"message": "'NK' looks like 'NK [bright]'"},),
        )  # fmt: skip

    def reliability(self, number: int | None = None) -> Reliability | None:
        """Return what a stage of an older canal has: nothing."""
        assert number == 1

    def bank(self, number: int | None = None) -> dict[str, Any]:
        """Return what ten cells look like."""
        assert number in {None, 1}
        return {"size": 10, "per_type": {"B": 5, "NK [bright]": 5}, "per_stage": {"1": 10}}
