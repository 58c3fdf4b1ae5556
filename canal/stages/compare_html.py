"""The page of `canal compare --html`: the report, and what has to be computed for its pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from canal.learn.progress import Progress, Silent
from canal.registry.memo import key_of
from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from canal.report.compare_art import PageArt, Picture, StageMap
from canal.report.compare_page import write_page
from canal.report.compare_report import CompareReport
from canal.report.reliability import reliability_figure
from canal.stages.connection import open_registry
from canal.stages.layout import Layout
from canal.stages.reliability import read_reliability

MOST_MAPS = 6  # stages that have a map on the page
BANK, WEIGHTS = "bank.safetensors", "weights.safetensors"
SEED = 0  # a map is a picture, not a result: the same stage always has the same


def write_compare_page(layout: Layout, report: CompareReport, path: Path, progress: Progress | None = None) -> None:
    """Write the page of a comparison.

    The maps are computed for the first page that shows them and kept beside the registry.

    Parameters
    ----------
    layout
        The workspace.
    report
        What `canal.stages.compare.compare_stages` found.
    path
        The page.
    progress
        Told about every map.

    Raises
    ------
    RegistryError
        If the files of a stage are missing or altered.
    """
    registry = open_registry(layout)
    records = {record.number: record for record in registry.records()}
    shown = [records[n] for n in stages_shown([s.number for s in report.stages], report.focus)]
    write_page(path, report, page_art(registry, shown, progress or Silent()))


def page_art(registry: Registry, shown: Sequence[StageRecord], progress: Progress) -> PageArt:
    """Return everything on the page that is not in the report.

    Parameters
    ----------
    registry
        The registry.
    shown
        Stages that have a map.
    progress
        Told about every map.
    """
    with_bank = [record for record in shown if {BANK, WEIGHTS} <= set(record.artifacts)]
    progress.start(len(with_bank), "maps")
    maps = []
    for record in with_bank:
        maps.append(stage_map(registry, record))
        progress.advance(1, f"stage {record.number}, {record.name}")
    progress.close()
    return PageArt(maps=tuple(maps), pictures=_confidence(registry, shown))


def _confidence(registry: Registry, shown: Sequence[StageRecord]) -> tuple[Picture, ...]:
    """Return the reliability of the stages that kept theirs, as one picture."""
    kept = [(f"{record.number} {record.name}", read_reliability(registry, record)) for record in shown]
    found = [(title, reliability) for title, reliability in kept if reliability is not None]
    if not found:
        return ()
    caption = "Share of right answers by confidence, on the held-out cells of each stage at the time it was learned."
    return (Picture(title="Confidence", svg=reliability_figure(found), caption=caption),)


def stages_shown(numbers: Sequence[int], focus: int) -> list[int]:
    """Return the stages that have a map: the focus, the first, and others spread evenly over the rest."""
    if len(numbers) <= MOST_MAPS:
        return list(numbers)
    places = np.linspace(0, len(numbers) - 1, MOST_MAPS).round().astype(int)
    chosen = {numbers[place] for place in places}
    if focus not in chosen:
        chosen.remove(min(chosen - {numbers[0]}, key=lambda number: abs(number - focus)))
        chosen.add(focus)
    return [number for number in numbers if number in chosen]


def stage_map(registry: Registry, record: StageRecord) -> StageMap:
    """Return where the cells of a stage's bank lie: UMAP of what its network makes of them."""
    key = key_of("map", weights=record.artifacts[WEIGHTS], bank=record.artifacts[BANK], seed=SEED)
    kept = registry.memo.get(key)
    if kept is None:
        kept = _map(registry.artifacts(record))
        registry.memo.put(key, kept)
    places = np.array(kept["places"], dtype=np.float64).reshape(-1, 2)
    return StageMap(stage=record.number, name=record.name, types=tuple(kept["types"]), places=places)


def _map(folder: Path) -> dict[str, list[object]]:
    from canal.learn.annotator import load_annotator, run_network
    from canal.learn.bank import load_bank
    from canal.learn.batches import PanelCells
    from canal.stages.novel_clusters import places_of

    annotator, bank = load_annotator(folder), load_bank(folder / BANK)
    values, measured = bank.on(annotator.panel)
    cells = PanelCells(values=values, measured=measured, source=bank.source)
    _, representation = run_network(annotator.network, cells)
    places = places_of(representation, SEED)
    return {"types": bank.labels.tolist(), "places": np.round(places, 3).tolist()}
