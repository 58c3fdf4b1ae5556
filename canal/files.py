"""Files that are kept: written whole or not at all, each with a hash that names its algorithm.

Files that are written for people: checked before any work is done for them.

Arrays and a JSON table in one safetensors file; no pickle.

Whether a file is the one it was, told without reading it.
"""

import errno
import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from canal import __version__
from canal.errors import CanalError, DataError, RegistryError

if TYPE_CHECKING:
    import numpy as np

_DIGEST = re.compile(r"^(?P<algorithm>[a-z0-9]+):(?P<hex>[0-9a-f]+)$")
_HEX_LENGTH = {"sha256": 64}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is not as it was kept.

    Attributes
    ----------
    stage
        Number of the stage, ``None`` where it belongs to none.
    what
        The file or reference.
    kind
        ``"missing"``, ``"altered"`` or ``"extra"``.
    expected, found
        Digests, paths or values; ``""`` where there is none.
    """

    stage: int | None = None
    what: str
    kind: Literal["missing", "altered", "extra"]
    expected: str = ""
    found: str = ""

    def __str__(self) -> str:
        """Return one sentence for a person."""
        place = "" if self.stage is None else f"stage {self.stage}: "
        facts = [f"expected {self.expected}"] if self.expected else []
        facts += [f"found {self.found}"] if self.found else []
        return f"{place}{self.what} is {self.kind}" + (f" ({', '.join(facts)})" if facts else "")


def parse_digest(text: str) -> tuple[str, str]:
    """Split ``"sha256:<hex>"`` into algorithm and hexadecimal digits.

    Raises
    ------
    RegistryError
        If it is not of that form, or of an algorithm that is not known.
    """
    match = _DIGEST.match(text)
    if match is None or len(match["hex"]) != _HEX_LENGTH.get(match["algorithm"]):
        message = f"{text!r} is not a digest; expected sha256: and 64 hexadecimal digits."
        raise RegistryError(message)
    return match["algorithm"], match["hex"]


def digest_bytes(content: bytes) -> str:
    """Return ``"sha256:<hex>"`` of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def short_digest(inputs: object) -> str:
    """Return 16 digits of the SHA-256 over plain values: the name of what they decide, such as a training."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def digest_file(path: Path, algorithm: str = "sha256") -> str:
    """Return ``"<algorithm>:<hex>"`` of a file, read in blocks."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a power cut leaves the old content or the new.

    It is written beside its place, brought to disk, then moved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_and_move(path, lambda beside: beside.write_bytes(content))
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Bring the content of a file to disk, where the file system knows how to.

    Raises
    ------
    OSError
        If it could not be written there.
    """
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring all files below a folder to disk, and their names."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)


def verify(folder: Path, manifest: Mapping[str, str]) -> list[Problem]:
    """Compare a folder with its manifest, byte for byte.

    Parameters
    ----------
    folder
        Where the files are.
    manifest
        Digest of each file, by its name relative to the folder.

    Returns
    -------
    Missing and altered files in the order of the manifest, then files that are not in it.
    """
    problems = []
    for name, expected in manifest.items():
        algorithm, _ = parse_digest(expected)
        path = folder / name
        if not path.is_file():
            problems.append(Problem(what=name, kind="missing", expected=expected))
        elif (found := digest_file(path, algorithm)) != expected:
            problems.append(Problem(what=name, kind="altered", expected=expected, found=found))
    present = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return problems + [Problem(what=n, kind="extra") for n in present if n not in manifest]


def check_file(out: Path, suffix: str, option: str) -> Path:
    """Return the path if such a file can be written there.

    Parameters
    ----------
    out
        The file.
    suffix
        What its name must end in.
    option
        The option it was given with, for the message.

    Raises
    ------
    DataError
        If it is of another kind, its folder does not exist, or a folder has its name.
    """
    if out.suffix != suffix:
        message = f"{out} does not end in {suffix}; name such a file with {option}."
    elif not out.parent.is_dir():
        message = (
            f"There is no folder {out.parent} to write {out.name} to. Make it first, or name another with {option}."
        )
    elif out.is_dir():
        message = f"{out} is a folder; expected a file. Name another with {option}."
    else:
        return out
    raise DataError(message)


def write_file_whole(out: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, bring it to disk, then move: a file that is there is whole.

    What was there before stays until then, also where it is what ``write`` reads.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    try:
        write_and_move(out, write)
    except OSError as error:
        message = f"{out} cannot be written: {error}. Check the free space and your rights there."
        raise DataError(message) from error
    # The file is in its place. Should its name not come to disk before a power cut, the file before is there, whole.
    with suppress(OSError):
        sync_folder(out.parent)


def write_text_whole(out: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; see `write_file_whole`.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    write_file_whole(out, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_and_move(out: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, bring it to disk and move it there.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is there still.
    """
    _remove_leftovers(out)
    beside = out.parent / f".{out.name}.{os.getpid()}.tmp"
    try:
        write(beside)
        sync_file(beside)  # some disks tell here only that they could not write
        beside.replace(out)
    finally:
        with suppress(OSError):  # of a disk that has become read-only: the error before says more
            beside.unlink(missing_ok=True)


