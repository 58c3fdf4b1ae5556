"""What a benchmark runs on: a declared stream of stages, each with cells to learn and cells to be tested on."""

import hashlib
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.errors import ConfigError
from canal.seeds import numpy_generator
from canal.training.batches import stratified_split

DEMO = "demo"
HELD_OUT = 0.2


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CellFile(_Frozen):
    """One file of labelled cells.

    Attributes
    ----------
    name
        As in the table.
    data
        The file; in a declaration relative to it.
    labels, label_map, gene_key, drop_rare
        As for `canal stage add`.
    """

    name: str = Field(min_length=1)
    data: Path
    labels: str
    label_map: Path | None = None
    gene_key: str | None = None
    drop_rare: bool = False


class StreamStage(CellFile):
    """One stage: cells to learn, and the file it is tested on; a fifth of its own cells where there is none."""

    test: Path | None = None


class Stream(_Frozen):
    """A stream of stages.

    Attributes
    ----------
    name
        Of the stream.
    stages
        In the order they are declared in.
    tests
        Files that no stage teaches, tested after the last stage on the types that were taught.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: str = Field(min_length=1)
    stages: Annotated[tuple[StreamStage, ...], Field(alias="stage", min_length=1)]
    tests: Annotated[tuple[CellFile, ...], Field(alias="test")] = ()


def read_stream(source: str, scratch: Path) -> Stream:
    """Read a stream.

    Parameters
    ----------
    source
        A TOML file, a folder of stage declarations (``stages/NNN-name.toml``), or ``demo``, scanpy's 700 blood cells.
    scratch
        Folder for the files of the demonstration.

    Raises
    ------
    ConfigError
        If it is none of these, or a file that it names is missing.
    """
    path = Path(source)
    if source == DEMO:
        stream = _demo(scratch)
    elif path.is_dir():
        stream = _declared(path)
    elif path.is_file():
        stream = _from_toml(path)
    else:
        message = (
            f"There is no stream {source}. Expected a TOML file that lists stages (docs/benchmark.md shows one), a "
            f"folder of stage declarations, or {DEMO!r}."
        )
        raise ConfigError(message)
    missing = [str(p) for p in _paths(stream) if not p.exists()]
    if missing:
        message = f"The stream {source} names files that are not there: {', '.join(missing)}. Mend the paths."
        raise ConfigError(message)
    return stream


def stages_in(source: str) -> int:
    """Return the number of stages of a stream."""
    with tempfile.TemporaryDirectory(prefix="canal-benchmark-") as scratch:
        return len(read_stream(source, Path(scratch)).stages)


def _from_toml(path: Path) -> Stream:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not valid TOML: {error}. docs/benchmark.md shows a stream."
        raise ConfigError(message) from error
    common = table.pop("labels", None)
    table.setdefault("name", path.stem)
    for entry in [*_tables(table, "stage"), *_tables(table, "test")]:
        if common is not None:
            entry.setdefault("labels", common)
        for key in ("data", "test", "label_map"):
            value = entry.get(key)
            if isinstance(value, str):
                entry[key] = path.parent / value
        data = entry.get("data")
        if isinstance(data, Path):
            entry.setdefault("name", data.name.split(".")[0])
    try:
        return Stream.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg'].lower()}" for p in error.errors())
        message = f"{path} does not fit: {problems}. docs/benchmark.md shows a stream."
        raise ConfigError(message) from error


def _tables(table: dict[str, object], key: str) -> list[dict[str, object]]:
    entries = table.get(key, [])
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _declared(folder: Path) -> Stream:
    from canal.stages.declarations import read_declarations

    requests = [d.request for d in read_declarations(folder) if d.request is not None]
    stages = [
        StreamStage(
            name=r.name or Path(str(r.data)).name.split(".")[0], data=Path(str(r.data)), labels=r.labels,
            label_map=r.label_map, gene_key=r.gene_key, drop_rare=r.drop_rare,
            test=None if r.test is None else Path(str(r.test)),
        )
        for r in requests
    ]  # fmt: skip
    return Stream(name=folder.resolve().name, stage=tuple(stages))  # type: ignore[call-arg]


def _demo(folder: Path) -> Stream:
    from canal.data.example_cells import LABELS, STAGES, write_cells

    cells = write_cells(folder / "demo", seed=0)
    stages = [
        StreamStage(name=name, data=data, test=test, labels=LABELS)
        for name, data, test in zip(STAGES, cells.train, cells.test, strict=True)
    ]
    return Stream(name=DEMO, stage=tuple(stages))  # type: ignore[call-arg]


def _paths(stream: Stream) -> list[Path]:
    found = [p for s in (*stream.stages, *stream.tests) for p in (s.data, s.label_map)]
    return [p for p in (*found, *(s.test for s in stream.stages)) if p is not None]


@dataclass(frozen=True)
class StageCells:
    """Cells of a stage to learn, and to be tested on."""

    train: Cells
    test: Cells


def read_stage(stage: StreamStage) -> StageCells:
    """Read the cells of a stage; without a test file a fifth of each type is held out, always the same cells."""
    train = _read(stage, stage.data, keep_rare=False)
    if stage.test is not None:
        return StageCells(train, _read(stage, stage.test, keep_rare=True))
    assert train.labels is not None
    rows, held = stratified_split(train.labels, HELD_OUT, numpy_generator(0, "benchmark held-out"))
    return StageCells(train.take(rows), train.take(held))


def read_test(test: CellFile) -> Cells:
    """Read the cells of a file that is only tested on."""
    return _read(test, test.data, keep_rare=True)


def _read(file: CellFile, path: Path, *, keep_rare: bool) -> Cells:
    labels = LabelOptions(
        column=file.labels,
        label_map=file.label_map,
        drop_rare=file.drop_rare,
        keep_rare=keep_rare and not file.drop_rare,
    )
    return read_cells(path, labels=labels, gene_key=file.gene_key)


def stream_digest(stream: Stream) -> str:
    """Return a digest of the stream: what is declared and the content of every file, wherever they lie."""
    whole = hashlib.sha256()
    for file in (*stream.stages, *stream.tests):
        plain = file.model_dump(mode="json", exclude={"data", "test", "label_map", "name"})
        whole.update(repr(sorted(plain.items())).encode())
        for path in (file.data, file.label_map, getattr(file, "test", None)):
            whole.update(b"-" if path is None else _content(path))
    return f"sha256:{whole.hexdigest()}"


def _content(path: Path) -> bytes:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.digest()


def types_of(cells: list[Cells]) -> tuple[str, ...]:
    """Return all types of some labelled cells."""
    return tuple(sorted({str(t) for c in cells if c.labels is not None for t in np.unique(c.labels.astype(str))}))
