"""`canal stage replay`: learn all stages again from their declarations and data files, and compare every artifact."""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w

from canal.data.check import read_cells
from canal.errors import ConfigError, DataError, StageError
from canal.learn.progress import Progress, Silent
from canal.registry.record import StageRecord
from canal.stages.add import add_stage
from canal.stages.connection import open_registry
from canal.stages.declared import declared_request
from canal.stages.layout import Layout
from canal.stages.removal import remove_stage
from canal.stages.request import StageRequest

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What one declaration says.

    Attributes
    ----------
    number, name, parent
        Of the stage.
    request
        How it was learned; ``None`` where it took another stage out.
    removed
        The stage it took out.
    preset
        Every value of its preset.
    digest
        Of its cells.
    artifacts
        Digest of every file that came of it, by name.
    canal
        Version that learned it.
    """

    number: int
    name: str
    parent: int | None
    request: StageRequest | None
    removed: int | None
    preset: dict[str, Any]
    digest: str
    artifacts: dict[str, str]
    canal: str


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One stage learned again, and the files that came out different."""

    stage: int
    name: str
    canal: str
    different: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """A registry that was built again."""

    workspace: str
    stages: tuple[Replayed, ...]

    @property
    def identical(self) -> bool:
        """Tell whether every file of every stage is the same, bit for bit."""
        return not any(stage.different for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"identical": self.identical, **asdict(self)}


def replay(folder: Path, out: Path, *, progress: Progress | None = None) -> ReplayReport:
    """Build a registry again in a new workspace.

    Parameters
    ----------
    folder
        Declarations, ``NNN-name.toml``.
    out
        The new workspace; empty or not there yet.
    progress
        Told how far each training is.

    Raises
    ------
    ConfigError, StageError, DataError
        If a declaration or a data file is missing, does not fit or was changed, or the folder is not empty; nothing is
        written then.
    """
    layout = Layout(Path(out))
    if not layout.vacant:
        message = f"{out} is not empty; expected a new folder to build the registry in. Name another with --out."
        raise ConfigError(message)
    declared = read_declarations(Path(folder))
    _check_files(declared)
    layout = Layout.init(layout.root)
    stages = []
    with TemporaryDirectory(prefix="canal-replay-") as presets:
        for stage in declared:
            record = _learn(layout, stage, Path(presets), progress or Silent())
            names = sorted(set(stage.artifacts) | set(record.artifacts))
            different = tuple(n for n in names if stage.artifacts.get(n) != record.artifacts.get(n))
            stages.append(Replayed(stage=stage.number, name=stage.name, canal=stage.canal, different=different))
    return ReplayReport(workspace=str(layout.root.absolute()), stages=tuple(stages))


def read_declarations(folder: Path) -> list[Declared]:
    """Read all declarations of a folder, by number.

    Raises
    ------
    StageError
        If there is none, one does not fit, or a number is missing.
    """
    paths = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    if not paths:
        message = f"{folder} holds no declarations; expected files like 001-name.toml, as in a workspace's stages/."
        raise StageError(message)
    found = sorted((_parse(path) for path in paths), key=lambda d: d.number)
    numbers = [d.number for d in found]
    if numbers != list(range(1, len(found) + 1)):
        message = (
            f"{folder} declares the stages {', '.join(map(str, numbers))}; expected each number from 1 on once. "
            "Put the missing files back from a backup, or take out those that are there twice."
        )
        raise StageError(message)
    return found


def _parse(path: Path) -> Declared:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if table["schema"] > SCHEMA:
            message = f"{path} was written by a newer canal (schema {table['schema']}); update canal to replay it."
            raise StageError(message)
        stage, options = table["stage"], table["options"]
        number, name, seed = int(stage["number"]), str(stage["name"]), int(stage["seed"])
        removed = options.get("removed", [None])[0]
        source = table["data"][0] if removed is None else {}
        preset = str(table["preset"]["name"])
        request = None
        if removed is None:
            request = declared_request(
                number=number, name=name, seed=seed, preset=preset, source=source, options=options
            )
        return Declared(
            number=number,
            name=name,
            parent=stage.get("parent"),
            request=request and replace(request, overrides=tuple(options.get("overrides", ()))),
            removed=removed,
            preset=table["preset"],
            digest=str(source.get("digest", "")),
            artifacts=dict(table["outcome"]["artifacts"]),
            canal=str(stage["canal"]),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        message = f"{path} is not the declaration of a stage ({error!r}). Put it back from a backup."
        raise StageError(message) from error


def _check_files(declared: Sequence[Declared]) -> None:
    """Read every data file before anything is learned; name all that are missing or changed."""
    problems = [f"stage {d.number} ({d.name}): {text}" for d in declared if (text := _problem(d))]
    if problems:
        message = "The data files are not as they were declared. " + " ".join(problems) + " Put them back as they were."
        raise DataError(message)


def _problem(declared: Declared) -> str:
    request = declared.request
    if request is None:
        return ""
    try:
        cells = read_cells(
            str(request.data),
            labels=request.labels,
            label_map=request.label_map,
            gene_key=request.gene_key,
            drop_rare=request.drop_rare,
        )
    except DataError as error:
        return str(error)
    if cells.report.digest != declared.digest:
        return f"{request.data} was changed: expected {declared.digest}, found {cells.report.digest}."
    if request.test is not None and not Path(request.test).exists():
        return f"There is no file {request.test}, which it was tested on."
    return ""


def _learn(layout: Layout, declared: Declared, presets: Path, progress: Progress) -> StageRecord:
    """Learn one stage from the parent it had."""
    if declared.parent is not None:
        registry = open_registry(layout)
        if registry.champion() != declared.parent:
            registry.set_champion(declared.parent)
    if declared.removed is not None:
        remove_stage(layout, declared.removed, progress=progress)
    else:
        assert declared.request is not None
        preset = presets / f"{declared.number:03d}.toml"
        preset.write_text(tomli_w.dumps(declared.preset), encoding="utf-8")
        add_stage(layout, replace(declared.request, preset=str(preset)), progress)
    return open_registry(layout).record(declared.number)
