"""`canal stage replay`: learn all stages again from their declarations and data files, and compare every artifact."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomli_w

from canal.errors import ConfigError, DataError, StageError
from canal.files import digest_file
from canal.history.exchange import import_stage
from canal.history.relabel import rename_types
from canal.history.remove import remove_stage
from canal.model.record import StageRecord
from canal.model.voter import SUFFIX
from canal.progress import Progress, Silent
from canal.registry.package import package_digest
from canal.stages.add import add_stage
from canal.stages.declarations import Declaration, read_declarations
from canal.stages.layout import Layout, open_registry
from canal.stages.request import read_stage_cells
from canal.stages.voted import add_voter


@dataclass(frozen=True, kw_only=True)
class ReplayedStage:
    """A stage that was built again.

    Attributes
    ----------
    stage, name
        Its number and name.
    canal
        Version of canal that learned it the first time.
    different
        Names of the files that are not the same as then.
    """

    stage: int
    name: str
    canal: str
    different: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOutStage:
    """A stage that cannot be built again, and why; it has no name where its declaration is missing."""

    stage: int
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """A registry that was built again in a new workspace; the JSON of `canal stage replay`."""

    # The field names of this and of the stages are keys of that JSON and stay as they are.
    workspace: str
    stages: tuple[ReplayedStage, ...]
    left_out: tuple[LeftOutStage, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether no stage is left out and every file of every stage is the same, bit for bit."""
        return not self.left_out and not any(stage.different for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"identical": self.identical, **asdict(self)}


def replay(folder: Path, out: Path, *, progress: Progress | None = None) -> ReplayReport:
    """Build a registry again in a new workspace.

    Every stage gets the number it had. A stage that was imported comes from its export, if that lies beside the
    declarations. A stage that cannot be built again is left out, and so are the stages that were learned from it.

    Parameters
    ----------
    folder
        Declarations, ``NNN-name.toml``, and exports, ``*.canal``, or voters, ``*.voter``.
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
    # 1. What can be built again.
    declarations = read_declarations(Path(folder))
    exports = {package_digest(path): path for path in sorted(Path(folder).glob("*.canal"))}
    exports |= {digest_file(path): path for path in sorted(Path(folder).glob(f"*{SUFFIX}"))}
    left_out = _left_out_stages(declarations, exports, Path(folder))
    chosen = [declaration for declaration in declarations if declaration.number not in left_out]
    if not chosen:
        reasons = " ".join(f"Stage {number}: {stage.reason}" for number, stage in left_out.items())
        message = f"None of these stages can be built again. {reasons}"
        raise StageError(message)
    _check_data_files(chosen)
    # 2. Build it, stage by stage, and compare every file with what the declaration says of it.
    layout = Layout.init(layout.root)
    stages = []
    with TemporaryDirectory(prefix="canal-replay-") as presets:
        for declaration in chosen:
            record = _build(layout, declaration, exports, Path(presets), progress or Silent())
            declared, built = declaration.artifacts, record.artifacts
            stage = ReplayedStage(
                stage=declaration.number,
                name=declaration.name,
                canal=declaration.canal,
                different=tuple(name for name in sorted({*declared, *built}) if declared.get(name) != built.get(name)),
            )
            stages.append(stage)
    return ReplayReport(workspace=str(layout.root.absolute()), stages=tuple(stages), left_out=tuple(left_out.values()))


def _left_out_stages(
    declarations: Sequence[Declaration], exports: Mapping[str, Path], folder: Path
) -> dict[int, LeftOutStage]:
    """Return the stages that cannot be built again, by number, ascending."""
    by_number = {declaration.number: declaration for declaration in declarations}
    left_out: dict[int, LeftOutStage] = {}
    # Every number up to the last: a gap is a stage whose declaration is missing. Parents come before their children.
    for number in range(1, max(by_number) + 1):
        declaration = by_number.get(number)
        if declaration is None:
            name = ""
            reason = f"{folder} holds no declaration of it. Put the file back, if there was such a stage."
        else:
            name = declaration.name
            reason = _reason_to_leave_out(declaration, exports, folder, left_out)
        if reason:
            left_out[number] = LeftOutStage(stage=number, name=name, reason=reason)
    return left_out


def _reason_to_leave_out(
    declaration: Declaration, exports: Mapping[str, Path], folder: Path, left_out: Mapping[int, LeftOutStage]
) -> str:
    """Return why a stage cannot be built again; empty where it can."""
    if declaration.reason:
        return declaration.reason
    if declaration.imported is not None and declaration.imported not in exports:
        return (
            f"It was imported, and no export in {folder} is the one with {declaration.imported}. "
            "Put that file there; `canal registry export` writes it anew where the stage came from, "
            "`canal models import-celltypist` a voter."
        )
    if declaration.parent in left_out:
        return f"It was learned from stage {declaration.parent}, which is left out."
    return ""


def _check_data_files(declarations: Sequence[Declaration]) -> None:
    """Read every data file before anything is learned; name all that are missing or changed."""
    problems = []
    for declaration in declarations:
        problem = _data_file_problem(declaration)
        if problem:
            problems.append(f"stage {declaration.number} ({declaration.name}): {problem}")
    if problems:
        message = "The data files are not as they were declared. " + " ".join(problems) + " Put them back as they were."
        raise DataError(message)


def _data_file_problem(declaration: Declaration) -> str:
    """Return what is wrong with the files a stage was learned from and tested on; empty where nothing is."""
    request = declaration.request
    if request is None:
        return ""
    try:
        cells = read_stage_cells(request)
    except DataError as error:
        return str(error)
    if cells.report.digest != declaration.digest:
        return f"{request.data} was changed: expected {declaration.digest}, found {cells.report.digest}."
    if request.test is not None and not Path(request.test).exists():
        return f"There is no file {request.test}, which it was tested on."
    return ""


def _build(
    layout: Layout, declaration: Declaration, exports: Mapping[str, Path], presets: Path, progress: Progress
) -> StageRecord:
    """Build one stage from the parent it had, under the number it had."""
    number = declaration.number
    # 1. A stage that was imported.
    if declaration.imported is not None:
        source = exports[declaration.imported]
        if source.suffix == SUFFIX:
            return add_voter(layout, source, number=number)
        return import_stage(layout, source, declaration.name, number=number)[0]
    # 2. What is learned comes from the stage in use: that must be the parent it had.
    if declaration.parent is not None:
        registry = open_registry(layout)
        if registry.champion() != declaration.parent:
            registry.set_champion(declaration.parent)
    # 3. A stage that took another one out, one that renamed types, or one that was learned from cells.
    if declaration.removed is not None:
        remove_stage(layout, declaration.removed, number=number, progress=progress)
    elif declaration.renamed is not None:
        rename_types(layout, declaration.renamed, number=number, progress=progress)
    else:
        assert declaration.request is not None
        # The preset as it was then: the one of that name may have changed.
        preset = presets / f"{number:03d}.toml"
        preset.write_text(tomli_w.dumps(declaration.preset), encoding="utf-8")
        add_stage(layout, replace(declaration.request, preset=str(preset)), progress, number=number)
    return open_registry(layout).record(number)
