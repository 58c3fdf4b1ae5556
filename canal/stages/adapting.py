"""`--adapt`: the cells of a file help to answer, where a guard finds that they do.

One more pass over the file draws a sample of its cells; what is estimated from them fits into a few small matrices,
with which the file is then annotated in blocks as ever. Each batch of the file is adapted for itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.data.stream import CellStream
from canal.errors import ConfigError, DataError
from canal.model.adapting.adaptation import LEAST_CELLS, LEAST_GENES, Adaptation, Verdict, adapt, judged_before
from canal.model.adapting.components import leading_components
from canal.model.adapting.mixture import ROUNDS, Known, Sample
from canal.model.adapting.novelty import FileNovelty, judge_file
from canal.model.novelty.detector import NoveltyReader
from canal.model.reader import GeneSetReader
from canal.seeds import numpy_generator

# Cells of a file that the estimates rest on, drawn with the seed of the stage. More move them by less than the halves
# differ; these take about half a second.
MOST_SAMPLED = 4_000
BATCH_COLUMNS = ("batch", "donor_id", "donor", "sample")  # the first that a file has is taken
# Sampled cells of a batch that was found by its name and is adapted to for itself; one that was named needs
# `LEAST_CELLS`. Four batches of 400 cells of one technology are met better together (immune, kang: .846 against .819).
LEAST_FOUND_BATCH = 1_000
ALL_CELLS, SMALL_BATCHES = "all cells", "batches of few cells"  # names of groups in the facts
SHOWN_GENES = 5


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """Whether the cells of a file help to answer.

    Attributes
    ----------
    adapt
        Whether they do.
    batch
        Column of ``obs`` whose batches are adapted each for itself; found by its name by default.
    """

    adapt: bool = False
    batch: str | None = None

    def __post_init__(self) -> None:
        if self.batch is not None and not self.adapt:
            message = f"--batch {self.batch} names the batches that --adapt adapts to. Add --adapt, or leave it out."
            raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class AdaptedFile:
    """The model for one file, adapted or not.

    Attributes
    ----------
    reader
        The model for the genes of the file.
    groups
        Which of the reader's adaptations each cell gets, (cells,); ``None`` where the file is not adapted to.
    facts
        What was estimated and what the guard says, for ``uns`` and JSON; empty where nothing was asked for.
    """

    reader: GeneSetReader
    groups: np.ndarray | None
    facts: dict[str, Any]


def adapt_to_file(reader: GeneSetReader, stream: CellStream, options: AdaptOptions) -> AdaptedFile:
    """Adapt a model to the cells of an open file, as far as that helps.

    Parameters
    ----------
    reader
        The model for the genes of the file.
    stream
        The open file; it is read once more.
    options
        What is asked for.

    Raises
    ------
    DataError
        If there is no such column.
    """
    if not options.adapt:
        return AdaptedFile(reader=reader, groups=None, facts={})
    column, batches = _batches(stream, options.batch)
    facts: dict[str, Any] = {"batch": column}
    # 1. A model that cannot be adapted answers as it does without.
    reason = _why_not(reader)
    if reason:
        return AdaptedFile(reader=reader, groups=None, facts={"adapted": facts | {"held_back": [reason]}})
    # 2. A sample of the cells, in two halves.
    rng = numpy_generator(reader.model.stage.seed, "adapt")
    n = len(stream)
    rows = np.arange(n) if n <= MOST_SAMPLED else np.sort(rng.choice(n, MOST_SAMPLED, replace=False))
    halves = np.zeros(len(rows), dtype=bool)
    halves[rng.permutation(len(rows))[: len(rows) // 2]] = True
    drawn = _read_sample(reader, stream, rows)
    # 3. Each batch that has enough of them for itself, the others together.
    least = LEAST_FOUND_BATCH if options.batch is None else LEAST_CELLS
    groups, names = _grouped(batches, rows, n, least)
    adaptations, file_novelty, verdicts = [], [], []
    for group in range(len(names)):
        own = np.flatnonzero(groups[rows] == group)
        adaptation, novelty, verdict = _adapt_group(reader, drawn, own, halves[own])
        adaptations.append(adaptation)
        file_novelty.append(novelty)
        verdicts.append(verdict)
    # 4. What was estimated, in words and numbers.
    facts |= {"groups": names, "cells": np.bincount(groups, minlength=len(names)).tolist()}
    facts |= _facts(reader, adaptations, verdicts)
    if not any(file_novelty):
        return AdaptedFile(reader=reader, groups=None, facts={"adapted": facts})
    reader = reader.with_adaptations(adaptations, file_novelty)
    return AdaptedFile(reader=reader, groups=groups, facts={"adapted": facts})


def _batches(stream: CellStream, column: str | None) -> tuple[str, np.ndarray | None]:
    """Return the column of the batches, ``""`` where there is none, and the batch of each cell."""
    column = batch_column(stream, column)
    return ("", None) if column is None else (column, stream.column(column))


def batch_column(stream: CellStream, asked: str | None) -> str | None:
    """Return the column of the batches: the one that was asked for, or found by its name; ``None`` without any.

    Raises
    ------
    DataError
        If there is no such column.
    """
    columns = stream.columns
    if asked is None:
        return next((name for name in BATCH_COLUMNS if name in columns), None)
    if asked not in columns:
        message = (
            f"{stream.report.path} has no column obs[{asked!r}]. It has {', '.join(columns) or 'nothing'}. "
            "Name one with --batch."
        )
        raise DataError(message)
    return asked


def _why_not(reader: GeneSetReader) -> str:
    """Return why a model cannot be adapted to this file at all; empty where it can."""
    model, solved = reader.model, reader.solved
    if solved is None or model.fusion.rule != "discriminants" or model.fusion.memory == 0:
        return "the model of this stage does not answer by discriminants of an analytic memory"
    if not (model.novelty.stages or len(model.bank)):
        return "the model of this stage has no known cell to compare with"
    if len(solved.columns) < LEAST_GENES:
        return f"the file has {len(solved.columns)} genes of the memory; {LEAST_GENES} are needed"
    return ""


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """The sample: unit profiles over the memory's genes, and what the model says of them."""

    profiles: sp.csr_matrix
    logits: np.ndarray
    scores: np.ndarray
    p_values: np.ndarray
    detector: NoveltyReader


