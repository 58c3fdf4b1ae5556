"""Annotation of many files, or of parts of large ones, each by itself: what is cut, done and put together.

A part of a file is read with the scale and the genes of the whole file and begins where a block begins, so that every
cell gets the answer it gets on one machine.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from canal.data.check import open_stream
from canal.errors import CanalError, ConfigError
from canal.report.annotation import TARGETS, Annotation, check_target
from canal.stages.annotate import Model, annotate
from canal.stages.workspace import open_workspace

BLOCK = 1024  # cells that go through an encoder together, or a multiple of that: the same products, the same bits
PARTS_OF_A_WORKER = 3  # a lost part is a third of a worker's work
WHOLE = ("majority_voting", "over_clustering")  # options that look at all cells of a file together


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Rows of one file; ``rows`` is ``None`` for all of them."""

    file: Path
    rows: tuple[int, int] | None
    cells: int


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """What a worker needs to annotate a shard: where the workspace is, the stage, and the options of `annotate`."""

    workspace: Path
    registry: str | None
    stage: int
    options: Mapping[str, Any]

    def __call__(self, shard: Shard) -> Annotation | CanalError:
        """Annotate a shard; what a user can mend comes back, for trying again does not mend it."""
        try:
            model = _model(self.workspace, self.registry, self.stage)
            return annotate(model, shard.file, rows=shard.rows, **self.options)
        except CanalError as error:
            return error


@lru_cache(maxsize=2)
def _model(workspace: Path, registry: str | None, stage: int) -> Model:
    return open_workspace(workspace, registry=registry).model(stage)


def shards_of(files: Sequence[Path], workers: int, options: Mapping[str, Any]) -> list[Shard]:
    """Cut files into parts, a few for each worker, or leave them whole where the options need that.

    Raises
    ------
    DataError
        If a file cannot be read.
    """
    sizes = []
    for file in files:
        with open_stream(file, gene_key=options.get("gene_key")) as stream:
            sizes.append(len(stream))
    whole = any(options.get(name) for name in WHOLE)
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


def targets_of(files: Sequence[Path], out: Path) -> list[Path]:
    """Return where the annotation of each file goes: ``out``, or for several files one of its name in the folder.

    Raises
    ------
    ConfigError
        If two files have the same name, or ``out`` is a file's name although there are several files.
    DataError
        As `check_target`.
    """
    if len(files) == 1:
        return [check_target(out)]
    if out.suffix in TARGETS:
        message = f"{len(files)} files are annotated into a folder, and {out} is the name of a file. Name a folder."
        raise ConfigError(message)
    names = [file.name.split(".")[0] for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = (
            f"Several files are called {', '.join(twice)}; their answers would have one name in {out}. Rename one."
        )
        raise ConfigError(message)
    out.mkdir(exist_ok=True)
    return [check_target(out / f"{name}.h5ad") for name in names]
