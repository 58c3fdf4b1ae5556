"""`canal privacy audit`: what an export gives away of who was among its cells, measured on the site's own cells.

The cells of each type are parted at random into members, of which statistics are made as the export makes them, others,
and cells that the attacker has. How well each attack of `canal.sites.attacks` tells members from others is measured by
the number of members; so the answer is for a type of that size, whatever its name.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.stream import collect, open_stream
from canal.data.values import unit_rows
from canal.errors import DataError
from canal.progress import Progress, Silent
from canal.seeds import numpy_generator
from canal.sites.attacks import (
    DIRECTIONS,
    LIKELIHOOD,
    Reference,
    Split,
    attack_split,
    cells_needed,
    half_width,
    likelihood,
    members_first,
)
from canal.sites.manifest import SiteExport, exported_directions, read_export

GOAL = 0.55  # AUROC up to which members are as good as hidden
SIZES = (20, 50, 100, 200, 500, 1000, 2000)  # members of a type
TRIED_DIRECTIONS = (1, 2, 5, 10, 20, 50)
SPLITS = 4  # ways in which each type is parted
MOST_CELLS = 6_000  # of a type that are looked at
LEAST_DONORS = 6  # a third of them members
LEAST_GENES = 100  # of the export that the cells measure
DONORS, DONORS_BY_OTHER_CELLS = "donors", "donors by other cells"


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """How the cells of an audit are read.

    Attributes
    ----------
    labels, gene_key
        Column of ``obs`` with the cell types; column of ``var`` with the gene names.
    donor
        Column of ``obs`` with the donors; these are not audited without.
    seed
        Of the splits.
    """

    labels: str
    gene_key: str | None = None
    donor: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How well an attack tells members from others.

    Attributes
    ----------
    attack
        Its name; that on directions with their number.
    cells
        Members of a type; for donors the cells of all members.
    types
        Number of types that were measured.
    auroc, low, high
        Mean over types and splits, and its 95 % confidence interval.
    """

    attack: str
    cells: int
    types: int
    auroc: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The outcome of an audit; its fields are keys of the JSON of `canal privacy audit`.

    Attributes
    ----------
    site, digest
        Of the export.
    genes, min_cells, max_directions
        Of the export, as far as the cells measure its genes.
    goal
        AUROC up to which members are as good as hidden.
    findings
        By attack and number of cells.
    export
        The worst attack on a type as small as the export allows, and on types of 100 cells.
    min_cells_needed
        Smallest measured number of cells from which on every attack stays within the goal; ``None`` where none does.
    min_cells_estimated
        Where none does: how many cells would be needed, extrapolated from the largest measured number.
    max_directions_allowed
        By number of cells, the most directions that stay within the goal.
    warnings
        What could not be measured.
    """

    site: str
    digest: str
    genes: int
    min_cells: int
    max_directions: int
    goal: float
    findings: tuple[Finding, ...]
    export: dict[str, float | None]
    min_cells_needed: int | None
    min_cells_estimated: int | None
    max_directions_allowed: dict[int, int]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def audit_export(path: Path, data: Path, options: AuditOptions, progress: Progress | None = None) -> Audit:
    """Attack an export with the cells of its site.

    Parameters
    ----------
    path
        The export.
    data
        Labelled cells, as they were taught.
    options
        How they are read.
    progress
        Told about every type.

    Raises
    ------
    RegistryError, DataError
        If the export or the cells cannot be used, or the cells are too few or have other genes.
    """
    export = read_export(path)
    cells, donors = _read(data, options)
    rows = _profiles(export, cells, data)
    assert cells.labels is not None
    names, sizes = np.unique(cells.labels.astype(str), return_counts=True)
    if not (sizes >= 3 * SIZES[0]).any():
        message = (
            f"{data} has no type with {3 * SIZES[0]} cells, of which a third each are members, others and what an "
            "attacker has. Name a file with more cells."
        )
        raise DataError(message)
    # 1. Cells: AUROC by attack, number of members and type.
    areas: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    progress = progress or Silent()
    progress.start(len(names), "attacks")
    for name in names.tolist():
        rng = numpy_generator(options.seed, f"audit {name}")
        of_type = rng.permutation(np.flatnonzero(cells.labels == name))[:MOST_CELLS]
        for attack, n, area in _attack_type(rows[of_type], int(export.manifest["max_directions"]), rng):
            areas[attack, n][name].append(area)
        progress.advance(1, name)
    progress.close()
    findings = _findings(areas)
    # 2. Donors, where somebody says who they are.
    warnings = []
    if donors is not None:
        found, warning = attack_donors(rows, cells.labels, donors, options.seed)
        findings += found
        warnings += [warning] if warning else []
    return _audit(export, rows.shape[1], findings, warnings)


def _read(data: Path, options: AuditOptions) -> tuple[Cells, np.ndarray | None]:
    """Return the labelled cells of a file, and the donor of each."""
    labels = LabelOptions(column=options.labels, drop_rare=True)
    with open_stream(data, gene_key=options.gene_key, labels=labels) as stream:
        if options.donor is not None and options.donor not in stream.columns:
            message = (
                f"{data} has no column obs[{options.donor!r}]. It has {', '.join(stream.columns) or 'nothing'}. Name "
                "the column of the donors with --donor."
            )
            raise DataError(message)
        donors = None if options.donor is None else np.asarray(stream.column(options.donor)).astype(str)
        cells = collect(stream)
    # Cells without a label taught nothing.
    assert cells.labels is not None
    labelled = np.flatnonzero(cells.labels.astype(str) != "")
    return cells.take(labelled), None if donors is None else donors[labelled]


def _profiles(export: SiteExport, cells: Cells, data: Path) -> sp.csr_matrix:
    """Return the unit profiles of the cells over the genes of an export, (cells, g)."""
    assert export.model.memory is not None
    match = export.model.memory.panel.match(cells.genes)
    measured = np.flatnonzero(match.measured)
    if len(measured) < min(LEAST_GENES, len(match.measured)):
        message = (
            f"{data} measures {len(measured)} of the {len(match.measured):,} genes of {export.path}: these are not the "
            "cells that it was made of. Name the file that was taught."
        )
        raise DataError(message)
    return unit_rows(match.project(cells.expression)[:, measured])


def _attack_type(rows: sp.csr_matrix, most: int, rng: np.random.Generator) -> list[tuple[str, int, float]]:
    """Return name of the attack, number of members and AUROC of every attack on a type and every split of it."""
    outcomes = []
    for n in SIZES:
        if 3 * n > rows.shape[0]:
            break
        # The directions as they are exported, and others, to say how many would do.
        tried = {DIRECTIONS: exported_directions(n, most)}
        for k in TRIED_DIRECTIONS:
            if k <= n // 4:
                tried[f"{DIRECTIONS} {k}"] = k
        for _ in range(SPLITS):
            order = rng.permutation(rows.shape[0])
            split = Split(members=order[:n], others=order[n : 2 * n], reference=order[2 * n :])
            for attack, scores in attack_split(rows, split, tried).items():
                outcomes.append((attack, n, members_first(scores)))
    return outcomes


def _findings(areas: Mapping[tuple[str, int], Mapping[str, Sequence[float]]]) -> list[Finding]:
    """Return the mean over types and splits of each attack and number of cells."""
    findings = []
    for (attack, n), by_type in sorted(areas.items(), key=lambda item: (item[0][0], item[0][1])):
        area = float(np.mean([np.mean(values) for values in by_type.values()]))
        findings.append(_finding(attack, n, area, n, len(by_type)))
    return findings


def _finding(attack: str, cells: int, area: float, draws: int, types: int) -> Finding:
    width = half_width(area, draws, types)
    return Finding(
        attack=attack,
        cells=cells,
        types=types,
        auroc=round(area, 4),
        low=round(max(area - width, 0.0), 4),
        high=round(min(area + width, 1.0), 4),
    )


def attack_donors(
    rows: sp.csr_matrix, labels: np.ndarray, donors: np.ndarray, seed: int
) -> tuple[list[Finding], str | None]:
    """Return how well donors are told who are among those of an export, and a warning.

    Parameters
    ----------
    rows
        Unit profiles, (cells, g).
    labels, donors
        Type and donor of each cell, (cells,); donors ``""`` where nobody said.
    seed
        Of the ways in which donors are parted.

    Returns
    -------
    A finding for an attacker who has the very cells that were taught, and one for an attacker who has other cells of
    the same people: the first is told by its cells, the second by what is its own in all of them.
    """
    names = np.unique(donors[donors != ""])
    if len(names) < LEAST_DONORS:
        return [], f"There are {len(names)} donors; expected {LEAST_DONORS} at least to say anything of donors."
    rng = numpy_generator(seed, "audit donors")
    third = len(names) // 3
    findings: list[Finding] = []
    for attack, other_cells in ((DONORS, False), (DONORS_BY_OTHER_CELLS, True)):
        areas, counts = [], []
        for _ in range(SPLITS * 4):
            order = rng.permutation(names)
            # Of each donor half of the cells are taught where the attacker has others.
            taught = rng.random(len(donors)) < 0.5 if other_cells else np.ones(len(donors), dtype=bool)
            scores, inside = _donor_scores(rows, labels.astype(str), donors, (order, taught), other_cells=other_cells)
            counts += inside
            areas.append(members_first(scores))
        if not counts:
            return findings, "No type has cells enough of a third of the donors to say anything of donors."
        findings.append(_finding(attack, int(np.median(counts)), float(np.mean(areas)), third, 1))
    return findings, None


def _donor_scores(
    rows: sp.csr_matrix,
    labels: np.ndarray,
    donors: np.ndarray,
    split: tuple[np.ndarray, np.ndarray],
    *,
    other_cells: bool,
) -> tuple[np.ndarray, list[int]]:
    """Return the score of the first two thirds of the donors, members first, and the cells behind each mean.

    Parameters
    ----------
    rows, labels, donors
        As for `attack_donors`.
    split
        Donors in an order: a third are members, a third others, the rest is what the attacker has; and which cells
        are taught of those that are taught of, (cells,).
    other_cells
        Whether the attacker has the cells of a donor that are not taught, in place of those that are.
    """
    order, taught = split
    third = len(order) // 3
    members, others, rest = order[:third], order[third : 2 * third], order[2 * third :]
    scores, counts = np.zeros(2 * third), []
    for name in np.unique(labels):
        of_type = labels == name
        inside = np.flatnonzero(of_type & taught & np.isin(donors, members))
        known = np.flatnonzero(of_type & np.isin(donors, rest))
        if len(inside) < SIZES[0] or len(known) < SIZES[0]:
            continue
        reference = Reference.of(rows[known].toarray().astype(np.float64))
        mean = np.asarray(rows[inside].mean(axis=0)).ravel()
        held = ~taught if other_cells else taught
        for place, donor in enumerate((*members, *others)):
            own = np.flatnonzero(of_type & held & (donors == donor))
            if len(own):
                profile = np.asarray(rows[own].mean(axis=0))
                scores[place] += float(likelihood(profile, mean, reference)[0])
        counts.append(len(inside))
    return scores, counts


def _audit(export: SiteExport, genes: int, findings: Sequence[Finding], warnings: Sequence[str]) -> Audit:
    """Return the outcome: the worst attack by number of cells, and what would keep within the goal."""
    # What the export itself allows: its own directions, not those that were tried beside them.
    worst: dict[int, float] = {}
    allowed: dict[int, int] = {}
    for finding in findings:
        tried = finding.attack.removeprefix(DIRECTIONS).strip()
        if finding.attack in (LIKELIHOOD, DIRECTIONS):
            worst[finding.cells] = max(worst.get(finding.cells, 0.0), finding.auroc)
        elif tried.isdigit():
            allowed.setdefault(finding.cells, 0)
            if finding.auroc <= GOAL:
                allowed[finding.cells] = max(allowed[finding.cells], int(tried))
    sizes = sorted(worst)
    needed = None
    for n in reversed(sizes):
        if worst[n] > GOAL:
            break
        needed = n
    smallest = min((n for n in sizes if n >= int(export.manifest["min_cells"])), default=None)
    return Audit(
        site=export.site,
        digest=export.digest,
        genes=genes,
        min_cells=int(export.manifest["min_cells"]),
        max_directions=int(export.manifest["max_directions"]),
        goal=GOAL,
        findings=tuple(findings),
        export={
            "smallest_type": None if smallest is None else worst[smallest],
            "100_cells": worst.get(100),
        },
        min_cells_needed=needed,
        min_cells_estimated=None if needed is not None else cells_needed(sizes[-1], worst[sizes[-1]], GOAL),
        max_directions_allowed=dict(sorted(allowed.items())),
        warnings=tuple(warnings),
    )
