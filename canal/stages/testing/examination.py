"""Before `canal stage add` commits: the new model is tested on the cells of its own and of earlier stages."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canal.data.cells import Cells
from canal.errors import StageError
from canal.model.model import Model
from canal.model.record import StageRecord
from canal.stages.request import StageRequest, recorded_label_rules, recorded_map
from canal.stages.testing.held_out import HeldOutReference, ReadingOptions, reference_to_file, reference_to_share
from canal.stages.testing.tests import (
    AccuracyChange,
    EarlierStage,
    StageTests,
    accuracy_changes,
    figures_for_record,
    finite_history,
    measure_earlier_stages,
    measure_outcome,
    reason_to_hold_back,
    untested_warning,
)
from canal.training.run import Run
from canal.training.stage import LearnedStage

TestCells = tuple[HeldOutReference, Cells]  # the reference that is kept, and the cells themselves

_TRAINED_ON = (
    "{path} holds the training cells of {stage}; expected cells that no stage was trained on. "
    "Give another file with --test, or none: then a share of the stage's own cells is held out."
)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the tests of a new stage have shown.

    Attributes
    ----------
    tests
        What is kept beside the model.
    metrics
        Figures for the record.
    changes
        Accuracy of the new model and of the model in use on the cells of each earlier stage.
    held_back
        Why the stage must not come into use; empty where it may.
    """

    tests: StageTests
    metrics: dict[str, float]
    changes: tuple[AccuracyChange, ...]
    held_back: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the person who adds the stage has to know: that it is held back, what it was tested on and what not."""
        texts = (self.held_back, untested_warning(self.changes), _seen_warning(self.tests.own))
        return tuple(text for text in texts if text)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the comparison with the model in use as plain values, for JSON."""
        return [asdict(change) for change in self.changes]


MUCH_SEEN = 0.5  # share of a stage's test cells in the bank above which the person is told


def _seen_warning(own: HeldOutReference | None) -> str:
    """Return a sentence where most test cells of the stage are in its example bank, "" elsewhere."""
    if own is None or own.in_bank <= MUCH_SEEN * own.cells:
        return ""
    return (
        f"{own.in_bank} of the {own.cells} held-out cells of this stage are in the example bank, too, which the model "
        "has learned: average accuracy is that of cells it has seen. Validation accuracy was measured before that. To "
        "test on others, name a file with --test."
    )


def read_test_file(request: StageRequest, cells: Cells) -> TestCells | None:
    """Read the file that was given with ``--test``, ``None`` where there was none.

    Raises
    ------
    DataError, StageError
        If it cannot be used, or the stage is trained on it.
    """
    if request.test is None:
        return None
    reference, test_cells = reference_to_file(Path(request.test), _reading_options(request), request.rules)
    # The same file, or the same content under another name.
    same_file = isinstance(request.data, str | Path) and Path(request.data).resolve() == Path(request.test).resolve()
    if same_file or reference.digest == cells.report.digest:
        raise StageError(_TRAINED_ON.format(path=request.test, stage="this stage"))
    return reference, test_cells


def refuse_trained_on(test_file: TestCells | None, records: Sequence[StageRecord]) -> None:
    """Refuse to test with cells that an earlier stage was trained on.

    Raises
    ------
    StageError
        If one was.
    """
    if test_file is None:
        return
    reference, _ = test_file
    for record in records:
        if reference.digest in {source.get("digest") for source in record.data}:
            stage = f"stage {record.number} ({record.name})"
            raise StageError(_TRAINED_ON.format(path=reference.path, stage=stage))


def examine(
    request: StageRequest,
    cells: Cells,
    learned: LearnedStage,
    test_file: TestCells | None,
    parent: Model | None,
    earlier: Sequence[EarlierStage],
    run: Run,
) -> Examination:
    """Test a new model.

    Parameters
    ----------
    request, cells
        What was asked, and the stage's labelled cells.
    learned
        The new model.
    test_file
        Test cells from `read_test_file`; the held-out share where there are none.
    parent
        The model in use.
    earlier
        The stages it was learned from, and itself.
    run
        Number of the stage, and who is told of the progress.
    """
    # The stage's own test cells: of the file that was given, or held out.
    own, own_cells = test_file or _held_out_share(request, cells, learned)
    # The new model on the cells of each earlier stage, beside what the model in use answers there.
    outcomes, earlier = measure_earlier_stages(learned.model, parent, earlier, run.progress, learned.key)
    changes = tuple(accuracy_changes(outcomes, earlier))
    # The new model on the stage's own cells.
    outcomes.append(measure_outcome(learned.model, own_cells, run.number, own.digest))
    tests = StageTests(own=own, outcomes=tuple(outcomes), history=finite_history(learned.history))
    # May it be used?
    in_use = None if parent is None else parent.stage.number
    held_back = reason_to_hold_back(run.number, in_use, changes, learned.model.preset.promotion)
    metrics = figures_for_record(run.number, tests, earlier)
    return Examination(tests=tests, metrics=metrics, changes=changes, held_back=held_back)


def _held_out_share(request: StageRequest, cells: Cells, learned: LearnedStage) -> TestCells:
    """Return the held-out cells of the stage, as far as possible without those that went into the example bank."""
    bank = learned.model.bank
    in_bank = np.isin(cells.names[learned.held_out], bank.names[bank.stage == learned.key])
    path = Path(request.data) if isinstance(request.data, str | Path) else None
    return reference_to_share(path, _reading_options(request), cells, learned.held_out, in_bank)


def _reading_options(request: StageRequest) -> ReadingOptions:
    """Return how the files of a request are read, so that it can be repeated from any folder."""
    return ReadingOptions.model_validate(
        {
            "labels": request.labels,
            "label_map": recorded_map(request.label_map),
            "gene_key": request.gene_key,
            **recorded_label_rules(request),
        }
    )
