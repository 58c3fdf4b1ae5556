"""A stage in progress: a working folder that outlives a kill.

How a stage is committed: whole, or not at all.

1. A run is made in MLflow with state ``draft``: parameters, curves, data sets, files, record.
2. THE COMMIT: one model version is created, with the record as its tag. MLflow does this in one
   transaction. Before it the stage does not exist for anybody; from it on it does.
3. It is settled: alias, declaration, end of the run, end of the draft; last a tag that says so.
   Each step may be done twice; whoever opens the registry after a kill does what is left.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from canal.errors import RegistryError
from canal.files import digest_bytes, digest_file, sync_tree, verify, write_whole
from canal.model.record import StageRecord
from canal.registry import snapshot as tag
from canal.registry.snapshot import StoredVersion
from canal.registry.store import MODEL_FOLDER, Store

_EPOCHS = "epochs.jsonl"


class Committer(Protocol):
    """What a registry does to commit a draft."""

    def __call__(
        self,
        draft: "StageDraft",
        record: StageRecord,
        files: Mapping[str, Path],
        declarations: Path | None,
        *,
        promote: bool,
    ) -> StageRecord:
        """Commit the stage whole, or leave the registry as it was."""


class StageDraft:
    """The working folder of one stage; nobody sees it in the registry.

    Attributes
    ----------
    key
        Names what is being learned; the same key finds the same folder again.
    folder
        Belongs to the caller: checkpoints, files to be. Names that begin with a dot are the draft's.
    """

    def __init__(self, folder: Path, key: str, commit: Committer) -> None:
        self.folder, self.key = folder, key
        self._commit = commit
        self.folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Forget everything so far: the stage begins anew."""
        shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the figures of an epoch for the curves; an epoch told twice counts once."""
        line = {"step": step, "time": int(time.time() * 1000), "metrics": dict(metrics)}
        with (self.folder / _EPOCHS).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(line, default=float))  # ends a line that a kill cut off

    def epochs(self) -> list[tuple[str, float, int, int]]:
        """Return the curves: name, value, time in ms, step; a half-written last line is left out."""
        path = self.folder / _EPOCHS
        curves: dict[tuple[str, int], tuple[float, int]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                found = json.loads(line)
            except ValueError:
                continue  # the process was killed while it wrote this line
            for name, value in found["metrics"].items():
                curves[name, found["step"]] = (value, found["time"])
        return [(name, value, ms, step) for (name, step), (value, ms) in curves.items()]

    def commit(
        self,
        record: StageRecord,
        files: Mapping[str, Path],
        declarations: Path | None = None,
        *,
        promote: bool = True,
    ) -> StageRecord:
        """Commit the stage whole, or leave the registry as it was; the folder is gone after it.

        Parameters
        ----------
        record
            All but ``version``, ``run_id`` and ``artifacts``, which are filled in.
        files
            Files of the model by the names they are kept under.
        declarations
            Folder of ``NNN-name.toml``; the workspace's ``stages/`` by default.
        promote
            Make it the champion; a candidate otherwise.

        Raises
        ------
        RegistryError
            If the number is taken, a file is missing, or the registry refuses.
        """
        return self._commit(self, record, files, declarations, promote=promote)


RECORD_FILE, MANIFEST_FILE = "record.json", "manifest.json"
_TAG_LIMIT = 90_000  # characters; MLflow refuses tags of more than 100,000
_DIGEST_LIMIT = 36  # characters of a data set's digest in MLflow


def check_place(record: StageRecord, numbers: Collection[int]) -> None:
    """Refuse a stage whose number is taken or whose parent is not there.

    Raises
    ------
    RegistryError
        If it does not fit the committed stages.
    """
    if record.number in numbers:
        message = (
            f"Stage {record.number} exists already; the next number is {max(numbers) + 1}. "
            "Somebody else added a stage meanwhile: run this again."
        )
        raise RegistryError(message)
    if record.parent is not None and record.parent not in numbers:
        known = ", ".join(map(str, sorted(numbers))) or "none"
        message = (
            f"Stage {record.number} starts from stage {record.parent}, which does not exist. "
            f"Stages: {known}. Somebody removed it meanwhile: run this again."
        )
        raise RegistryError(message)


def commit_stage(
    store: Store, draft: StageDraft, record: StageRecord, files: Mapping[str, Path], use: int | None
) -> tuple[StoredVersion, StageRecord]:
    """Do steps 1 and 2; return the new version and its record.

    ``use`` is the number of this coming into use, ``None`` for a stage that stays a candidate.
    """
    from canal.registry.flavour import model_card, write_flavour

    files = dict(files) | write_flavour(draft.folder / ".flavour", files)
    staging = _stage_files(draft, files)
    digests = {name: digest_file(staging / name) for name in sorted(files)}
    card = model_card(record)
    run_id = store.create_run(
        f"{record.number:03d}-{record.name}",
        {tag.STATE: "draft", tag.STAGE: str(record.number), tag.NAME: record.name, tag.NOTE: card},
    )
    record = record.with_fields(artifacts=digests, run_id=run_id, version=0)
    text = record.to_json()
    manifest = _manifest(digests, text)
    write_whole(staging / RECORD_FILE, text.encode())
    write_whole(staging / MANIFEST_FILE, manifest)
    _describe_run(store, run_id, draft, record)
    store.upload(run_id, staging)
    _check_upload(store, run_id, json.loads(manifest) | {MANIFEST_FILE: digest_bytes(manifest)})
    tags = _tags(record, text, manifest) | {
        tag.DRAFT: draft.key,
        tag.ALIAS: tag.CANDIDATE if use is None else tag.CHAMPION,
    }
    if use is not None:
        tags[f"{tag.USE}{use}"] = "true"
    version = _created_version(store, run_id, tags, card)
    if store.location.database is None:
        version = _first_come(store, record, version)
    record = record.model_copy(update={"version": version})
    return StoredVersion(version=version, run_id=run_id, tags=tags), record


def _created_version(store: Store, run_id: str, tags: Mapping[str, str], card: str) -> int:
    """Register the version; where MLflow failed after its database had it, it is there, and that is no failure."""
    try:
        return store.create_version(run_id, tags, card)
    except RegistryError:
        with suppress(RegistryError):
            for stored in store.snapshot().versions:
                if stored.run_id == run_id:
                    return stored.version
        raise


def _first_come(store: Store, record: StageRecord, version: int) -> int:
    """Take our version back if another machine took the stage's number since `check_place`.

    A server has no lock for its writers. It gives out version numbers one after the other, and every
    reader takes the lowest of a stage, so that the later one was never to be seen.
    """
    found = store.snapshot()
    first = next((v for v in found.versions if v.stage == record.number), None)
    if first is not None and first.run_id == record.run_id:
        if first.version != version:  # MLflow sent the request twice
            store.delete_version(version)
        numbers = {v.stage for v in found.versions}
        if record.parent is None or record.parent in numbers:
            return first.version
    store.delete_version(version)
    if first is None or first.run_id == record.run_id:
        message = f"Stage {record.parent}, which this stage starts from, was removed by another machine meanwhile."
    else:
        message = f"Another machine committed a stage {record.number} a moment before; it is kept."
    message += " Nothing of this one was committed. Run this again: it starts from the stage in use then."
    raise RegistryError(message)


def model_folder(store: Store, run_id: str) -> Path | None:
    """Return the local folder of a run's files, ``None`` where a server keeps them.

    It follows from where the workspace is now, not from what the database remembers.
    """
    if store.location.artifacts is None:
        return None
    return store.location.artifacts / run_id / "artifacts" / MODEL_FOLDER


def _stage_files(draft: StageDraft, files: Mapping[str, Path]) -> Path:
    """Put the files under their names into one folder."""
    staging = draft.folder / ".commit"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    for name, path in files.items():
        assert name not in {RECORD_FILE, MANIFEST_FILE}, name
        assert re.fullmatch(r"(?!.*\.\.)[\w][\w./-]*", name), name
        if not path.is_file():
            message = f"{path} is missing; expected the file {name!r} of the stage. Run it again."
            raise RegistryError(message)
        place = staging / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, place)
    return staging


def _manifest(digests: Mapping[str, str], record_text: str) -> bytes:
    table = dict(digests) | {RECORD_FILE: digest_bytes(record_text.encode())}
    return (json.dumps(table, indent=1, sort_keys=True) + "\n").encode()


def _check_upload(store: Store, run_id: str, manifest: Mapping[str, str]) -> None:
    """Read back what was written, and bring it to disk, before anything refers to it."""
    folder = model_folder(store, run_id)
    if folder is None:
        return
    if not folder.is_dir():
        message = f"MLflow did not write to {folder}. Check disk and permissions, and run it again."
        raise RegistryError(message)
    problems = verify(folder, manifest)
    if problems:
        message = (
            f"{folder} was not written as it should be: {problems[0]}. Nothing was committed. "
            "Check the disk, and run the stage again with --resume."
        )
        raise RegistryError(message)
    sync_tree(folder)


def _describe_run(store: Store, run_id: str, draft: StageDraft, record: StageRecord) -> None:
    params = {"seed": str(record.seed), "parent": str(record.parent or "none")}
    store.log_params(run_id, params | flatten(record.preset))
    curves = draft.epochs()
    last = max(((step, ms) for _, _, ms, step in curves), default=(0, 0))
    final = [(name, value, last[1], last[0]) for name, value in record.metrics.items()]
    # The curves are of the network alone, the record's figures of the whole model: not under one name.
    curves = [(f"network_{n}" if n in record.metrics else n, v, ms, s) for n, v, ms, s in curves]
    store.log_metrics(run_id, [(_metric_name(n), v, ms, s) for n, v, ms, s in curves + final])
    if record.data:
        inputs = [_dataset(source) for source in record.data]
        store.log_inputs(run_id, inputs, f"stage-{record.number}-train")


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return ``{"training.epochs": "30", ...}`` of nested tables."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _dataset(source: Mapping[str, Any]) -> dict[str, str]:
    path = str(source.get("path", ""))
    digest = str(source.get("digest", "")).removeprefix("sha256:")
    profile = {k: source[k] for k in ("cells", "genes", "scale") if k in source}
    return {
        "name": Path(path).name[:500] or "cells",
        "digest": digest[:_DIGEST_LIMIT] or "none",
        "source": json.dumps({"uri": path}),
        "profile": json.dumps(profile),
    }


def _tags(record: StageRecord, text: str, manifest: bytes) -> dict[str, str]:
    types = json.dumps(record.types, ensure_ascii=False)
    tags = {
        tag.STAGE: str(record.number),
        tag.NAME: record.name,
        tag.PARENT: str(record.parent or ""),
        tag.DATA_DIGEST: record.data_digest,
        tag.TYPES: types if len(types) <= _TAG_LIMIT else str(len(record.types)),
        tag.GENES: str(record.genes),
        tag.RECORD_DIGEST: digest_bytes(text.encode()),
        tag.MANIFEST_DIGEST: digest_bytes(manifest),
    }
    if len(text) <= _TAG_LIMIT:  # a longer one is read from its file
        tags[tag.RECORD] = text
    return tags


def _metric_name(name: str) -> str:
    """Return a name that MLflow accepts."""
    return re.sub(r"[^\w./ -]", "_", name)[:250]
