"""A stage as a person reads it: ``stages/NNN-name.toml``, all that is needed to add it again.

What follows a commit, and what a stage that comes into use needs: each step may be done twice.

A server has no lock for its writers. Which stage is in use is therefore told twice: by tags of the
versions, which are only ever added and which every reader puts in the same order, and by the alias,
which MLflow's own tools read. The alias follows the tags: whoever moves it looks at them again
afterwards, so that a slow machine does not leave it where a quicker one had moved it away from.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from canal.errors import RegistryError
from canal.files import write_whole
from canal.model.record import StageRecord
from canal.registry import snapshot as tag
from canal.registry.read import read_record
from canal.registry.snapshot import StoredVersion, move_artifacts
from canal.registry.store import Store

_log = logging.getLogger("canal.registry")

_HEAD = """\
# Stage {number} of this annotator. Written by canal when the stage was committed;
# `canal stage replay` learns it again from here.

"""


def declaration(record: StageRecord) -> str:
    """Return the TOML text of a stage: data, labels, preset with every value, seed, parent."""
    stage = {
        "number": record.number,
        "name": record.name,
        "parent": record.parent,
        "seed": record.seed,
        "created": record.created,
        "canal": record.canal_version,
    }
    table = {
        "schema": 1,
        "stage": stage,
        "options": record.notes,
        "data": list(record.data),
        "preset": record.preset,
        "outcome": {
            "new_types": list(record.new_types),
            "types": len(record.types),
            "cells": record.cells,
            "genes": record.genes,
            "metrics": record.metrics,
            "artifacts": record.artifacts,
        },
    }
    return _HEAD.format(number=record.number) + tomli_w.dumps(_without_none(table))


def declaration_name(record: StageRecord) -> str:
    """Return the file name of a declaration: ``001-pbmc.toml``."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", record.name).strip("-.") or "stage"
    return f"{record.number:03d}-{safe[:80]}.toml"


def _without_none(value: Any) -> Any:
    """Leave out what is not set: TOML has no null."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value if v is not None]
    return value


_TRIES = 20  # times that the alias is moved again because other machines moved it meanwhile


def settle(store: Store, stored: StoredVersion, record: StageRecord, declarations: Path, drafts: Path) -> None:
    """Do what follows the commit of a version, or what is left of it."""
    _move_alias(store, stored)
    write_declaration(record, declarations)
    store.finish_run(stored.run_id, "committed")
    key = stored.tags.get(tag.DRAFT)
    if key:
        shutil.rmtree(drafts / key, ignore_errors=True)
    store.tag_version(stored.version, tag.SETTLED, "true")


@contextmanager
def done_later(what: str) -> Iterator[None]:
    """Pass over what cannot be written after a commit, and say so: the next writer does it (`settle_all`).

    A command whose stage is committed does not fail any more, as it would be run again.
    """
    try:
        yield
    except (RegistryError, OSError) as error:
        _log.warning("%s. What follows is left to the next command that writes: %s", what, error)


def settle_all(store: Store, cache: Path, declarations: Path, drafts: Path) -> None:
    """Do what killed writers left."""
    location = store.location
    if location.database is not None and location.artifact_uri is not None:
        move_artifacts(location.database, store.name, location.artifact_uri)
    found = store.snapshot()
    for stored in found.late:  # of a machine that was killed before it took its version back
        store.delete_version(stored.version)
    for stored in found.unsettled:
        settle(store, stored, read_record(store, stored, cache), declarations, drafts)


def put_in_use(store: Store, stored: StoredVersion) -> None:
    """Let another version annotate."""
    store.tag_version(stored.version, f"{tag.USE}{store.snapshot().next_use}", "true")
    point_champion(store)


def point_champion(store: Store) -> None:
    """Let the alias name the version that came into use last, until it does."""
    for _ in range(_TRIES):
        found = store.snapshot()
        wanted = found.in_use
        if wanted is None or found.aliases.get(tag.CHAMPION) == wanted.version:
            return
        store.set_alias(tag.CHAMPION, wanted.version)


def write_declaration(record: StageRecord, folder: Path) -> Path:
    """Write ``NNN-name.toml``; return its path."""
    path = folder / declaration_name(record)
    write_whole(path, declaration(record).encode())
    return path


def _move_alias(store: Store, stored: StoredVersion) -> None:
    alias = stored.tags.get(tag.ALIAS, tag.CANDIDATE)
    if alias == tag.CHAMPION and stored.last_use:
        point_champion(store)
        return
    # A candidate, or a champion that an older canal committed without saying when.
    later = [v for v in store.snapshot().versions if v.version > stored.version and v.tags.get(tag.ALIAS) == alias]
    if not later:
        store.set_alias(alias, stored.version)
