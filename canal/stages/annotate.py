"""`canal annotate`: the cells of a file, in blocks, through the model of a stage.

`annotate` is the whole of it, top to bottom; what it calls stands below it in the order of the calls.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import canal
from canal.data.cells import FileReport
from canal.data.stream import CellStream, open_stream
from canal.data.threads import single_threaded
from canal.errors import ConfigError, DataError, StageError
from canal.files import check_file
from canal.model.model import Model
from canal.progress import Progress, Silent
from canal.report.annotation import TARGETS, Annotation, check_key, check_target, write_annotation
from canal.report.cas import cell_annotations, write_cell_annotations
from canal.stages.adapting import AdaptOptions, adapt_to_file
from canal.stages.novelty_rules import NoveltyOptions, calibration_facts, choose_rule
from canal.stages.predictions import Wanted, answer_stream, reader_of
from canal.stages.sanity import gene_agreement, sanity_facts, sanity_warnings
from canal.stages.sure_answers import FORMATS, check_format, schema_columns, sure_rule, terms_by_name, types_below
from canal.stages.voted import voted_columns, voter_facts, voter_warnings, without_voted

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


# Factors of the analytic memory below which one thread solves it as fast as two, which mostly wait.
FEW_FACTORS = 1_500
SCORES = ("best", "all")


@dataclass(frozen=True, kw_only=True)
class AnnotateOptions:
    """How a file is annotated; every default is that of the command line.

    Attributes
    ----------
    types
        The answer is one of these types; every known type by default.
    majority_voting
        Give every cell of a cluster the type most of them have.
    over_clustering
        Column of ``obs`` with the clusters for the vote, or the cluster of each cell, (cells,); by default they are
        found in the representation.
    gene_key
        Column of ``var`` with the gene names.
    novelty
        How novelty is judged.
    adapting
        Whether the file's own cells help to answer.
    alpha_label
        Share of sure answers that may be wrong; `ALPHA_LABEL` where the model has sure answers.
    key_added
        Prefix of every name that is added where the annotation is written.
    rows
        Start and stop of the rows of the file to annotate; all by default.
    folder
        Where large arrays may lie meanwhile; the system's folder for temporary files by default.
    overwrite
        Replace a file that is there already where the annotation is written.
    scores
        ``"best"``: the two most probable types of each cell with their probabilities; ``"all"``: those of every type,
        too.
    format
        ``"cellxgene"``: add the column of terms that CELLxGENE's schema asks for; ``"cap"``: the columns of the Cell
        Annotation Platform.
    cas, author
        JSON file to write the annotation to by the Cell Annotation Schema, too; first and last name to write there.
    """

    types: Sequence[str] | None = None
    majority_voting: bool = False
    over_clustering: "str | Sequence[object] | np.ndarray | pd.Series | None" = None
    gene_key: str | None = None
    novelty: NoveltyOptions = field(default_factory=NoveltyOptions)
    adapting: AdaptOptions = field(default_factory=AdaptOptions)
    alpha_label: float | None = None
    key_added: str = "canal"
    rows: tuple[int, int] | None = None
    folder: Path | None = None
    overwrite: bool = False
    scores: str = "best"
    format: str | None = None
    cas: Path | None = None
    author: str | None = None

    def __post_init__(self) -> None:
        if self.scores not in SCORES:
            message = f"scores is {self.scores!r}; expected 'best' (the best two types) or 'all' (every type)."
            raise ConfigError(message)


def annotate(
    model: Model,
    data: "str | Path | ad.AnnData",
    options: AnnotateOptions | None = None,
    progress: Progress | None = None,
) -> Annotation:
    """Annotate the cell type of every cell of a file.

    Parameters
    ----------
    model
        Model of a committed stage.
    data
        File of cells, or an AnnData; it is not changed.
    options
        What is asked for.
    progress
        Told about every block of cells.

    Returns
    -------
    The annotation of the cells, in the order of the file.

    Raises
    ------
    DataError, StageError
        If the file cannot be annotated, a type is not known, or novelty is asked of a model that cannot tell.
    """
    options, progress = options or AnnotateOptions(), progress or Silent()
    allowed = _allowed_types(model, options.types)
    sure = sure_rule(model, options.alpha_label)
    check_format(options.format, model)
    seed = model.stage.seed
    with open_stream(data, gene_key=options.gene_key, wanted=model.panel) as stream, _threads_for(model):
        if options.rows is not None:
            stream.only(*options.rows)
        # The model for the genes of this file, made to judge novelty as asked.
        reader = reader_of(model, stream)
        agreement = gene_agreement(reader, stream)
        adapted = adapt_to_file(reader, stream, options.adapting)
        whole = options.rows is None
        rule = choose_rule(options.novelty, adapted.reader, cells=len(stream), seed=seed, whole=whole)
        clusters = None if options.over_clustering is None else _clusters(stream, options.over_clustering)
        # One pass over the file, block by block.
        answers = answer_stream(
            rule.reader,
            stream,
            progress,
            wanted=Wanted(allowed=allowed, probabilities=options.scores == "all", folder=options.folder),
            watch=rule.add,
            groups=adapted.groups,
            sure=sure,
        )
        names, report = stream.names, stream.report
    # What looks at all cells together: the vote of clusters, and some rules of novelty.
    cell_type, confidence = answers.answered(model)
    best = cell_type
    if options.majority_voting or clusters is not None:
        from canal.stages.clusters import majority_vote

        cell_type = majority_vote(best, answers.representation, clusters, seed=seed, progress=progress)
    # What a person looks at first: does the file fit the model?
    columns = {**rule.columns(answers, best), **answers.second_columns(model.types)}
    columns |= voted_columns(answers.voted, columns) if answers.votes is not None else {}
    facts = _facts(model, report, options) | sanity_facts(reader.match, agreement, columns.get("status"))
    warnings = [*report.warnings, *sanity_warnings(reader.match, agreement, report.path)]
    # Types that were never seen together with many of these genes: their answers are estimates.
    facts["carried_types"] = [] if reader.carried is None else sorted(reader.carried.imputed)
    facts |= calibration_facts(rule.reader, answers, whole=whole)
    if reader.voter is not None and answers.votes is not None:
        facts["voter"] = voter_facts(reader.voter)
        warnings += voter_warnings(reader.voter, answers.voted)
    if answers.probabilities is not None:
        facts["probability_types"] = list(model.types)
    if sure is not None and answers.sure is not None:
        columns = {**columns, **without_voted(sure.columns(answers.sure), answers.voted)}
        facts |= sure.facts()
        if options.format is not None:
            columns |= schema_columns(columns, options.format)
            facts |= {"format": options.format, "schema_version": FORMATS[options.format]}
    return Annotation(
        cell_names=names,
        cell_type=cell_type,
        confidence=confidence,
        representation=answers.representation,
        facts=facts | adapted.facts | rule.facts() | {"warnings": warnings},
        columns=columns,
        probabilities=answers.probabilities,
    )


def _threads_for(model: Model) -> AbstractContextManager[Any]:
    """Return a context with as many threads as pay for solving the memory and making the detector."""
    memory = model.memory
    if memory is None:
        return nullcontext()
    factors = sum(len(statistics.factors) for statistics in memory.statistics)
    return single_threaded() if factors < FEW_FACTORS else nullcontext()


def _allowed_types(model: Model, types: Sequence[str] | None) -> np.ndarray:
    """Return which of the known types may be answered, bool (types,); refuse types that the model does not know.

    A term of the Cell Ontology, by its label or id, stands for the types below it.
    """
    known = model.types
    if types is None:
        return np.ones(len(known), dtype=bool)
    types = types_below(model, types)
    unknown = sorted(set(types) - set(known))
    if unknown or not types:
        message = (
            f"The model does not know the types {', '.join(map(repr, unknown)) or '(none were given)'}. "
            f"It knows {', '.join(known)}. Name some of these with --types, separated by commas."
        )
        raise StageError(message)
    return np.isin(np.array(known, dtype=object), list(types))


def _clusters(stream: CellStream, given: "str | Sequence[object] | np.ndarray | pd.Series") -> np.ndarray:
    """Return the name of each cell's cluster, (cells,): from a column of the file, or as they were given.

    Raises
    ------
    DataError
        If there is no such column, or not one cluster a cell was given.
    """
    if isinstance(given, str):
        if given not in stream.columns:
            message = (
                f"{stream.report.path} has no column obs[{given!r}]. It has {', '.join(stream.columns)}. "
                "Name the column of the clusters with --over-clustering."
            )
            raise DataError(message)
        return stream.column(given)
    clusters = np.array([str(cluster) for cluster in given], dtype=object)
    if len(clusters) != len(stream):
        message = (
            f"over_clustering holds {len(clusters)} clusters, and {stream.report.path} {len(stream)} cells. Give the "
            "name of a column of obs, or the cluster of each cell in their order."
        )
        raise DataError(message)
    return clusters


def _facts(model: Model, report: FileReport, options: AnnotateOptions) -> dict[str, Any]:
    """Return which model annotated which file, and how; the keys are persisted in ``uns`` and JSON."""
    record = model.stage
    return {
        "model": model.name,
        "stage": record.number,
        "stage_name": record.name,
        "version": record.version,
        "model_digest": record.artifacts.get("weights.safetensors", ""),
        "data_digest": report.digest,
        "canal_version": canal.__version__,
        "values": report.where,
        "scale": report.scale,
        "translated_genes": report.translated_genes,
        "species": report.species,
        "orthologues": report.orthologues,
        "restricted_to": sorted(options.types) if options.types is not None else [],
        "majority_voting": options.majority_voting,
    }


def annotate_to(
    model: Model,
    data: "str | Path | ad.AnnData",
    options: AnnotateOptions,
    out: Path | None,
    progress: Progress | None = None,
) -> Annotation:
    """Annotate cells as `annotate` does; with ``out``, write the cells with their annotation there."""
    check_key(options.key_added)
    check_cas(options)
    if out is not None:
        # Refused before the work, not after it.
        check_target(out, overwrite=options.overwrite)
        # Large arrays lie meanwhile beside the file that is written: there is room for them.
        options = replace(options, folder=out.absolute().parent)
    annotation = annotate(model, data, options, progress)
    if out is not None:
        write_annotation(data, annotation, out, options.key_added)
    if options.cas is not None:
        document = cell_annotations(
            annotation,
            key=options.key_added,
            title=Path(data).name if isinstance(data, str | Path) else "cells",
            author=options.author,
            terms=terms_by_name(model),
        )
        write_cell_annotations(document, options.cas)
    return annotation


def check_cas(options: AnnotateOptions) -> None:
    """Refuse a document of the Cell Annotation Schema that cannot be written.

    Raises
    ------
    ConfigError, DataError
        If the path is none for it, is there already, or an author is named without a document.
    """
    if options.cas is None:
        if options.author is not None:
            message = f"The author {options.author!r} is written to a document of --cas, and none is named."
            raise ConfigError(message)
        return
    check_file(options.cas, ".json", "--cas")
    if options.cas.exists() and not options.overwrite:
        message = f"{options.cas} is there already. Name another file with --cas, or replace it with --overwrite."
        raise DataError(message)


def output_paths(files: Sequence[Path], out: Path, *, overwrite: bool = False) -> list[Path]:
    """Return where the annotation of each file is written: to ``out``, or for several files into the folder ``out``.

    Raises
    ------
    ConfigError
        If two files have the same name, or ``out`` is a file's name although there are several files.
    DataError
        As `check_target`.
    """
    if len(files) == 1:
        return [check_target(out, overwrite=overwrite)]
    if out.suffix in TARGETS:
        message = f"{len(files)} files are annotated into a folder, and {out} is the name of a file. Name a folder."
        raise ConfigError(message)
    # Each answer is named after its file without endings.
    names = [file.name.split(".")[0] for file in files]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        message = (
            f"Several files are called {', '.join(repeated)}; their answers would have one name in {out}. Rename one."
        )
        raise ConfigError(message)
    out.mkdir(exist_ok=True)
    return [check_target(out / f"{name}.h5ad", overwrite=overwrite) for name in names]
