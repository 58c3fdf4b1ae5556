"""What a stage's model answers on the held-out cells of its own and of every earlier stage.

It is kept as one file beside the model, ``tests.json``: references and counts, no cell and no expression.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.errors import RegistryError
from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from canal.stages.confusion import Counts, Figures, figures
from canal.stages.held_out import HeldOut
from canal.stages.stage_file import find_stage_file

FILE = "tests.json"
FORMAT = 1


class Outcome(BaseModel):
    """What a model answers on the cells of one stage.

    Attributes
    ----------
    stage
        The stage the cells come from.
    digest
        Of the cells, as in their `HeldOut`.
    counts
        Given type -> predicted type -> cells; empty where the model was not tested.
    reason
        Why it was not tested; empty where it was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: int
    digest: str
    counts: Counts = Field(default_factory=dict)
    reason: str = ""

    @property
    def figures(self) -> Figures:
        """Accuracy, macro-F1 and figures per type."""
        return figures(self.counts)


class StageTests(BaseModel):
    """The content of ``tests.json``.

    Attributes
    ----------
    own
        Cells that later stages are tested on, ``None`` where there are none.
    outcomes
        One for each stage tested or not, ascending.
    history
        Figures of each epoch of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    own: HeldOut | None
    outcomes: tuple[Outcome, ...] = ()
    history: tuple[dict[str, float], ...] = ()

    def outcome(self, stage: int, digest: str) -> Outcome | None:
        """Return what the model answered on these cells of a stage, if it was tested on them."""
        found = (o for o in self.outcomes if o.stage == stage and o.digest == digest and o.counts)
        return next(found, None)

    def write(self, path: Path) -> None:
        """Write the file; the same tests give the same bytes."""
        path.write_text(json.dumps(self.model_dump(mode="json"), ensure_ascii=False), encoding="utf-8")


def finite(history: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], ...]:
    """Return the figures of each epoch without those JSON cannot hold."""
    return tuple({k: float(v) for k, v in epoch.items() if math.isfinite(float(v))} for epoch in history)


def parse_tests(text: str, source: str) -> StageTests:
    """Read ``tests.json``; ``source`` names it in errors.

    Raises
    ------
    RegistryError
        If it was written by a newer canal, or is no such file.
    """
    try:
        table = json.loads(text)
        if table["format"] > FORMAT:
            message = f"{source} was written by a newer canal (format {table['format']}); update canal to read it."
            raise RegistryError(message)
        return StageTests.model_validate(table)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        message = f"{source} does not hold the tests of a stage: {error}. Restore it from a backup."
        raise RegistryError(message) from error


def read_tests(registry: Registry, record: StageRecord) -> StageTests:
    """Return the tests of a committed stage; empty ones for a stage of an older canal that kept none.

    Raises
    ------
    RegistryError
        If it is missing or altered.
    """
    path = find_stage_file(registry, record, FILE, "tests")
    return StageTests(own=None) if path is None else parse_tests(path.read_text(encoding="utf-8"), str(path))
