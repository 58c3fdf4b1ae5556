"""Files that are kept: written whole or not at all, each with a hash that names its algorithm."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from canal.errors import RegistryError

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


def digest_file(path: Path, algorithm: str = "sha256") -> str:
    """Return ``"<algorithm>:<hex>"`` of a file, read in blocks."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a power cut leaves the old content or the new.

    It is written beside its place, brought to disk, then moved.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(path.parent)


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
            with path.open("rb") as file:
                os.fsync(file.fileno())


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
