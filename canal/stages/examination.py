"""What `canal stage add` tests before it commits: the new model on the cells of its own and of earlier stages."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from canal.data.cells import Cells
from canal.errors import StageError
from canal.model.model import Annotator
from canal.model.record import StageRecord
from canal.progress import Progress
from canal.stages.held_out import HeldOut, ReadingOptions, from_file, from_share
from canal.stages.request import StageRequest
from canal.stages.tests import (
    Change,
    Earlier,
    StageTests,
    compared,
    figures_for_record,
    finite,
    held_back,
    run_on_earlier,
    tested,
    untested,
)
from canal.training.stage import LearnedStage

Taken = tuple[HeldOut, Cells]

_TRAINED = (
    "{path} holds the training cells of {of}; expected cells that no stage was trained on. "
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
    compared
        New model and champion on the cells of each earlier stage.
    held_back
        Why the stage must not come into use; empty where it may.
    """

    tests: StageTests
    metrics: dict[str, float]
    compared: tuple[Change, ...]
    held_back: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return sentences for the person who adds the stage."""
        return tuple(text for text in (self.held_back, untested(self.compared)) if text)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the comparison with the champion as plain values."""
        return [asdict(c) for c in self.compared]


def given_cells(request: StageRequest, cells: Cells) -> Taken | None:
    """Read the file that was given to test the stage with, ``None`` where there was none.

    Raises
    ------
    DataError, StageError
        If it cannot be used, or the stage is trained on it.
    """
    if request.test is None:
        return None
    taken = from_file(Path(request.test), _options(request))
    same = isinstance(request.data, str | Path) and Path(request.data).resolve() == Path(request.test).resolve()
    if same or taken[0].digest == cells.report.digest:
        raise StageError(_TRAINED.format(path=request.test, of="this stage"))
    return taken


def refuse_trained(given: Taken | None, records: Sequence[StageRecord]) -> None:
    """Refuse to test with cells that an earlier stage was trained on.

    Raises
    ------
    StageError
        If it was.
    """
    for record in records:
        if given is not None and given[0].digest in {source.get("digest") for source in record.data}:
            of = f"stage {record.number} ({record.name})"
            raise StageError(_TRAINED.format(path=given[0].path, of=of))


def examine(
    number: int,
    request: StageRequest,
    cells: Cells,
    learned: LearnedStage,
    own: Taken | None,
    previous: Annotator | None,
    champion: int | None,
    earlier: Sequence[Earlier],
    progress: Progress,
) -> Examination:
    """Test a new model.

    Parameters
    ----------
    number
        Number of the stage.
    request, cells
        What was asked, and the stage's labelled cells.
    learned
        The new model and bank.
    own
        Cells of `given_cells`; the held-out share where there are none.
    previous, champion
        The champion's model and number.
    earlier
        The stages it was learned from.
    progress
        Told about every stage.
    """
    held, found = own or _share(request, cells, learned)
    outcomes, known = run_on_earlier(learned.annotator, previous, earlier, progress)
    mine = tested(learned.annotator, found, number, held.digest)
    tests = StageTests(own=held, outcomes=(*outcomes, mine), history=finite(learned.history))
    beside = tuple(compared(outcomes, known))
    return Examination(
        tests=tests,
        metrics=figures_for_record(number, tests, earlier),
        compared=beside,
        held_back=held_back(number, champion, beside, learned.annotator.preset.promotion.max_fall),
    )


def _share(request: StageRequest, cells: Cells, learned: LearnedStage) -> Taken:
    in_bank = np.isin(cells.names[learned.held_out], learned.bank.names[learned.bank.stage == learned.key])
    path = Path(request.data) if isinstance(request.data, str | Path) else None
    return from_share(path, _options(request), cells, learned.held_out, in_bank, drop_rare=request.drop_rare)


def _options(request: StageRequest) -> ReadingOptions:
    label_map = None if request.label_map is None else str(Path(request.label_map).absolute())
    return ReadingOptions(labels=request.labels, label_map=label_map, gene_key=request.gene_key)
