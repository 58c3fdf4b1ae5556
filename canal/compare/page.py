"""The page of `canal compare --html`: one file with everything in it, nothing fetched from anywhere.

The page of `canal compare --html`: the report, and what has to be computed for its pictures.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from canal import __version__
from canal.compare import figures as draw
from canal.compare.figures import alarm_curves, map_pictures
from canal.compare.report import CompareReport, Number, PageArt, Picture, StageMap
from canal.model.record import StageRecord
from canal.progress import Progress, Silent
from canal.registry.cache import key_of
from canal.registry.registry import Registry
from canal.report.plots import reliability_figure
from canal.stages.layout import Layout, open_registry
from canal.stages.tests import read_reliability

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2430; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2.4rem 0 .4rem }
p.note, figcaption { color: #5b6472; font-size: .87rem; margin: .3rem 0 .8rem } figure { margin: 0 }
table { border-collapse: collapse; font-size: .87rem; width: 100% } th { text-align: left; font-weight: 600 }
th, td { padding: .28rem .6rem .28rem 0; border-bottom: 1px solid #e4e7ec; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } img { width: 100%; height: auto }
td:nth-child(4) { white-space: nowrap }
tr.used td { background: #f1f7ee } .why { color: #a04000 }
"""

MUCH = 0.1  # share of a set in the bank above which the page warns

Section = tuple[str, str]  # title, HTML


def write_page(path: Path, report: CompareReport, art: PageArt | None = None) -> None:
    """Write the page of a comparison."""
    path.write_text(page(report, art), encoding="utf-8")


def page(report: CompareReport, art: PageArt | None = None) -> str:
    """Return the page of a comparison as HTML; ``art`` is what is drawn from more than the report."""
    title = f"{report.model}: {len(report.stages)} stages"
    used = next((s for s in report.stages if s.in_use), None)
    said = f"Stage {used.number}, {escape(used.name)}, annotates." if used else "None of these stages annotates."
    body = "\n".join(f"<h2>{escape(name)}</h2>\n{content}" for name, content in _sections(report, art or PageArt()))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'<p class="note">{said} {_origin(report)} canal {escape(__version__)}.</p>\n{body}\n</body>\n</html>\n'
    )


def _origin(report: CompareReport) -> str:
    if report.recomputed:
        return "The models were run again on every file that can still be read."
    return "Figures as they were kept when each stage was added; no model was run for them."


def _sections(report: CompareReport, art: PageArt) -> Iterable[Section]:
    yield "Stages", _stages(report)
    if report.sets:
        yield from _tested(report)
    if art.maps:
        yield "Maps", _maps(report, art)
    yield f"Novelty calibration, stage {report.focus}", _alarms(report)
    for picture in art.pictures:
        yield picture.title, _image(picture.svg.encode(), "svg+xml", picture.caption)
    yield "References", _references(report)
    if any(stage.bank for stage in report.stages):
        yield "Example bank", _figure(draw.bank_bars, report, "Cells that are kept, by type.")
    if any(stage.history for stage in report.stages):
        yield (
            "Training",
            _figure(draw.training_curves, report, "The network alone; darker lines are earlier stages."),
        )
    yield "Held-out cells", _sets(report)


def _tested(report: CompareReport) -> Iterable[Section]:
    """Yield what needs held-out cells."""
    yield (
        "Accuracy on the cells of each stage",
        _figure(
            draw.accuracy_heat_map,
            report,
            "Row: the model after a stage. Column: the held-out cells that came with a stage. Grey: not measured, "
            "because the model was not learned from that stage or the cells could not be read.",
        )
        + _untested(report),
    )
    yield (
        "Forgetting",
        _figure(draw.forgetting_curves, report, "A line that falls is a stage that is forgotten; dashed: the mean."),
    )
    yield f"Types, stage {report.focus}", _types(report)
    yield (
        f"Confusion, stage {report.focus}",
        _figure(
            draw.confusion_table,
            report,
            "Held-out cells of all stages together. Colour: share of the given type; figures: cells.",
        ),
    )
    yield (
        "F1 of each type",
        _figure(
            draw.type_f1_table,
            report,
            "Over the held-out cells of all stages up to the model's: more sets join from stage to stage.",
        ),
    )


def _stages(report: CompareReport) -> str:
    head = (
        "stage", "name", "from", "added", "cells", "types", "new types",
        "accuracy", "macro-F1", "forgetting", "backward transfer",
    )  # fmt: skip
    rows = []
    for s in report.stages:
        new = ", ".join(s.new_types[:6]) + (f" and {len(s.new_types) - 6} more" if len(s.new_types) > 6 else "")
        why = f'<br><span class="why">{escape(s.held_back)}</span>' if s.held_back else ""
        cells = [
            str(s.number) + (" *" if s.in_use else ""), escape(s.name) + why, str(s.parent or ""), s.created[:10],
            str(s.cells), str(s.types), escape(new), *map(_number, (s.average, s.macro_f1, s.forgetting)),
            _number(s.backward_transfer),
        ]  # fmt: skip
        rows.append((cells, s.in_use))
    note = (
        "* annotates. Accuracy and macro-F1: mean over the held-out cells of each stage. Forgetting: mean over earlier "
        "stages of the best any earlier model reached less what this one reaches; below zero is a gain. Backward "
        "transfer: what this one reaches less what the stage's own model reached."
    )
    return _table(head, rows, numeric={4, 5, 7, 8, 9, 10}) + f'<p class="note">{note}</p>'


