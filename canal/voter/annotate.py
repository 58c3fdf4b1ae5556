"""Annotate a file with a voter, in blocks, as CellTypist does with the genes that both have."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import canal
from canal.data.panel import check_overlap
from canal.data.stream import open_stream
from canal.errors import ConfigError
from canal.model.voter import Voter, probabilities
from canal.progress import Progress, Silent
from canal.report.annotation import KEY, Annotation, check_key, check_target, write_annotation

if TYPE_CHECKING:
    import anndata as ad

NO_NOVELTY = (
    "A voter has no statistics of cells: it cannot tell cells of a type that it does not know, and every cell gets one "
    "of its types. Look at canal_confidence, or teach the types with `canal stage add`."
)
SEED = 0  # of the clustering for the vote: a voter has no stage that recorded one
# Options of `annotate` that a voter has; all others ask for what it does not keep.
_OPTIONS = ("majority_voting", "key_added", "gene_key", "overwrite")
BEST = "best"  # of the scores, which is what is written without being asked for


def check_voter_options(options: Mapping[str, Any]) -> None:
    """Refuse options that a voter cannot follow.

    Raises
    ------
    ConfigError
        If one of them was given.
    """
    asked = []
    for name, value in options.items():
        by_default = value is None or (isinstance(value, str | int | float) and value in (False, 0, BEST))
        if name not in _OPTIONS and not by_default:
            asked.append(name)
    if not asked:
        return
    named = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
    message = (
        f"A voter cannot follow {named}: it keeps weights of genes, and neither statistics nor cells. Leave it out, or "
        "use a model that was taught by `canal stage add`."
    )
    raise ConfigError(message)


def annotate_with_voter(
    voter: Voter,
    data: "str | Path | ad.AnnData",
    options: Mapping[str, Any],
    out: Path | None = None,
    progress: Progress | None = None,
    *,
    stage: int = 0,
) -> Annotation:
    """Annotate the cells of a file; with ``out``, write them with their annotation there.

    Parameters
    ----------
    voter
        The voter.
    data
        File of cells, or an AnnData; it is not changed.
    options
        ``majority_voting``, ``key_added``, ``gene_key`` and ``overwrite``, as for `Annotator.annotate`.
    out
        File to write: ``.h5ad`` or ``.csv``.
    progress
        Told about every block of cells.
    stage
        Number of the stage that the voter is; 0 of one that is none.

    Returns
    -------
    The annotation; ``confidence`` is the probability of the type by itself, ``representation`` the scores (n, C).

    Raises
    ------
    ConfigError, DataError
        If an option asks for what a voter has not, or the file has no gene in common with it.
    """
    # 1. All that can be refused before the work.
    check_voter_options(options)
    key = str(options.get("key_added") or KEY)
    check_key(key)
    if out is not None:
        check_target(out, overwrite=bool(options.get("overwrite")))
    progress = progress or Silent()
    # 2. The voter's genes in the file, read in the file's order and put into the voter's.
    with open_stream(data, gene_key=options.get("gene_key"), wanted=voter.panel) as stream:
        match = voter.panel.match(stream.genes)
        check_overlap(match, 0.0, stream.report.path)
        columns, order = voter.reading_order(match)
        progress.start(len(stream), "annotating")
        parts = []
        for block in stream.chunks(columns):
            parts.append(voter.scores(block[:, order], match))
            progress.advance(block.shape[0], "")
        progress.close()
        names, report = stream.names, stream.report
    scores = np.concatenate(parts)
    # 3. The best type of each cell, or of its cluster.
    cell_type = np.array(voter.types, dtype=object)[scores.argmax(axis=1)]
    if options.get("majority_voting"):
        from canal.stages.clusters import majority_vote

        cell_type = majority_vote(cell_type, scores.astype(np.float32), None, seed=SEED, progress=progress)
    measured, genes = int(match.measured.sum()), len(voter.genes)
    facts = {
        "model": voter.name,
        "stage": stage,
        "stage_name": voter.name,
        "voter": dict(voter.description),
        "types": list(voter.types),
        "data_digest": report.digest,
        "canal_version": canal.__version__,
        "values": report.where,
        "scale": report.scale,
        "majority_voting": bool(options.get("majority_voting")),
        "alpha": None,
        "panel_genes": genes,
        "measured_genes": measured,
        "sanity": f"{measured:,} of {genes:,} genes of the voter measured",
        "warnings": [*report.warnings, NO_NOVELTY],
    }
    annotation = Annotation(
        cell_names=names,
        cell_type=cell_type,
        confidence=probabilities(scores).max(axis=1).astype(np.float32),
        representation=scores.astype(np.float32),
        facts=facts,
    )
    if out is not None:
        write_annotation(data, annotation, out, key)
    return annotation
