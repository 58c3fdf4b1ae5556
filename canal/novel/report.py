"""What `canal novel find` reports, as plain values: `novel.json` and the content of its page."""

from dataclasses import asdict, dataclass, field
from typing import Any

from canal.report.groups import MarkerGene, NearestType

FORMAT = 1
KIND = "canal novel"


@dataclass(frozen=True, kw_only=True)
class NovelCluster:
    """A group of novel cells with the evidence for it.

    Attributes
    ----------
    name
        ``"1"``, ``"2"``, ...
    cells
        Its size.
    suggested
        A name to work with until there is a better one.
    apart
        Whether it looks like more than the edge of a known type.
    silhouette
        Nearness of its cells to each other against the nearest known type, -1 to 1.
    own_share
        Share of its cells' nearest neighbours that are its own and not known cells.
    batches
        Cells from each batch; empty where the file names none.
    markers, markers_others
        Against the known cells of the file, and against the other clusters.
    near
        Known types, nearest first.
    novelty, p_value, confidence
        Means over its cells.
    """

    name: str
    cells: int
    suggested: str
    apart: bool
    silhouette: float | None
    own_share: float | None
    batches: dict[str, int]
    markers: tuple[MarkerGene, ...]
    markers_others: tuple[MarkerGene, ...]
    near: tuple[NearestType, ...]
    novelty: float
    p_value: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class NovelReport:
    """The novel cells of one file.

    Attributes
    ----------
    model, stage, canal_version
        What judged them.
    data, data_digest
        The file and its content.
    alpha, uncertain_too, resolution, min_size, seed
        How they were taken and grouped.
    cells, cells_by_status
        Of the file, in all and by verdict.
    taken, for_neighbours, aside
        Cells that were grouped; those of them that were taken for their neighbours, not for their own verdict; and
        those in no cluster.
    batch
        Column with the batches; empty where there is none.
    known_types
        Types that the model knows.
    clusters
        Most telling first: those that stand apart before the others, then by size.
    warnings
        About the file, and what speaks against taking its clusters for types.
    known_cells
        Cells that are surely of known types, by type; they can be taught along with the named ones.
    sanity
        Whether the file fits the model, in one line, as `canal annotate` says it.
    """

    model: str
    stage: int
    canal_version: str
    data: str
    data_digest: str
    alpha: float
    uncertain_too: bool
    resolution: float
    min_size: int
    seed: int
    cells: int
    cells_by_status: dict[str, int]
    taken: int
    for_neighbours: int
    aside: int
    batch: str
    known_types: tuple[str, ...]
    clusters: tuple[NovelCluster, ...] = ()
    warnings: tuple[str, ...] = ()
    known_cells: dict[str, int] = field(default_factory=dict)
    sanity: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"format": FORMAT, "kind": KIND} | asdict(self)
