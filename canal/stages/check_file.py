"""`canal doctor --data`: how far a file is from what a model was taught, by some of its cells, before annotating."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.stream import open_stream
from canal.model.adapting.adaptation import LEAST_UNLIKE
from canal.model.model import Model
from canal.stages.novelty_rules import USUAL_P, judging_reader
from canal.stages.predictions import reader_of
from canal.stages.sanity import FEW_MEASURED, LEAST_AGREEMENT, gene_agreement, sanity_warnings

if TYPE_CHECKING:
    import anndata as ad


# What may be expected of the answer, and what that means.
AS_TESTED = "as tested"
LOWER = "lower"
DOUBTFUL = "doubtful"
EXPECTATIONS = {
    AS_TESTED: "the cells are like those taught: accuracy as on the held-out cells of the stages",
    LOWER: (
        "the cells are of a technology, a lab or a condition that no stage has taught, or many are of new types: types "
        "are right less often, and more known cells are called novel; canal annotate --adapt helps"
    ),
    DOUBTFUL: "few genes of the model, or genes at other levels than in any cell that was taught: see the warnings",
}


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """How far a file is from what a model was taught; part of JSON.

    Attributes
    ----------
    cells, looked_at
        Of the file, and those of them that were looked at, spread over all of it.
    panel_genes, measured_genes
        Genes of the model, and those of them that the file measures.
    genes_per_cell, counts_per_cell
        Median of the cells; counts are ``None`` where the file has none.
    where, scale
        Where the values lie, and on which scale.
    species
        ``"human"`` or ``"mouse"`` by the names of the genes; ``""`` where these do not tell.
    gene_agreement
        Correlation of the genes' mean levels with those taught, -1 to 1; ``None`` where too few are in common.
    unlike, unlike_stages
        Share of the cells that are newer than 95 in 100 known ones, and than 95 in 100 of each stage's own;
        ``None`` and empty where the model cannot tell.
    nearest_stage
        The stage that the fewest cells are unlike.
    mean_confidence
        Of the answers.
    expected
        ``as tested``, ``lower`` or ``doubtful``; see `EXPECTATIONS`.
    warnings
        What was met in the file.
    """

    cells: int
    looked_at: int
    panel_genes: int
    measured_genes: int
    genes_per_cell: float
    counts_per_cell: float | None
    where: str
    scale: str
    species: str
    gene_agreement: float | None
    unlike: float | None
    unlike_stages: dict[str, float]
    nearest_stage: str | None
    mean_confidence: float
    expected: str
    warnings: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """What ``expected`` means, in a sentence without its full stop."""
        return EXPECTATIONS[self.expected]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def check_file(model: Model, data: "str | Path | ad.AnnData", gene_key: str | None = None) -> FileCheck:
    """Return how far a file is from what a model was taught.

    Parameters
    ----------
    model
        Model of a committed stage.
    data
        File of cells, or an AnnData; some of its cells are read.
    gene_key
        Column of ``var`` with the gene names.

    Raises
    ------
    DataError
        If the file cannot be annotated by the model.
    """
    with open_stream(data, gene_key=gene_key, wanted=model.panel) as stream:
        reader = reader_of(model, stream)
        agreement = gene_agreement(reader, stream)
        sample, totals = stream.sampled_cells(), stream.sampled_totals()
        report = stream.report
    # The sampled cells through the model.
    judging = judging_reader(reader)
    prediction = judging.predict(sample)
    unlike, stages = None, {}
    if prediction.novelty is not None:
        unlike = float((prediction.novelty.p_value <= USUAL_P).mean())
        detector = judging.detector
        assert detector is not None
        for key, share in detector.for_genes.unlike_by_stage(prediction.novelty.novelty, USUAL_P).items():
            stages[str(model.stage_of_key.get(key, key))] = round(share, 4)
    return FileCheck(
        cells=report.cells,
        looked_at=sample.shape[0],
        panel_genes=len(reader.match.measured),
        measured_genes=int(reader.match.measured.sum()),
        genes_per_cell=float(np.median(np.diff(sample.indptr))),
        counts_per_cell=float(np.median(totals)) if report.scale == "counts" else None,
        where=report.where,
        scale=report.scale,
        species=report.species,
        gene_agreement=None if agreement is None else round(agreement, 3),
        unlike=None if unlike is None else round(unlike, 4),
        unlike_stages=stages,
        nearest_stage=min(stages, key=lambda stage: stages[stage]) if stages else None,
        mean_confidence=round(float(prediction.probabilities.max(axis=1).mean()), 4),
        expected=_expected(reader.match.share, agreement, unlike),
        warnings=(*report.warnings, *sanity_warnings(reader.match, agreement, report.path)),
    )


def _expected(share: float, agreement: float | None, unlike: float | None) -> str:
    """Return what may be expected of the answer.

    Parameters
    ----------
    share
        Of the model's genes that the file measures.
    agreement, unlike
        As in `FileCheck`.
    """
    if share < FEW_MEASURED or (agreement is not None and agreement < LEAST_AGREEMENT):
        return DOUBTFUL
    return LOWER if unlike is not None and unlike >= LEAST_UNLIKE else AS_TESTED
