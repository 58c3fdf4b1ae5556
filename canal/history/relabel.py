"""`canal labels rename` and `merge`: a new stage whose types have other names. No stage is changed.

Renamed, a model is the same to the bit but for the names. Of types that become one the statistics are added, exactly
where they come from different stages; cells of the example bank change their label; the network gets one row in place
of theirs, the mean by cells, and is trained on the bank and on pseudo-cells until it answers by it. Calibrations stay.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from canal.config import dump_preset
from canal.errors import StageError
from canal.files import short_digest
from canal.history.remove import FEWEST_TYPES
from canal.model.bank import bank_contents, bank_digest
from canal.model.model import Model
from canal.model.network import Network, new_network, weights_of
from canal.model.record import RENAMED, StageRecord
from canal.model.stage_keys import free_key, key_note
from canal.progress import Progress, Silent
from canal.stages.layout import Layout, open_registry
from canal.stages.placing import ONTOLOGY, placement_of
from canal.stages.testing.tests import (
    EarlierStage,
    StageTests,
    accuracy_changes,
    earlier_stages,
    figures_for_record,
    finite_history,
    measure_earlier_stages,
    reason_to_hold_back,
    untested_warning,
)
from canal.stages.use import next_number
from canal.training.fitting import NetworkSpec, fit_network
from canal.training.run import Run


@dataclass(frozen=True, kw_only=True)
class RenamingResult:
    """The outcome of a renaming that was committed; the JSON of `canal labels rename` and `merge`."""

    # The field names are the keys of that JSON and stay as they are.

    stage: int
    name: str
    version: int
    parent: int
    renamed: dict[str, str]
    types: tuple[str, ...]
    champion: bool
    metrics: dict[str, float]
    tested: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def rename_type(layout: Layout, old: str, new: str, *, progress: Progress | None = None) -> RenamingResult:
    """Commit a new stage in which a type has another name; see `rename_types`."""
    if new in open_registry(layout).record().types and new != old:
        message = (
            f"{new!r} is a type already, beside {old!r}. To make one type of the two: canal labels merge {old!r} "
            f"{new!r} --into {new!r}"
        )
        raise StageError(message)
    return rename_types(layout, {old: new}, progress=progress)


def merge_types(
    layout: Layout, merged: Sequence[str], into: str, *, progress: Progress | None = None
) -> RenamingResult:
    """Commit a new stage in which several types are one; see `rename_types`.

    Raises
    ------
    StageError
        If a type is named twice, fewer than two are, or the name they get is that of another type.
    """
    twice = sorted({name for name in merged if list(merged).count(name) > 1})
    if twice or len(merged) < 2:
        given = ", ".join(map(repr, merged)) or "none"
        reason = f"{twice[0]!r} cannot be merged with itself" if twice else "there is nothing to merge with"
        message = f"{reason}: found {given}; expected two different types or more."
        raise StageError(message[0].upper() + message[1:])
    return rename_types(layout, dict.fromkeys(merged, into), progress=progress)


def rename_types(
    layout: Layout, names: Mapping[str, str], *, number: int | None = None, progress: Progress | None = None
) -> RenamingResult:
    """Commit a new stage whose types have other names; types that get the same name become one.

    The new stage comes into use by the same rule as one of `canal stage add`.

    Parameters
    ----------
    layout
        The workspace.
    names
        New name by old name.
    number
        Number of the new stage; the next free one by default. Only a replay, whose numbers may have gaps, names one.
    progress
        Told how far the training is.

    Raises
    ------
    StageError, RegistryError
        If a type is not known, the new name is that of a type which stays, or too few types would be left; nothing is
        written then.
    """
    begin = time.monotonic()
    progress = progress or Silent()
    with open_registry(layout).writing() as registry:
        # 1. Refuse what cannot be renamed.
        records = registry.records()
        parent = registry.model(registry.record())
        names = {old.strip(): new.strip() for old, new in names.items()}
        _refuse_renaming(parent.types, names)
        # 2. The model under the new names; its network is trained only where types became one.
        draft = registry.draft(_training_key(parent.stage, names))
        draft.clear()
        new = next_number(records) if number is None else number
        run = Run(number=new, seed=parent.stage.seed, progress=progress, draft=draft)
        model, history = renamed_model(parent, names, run)
        # 3. Test as a stage that is added: the held-out cells have the new names, too. What the model in use answered
        # on them was kept under the old ones.
        earlier = _under_new_names(earlier_stages(registry, records, parent.stage), names)
        outcomes, earlier = measure_earlier_stages(model, None, earlier, progress)
        tests = StageTests(own=None, outcomes=tuple(outcomes), history=finite_history(history))
        changes = accuracy_changes(outcomes, earlier)
        held_back = reason_to_hold_back(new, parent.stage.number, changes, parent.preset.promotion)
        # 4. Commit whole. A stage that forgets too much stays a candidate.
        record = _record(run, parent, model, names, figures_for_record(new, tests, earlier))
        places = placement_of(layout, parent.stage).renamed(names)
        notes = record.notes | {"held_back": held_back or None, "epochs": len(history)}
        if any(name in model.types for name in places.places):
            notes[ONTOLOGY] = places.to_dict()
        record = record.with_fields(notes=notes, seconds=round(time.monotonic() - begin, 3))
        files = model.save(draft.folder) | tests.write(draft.folder)
        committed = draft.commit(record, files, promote=not held_back)
    return RenamingResult(
        stage=new,
        name=committed.name,
        version=committed.version,
        parent=parent.stage.number,
        renamed=dict(names),
        types=committed.types,
        champion=not held_back,
        metrics=committed.metrics,
        tested=tuple(asdict(change) for change in changes),
        warnings=tuple(text for text in (held_back, untested_warning(changes)) if text),
        seconds=committed.seconds,
    )


def _refuse_renaming(types: Sequence[str], names: Mapping[str, str]) -> None:
    """Refuse names that are no types, a new name that is none or another type's, and what would leave one type."""
    known = ", ".join(types)
    unknown = [name for name in names if name not in types]
    taken = sorted({new for new in names.values() if new in types and new not in names})
    left = {names.get(name, name) for name in types}
    if unknown:
        message = f"The model in use knows no type {unknown[0]!r}. Its types: {known}."
    elif any(not new for new in names.values()):
        message = "The new name is empty; expected the name of a cell type."
    elif all(old == new for old, new in names.items()):
        message = f"{next(iter(names))!r} has this name already. Give another one."
    elif taken:
        message = (
            f"{taken[0]!r} is another type of the model. Name it among those to merge, or choose another name. Types: "
            f"{known}."
        )
    elif len(left) < FEWEST_TYPES:
        message = f"One type would be left ({', '.join(left)}); a model needs {FEWEST_TYPES} at least to tell apart."
    else:
        return
    raise StageError(message)


