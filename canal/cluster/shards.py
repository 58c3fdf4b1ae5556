"""Annotation of many files, or of parts of large ones, each by itself: what is cut, done and put together.

A part of a file is read with the scale and the genes of the whole file and begins where a block begins, so that every
cell gets the answer it gets on one machine.

`canal annotate` of several files, here or on the workers of a Dask cluster.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from canal.cluster.dask_cluster import connected, mapped, worker_count
from canal.data.stream import open_stream
from canal.errors import CanalError
from canal.model.model import Model
from canal.progress import Progress, Silent
from canal.report.annotation import Annotation, write_annotation
from canal.stages.annotate import AnnotateOptions, annotate, output_paths
from canal.stages.layout import Layout, open_registry

BLOCK = 1024  # cells that go through an encoder together, or a multiple of that: the same products, the same bits
PARTS_OF_A_WORKER = 3  # a lost part is a third of a worker's work


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Rows of one file; ``rows`` is ``None`` for all of them."""

    file: Path
    rows: tuple[int, int] | None
    cells: int


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """What a worker needs to annotate a shard: where the workspace is, the stage, and what is asked for."""

    workspace: Path
    registry: str | None
    stage: int
    options: AnnotateOptions

    def __call__(self, shard: Shard) -> Annotation | CanalError:
        """Annotate a shard; what a user can mend comes back, for trying again does not mend it."""
        try:
            model = _model(self.workspace, self.registry, self.stage)
            return annotate(model, shard.file, replace(self.options, rows=shard.rows))
        except CanalError as error:
            return error


@lru_cache(maxsize=2)
def _model(workspace: Path, registry: str | None, stage: int) -> Model:
    layout = Layout.find(workspace, registry)
    registered = open_registry(layout.require())
    return registered.model(registered.record(stage))


def shards_of(files: Sequence[Path], workers: int, options: AnnotateOptions) -> list[Shard]:
    """Cut files into parts, a few for each worker, or leave them whole where the options need that.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    sizes = []
    for file in files:
        with open_stream(file, gene_key=options.gene_key) as stream:
            sizes.append(len(stream))
    whole = options.majority_voting or options.over_clustering is not None  # they look at all cells of a file
    wanted = workers * PARTS_OF_A_WORKER / max(sum(sizes), 1)
    return [
        Shard(file=file, rows=rows, cells=size if rows is None else rows[1] - rows[0])
        for file, size in zip(files, sizes, strict=True)
        for rows in _parts(size, 1 if whole else round(wanted * size))
    ]


def _parts(size: int, wanted: int) -> list[tuple[int, int] | None]:
    """Cut rows into parts of nearly the same size that begin where an encoder's block begins."""
    blocks = -(-size // BLOCK)
    parts = min(wanted, blocks)
    if parts <= 1:
        return [None]
    cuts = [min(blocks * part // parts * BLOCK, size) for part in range(parts + 1)]
    return list(pairwise(cuts))


def joined_answers(parts: Sequence[Annotation]) -> Annotation:
    """Return the annotation of a file from those of its parts, in order.

    The digest of a file that was read in parts is one over the digests of the parts: no process has read all of it.
    """
    if len(parts) == 1:
        return parts[0]
    warnings = list(dict.fromkeys(w for part in parts for w in part.facts["warnings"]))
    digests = "".join(str(part.facts["data_digest"]) for part in parts)
    digest = f"sha256-of-{len(parts)}-parts:{hashlib.sha256(digests.encode()).hexdigest()}"
    return Annotation(
        cell_names=np.concatenate([part.cell_names for part in parts]),
        cell_type=np.concatenate([part.cell_type for part in parts]),
        confidence=np.concatenate([part.confidence for part in parts]),
        representation=np.concatenate([part.representation for part in parts]),
        facts={**parts[0].facts, "data_digest": digest, "warnings": warnings},
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
    )


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
    """Annotate files on the workers of a Dask cluster, and write the answers here.

    Every worker must see the files and the workspace under the same paths. A part whose worker is lost is given to
    another, and a part that fails is tried again; nothing that is done is lost.

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
        Told about the cells of every part that is done.

    Raises
    ------
    ConfigError, DataError, StageError
        If the cluster, a file or the model is not as it must be; a file whose parts did not all succeed is not written.
    """
    files = [Path(file).absolute() for file in files]
    targets, progress, options = output_paths(files, out), progress or Silent(), options or AnnotateOptions()
    number = open_registry(layout).record(stage).number
    answerer = Answerer(workspace=layout.root.absolute(), registry=layout.server, stage=number, options=options)
    with connected(address) as client:
        shards = shards_of(files, worker_count(client), options)
        progress.start(sum(shard.cells for shard in shards), "annotating")
        answers = mapped(client, answerer, shards, [shard.cells for shard in shards], progress)
        progress.close()
    return [
        _written(file, target, shards, answers, options.key_added) for file, target in zip(files, targets, strict=True)
    ]


def _written(
    file: Path, target: Path, shards: Sequence[Shard], answers: Sequence[Annotation | CanalError], key: str
) -> Annotation:
    parts = []
    for shard, answer in zip(shards, answers, strict=True):
        if shard.file != file:
            continue
        if isinstance(answer, CanalError):
            raise answer
        parts.append(answer)
    annotation = joined_answers(parts)
    write_annotation(file, annotation, target, key)
    return annotation
