"""The page of `canal compare --html`: what is computed for it beside the report, and its template `page.html.jinja`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canal import __version__
from canal.compare import figures
from canal.compare.report import CompareReport, PageArt, Picture, StageMap
from canal.files import write_text_whole
from canal.model.bank import BANK
from canal.model.model import WEIGHTS, Model
from canal.model.record import StageRecord
from canal.progress import Progress, Silent
from canal.registry.cache import key_of
from canal.registry.registry import Registry
from canal.report.plots import reliability_figure, render_page
from canal.stages.layout import Layout, open_registry
from canal.stages.testing.tests import read_reliability

MOST_MAPS = 6  # two rows on the page
MAP_SEED = 0  # a map is a picture, not a result: the same stage always has the same
MUCH_IN_BANK = 0.1  # share of a set of held-out cells in the example bank above which the page warns


def write_compare_page(layout: Layout, report: CompareReport, path: Path, progress: Progress | None = None) -> None:
    """Write the page of a comparison.

    The maps are computed for the first page that shows them and kept beside the registry.

    Parameters
    ----------
    layout
        The workspace.
    report
        What `canal.compare.gather.compare_stages` found.
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
    shown = stages_with_maps([stage.number for stage in report.stages], report.focus)
    art = _draw_art(registry, [records[number] for number in shown], progress or Silent())
    page = compare_page(report, art)
    write_text_whole(path, page)


def compare_page(report: CompareReport, art: PageArt) -> str:
    """Return the page of a comparison as HTML.

    Parameters
    ----------
    report
        What the page says; most of its figures are drawn from it.
    art
        What is drawn from more than the report.
    """
    # The stage that annotates, if it is among those compared.
    in_use = None
    for stage in report.stages:
        if stage.in_use:
            in_use = stage
    # Sets that came into the bank, and on which canal is therefore not to be compared with the references.
    sets_in_bank = []
    for held_out in report.sets:
        if held_out.in_bank > MUCH_IN_BANK * held_out.cells:
            sets_in_bank.append(held_out)
    return render_page(
        "compare/page.html.jinja",
        title=f"{report.model}: {len(report.stages)} stages",
        canal_version=__version__,
        report=report,
        art=art,
        in_use=in_use,
        conclusions=conclusions(report),
        sets_in_bank=sets_in_bank,
        draw=figures,
    )


MUCH_FORGOTTEN = 0.02  # of accuracy; also how far a new stage may fall by default before it is held back
LOW_F1 = 0.5
MOST_TYPES = 4  # that are named in a sentence


def conclusions(report: CompareReport) -> list[str]:
    """Return the sentences on top of the page: what the stage that annotates reaches, forgot, and what to do."""
    stage = next((row for row in report.stages if row.in_use), report.stages[-1])
    name = f"Stage {stage.number}, {stage.name},"
    verb = "annotates and" if stage.in_use else "does not annotate, and"
    if stage.average is None:
        return [f"{name} {verb} was tested on no held-out cells: there is nothing to conclude."]
    sentences = [f"{name} {verb} is right for {stage.average:.1%} of the held-out cells, as a mean over the stages."]
    # What was forgotten.
    if stage.forgetting is None:
        sentences.append("It is the first of its line: nothing could be forgotten yet.")
    elif stage.forgetting > MUCH_FORGOTTEN:
        sentences.append(
            f"It lost {100 * stage.forgetting:.1f} points on earlier stages: look at the table of accuracy to see "
            "where, and compare it with the stage before (canal stage rollback takes that into use)."
        )
    else:
        sentences.append("Hardly anything of earlier stages was forgotten: there is nothing to mend.")
    # Which types are not to be relied on.
    weak = sorted((f1, name) for name, f1 in stage.f1.items() if f1 < LOW_F1)
    if weak:
        listed = ", ".join(f"{name} (F1 {f1:.2f})" for f1, name in weak[:MOST_TYPES])
        more = f" and {len(weak) - MOST_TYPES} more" if len(weak) > MOST_TYPES else ""
        sentences.append(f"Do not rely on {listed}{more} without looking at the confusion below.")
    held_back = [f"{row.number}" for row in report.stages if row.held_back and not row.in_use]
    if held_back:
        sentences.append(f"Kept but not in use, for the reason in the table: stage {', '.join(held_back)}.")
    return sentences


def stages_with_maps(numbers: Sequence[int], focus: int) -> list[int]:
    """Return the stages that have a map: the focus, the first, and others spread evenly over the rest."""
    if len(numbers) <= MOST_MAPS:
        return list(numbers)
    positions = np.linspace(0, len(numbers) - 1, MOST_MAPS).round().astype(int)
    chosen = {numbers[position] for position in positions}
    # The focus takes the place of the stage nearest to it, but not of the first one.
    if focus not in chosen:
        chosen.remove(min(chosen - {numbers[0]}, key=lambda number: abs(number - focus)))
        chosen.add(focus)
    return [number for number in numbers if number in chosen]


def _draw_art(registry: Registry, shown: Sequence[StageRecord], progress: Progress) -> PageArt:
    """Return the maps of stages, and the picture of their confidence."""
    # A stage that keeps no example bank has no cells to draw.
    with_bank = [record for record in shown if {BANK, WEIGHTS} <= set(record.artifacts)]
    progress.start(len(with_bank), "maps")
    maps = []
    for record in with_bank:
        maps.append(stage_map(registry, record))
        progress.advance(1, f"stage {record.number}, {record.name}")
    progress.close()
    return PageArt(maps=tuple(maps), pictures=_confidence(registry, shown))


def stage_map(registry: Registry, record: StageRecord) -> StageMap:
    """Return where the cells of a stage's example bank lie: UMAP of their representation by the stage's network."""
    key = key_of("map", weights=record.artifacts[WEIGHTS], bank=record.artifacts[BANK], seed=MAP_SEED)
    computed = registry.memo.get(key)
    if computed is None:
        computed = _compute_map(registry.artifacts(record))
        registry.memo.put(key, computed)
    coordinates = np.array(computed["places"], dtype=np.float64).reshape(-1, 2)
    return StageMap(stage=record.number, name=record.name, types=tuple(computed["types"]), coordinates=coordinates)


def _compute_map(folder: Path) -> dict[str, list[Any]]:
    """Return the type and the rounded UMAP coordinates of each cell of the bank in a stage's folder."""
    from canal.model.network import PanelCells, run_network
    from canal.stages.clusters import umap_coordinates

    # The cells as the network takes them in: on the gene panel, each with the genes that its file measured.
    model = Model.load(folder)
    bank = model.bank
    values, measured = bank.on(model.panel)
    cells = PanelCells(values=values, measured=measured, source=bank.source)
    _, representation = run_network(model.network, cells)
    coordinates = umap_coordinates(representation, MAP_SEED)
    return {"types": bank.labels.tolist(), "places": np.round(coordinates, 3).tolist()}


def _confidence(registry: Registry, shown: Sequence[StageRecord]) -> tuple[Picture, ...]:
    """Return the reliability of the stages that kept theirs, as one picture."""
    panels = []
    for record in shown:
        reliability = read_reliability(registry, record)
        if reliability is not None:
            panels.append((f"{record.number} {record.name}", reliability))
    if not panels:
        return ()
    caption = "Share of right answers by confidence, on the held-out cells of each stage at the time it was learned."
    return (Picture(title="Confidence", svg=reliability_figure(panels), caption=caption),)