def _training_key(parent: StageRecord, names: Mapping[str, str]) -> str:
    """Return the name of the working folder: a digest of all that decides the outcome."""
    inputs = [parent.artifacts, dict(names)]
    return "renamed-" + short_digest(inputs)


def renamed_model(parent: Model, names: Mapping[str, str], run: Run) -> tuple[Model, list[dict[str, float]]]:
    """Return a model under new names of types, and the figures of each epoch of its training, where there was one.

    Parameters
    ----------
    parent
        The model under the old names.
    names
        New name by old name; types that get the same name become one, in the place of the first.
    run
        Number of the new stage, its seed, and who is told of the progress.
    """
    # 1. What has names: types, statistics, examples. Calibrations have none.
    types = tuple(dict.fromkeys(names.get(name, name) for name in parent.types))
    memory = parent.memory
    if memory is not None:
        memory = memory.renamed(names, rank=parent.preset.analytic.rank)
    labels = np.array([names.get(name, name) for name in parent.bank.labels.tolist()], dtype=object)
    base = replace(parent, types=types, memory=memory, bank=replace(parent.bank, labels=labels), record=None)
    if parent.split:
        base = replace(base, split=_renamed_split(parent.split, names))
    if parent.sure is not None:
        base = replace(base, sure=parent.sure.renamed(names))
    if parent.voter is not None:
        base = replace(base, voter=parent.voter.with_names(names))
    # 2. The same number of types: the network's rows are theirs as they stand.
    if len(types) == len(parent.types):
        return base, []
    # 3. Types became one: their rows are joined, and the network learns to answer by the one.
    network = _joined_rows(parent, types, names)
    base = replace(base, weights=weights_of(network))
    if not len(base.bank) and (memory is None or not parent.preset.analytic.pseudo_cells):
        return base, []  # nothing to train on; the joined rows answer
    run = replace(run, key=free_key(run.number, parent))
    goal = NetworkSpec(preset=base.preset, panel=base.panel, types=types)
    history = fit_network(network, base, base.bank, np.zeros(0, dtype=np.int64), goal, run).history
    return replace(base, weights=weights_of(network)), history


