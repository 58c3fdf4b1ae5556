"""The stream of a benchmark: declared stages, each with cells to learn and cells to be tested on."""

import hashlib
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.stream import read_cells
from canal.errors import ConfigError
from canal.seeds import numpy_generator
from canal.training.splits import stratified_split

DEMO = "demo"
HELD_OUT_SHARE = 0.2  # of each type of a stage without a test file, as `canal stage add` holds out


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CellFile(_Frozen):
    """One file of labelled cells.

    Attributes
    ----------
    name
        Name in the table.
    data
        The file; a relative path in a declaration starts from the declaration.
    labels, label_map, gene_key, drop_rare, drop_labels, keep_labels
        As for `canal stage add`.
    """

    name: str = Field(min_length=1)
    data: Path
    labels: str
    label_map: Path | dict[str, str] | None = None
    gene_key: str | None = None
    drop_rare: bool = False
    drop_labels: tuple[str, ...] = ()
    keep_labels: tuple[str, ...] = ()


class StreamStage(CellFile):
    """One stage: cells to learn, and the file it is tested on; without one a fifth of its cells is held out."""

    test: Path | None = None


class Stream(_Frozen):
    """A stream of stages.

    Attributes
    ----------
    name
        Name of the stream.
    stages
        The stages, in the order of the declaration.
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
    # Which of the three kinds it is.
    path = Path(source)
    if source == DEMO:
        stream = _demo_stream(scratch)
    elif path.is_dir():
        stream = _declared_stream(path)
    elif path.is_file():
        stream = _toml_stream(path)
    else:
        message = (
            f"There is no stream {source}. Expected a TOML file that lists stages (docs/benchmark.md shows one), a "
            f"folder of stage declarations, or {DEMO!r}."
        )
        raise ConfigError(message)
    # All missing files are named at once.
    missing = [str(file) for file in _named_files(stream) if not file.exists()]
    if missing:
        message = f"The stream {source} names files that are not there: {', '.join(missing)}. Mend the paths."
        raise ConfigError(message)
    return stream


def count_stages(source: str) -> int:
    """Return the number of stages of a stream."""
    with tempfile.TemporaryDirectory(prefix="canal-benchmark-") as scratch:
        return len(read_stream(source, Path(scratch)).stages)


def _toml_stream(path: Path) -> Stream:
    """Read a declared stream; labels and names are filled in, relative paths start from the declaration."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not valid TOML: {error}. docs/benchmark.md shows a stream."
        raise ConfigError(message) from error
    table.setdefault("name", path.stem)
    labels = table.pop("labels", None)
    for entry in [*_entries(table, "stage"), *_entries(table, "test")]:
        _fill_in(entry, path.parent, labels)
    # Unknown keys and values that do not fit are named as in the file.
    try:
        return Stream.model_validate(table)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors()]
        message = f"{path} does not fit: {'; '.join(problems)}. docs/benchmark.md shows a stream."
        raise ConfigError(message) from error


def _entries(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the tables of an array; what is none of these is left to the check against the model."""
    entries = table.get(key, [])
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict)]


def _fill_in(entry: dict[str, Any], folder: Path, labels: Any) -> None:
    """Fill in what a declared file leaves to the declaration: column of the labels, folder, name."""
    if labels is not None:
        entry.setdefault("labels", labels)
    for key in ("data", "test", "label_map"):
        if isinstance(entry.get(key), str):
            entry[key] = folder / entry[key]
    if isinstance(entry.get("data"), Path):
        entry.setdefault("name", entry["data"].name.split(".")[0])


def _declared_stream(folder: Path) -> Stream:
    """Return the stream of a folder of stage declarations."""
    from canal.stages.declarations import read_declarations

    stages = []
    for declaration in read_declarations(folder):
        request = declaration.request
        if request is None:
            continue
        data = Path(str(request.data))
        stages.append(
            StreamStage(
                name=request.name or data.name.split(".")[0],
                data=data,
                labels=request.labels,
                label_map=_path_or_names(request.label_map),
                gene_key=request.gene_key,
                drop_rare=request.drop_rare,
                drop_labels=tuple(request.drop_labels),
                keep_labels=tuple(request.keep_labels),
                test=None if request.test is None else Path(str(request.test)),
            )
        )
    return Stream(name=folder.resolve().name, stage=tuple(stages))  # type: ignore[call-arg]


def _path_or_names(label_map: Path | Mapping[str, str] | None) -> Path | dict[str, str] | None:
    return label_map if label_map is None or isinstance(label_map, Path) else dict(label_map)


def _demo_stream(folder: Path) -> Stream:
    """Write scanpy's blood cells and return the stream of their stages."""
    from canal.data.example_cells import LABELS, STAGES, write_cells

    cells = write_cells(folder / "demo", seed=0)
    stages = []
    for name, data, test in zip(STAGES, cells.train, cells.test, strict=True):
        stages.append(StreamStage(name=name, data=data, test=test, labels=LABELS))
    return Stream(name=DEMO, stage=tuple(stages))  # type: ignore[call-arg]


def _named_files(stream: Stream) -> list[Path]:
    """Return every file that a stream names."""
    files = []
    for file in (*stream.stages, *stream.tests):
        files.append(file.data)
        if isinstance(file.label_map, Path):
            files.append(file.label_map)
    for stage in stream.stages:
        if stage.test is not None:
            files.append(stage.test)
    return files


@dataclass(frozen=True)
class StageCells:
    """Cells of a stage to learn, and to be tested on."""

    train: Cells
    test: Cells


def read_stage(stage: StreamStage) -> StageCells:
    """Read the cells of a stage; without a test file a fifth of each type is held out, always the same cells."""
    train = _read_labelled(stage, stage.data, keep_rare=False)
    if stage.test is not None:
        return StageCells(train, _read_labelled(stage, stage.test, keep_rare=True))
    assert train.labels is not None
    rows, held_out = stratified_split(train.labels, HELD_OUT_SHARE, numpy_generator(0, "benchmark held-out"))
    return StageCells(train.take(rows), train.take(held_out))


def read_test(test: CellFile) -> Cells:
    """Read the cells of a file that is only tested on."""
    return _read_labelled(test, test.data, keep_rare=True)


def _read_labelled(file: CellFile, path: Path, *, keep_rare: bool) -> Cells:
    labels = LabelOptions(
        column=file.labels,
        label_map=file.label_map,
        drop=file.drop_labels,
        keep=file.keep_labels,
        drop_rare=file.drop_rare,
        keep_rare=keep_rare and not file.drop_rare,
    )
    return read_cells(path, labels=labels, gene_key=file.gene_key)


def stream_digest(stream: Stream) -> str:
    """Return a digest of the stream: what is declared and the content of every file, whatever its path."""
    whole = hashlib.sha256()
    for file in (*stream.stages, *stream.tests):
        declared = file.model_dump(mode="json", exclude={"data", "test", "label_map", "name"})
        # Only where they say something: streams that were declared before these keys keep their digest.
        for key in ("drop_labels", "keep_labels"):
            if not declared[key]:
                del declared[key]
        whole.update(repr(sorted(declared.items())).encode())
        for part in (file.data, file.label_map, getattr(file, "test", None)):
            if isinstance(part, dict):
                whole.update(repr(sorted(part.items())).encode())
            else:
                whole.update(b"-" if part is None else _content_digest(part))
    return f"sha256:{whole.hexdigest()}"


def _content_digest(path: Path) -> bytes:
    """Return the digest of a file, or of all files below a folder."""
    files = [path]
    if path.is_dir():
        files = sorted(below for below in path.rglob("*") if below.is_file())
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.digest()