def _read_sample(reader: GeneSetReader, stream: CellStream, rows: np.ndarray) -> _Drawn:
    """Read the cells of some rows, ascending, and let the model look at them."""
    detector = reader.novelty()
    assert detector is not None, "checked by _why_not"
    judging = reader.with_novelty(detector)
    profiles, logits, scores, p_values, start = [], [], [], [], 0
    for block in stream.chunks(reader.columns):
        stop = start + block.shape[0]
        first, last = np.searchsorted(rows, [start, stop])
        chosen = block[rows[first:last] - start]
        start = stop
        if not chosen.shape[0]:
            continue
        prediction = judging.predict_columns(chosen)
        assert prediction.novelty is not None
        logits.append(prediction.logits)
        p_values.append(prediction.novelty.p_value)
        scores.append(reader.ridge_scores(chosen))
        profiles.append(reader.memory_profiles(chosen))
    return _Drawn(
        profiles=sp.vstack(profiles, format="csr"),
        logits=np.concatenate(logits),
        scores=np.concatenate(scores).astype(np.float64),
        p_values=np.concatenate(p_values),
        detector=detector,
    )


def _grouped(batches: np.ndarray | None, rows: np.ndarray, n: int, least: int) -> tuple[np.ndarray, list[str]]:
    """Return the group of each of n cells and the groups' names; batches of fewer sampled cells are one group."""
    if batches is None:
        return np.zeros(n, dtype=np.int64), [ALL_CELLS]
    names, sampled = np.unique(batches[rows].astype(str), return_counts=True)
    large = names[sampled >= least].tolist()
    groups = np.full(n, len(large), dtype=np.int64)
    for group, name in enumerate(large):
        groups[batches == name] = group
    if (groups == len(large)).any():
        large = [*large, SMALL_BATCHES]
    return groups, large if len(large) > 1 else [ALL_CELLS]


def _adapt_group(
    reader: GeneSetReader, drawn: _Drawn, rows: np.ndarray, halves: np.ndarray
) -> tuple[Adaptation | None, FileNovelty | None, Verdict]:
    """Adapt the model to some of the sampled cells, or not: its answers, and what judges novelty."""
    solved, memory = reader.solved, reader.model.memory
    assert solved is not None
    assert memory is not None
    verdict = judged_before(drawn.p_values[rows])
    if verdict.held_back:
        return None, None, verdict
    profiles = drawn.profiles[rows]
    components = leading_components(profiles)
    # Novelty first: its verdict does not hang on whether the halves agree about the types.
    coordinates = components.of(profiles)
    novelty = judge_file(drawn.detector.for_genes, profiles @ drawn.detector.weights, components, coordinates)
    verdict = replace(verdict, novelty_shift=novelty.shift)
    # The types.
    sample = Sample(logits=drawn.logits[rows], scores=drawn.scores[rows], coordinates=coordinates)
    taught = memory.type_profiles(solved.match.measured, solved.types)
    known = Known(moments=solved.moments, fusion=reader.model.fusion, centres=components.of(taught))
    adaptation, verdict = adapt(sample, known, components, halves, verdict)
    return adaptation, novelty, verdict


def _facts(
    reader: GeneSetReader, adaptations: Sequence[Adaptation | None], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Return what was estimated for each group, one entry a group; the keys are persisted in ``uns`` and JSON."""
    assert reader.solved is not None
    match = reader.solved.match
    genes = np.array(match.panel_genes, dtype=object)[match.measured]
    higher, lower, distances = [], [], []
    for adaptation in adaptations:
        up, down, distance = "", "", 0.0
        if adaptation is not None:
            # The common move in gene space: what the file has more of, and less of, than the memory's types.
            components, move = adaptation.components, adaptation.whole.move
            by_gene = components.directions @ move
            order = np.argsort(by_gene, kind="stable")
            up = ", ".join(genes[components.genes[i]] for i in order[::-1][:SHOWN_GENES] if by_gene[i] > 0)
            down = ", ".join(genes[components.genes[i]] for i in order[:SHOWN_GENES] if by_gene[i] < 0)
            shift = adaptation.whole.shift
            distance = float(np.sqrt(shift @ adaptation.known.moments.precision @ shift))
        higher.append(up)
        lower.append(down)
        distances.append(distance)
    return {
        "held_back": [verdict.held_back for verdict in verdicts],
        "looked_at": [verdict.cells for verdict in verdicts],
        "unlike": [round(verdict.unlike, 4) for verdict in verdicts],
        "moved": [round(verdict.moved, 4) for verdict in verdicts],
        "agreement": [round(verdict.agreement, 4) for verdict in verdicts],
        "rounds": ROUNDS,
        "novelty_shift": [round(verdict.novelty_shift, 3) for verdict in verdicts],
        "shift": [round(distance, 3) for distance in distances],
        "genes_higher": higher,
        "genes_lower": lower,
    }
