"""`canal annotate` of many files on the workers of a Dask cluster: files are cut into shards, annotated and joined.

A shard is read with the scale and the genes of the whole file and begins where a block of cells begins, so that every
cell gets the annotation it gets on one machine.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from canal.cluster.dask_cluster import connect, map_on_workers, worker_count
from canal.data.stream import open_stream
from canal.errors import CanalError
from canal.model.adapting.adaptation import judged_before
from canal.model.model import Model
from canal.model.novelty.calibration import verdicts
from canal.model.novelty.detector import NoveltyScores
from canal.progress import Progress, Silent
from canal.report.annotation import Annotation, check_key, write_annotation
from canal.stages.annotate import AnnotateOptions, annotate, output_paths
from canal.stages.layout import Layout, open_registry
from canal.stages.novelty_rules import choose_rule, file_p_values, file_shift, joined_calibration
from canal.stages.predictions import reader_of
from canal.stages.sanity import novel_share
from canal.stages.voted import VOTER, voted_columns

BLOCK = 1024  # cells that go through an encoder together, or a multiple of that: the same products, the same bits
SHARDS_PER_WORKER = 3  # when a worker is lost, a third of its work is repeated


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some rows of one file.

    Attributes
    ----------
    file
        File of cells.
    rows
        First row, and the row after the last; ``None`` for the whole file.
    cells
        Number of rows.
    """

    file: Path
    rows: tuple[int, int] | None
    cells: int


@dataclass(frozen=True, kw_only=True)
class ShardAnnotator:
    """Annotates a shard on a worker: it says where the workspace is, which stage annotates, and what is asked for."""

    workspace: Path
    registry: str | None
    stage: int
    options: AnnotateOptions

    def __call__(self, shard: Shard) -> Annotation | CanalError:
        """Annotate a shard; an error that the user can mend is returned, so that the shard is not tried again."""
        try:
            model = _read_model(self.workspace, self.registry, self.stage)
            return annotate(model, shard.file, replace(self.options, rows=shard.rows))
        except CanalError as error:
            return error


@lru_cache(maxsize=2)
def _read_model(workspace: Path, registry: str | None, stage: int) -> Model:
    """Read a model once on each worker."""
    layout = Layout.find(workspace, registry)
    opened = open_registry(layout.require())
    return opened.model(opened.record(stage))


def annotate_on_dask(
    layout: Layout,
    files: Sequence[Path],
    address: str,
    *,
    out: Path,
    stage: int | None = None,
    options: AnnotateOptions | None = None,
    progress: Progress | None = None,
) -> list[Annotation]:
    """Annotate files on the workers of a Dask cluster, and write the annotations here.

    Every worker must see the files and the workspace under the same paths. A shard whose worker is lost is given to
    another, and a shard that fails is tried again; nothing that is done is lost.

    Parameters
    ----------
    layout
        The workspace with the model.
    files, out
        Files of cells; the file to write, or a folder for several.
    address
        ``tcp://host:port`` of a scheduler, or ``local:N``.
    stage
        Model of this stage; by default the one in use.
    options
        What is asked for.
    progress
        Told about the cells of every shard that is done.

    Raises
    ------
    ConfigError, DataError, StageError
        If the cluster, a file or the model is not as it must be; a file whose shards did not all succeed is not
        written.
    """
    progress, options = progress or Silent(), options or AnnotateOptions()
    # What can be refused before any worker starts: names of the files to write, and the stage.
    files = [Path(file).absolute() for file in files]
    check_key(options.key_added)
    targets = output_paths(files, out, overwrite=options.overwrite)
    number = open_registry(layout).record(stage).number
    annotator = ShardAnnotator(workspace=layout.root.absolute(), registry=layout.server, stage=number, options=options)
    with connect(address) as client:
        shards = cut_shards(files, worker_count(client), options)
        sizes = [shard.cells for shard in shards]
        progress.start(sum(sizes), "annotating")
        results = map_on_workers(client, annotator, shards, sizes, progress)
        progress.close()
    # Each file is written whole, or not at all.
    written = []
    for file, target in zip(files, targets, strict=True):
        parts = _parts_of(file, shards, results)
        annotation = join_annotations(parts)
        if len(parts) > 1:
            annotation = _judged_by_file(annotation, annotator, file)
        write_annotation(file, annotation, target, options.key_added)
        written.append(annotation)
    return written