def _renamed_split(split: Mapping[str, Sequence[str]], names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return what types were split into under new names; one that is merged with its own finer types is whole again."""
    renamed: dict[str, tuple[str, ...]] = {}
    for old, finer in split.items():
        name = names.get(old, old)
        new = [names.get(other, other) for other in finer]
        kept = dict.fromkeys((*renamed.get(name, ()), *(other for other in new if other != name)))
        if kept:
            renamed[name] = tuple(kept)
    return renamed


def _joined_rows(parent: Model, types: Sequence[str], names: Mapping[str, str]) -> Network:
    """Return the parent's network with a classifier row a new type: the mean of those it stands for, by cells."""
    network = new_network(parent.preset, len(parent.panel), len(types), seed=0)
    network.encoder.load_state_dict(parent.network.encoder.state_dict())
    # Cells of each old type, over all stages.
    cells = dict.fromkeys(parent.types, 1.0)
    for (_stage, name), n in ({} if parent.memory is None else parent.memory.counts()).items():
        cells[name] += n
    old = parent.network.classifier
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.zero_()
        total = dict.fromkeys(types, 0.0)
        for name in parent.types:
            total[names.get(name, name)] += cells[name]
        for row, name in enumerate(parent.types):
            new = names.get(name, name)
            share = cells[name] / total[new]
            network.classifier.weight[types.index(new)] += share * old.weight[row]
            network.classifier.bias[types.index(new)] += share * old.bias[row]
    return network


def _under_new_names(earlier: Sequence[EarlierStage], names: Mapping[str, str]) -> list[EarlierStage]:
    """Return the earlier stages with the new names of the types of their cells."""
    renamed = []
    for stage in earlier:
        before = {old: names.get(middle, middle) for old, middle in stage.names.items()}
        renamed.append(replace(stage, names={**names, **before}))
    return renamed


def _record(run: Run, parent: Model, model: Model, names: Mapping[str, str], metrics: dict[str, float]) -> StageRecord:
    """Return what the registry keeps of the new stage."""
    known = set(parent.types)
    return StageRecord(
        number=run.number,
        name="merged" if len(model.types) < len(parent.types) else "renamed",
        parent=parent.stage.number,
        seed=run.seed,
        preset=dump_preset(model.preset),
        types=model.types,
        new_types=tuple(name for name in model.types if name not in known),
        cells=0,
        genes=len(model.panel),
        bank=bank_contents(model.bank, parent.stage_of_key) | {"digest": bank_digest(model.bank)},
        metrics=metrics,
        notes={
            RENAMED: dict(names),
            "held_back": None,
            **key_note(parent.stage, parent.stage_of_key),
            **model.voter_note,
        },
    )