def _types(report: CompareReport) -> str:
    head = ("type", "cells", "recall", "forgetting", "backward transfer")
    rows = [
        ([escape(t.name), str(t.cells), *map(_number, (t.average, t.forgetting, t.backward_transfer))], False)
        for t in report.types
    ]
    return _table(head, rows, numeric={1, 2, 3, 4}) + '<p class="note">Recall: mean over the stages\' cells.</p>'


def _references(report: CompareReport) -> str:
    if not report.references:
        return '<p class="note">Not trained for this page; <code>canal compare --references</code> does it.</p>'
    said = "".join(f"<p class='note'><b>{escape(r.name)}</b>: {escape(r.how)}</p>" for r in report.references)
    said += "".join(f"<p class='note'>{escape(text)}</p>" for text in _rehearsed(report))
    return said + _figure(draw.reference_bars, report, "Accuracy on the held-out cells of each stage.")


def _rehearsed(report: CompareReport) -> list[str]:
    """Return a sentence for each set of which canal has kept much in its bank, and trained on it since."""
    return [
        f"{s.in_bank} of the {s.cells} cells of stage {s.stage} ({s.name}) came into the example bank, on which later "
        "stages are trained: what canal reaches there is not to be compared with methods that have not seen them."
        for s in report.sets
        if s.in_bank > MUCH * s.cells
    ]


def _sets(report: CompareReport) -> str:
    kinds = {"share": "share held out of the stage's file", "file": "file of its own", "memory": "from memory"}
    head = ("stage", "cells", "in the bank", "what", "file")
    rows = [
        (
            [f"{s.stage} {escape(s.name)}", str(s.cells), str(s.in_bank), kinds.get(s.kind, s.kind), escape(s.path)],
            False,
        )
        for s in report.sets
    ]
    note = (
        "No cell is stored: each model was run on the file where it stood. The network is not trained on these cells, "
        "except those in the bank: a type that is in the bank whole has no others. "
        "The analytic memory takes in a held-out share after "
        "calibration: figures on shares are slightly optimistic for it, figures on files of their own are not."
    )
    seen = "" if report.references else "".join(f'<p class="note">{escape(text)}</p>' for text in _rehearsed(report))
    return _table(head, rows, numeric={1, 2}) + f'<p class="note">{note}</p>{seen}'


def _untested(report: CompareReport) -> str:
    if not report.untested:
        return ""
    lines = [f"<li>stage {u['stage']} on {u['set']}: {escape(str(u['reason']))}</li>" for u in report.untested[:20]]
    more = f"<li>and {len(report.untested) - 20} more</li>" if len(report.untested) > 20 else ""
    return f'<p class="note">Not measured:</p><ul class="note">{"".join(lines)}{more}</ul>'


def _maps(report: CompareReport, art: PageArt) -> str:
    some = "" if len(art.maps) == len(report.stages) else f" {len(art.maps)} of the {len(report.stages)} stages. "
    caption = (
        f"UMAP of the cells in each stage's example bank, as the stage's network represents them, by their given type."
        f"{some or ' '}Held-out cells are stored nowhere and are not drawn. The network was trained on the bank's "
        "cells: types look better kept apart here than they are; the confusion above was measured on held-out cells. "
        "Each map is turned so that shared types stand as near as they can to where they stood in the one before. "
        "Which groups lie side by side means little."
    )
    return _image(map_pictures(art.maps), "png", caption)


def _alarms(report: CompareReport) -> str:
    if not report.alarms:
        return (
            '<p class="note">Not to be told: it takes two stages at least whose held-out cells can be compared, and a '
            "model with an analytic memory.</p>"
        )
    return _figure(
        alarm_curves,
        report,
        "Held-out cells of each stage, judged by those of all other stages as if the stage had never been learned: the "
        "share that would be called novel, against the share that was asked for. Above the dashed line, a new data set "
        "like this one gets more false alarms than asked for; after it is learned, its own cells are compared with.",
    )


def _figure(drawing: Callable[[CompareReport], str], report: CompareReport, caption: str) -> str:
    return _image(drawing(report).encode(), "svg+xml", caption)


def _image(content: bytes, kind: str, caption: str) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'


def _table(head: Iterable[str], rows: Iterable[tuple[list[str], bool]], numeric: set[int]) -> str:
    lines = [_line(values, "td", numeric, ' class="used"' if used else "") for values, used in rows]
    return f"<table><thead>{_line(head, 'th', numeric)}</thead><tbody>{''.join(lines)}</tbody></table>"


def _line(values: Iterable[str], tag: str, numeric: set[int], kind: str = "") -> str:
    kinds = [(value, ' class="n"' if k in numeric else "") for k, value in enumerate(values)]
    return f"<tr{kind}>{''.join(f'<{tag}{of}>{value}</{tag}>' for value, of in kinds)}</tr>"


def _number(value: Number) -> str:
    return "" if value is None else f"{value:.4f}"


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
    from canal.model.model import Model
    from canal.model.network import PanelCells, run_network
    from canal.stages.clusters import umap_coordinates

    model = Model.load(folder)
    bank = model.bank
    values, measured = bank.on(model.panel)
    cells = PanelCells(values=values, measured=measured, source=bank.source)
    _, representation = run_network(model.network, cells)
    places = umap_coordinates(representation, SEED)
    return {"types": bank.labels.tolist(), "places": np.round(places, 3).tolist()}
