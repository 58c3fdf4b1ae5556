"""`canal annotate`: cells in blocks through the model of a stage, in constant memory."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import canal
from canal.data.cells import CellPool
from canal.data.stream import CellStream, open_stream
from canal.data.threads import single_threaded
from canal.errors import DataError, StageError
from canal.model.bank import load_bank
from canal.model.model import Annotator, load_annotator
from canal.model.record import StageRecord
from canal.model.stage_keys import stages_by_key
from canal.progress import Progress, Silent
from canal.registry.package import open_package
from canal.report.annotation import Annotation
from canal.stages.clusters import majority_vote
from canal.stages.novelty_rules import NoveltyRule, verdict_for
from canal.stages.predictions import answer_stream, reader_of

if TYPE_CHECKING:
    import anndata as ad

    from canal.progress import Progress


FEW_FACTORS = 1_500  # of the memory, below which one thread solves it as fast as two


@dataclass(frozen=True, kw_only=True)
class Model:
    """The annotator of one stage with the record it comes from."""

    record: StageRecord
    annotator: Annotator
    bank: CellPool
    name: str

    @cached_property
    def stages(self) -> dict[int, int]:
        """Number of the stage that each key of the bank belongs to; see `canal.model.stage_keys`."""
        return stages_by_key(self.record, set(self.bank.stage.tolist()))

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
    transductive: bool = False,
    min_probability: float | None = None,
    rows: tuple[int, int] | None = None,
    folder: Path | None = None,
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
    transductive
        Judge novelty by the paper's rule: the verdict on a cell then depends on the other cells of the file.
    min_probability
        Call cells novel whose highest probability is below it, in place of the memory's detector.
    folder
        Where what is large may lie meanwhile; the system's folder for temporary files by default.
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
    rule = NoveltyRule(alpha=alpha, neighbors=neighbors, transductive=transductive, min_probability=min_probability)
    with open_stream(data, gene_key=gene_key) as stream, _threads_for(annotator):
        if rows is not None:
            stream.only(*rows)
        reader = reader_of(annotator, stream)
        verdict = verdict_for(rule, reader, model.bank, cells=len(stream), seed=model.record.seed, stages=model.stages)
        clusters = _clusters(stream, over_clustering) if over_clustering else None
        answers = answer_stream(
            verdict.reader, stream, progress or Silent(),
            allowed=allowed, neighbors=neighbors, folder=folder, watch=verdict.add,
        )  # fmt: skip
        names, report = stream.names, stream.report
    cell_type = best = answers.names(annotator.types)
    if majority_voting or clusters is not None:
        cell_type = majority_vote(best, answers.representation, clusters, seed=model.record.seed)
    facts = _facts(model, reader.match.measured, report.digest, types, majority_voting)
    return Annotation(
        cell_names=names,
        cell_type=cell_type,
        confidence=answers.confidence,
        representation=answers.representation,
        facts=facts | verdict.facts() | {"warnings": list(report.warnings)},
        columns=verdict.columns(answers, best),
    )


def _threads_for(annotator: Annotator) -> AbstractContextManager[Any]:
    """Return a context with the threads that solving the memory and making the detector are worth."""
    memory = annotator.memory
    small = memory is not None and sum(len(s.factors) for s in memory.statistics) < FEW_FACTORS
    return single_threaded() if small else nullcontext()


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


def _clusters(stream: CellStream, column: str) -> np.ndarray:
    if column not in stream.columns:
        message = (
            f"{stream.report.path} has no column obs[{column!r}]. It has {', '.join(stream.columns)}. "
            "Name the column of the clusters with --over-clustering."
        )
        raise DataError(message)
    return stream.column(column)


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


@contextmanager
def open_export(path: Path) -> Iterator[tuple[StageRecord, Path]]:
    """Give record and folder of an export, every byte compared with its hash; the folder is temporary.

    Raises
    ------
    RegistryError
        If the export is missing, damaged, or of a newer canal.
    """
    with open_package(path) as package:
        yield package.record, package.folder


def annotate_with_export(
    path: Path,
    data: "str | Path | ad.AnnData",
    *,
    key_added: str = "canal",
    out: Path | None = None,
    progress: "Progress | None" = None,
    **options: Any,
) -> "Annotation":
    """Say of every cell which type it is, with a model from a file; no workspace is needed.

    ``options`` as `canal.stages.annotate.annotate`; with ``out``, the annotated cells are written there.
    """
    from canal.report.annotation import write_annotation

    with open_package(path) as package:
        model = Model.open(package.folder, package.record, package.model)
    annotation = annotate(
        model, data, progress=progress, folder=None if out is None else out.absolute().parent, **options
    )
    if out is not None:
        write_annotation(data, annotation, out, key_added)
    return annotation
