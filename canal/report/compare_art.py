"""What the page of a comparison shows beside the report: maps, and pictures that others have drawn."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class StageMap:
    """The example bank of a stage as its model sees it.

    Attributes
    ----------
    stage, name
        The stage.
    types
        Given type of each cell.
    places
        Where to draw it, (cells, 2).
    """

    stage: int
    name: str
    types: tuple[str, ...]
    places: np.ndarray

    def __post_init__(self) -> None:
        assert self.places.shape == (len(self.types), 2), self.places.shape


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of its own section: SVG, and a sentence that says what it shows."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class PageArt:
    """Everything that is drawn from more than the report.

    Attributes
    ----------
    maps
        Of some stages, ascending.
    pictures
        Drawn already, in the order of the page.
    """

    maps: tuple[StageMap, ...] = ()
    pictures: tuple[Picture, ...] = ()
