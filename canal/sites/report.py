"""What sites measure at home, joined: `canal evaluate --out` writes numbers, `canal site report` one matrix of them.

A file of numbers holds names of types and figures: no cell, no path, and no figure of a type of few cells.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal import __version__
from canal.errors import DataError
from canal.files import check_file, refuse_newer, short_digest, write_text_whole
from canal.model.model import Model
from canal.registry.flavour import without_flavour
from canal.report.plots import as_svg, draw_heat_map, name_room, render_page
from canal.stages.evaluate import Evaluation

FORMAT = 1  # of a file of numbers
LEAST_CELLS = 20  # of a type whose figures are told: as for statistics, of fewer they tell of single cells
SHORT = 8  # digits of a digest that a person reads
WIDTH, ROW_HEIGHT = 8.6, 0.32  # inches
Share = Annotated[float, Field(ge=0, le=1)]


class TypeNumbers(BaseModel):
    """Figures of one type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Share
    recall: Share
    f1: Share
    support: int = Field(ge=0)


class Numbers(BaseModel):
    """What a site measured of one model on its own cells: the content of a file of numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    site: str = Field(min_length=1)
    model: str
    digest: str
    cells: int = Field(ge=0)
    accuracy: Share
    macro_f1: Share
    ari: float
    per_type: dict[str, TypeNumbers]
    types_of_few_cells: int = Field(ge=0)
    cells_of_unknown_types: int = Field(ge=0)


def numbers_of(evaluation: Evaluation, model: Model, site: str) -> Numbers:
    """Return what may leave a site of an evaluation.

    Parameters
    ----------
    evaluation
        Of the site's own labelled cells.
    model
        The model that annotated them.
    site
        Name of the site.
    """
    told, unknown = {}, 0
    for name, figures in evaluation.per_type.items():
        if name in evaluation.unknown_types:
            unknown += int(figures["support"])
        elif figures["support"] >= LEAST_CELLS:
            told[name] = TypeNumbers.model_validate(figures)
    few = len(evaluation.per_type) - len(told) - len(evaluation.unknown_types)
    # The same model has the same digest at every site, be it a file or a stage.
    files = without_flavour(dict(model.stage.artifacts))
    return Numbers(
        site=site,
        model=model.stage.name,
        digest=short_digest(sorted(files.items())),
        cells=evaluation.cells,
        accuracy=evaluation.accuracy,
        macro_f1=evaluation.macro_f1,
        ari=evaluation.ari,
        per_type=told,
        types_of_few_cells=few,
        cells_of_unknown_types=unknown,
    )


def check_numbers_file(out: Path) -> None:
    """Refuse a file that numbers cannot be written to, before cells are annotated.

    Raises
    ------
    DataError
        If it is there, is no ``.json``, or its folder is missing.
    """
    if check_file(out, ".json", "--out").exists():
        message = f"{out} exists already. Choose another name with --out, or delete it first."
        raise DataError(message)


def write_numbers(out: Path, numbers: Numbers) -> None:
    """Write a file of numbers."""
    text = json.dumps(numbers.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    write_text_whole(out, text)


def read_numbers(path: Path) -> Numbers:
    """Read a file of numbers.

    Raises
    ------
    DataError
        If it is none, or of a newer canal.
    """
    expected = "Expected a file that `canal evaluate --out` wrote."
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path} cannot be read as JSON ({str(error)[:100]}). {expected}"
        raise DataError(message) from error
    if not isinstance(table, dict) or "format" not in table:
        message = f"{path} is no file of numbers. {expected}"
        raise DataError(message)
    refuse_newer(path, table["format"], FORMAT, DataError)
    try:
        return Numbers.model_validate(table)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors()[:4])
        message = f"{path} does not fit a file of numbers ({keys}). {expected}"
        raise DataError(message) from error


@dataclass(frozen=True, kw_only=True)
class SiteReport:
    """The numbers of all sites; its fields are keys of the JSON of `canal site report`.

    Attributes
    ----------
    models
        Name and digest of each model, the rows.
    sites
        Names of the sites, the columns.
    cells
        Number of cells of each site.
    accuracy, macro_f1
        A row a model, a column a site; ``None`` where a site did not measure a model.
    mean
        Mean accuracy and macro-F1 of each model over the sites that measured it.
    per_type
        Recall by type, model and site.
    """

    models: tuple[dict[str, str], ...]
    sites: tuple[str, ...]
    cells: tuple[int, ...]
    accuracy: tuple[tuple[float | None, ...], ...]
    macro_f1: tuple[tuple[float | None, ...], ...]
    mean: tuple[dict[str, float], ...]
    per_type: dict[str, dict[str, dict[str, float]]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return dict(vars(self))


def join_numbers(paths: Sequence[Path]) -> SiteReport:
    """Join the numbers of sites into one matrix; the order of the files does not matter.

    Raises
    ------
    DataError
        If a file is none, or a site has measured a model twice.
    """
    by_place: dict[tuple[str, str], Numbers] = {}
    names: dict[str, str] = {}
    for path in paths:
        numbers = read_numbers(path)
        place = (numbers.digest, numbers.site)
        if place in by_place:
            message = (
                f"{path}: site {numbers.site!r} measured model {numbers.model!r} twice. Take one of the files, or name "
                "the site otherwise: canal evaluate --site NAME."
            )
            raise DataError(message)
        by_place[place] = numbers
        names[numbers.digest] = numbers.model
    models = sorted(names, key=lambda digest: (names[digest], digest))
    sites = sorted({site for _, site in by_place})
    # A row a model, a column a site.
    tables: dict[str, list[tuple[float | None, ...]]] = {"accuracy": [], "macro_f1": []}
    mean = []
    for digest in models:
        row = [by_place.get((digest, site)) for site in sites]
        means = {}
        for figure, table in tables.items():
            values = [None if one is None else float(getattr(one, figure)) for one in row]
            table.append(tuple(values))
            means[figure] = float(np.mean([value for value in values if value is not None]))
        mean.append(means)
    return SiteReport(
        models=tuple({"name": names[digest], "digest": digest} for digest in models),
        sites=tuple(sites),
        cells=tuple(max(one.cells for (_, at), one in by_place.items() if at == site) for site in sites),
        accuracy=tuple(tables["accuracy"]),
        macro_f1=tuple(tables["macro_f1"]),
        mean=tuple(mean),
        per_type=_recall_by_type(by_place),
    )


def _recall_by_type(by_place: Mapping[tuple[str, str], Numbers]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the recall of each type, by type, digest of the model and site."""
    recall: dict[str, dict[str, dict[str, float]]] = {}
    for (digest, site), numbers in sorted(by_place.items()):
        for name, figures in numbers.per_type.items():
            recall.setdefault(name, {}).setdefault(digest, {})[site] = figures.recall
    return dict(sorted(recall.items()))