# Seconds without a write after which a temporary file is nobody's: whoever writes it, here or on another machine that
# shares the folder, would have touched it.
ABANDONED = 3600.0


def _remove_leftovers(out: Path) -> None:
    """Delete what processes that were killed left when they wrote the same file."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
        writer = path.suffixes[-2].removeprefix(".") if len(path.suffixes) > 1 else ""
        if not writer.isdigit() or _is_running(int(writer)):
            continue
        # Another process may be at the same leftover, or the disk may be read-only: the writing itself will tell.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()


def _is_running(process: int) -> bool:
    """Tell whether there is such a process on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and another user's
        return True
    return True


def check_new(out: Path, error: type[CanalError] = RegistryError) -> None:
    """Refuse a file that is there already, or whose folder is not.

    Raises
    ------
    CanalError
        Of the kind that was asked for, if so.
    """
    if out.exists():
        message = f"{out} exists already. Choose another name, or delete it first."
        raise error(message)
    if not out.parent.is_dir():
        message = f"There is no folder {out.parent} to write {out.name} to. Make it first."
        raise error(message)


def refuse_newer(source: str | Path, written: object, newest: int, error: type[CanalError] = RegistryError) -> None:
    """Refuse what a newer canal wrote, whose meaning this one cannot know.

    Parameters
    ----------
    source
        Names the file in the message.
    written
        The ``format`` that the file says to have.
    newest
        The newest one that this version reads.
    error
        What is raised.

    Raises
    ------
    CanalError
        If the format is newer, or no number.
    """
    if isinstance(written, int) and written <= newest:
        return
    message = (
        f"{source} was written by a newer canal (format {str(written)[:20]}; this one, {__version__}, reads up to "
        f"{newest}). Update canal to read it: pip install -U canal."
    )
    raise error(message)


@contextmanager
def tensors_written(path: Path) -> Iterator[None]:
    """Raise what safetensors cannot write as the `OSError` that it is; in a ``with`` statement around its writing.

    Raises
    ------
    OSError
        With the number that the system gave, and the file.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def write_tensor_file(path: Path, arrays: "Mapping[str, np.ndarray]", key: str, table: Mapping[str, Any]) -> None:
    """Write arrays by name, and a table of plain values as JSON under ``key``."""
    import numpy as np
    from safetensors.numpy import save_file

    text = np.frombuffer(json.dumps(table).encode(), dtype=np.uint8).copy()
    with tensors_written(path):
        save_file({k: np.ascontiguousarray(v) for k, v in ({key: text} | dict(arrays)).items()}, path)


def read_tensor_file(path: Path, key: str, what: str, newest: int) -> "tuple[dict[str, np.ndarray], dict[str, Any]]":
    """Read the arrays and the table of `write_tensor_file`.

    Parameters
    ----------
    what
        What the file should be, for messages, such as ``"example bank"``.
    newest
        Newest ``format`` of the table that this version reads.

    Raises
    ------
    RegistryError
        If the file is no such file, or a newer canal wrote it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        message = f"{path} is not an {what}: {error}. Restore it, or roll back to an earlier stage."
        raise RegistryError(message) from error
    table: dict[str, Any] = json.loads(arrays[key].tobytes())
    refuse_newer(f"{path} ({what})", table["format"], newest)
    return arrays, table


def file_stamp(path: Path) -> list[tuple[str, int, int, int, int]] | None:
    """Return what changes whenever a file is written, moved or replaced; ``None`` where there is none.

    Size, times of the last writing and of the last change of any kind, and the file's number on its disk; of a folder,
    such as zarr, those of everything in it. Equal stamps mean equal content. Different ones may do so, too, such as
    after a copy.

    Parameters
    ----------
    path
        File or folder.
    """
    try:
        parts = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
        found = [(part, part.stat()) for part in parts]
    except OSError:
        return None
    return [(str(part), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for part, s in found]
