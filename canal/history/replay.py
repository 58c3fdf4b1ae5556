"""`canal stage replay`: learn all stages again from their declarations and data files, and compare every artifact."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w

from canal.errors import ConfigError, DataError, StageError
from canal.history.exchange import import_stage
from canal.history.remove import remove_stage
from canal.model.record import StageRecord
from canal.progress import Progress, Silent
from canal.registry.package import package_digest
from canal.stages.add import add_stage
from canal.stages.declarations import Declared, read_declarations
from canal.stages.layout import Layout, open_registry
from canal.stages.request import cells_of


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One stage learned again, and the files that came out different."""

    stage: int
    name: str
    canal: str
    different: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One stage that could not be built again, and why; it has no name where its declaration is missing."""

    stage: int
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """A registry that was built again."""

    workspace: str
    stages: tuple[Replayed, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def identical(self) -> bool:
        """Tell whether no stage is left out, and every file of every stage is the same, bit for bit."""
        return not self.left_out and not any(stage.different for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"identical": self.identical, **asdict(self)}


def replay(folder: Path, out: Path, *, progress: Progress | None = None) -> ReplayReport:
    """Build a registry again in a new workspace.

    Every stage gets the number it had. A stage that was imported comes from its export, if that lies beside the
    declarations. What cannot be built again is left out, and so is what was learned from it.

    Parameters
    ----------
    folder
        Declarations, ``NNN-name.toml``, and exports, ``*.canal``.
    out
        The new workspace; empty or not there yet.
    progress
        Told how far each training is.

    Raises
    ------
    ConfigError, StageError, DataError
        If a declaration does not fit, a data file is missing or was changed, nothing at all can be built, or the
        folder is not empty; nothing is written then.
    """
    layout = Layout(Path(out))
    if not layout.vacant:
        message = f"{out} is not empty; expected a new folder to build the registry in. Name another with --out."
        raise ConfigError(message)
    declared = read_declarations(Path(folder))
    exports = {package_digest(path): path for path in sorted(Path(folder).glob("*.canal"))}
    left_out = _left_out(declared, exports, Path(folder))
    gone = {stage.stage for stage in left_out}
    chosen = [stage for stage in declared if stage.number not in gone]
    if not chosen:
        message = "None of these stages can be built again. " + " ".join(
            f"Stage {s.stage}: {s.reason}" for s in left_out
        )
        raise StageError(message)
    _check_files(chosen)
    layout = Layout.init(layout.root)
    stages = []
    with TemporaryDirectory(prefix="canal-replay-") as presets:
        for stage in chosen:
            record = _learn(layout, stage, exports, Path(presets), progress or Silent())
            names = sorted(set(stage.artifacts) | set(record.artifacts))
            different = tuple(n for n in names if stage.artifacts.get(n) != record.artifacts.get(n))
            stages.append(Replayed(stage=stage.number, name=stage.name, canal=stage.canal, different=different))
    return ReplayReport(workspace=str(layout.root.absolute()), stages=tuple(stages), left_out=tuple(left_out))


def _left_out(declared: Sequence[Declared], exports: Mapping[str, Path], folder: Path) -> list[LeftOut]:
    """Return what cannot be built again, by number."""
    by_number = {stage.number: stage for stage in declared}
    found: dict[int, LeftOut] = {}
    for number in range(1, max(by_number) + 1):
        stage = by_number.get(number)
        name = "" if stage is None else stage.name
        if stage is None:
            reason = f"{folder} holds no declaration of it. Put the file back, if there was such a stage."
        else:
            reason = stage.reason or _no_export(stage, exports, folder) or _no_parent(stage, found)
        if reason:
            found[number] = LeftOut(stage=number, name=name, reason=reason)
    return list(found.values())


def _no_export(stage: Declared, exports: Mapping[str, Path], folder: Path) -> str:
    if stage.imported is None or stage.imported in exports:
        return ""
    return (
        f"It was imported, and no export in {folder} is the one with {stage.imported}. "
        "Put that file there; `canal registry export` writes it anew where the stage came from."
    )


def _no_parent(stage: Declared, left_out: Mapping[int, LeftOut]) -> str:
    return f"It was learned from stage {stage.parent}, which is left out." if stage.parent in left_out else ""


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
        cells = cells_of(request)
    except DataError as error:
        return str(error)
    if cells.report.digest != declared.digest:
        return f"{request.data} was changed: expected {declared.digest}, found {cells.report.digest}."
    if request.test is not None and not Path(request.test).exists():
        return f"There is no file {request.test}, which it was tested on."
    return ""


def _learn(
    layout: Layout, declared: Declared, exports: Mapping[str, Path], presets: Path, progress: Progress
) -> StageRecord:
    """Learn one stage from the parent it had, under the number it had."""
    number = declared.number
    if declared.imported is not None:
        return import_stage(layout, exports[declared.imported], declared.name, number=number)[0]
    if declared.parent is not None:
        registry = open_registry(layout)
        if registry.champion() != declared.parent:
            registry.set_champion(declared.parent)
    if declared.removed is not None:
        remove_stage(layout, declared.removed, number=number, progress=progress)
    else:
        assert declared.request is not None
        preset = presets / f"{number:03d}.toml"
        preset.write_text(tomli_w.dumps(declared.preset), encoding="utf-8")
        add_stage(layout, replace(declared.request, preset=str(preset)), progress, number=number)
    return open_registry(layout).record(number)
