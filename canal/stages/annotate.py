"""`canal annotate`: cells in blocks through the model of a stage, in constant memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import canal
from canal.data.check import CellStream, open_stream
from canal.data.panel import check_overlap
from canal.data.pool import CellPool
from canal.errors import DataError, StageError
from canal.learn.annotator import Annotator, GeneSetReader, Prediction, load_annotator
from canal.learn.bank import load_bank
from canal.learn.progress import Progress, Silent
from canal.registry.record import StageRecord
from canal.report.annotation import Annotation
from canal.stages.novelty import NoveltyColumns, novelty_columns
from canal.stages.voting import majority_vote

if TYPE_CHECKING:
    import anndata as ad


@dataclass(frozen=True, kw_only=True)
class Model:
    """The annotator of one stage with the record it comes from."""

    record: StageRecord
    annotator: Annotator
    bank: CellPool
    name: str

    @classmethod
    def open(cls, folder: Path, record: StageRecord, name: str) -> "Model":
        """Read the annotator from a folder of artifacts whose hashes were checked."""
        bank = folder / "bank.safetensors"
        return cls(
            record=record,
            annotator=load_annotator(folder),
            bank=load_bank(bank) if bank.is_file() else CellPool.empty(),
            name=name,
        )


def annotate(
    model: Model,
    data: "str | Path | ad.AnnData",
    *,
    types: Sequence[str] | None = None,
    majority_voting: bool = False,
    over_clustering: str | None = None,
    gene_key: str | None = None,
    alpha: float | None = None,
    neighbors: int = 0,
    rows: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Annotation:
    """Say of every cell which type it is.

    Parameters
    ----------
    model
        Model of a stage.
    data
        File of cells, or an AnnData; it is not changed.
    types
        The answer is one of these types; every known type by default.
    majority_voting
        Give every cell of a cluster the type most of them have.
    over_clustering
        Column of ``obs`` with the clusters for it; found from the representation by default.
    gene_key
        Column of ``var`` with the gene names.
    alpha
        Share of known cells that may be called novel; 0.05 by default, where the model can tell.
    neighbors
        Nearest reference cells to name for each cell.
    rows
        First row and last but one of the file to annotate; all by default.
    progress
        Told about every block of cells.

    Raises
    ------
    DataError, StageError
        If the file cannot be annotated, a type is not known, or novelty is asked of a model that cannot tell.
    """
    annotator = model.annotator
    allowed = _allowed(annotator.types, types)
    with open_stream(data, gene_key=gene_key) as stream:
        if rows is not None:
            stream.only(*rows)
        reader = annotator.reader(stream.genes, stream.ensembl)
        novelty = novelty_columns(reader, model.bank, alpha, neighbors)
        prediction = predict_stream(reader, stream, progress or Silent(), novelty)
        clusters = _clusters(stream, over_clustering) if over_clustering else None
        names, report = stream.names, stream.report
    probabilities = _restricted(prediction.probabilities, allowed)
    best = probabilities.argmax(axis=1)
    cell_type = np.array(annotator.types, dtype=object)[best]
    if majority_voting or clusters is not None:
        cell_type = majority_vote(cell_type, prediction.representation, clusters, seed=model.record.seed)
    facts = _facts(model, reader.match.measured, report.digest, types, majority_voting)
    columns = {} if novelty is None else novelty.columns(np.array(annotator.types, dtype=object)[best])
    return Annotation(
        cell_names=names,
        cell_type=cell_type,
        confidence=probabilities[np.arange(len(best)), best],
        representation=prediction.representation,
        facts=facts | {"alpha": novelty.alpha if novelty else None, "warnings": list(report.warnings)},
        columns=columns,
    )


def predict_stream(
    reader: GeneSetReader, stream: CellStream, progress: Progress, novelty: NoveltyColumns | None = None
) -> Prediction:
    """Annotate an open file block by block, and judge novelty where asked."""
    check_overlap(reader.match, reader.annotator.preset.genes.min_overlap, stream.report.path)
    progress.start(len(stream), "annotating")
    probabilities, representation = [], []
    for block in stream.chunks():
        prediction = reader.predict(block)
        probabilities.append(prediction.probabilities)
        representation.append(prediction.representation)
        if novelty is not None:
            novelty.add(block)
        progress.advance(block.shape[0])
    progress.close()
    return Prediction(probabilities=np.concatenate(probabilities), representation=np.concatenate(representation))


def _allowed(known: tuple[str, ...], types: Sequence[str] | None) -> np.ndarray:
    if types is None:
        return np.ones(len(known), dtype=bool)
    strange = sorted(set(types) - set(known))
    if strange or not types:
        message = (
            f"The model does not know the types {', '.join(map(repr, strange)) or '(none were given)'}. "
            f"It knows {', '.join(known)}. Name some of these with --types, separated by commas."
        )
        raise StageError(message)
    return np.isin(np.array(known, dtype=object), list(types))


def _restricted(probabilities: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    if allowed.all():
        return probabilities
    kept = np.where(allowed, probabilities, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    even = np.where(allowed, 1.0 / allowed.sum(), 0.0)
    result: np.ndarray = np.where(total > 1e-30, kept / np.maximum(total, 1e-30), even).astype(np.float32)
    return result


def _clusters(stream: CellStream, column: str) -> np.ndarray:
    obs = stream.obs
    if column not in obs:
        message = (
            f"{stream.report.path} has no column obs[{column!r}]. It has {', '.join(map(str, obs.columns))}. "
            "Name the column of the clusters with --over-clustering."
        )
        raise DataError(message)
    return np.asarray(obs[column].astype(str), dtype=object)


def _facts(model: Model, measured: np.ndarray, digest: str, types: Sequence[str] | None, voted: bool) -> dict[str, Any]:
    return {
        "model": model.name,
        "stage": model.record.number,
        "stage_name": model.record.name,
        "version": model.record.version,
        "model_digest": model.record.artifacts.get("weights.safetensors", ""),
        "data_digest": digest,
        "canal_version": canal.__version__,
        "panel_genes": len(measured),
        "measured_genes": int(measured.sum()),
        "restricted_to": sorted(types) if types is not None else [],
        "majority_voting": voted,
    }
