"""References that were trained before: kept beside the registry under the digests of all that went into them.

To know these digests the files must be read, which takes seconds itself. So a second, quicker key is kept that points
to the first: it holds the stamps of the files. A file that was touched is read again; one whose cells are others than
before, or that came or went, has the references trained again.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.data.stamp import file_stamp
from canal.errors import StageError
from canal.learn.progress import Progress
from canal.registry.memo import key_of
from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from canal.report.compare_report import Reference
from canal.stages.compare import Kept
from canal.stages.declared import recorded_request

if TYPE_CHECKING:
    from canal.stages.compare_references import Readable

FORMAT = 1  # of the answer; also raised where the methods themselves are changed


def references_of(registry: Registry, kept: Kept, focus: int, progress: Progress) -> tuple[Reference, ...]:
    """Return logistic regression and naive fine-tuning beside a stage, trained only where nothing is kept of it.

    Parameters
    ----------
    registry, kept, focus, progress
        As for `canal.stages.compare_references.train_references`.

    Raises
    ------
    DataError
        If no cells at all can be read.
    """
    quick = key_of("files of references", format=FORMAT, asked=_asked(kept, focus), stamps=_stamps(kept, focus))
    key = registry.memo.get(quick)
    found = None if key is None else registry.memo.get(str(key))
    if found is None:
        from canal.stages.compare_references import read_all, train_references

        readable = read_all(registry, kept, focus)
        key = _content(kept, focus, readable)
        found = registry.memo.get(key)
        if found is None:
            found = [asdict(r) for r in train_references(kept, readable, progress)]
            registry.memo.put(key, found)
        registry.memo.put(quick, key)
    return tuple(_reference(one) for one in found)


def _content(kept: Kept, focus: int, readable: "Readable") -> str:
    """Return the key: everything that was asked for, and which of the cells were there, by their digests."""
    return key_of(
        "references",
        format=FORMAT,
        asked=_asked(kept, focus),
        trained={str(n): cells.report.digest for n, cells in readable.cells.items()},
        tested={str(n): cells.report.digest for n, cells in readable.tests.items()},
    )


def _asked(kept: Kept, focus: int) -> dict[str, Any]:
    """Return what does not depend on the state of the files."""
    line = _line(kept, focus)
    return {
        "stages": [[r.number, r.data_digest, r.cells, r.seed, r.preset, dict(r.notes)] for r in line],
        "sets": [[n, held.digest, held.kind] for n, held in kept.sets.items()],
        "bank": kept.records[focus].artifacts.get("bank.safetensors"),
    }


def _stamps(kept: Kept, focus: int) -> list[Any]:
    paths = [path for record in _line(kept, focus) for path in _files(record)]
    paths += [Path(held.path) for held in kept.sets.values() if held.path]
    maps = [held.options.label_map for held in kept.sets.values()]
    return [file_stamp(path) for path in [*paths, *(Path(m) for m in maps if m)]]


def _files(record: StageRecord) -> Sequence[Path]:
    try:
        request = recorded_request(record)
    except StageError:
        return ()
    return [Path(str(request.data)), *([request.label_map] if request.label_map else [])]


def _line(kept: Kept, focus: int) -> list[StageRecord]:
    return [kept.records[n] for n in kept.line(focus, without_removed=True)]


def _reference(values: dict[str, Any]) -> Reference:
    return Reference(
        name=values["name"],
        how=values["how"],
        accuracy=tuple(values["accuracy"]),
        macro_f1=tuple(values["macro_f1"]),
    )