def site_page(report: SiteReport) -> str:
    """Return the matrix as one HTML file."""
    return render_page(
        "sites/report.html.jinja",
        title=f"{len(report.models)} models at {len(report.sites)} sites",
        canal_version=__version__,
        report=report,
        labels=model_labels(report),
        picture=_heat_map(report),
        least=LEAST_CELLS,
    )


def model_labels(report: SiteReport) -> list[str]:
    """Return what the models are called: their names, with a part of the digest where two have one name."""
    names = [model["name"] for model in report.models]
    labels = []
    for model in report.models:
        twice = names.count(model["name"]) > 1
        labels.append(f"{model['name']} {model['digest'][:SHORT]}" if twice else model["name"])
    return labels


def _heat_map(report: SiteReport) -> str:
    """Draw accuracy of each model (rows) at each site (columns)."""
    from matplotlib.figure import Figure

    table = np.array(report.accuracy, dtype=np.float64)
    height = 1.5 + name_room(report.sites) + ROW_HEIGHT * len(report.models)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    # The lightest colour is the lowest accuracy, rounded down to a tenth: small differences are seen, too.
    low = min(float(np.nanmin(table)), 0.9)
    limits = (float(np.floor(low * 10) / 10), 1.0)
    draw_heat_map(axes, table, model_labels(report), report.sites, limits=limits, form="{:.3f}")
    axes.set_xlabel("cells of")
    axes.set_ylabel("model")
    return as_svg(figure)


def write_page(out: Path, report: SiteReport) -> None:
    """Write the page of a report."""
    page = site_page(report)
    write_text_whole(out, page)
