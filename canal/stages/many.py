"""`canal annotate` of several files, here or on the workers of a Dask cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from canal.errors import CanalError
from canal.learn.progress import Progress, Silent
from canal.report.annotation import Annotation, write_annotation
from canal.stages.dask_cluster import connected, mapped, worker_count
from canal.stages.shards import Answerer, Shard, joined_answers, shards_of, targets_of
from canal.stages.workspace import Workspace


def annotate_on_dask(
    workspace: Workspace,
    files: Sequence[Path],
    address: str,
    *,
    out: Path,
    stage: int | None = None,
    key_added: str = "canal",
    progress: Progress | None = None,
    **options: Any,
) -> list[Annotation]:
    """Annotate files on the workers of a Dask cluster, and write the answers here.

    Every worker must see the files and the workspace under the same paths. A part whose worker is lost is given to
    another, and a part that fails is tried again; nothing that is done is lost.

    Parameters
    ----------
    workspace
        Where the model is.
    files, out
        Files of cells; the file to write, or a folder for several.
    address
        ``tcp://host:port`` of a scheduler, or ``local:N``.
    stage, key_added, options
        As `canal.stages.workspace.Workspace.annotate`.
    progress
        Told about the cells of every part that is done.

    Raises
    ------
    ConfigError, DataError, StageError
        If the cluster, a file or the model is not as it must be; a file whose parts did not all succeed is not written.
    """
    files = [Path(file).absolute() for file in files]
    targets, progress = targets_of(files, out), progress or Silent()
    number = workspace.stage(stage).number
    answerer = Answerer(
        workspace=workspace.root.absolute(), registry=workspace.layout.server, stage=number, options=options
    )
    with connected(address) as client:
        shards = shards_of(files, worker_count(client), options)
        progress.start(sum(shard.cells for shard in shards), "annotating")
        answers = mapped(client, answerer, shards, [shard.cells for shard in shards], progress)
        progress.close()
    return [_written(file, target, shards, answers, key_added) for file, target in zip(files, targets, strict=True)]


def annotate_here(
    annotate: Callable[..., Annotation], files: Sequence[Path], *, out: Path, **options: Any
) -> list[Annotation]:
    """Annotate files one after the other; ``out`` is a folder where there are several."""
    return [annotate(file, out=target, **options) for file, target in zip(files, targets_of(files, out), strict=True)]


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