def cut_shards(files: Sequence[Path], workers: int, options: AnnotateOptions) -> list[Shard]:
    """Cut files into shards, a few for each worker, or leave them whole where the options need that.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    sizes = []
    for file in files:
        with open_stream(file, gene_key=options.gene_key) as stream:
            sizes.append(len(stream))
    # Voting and adapting look at all cells of a file.
    whole = options.majority_voting or options.over_clustering is not None or options.adapting.adapt
    shards_per_cell = workers * SHARDS_PER_WORKER / max(sum(sizes), 1)
    shards = []
    for file, size in zip(files, sizes, strict=True):
        ranges = _row_ranges(size, 1 if whole else round(shards_per_cell * size))
        if len(ranges) <= 1:
            shards.append(Shard(file=file, rows=None, cells=size))
            continue
        for start, stop in ranges:
            shards.append(Shard(file=file, rows=(start, stop), cells=stop - start))
    return shards


def _row_ranges(size: int, wanted: int) -> list[tuple[int, int]]:
    """Cut rows into ranges of nearly the same size that begin where an encoder's block begins, at most as wanted."""
    blocks = -(-size // BLOCK)
    ranges = max(min(wanted, blocks), 1)
    cuts = [min(blocks * i // ranges * BLOCK, size) for i in range(ranges + 1)]
    return list(pairwise(cuts))


def _parts_of(file: Path, shards: Sequence[Shard], results: Sequence[Annotation | CanalError]) -> list[Annotation]:
    """Return the results of the shards of a file; raise the first error among them."""
    annotations = []
    for shard, result in zip(shards, results, strict=True):
        if shard.file != file:
            continue
        if isinstance(result, CanalError):
            raise result
        annotations.append(result)
    return annotations


def _judged_by_file(annotation: Annotation, annotator: ShardAnnotator, file: Path) -> Annotation:
    """Return the annotation with p-values that rest on the whole file, which no shard has seen."""
    alone = annotation.columns.get("p_value")
    # Nothing to read again for where each cell is judged by itself in any case.
    if alone is None or judged_before(alone).held_back:
        return annotation
    options = annotator.options
    model = _read_model(annotator.workspace, annotator.registry, annotator.stage)
    # The detector for the genes of the file; what it is asked for was checked by the shards.
    with open_stream(file, gene_key=options.gene_key, wanted=model.panel) as stream:
        reader = reader_of(model, stream)
        rule = choose_rule(options.novelty, reader, cells=len(stream), seed=model.stage.seed)
    novelty = annotation.columns["novelty"]
    scores = NoveltyScores(novelty=novelty, p_value=alone, alone=novelty)
    p_value = file_p_values(rule.reader, scores)
    status = verdicts(p_value, annotation.facts["alpha"])
    if "source" in annotation.columns:
        status = voted_columns(annotation.columns["source"] == VOTER, {"status": status})["status"]
    facts = {**annotation.facts, "novelty_shift": round(file_shift(rule.reader, scores), 4)}
    return replace(
        annotation,
        columns={**annotation.columns, "p_value": p_value, "status": status},
        facts=facts | novel_share(facts, status),
    )


def join_annotations(parts: Sequence[Annotation]) -> Annotation:
    """Return the annotation of a file from those of its shards, in order.

    The digest of a file that was read in shards is one over their digests: no process has read all of it.
    """
    if len(parts) == 1:
        return parts[0]
    # Facts of the whole file: each warning once, and a digest that says what it is of.
    warnings: dict[str, None] = {}
    for part in parts:
        warnings |= dict.fromkeys(part.facts["warnings"])
    digests = "".join(str(part.facts["data_digest"]) for part in parts)
    digest = f"sha256-of-{len(parts)}-parts:{hashlib.sha256(digests.encode()).hexdigest()}"
    calibration = joined_calibration([part.facts for part in parts], [len(part) for part in parts])
    columns = {}
    for name in parts[0].columns:
        columns[name] = np.concatenate([part.columns[name] for part in parts])
    facts = {**parts[0].facts, **calibration, "data_digest": digest, "warnings": list(warnings)}
    return Annotation(
        cell_names=np.concatenate([part.cell_names for part in parts]),
        cell_type=np.concatenate([part.cell_type for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        representation=np.concatenate([part.representation for part in parts]),
        facts=facts | novel_share(facts, columns.get("status")),
        columns=columns,
        probabilities=_joined_probabilities(parts),
    )


def _joined_probabilities(parts: Sequence[Annotation]) -> np.ndarray | None:
    """Return the probabilities of all types, (cells, types), where they were asked for."""
    matrices = []
    for part in parts:
        if part.probabilities is None:
            return None
        matrices.append(part.probabilities)
    return np.concatenate(matrices)
