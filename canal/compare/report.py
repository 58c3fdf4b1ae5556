"""What `canal compare` reports, as plain values: the report, which is its JSON, and what its page draws beside it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Number = float | None  # ``None`` where nothing was measured

# The names of all fields up to `CompareReport` are keys of the JSON.


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage, a row of the tables.

    Attributes
    ----------
    number, name, parent, created, seconds
        From its record.
    in_use
        Whether it annotates.
    held_back
        Why it did not come into use by itself; empty where it did.
    cells, types, new_types, genes
        Cells it was trained on; types it knows, in number; new ones by name; genes of its panel.
    bank
        Cells of each type in its example bank.
    average, macro_f1, forgetting, backward_transfer
        Over the sets it was tested on, as `canal.figures.ContinualFigures`; the mean macro-F1 over sets.
    f1
        Of each type, over the cells of all sets it was tested on.
    history
        Figures of each epoch.
    incoming
        What the model before it reached on its cells of known types before they were learned, as
        `canal.stages.testing.incoming.IncomingFigures`; ``None`` where that was not measured.
    """

    number: int
    name: str
    parent: int | None
    created: str
    seconds: float
    in_use: bool
    held_back: str
    cells: int
    types: int
    new_types: tuple[str, ...]
    genes: int
    bank: dict[str, int]
    average: Number
    macro_f1: Number
    forgetting: Number
    backward_transfer: Number
    f1: dict[str, float]
    history: tuple[dict[str, float], ...]
    incoming: dict[str, Number] | None = None


@dataclass(frozen=True, kw_only=True)
class SetColumn:
    """The held-out cells of one stage: where they stand, how many, and how many of them are in its bank."""

    stage: int
    name: str
    kind: str
    path: str
    cells: int
    in_bank: int


@dataclass(frozen=True, kw_only=True)
class TypeRow:
    """Recall of one type: mean over sets, forgetting and backward transfer, as for all types together."""

    name: str
    cells: int
    average: Number
    forgetting: Number
    backward_transfer: Number


@dataclass(frozen=True, kw_only=True)
class ReferenceMethod:
    """A plain method that was trained and tested on the same cells.

    Attributes
    ----------
    name
        Of the method.
    how
        Sentences: what it was trained on, and what it could not see.
    accuracy, macro_f1
        On each set, in the order of the columns.
    """

    name: str
    how: str
    accuracy: tuple[Number, ...]
    macro_f1: tuple[Number, ...]


@dataclass(frozen=True, kw_only=True)
class AlarmCurve:
    """False alarms of one stage: its held-out cells, which are known, judged for novelty by those of the other stages.

    Attributes
    ----------
    stage, name, cells
        The stage, and how many cells it held out.
    alpha, share
        Shares of known cells that may be called novel, and those that would be.
    """

    stage: int
    name: str
    cells: int
    alpha: tuple[float, ...]
    share: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CompareReport:
    """Stages side by side.

    Attributes
    ----------
    model
        Name of the registered model.
    champion
        The stage that annotates.
    focus
        The stage whose types, confusion and references are shown: the champion where it is among the stages.
    stages, sets
        Rows and columns of the tables.
    accuracy, macro_f1
        Tables (stages, sets).
    untested
        ``stage``, ``set`` and ``reason`` of what could not be measured.
    types
        Types of the focus.
    confusion
        Given type -> predicted type -> cells, of the focus over all its sets.
    alarms
        Novelty calibration of the focus: one curve a stage, none where there are fewer than two.
    references
        Other methods, where they were asked for.
    recomputed
        Whether the models were run anew.
    """

    model: str
    champion: int | None
    focus: int
    stages: tuple[StageRow, ...]
    sets: tuple[SetColumn, ...]
    accuracy: tuple[tuple[Number, ...], ...]
    macro_f1: tuple[tuple[Number, ...], ...]
    untested: tuple[dict[str, Any], ...]
    types: tuple[TypeRow, ...]
    confusion: dict[str, dict[str, int]]
    alarms: tuple[AlarmCurve, ...] = ()
    references: tuple[ReferenceMethod, ...] = ()
    recomputed: bool = False

    @property
    def focus_row(self) -> int:
        """Position of the focus among the stages."""
        return [s.number for s in self.stages].index(self.focus)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StageMap:
    """The example bank of a stage as its model sees it.

    Attributes
    ----------
    stage, name
        The stage.
    types
        Given type of each cell.
    coordinates
        UMAP coordinates of each cell, (cells, 2).
    """

    stage: int
    name: str
    types: tuple[str, ...]
    coordinates: np.ndarray

    def __post_init__(self) -> None:
        assert self.coordinates.shape == (len(self.types), 2), self.coordinates.shape


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with a section of its own: title, SVG, and a sentence that says what it shows."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class PageArt:
    """What the page shows and the report does not hold.

    Attributes
    ----------
    maps
        Of some stages, ascending.
    pictures
        In the order of the page.
    """

    maps: tuple[StageMap, ...] = ()
    pictures: tuple[Picture, ...] = ()
