"""Whether a file fits the model that annotates it: the few figures that a person looks at before the answer.

How many of the model's genes the file measures, how far its genes are as strong as in the cells that the model was
taught with, and which share of its cells is novel.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from canal.data.panel import GeneMatch, symbols_note
from canal.data.stream import CellStream
from canal.data.values import unit_rows
from canal.model.reader import GeneSetReader

# Correlation of the square roots of the genes' mean levels. A model of the first immune file has .83 to .99 with the
# immune files, .75 with human pancreas, .27 with mouse pancreas; one of the first pancreas file .94 with its own test
# cells, .52 with mouse, .48 with full-length reads. With shuffled gene names: .24 at most on 177 genes, .10 on 1,000.
LEAST_AGREEMENT = 0.25
FEWEST_GENES = 100  # below, even shuffled names agree by chance
FEW_MEASURED = 0.5  # share of the model's genes below which the person is told


def gene_agreement(reader: GeneSetReader, stream: CellStream) -> float | None:
    """Return how far the mean levels of the genes agree with those of the model's training cells, -1 to 1.

    Parameters
    ----------
    reader
        The model for the genes of the file. Its analytic memory knows the levels, or else its example bank.
    stream
        The open file; some of its cells are looked at.

    Returns
    -------
    The correlation, or ``None`` where too few genes are in common or the model has kept no levels.
    """
    match, levels = _taught_levels(reader, stream)
    known = match.measured & np.isfinite(levels)
    if known.sum() < FEWEST_GENES:
        return None
    # Square roots, so that a few very strong genes do not decide alone.
    own, taught = np.sqrt(stream.sampled_levels()[match.columns[known]]), np.sqrt(levels[known])
    if not own.std() or not taught.std():
        return None
    return float(np.corrcoef(own, taught)[0, 1])


def _taught_levels(reader: GeneSetReader, stream: CellStream) -> tuple[GeneMatch, np.ndarray]:
    """Return the model's genes in the file and their mean level over the taught types, NaN where none is known."""
    memory = reader.model.memory
    if memory is None or reader.solved is None or not memory.statistics:
        bank = reader.model.bank
        match = bank.panel.match(stream.genes)
        if not len(bank):
            return match, np.full(len(match.measured), np.nan)
        levels = np.asarray(unit_rows(bank.expression).mean(axis=0), dtype=np.float64).ravel()
        return match, np.where(bank.measured.any(axis=0), levels, np.nan)
    total, types = np.zeros(len(memory.panel)), np.zeros(len(memory.panel))
    for statistics in memory.statistics:
        genes = memory.measured[statistics.stage]
        total[genes] += statistics.mean
        types[genes] += 1
    return reader.solved.match, np.where(types > 0, total / np.maximum(types, 1), np.nan)


def sanity_warnings(match: GeneMatch, agreement: float | None, source: str) -> list[str]:
    """Return sentences on what makes the answer doubtful: few genes, or genes at other levels than they should be.

    Parameters
    ----------
    match
        The model's genes in the file.
    agreement
        As `gene_agreement` returns it.
    source
        Name of the file.
    """
    note = symbols_note(match, source)
    warnings = [] if note is None else [note]
    measured, genes = int(match.measured.sum()), len(match.measured)
    if match.share < FEW_MEASURED:
        warnings.append(
            f"{source} measures {measured:,} of the {genes:,} genes of the model ({match.share:.0%}): types are told "
            "apart less surely. Use the file before its genes were filtered, if there is one."
        )
    if agreement is not None and agreement < LEAST_AGREEMENT:
        warnings.append(
            f"The genes of {source} are not as strong as in the cells that the model was taught with (correlation "
            f"{agreement:.2f}; {LEAST_AGREEMENT} and more even in another tissue). Gene names may be shuffled or "
            "belong to other columns, or the cells are of another species: do not trust the answer until that is clear."
        )
    return warnings


def sanity_facts(match: GeneMatch, agreement: float | None, status: np.ndarray | None) -> dict[str, Any]:
    """Return what a person looks at first, as plain values and as one line.

    Parameters
    ----------
    match, agreement
        As for `sanity_warnings`.
    status
        Verdict on each cell, (cells,); ``None`` where novelty was not judged.
    """
    facts = {
        "panel_genes": len(match.measured),
        "measured_genes": int(match.measured.sum()),
        "gene_agreement": None if agreement is None else round(agreement, 3),
    }
    return facts | novel_share(facts, status)


def novel_share(facts: Mapping[str, Any], status: np.ndarray | None) -> dict[str, Any]:
    """Return the share of novel cells and the line that says it beside the other facts of `sanity_facts`."""
    share = None if status is None or not len(status) else float((status == "novel").mean())
    parts = [] if share is None else [f"{share:.1%} of the cells novel"]
    parts.append(f"{facts['measured_genes']:,} of {facts['panel_genes']:,} genes of the model measured")
    if facts.get("gene_agreement") is not None:
        parts.append(f"gene levels agree {facts['gene_agreement']:.2f} with the training cells")
    return {"share_novel": share, "sanity": "; ".join(parts)}
