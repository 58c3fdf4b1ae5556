"""A stage as one file, ``model.canal``: written, checked and unpacked.

A zip archive that any tool opens; nothing in it is pickled::

    canal.json        format, name of the model, SHA-256 and size of every other file
    signature.json    who signed that hash, where somebody did; see `canal.registry.signature`
    record.json       the record as it was committed
    model/...         the files of the stage

The archive's comment is the SHA-256 of ``canal.json``, so that no byte of content can change unseen.
"""

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from canal import __version__
from canal.errors import RegistryError
from canal.files import digest_bytes, digest_file, parse_digest, refuse_newer, sync_folder, write_and_move
from canal.model.model import MEMORY, WEIGHTS, Model
from canal.model.record import StageRecord, parse_record
from canal.registry.commit import RECORD_FILE
from canal.registry.flavour import FLAVOUR_FILES, strange_names
from canal.registry.signature import sign, signer_of

FORMAT = 1
_MANIFEST, _SIGNATURE = "canal.json", "signature.json"
_FOLDER = "model/"
_NAME = re.compile(r"(?!.*\.\.)[\w][\w./-]*")
_MANIFEST_LIMIT = 10_000_000  # bytes; a manifest is a few thousand
_SIGNATURE_LIMIT = 10_000  # bytes; a signature is 300
_MOST_FILES = 100  # a stage has 16
_LARGEST_RATIO = 200  # of the bytes that files have to those that they take in the archive
_BLOCK = 1 << 20
_SAFE_DATE = (1980, 1, 1, 0, 0, 0)  # the same stage gives the same file


@dataclass(frozen=True, kw_only=True)
class Package:
    """What an export holds.

    Attributes
    ----------
    model
        Name of the model that the stage comes from.
    record
        Record of the stage.
    folder
        Where the files of its model were unpacked; those for MLflow are left out.
    digest
        SHA-256 of the manifest; names the content.
    path
        The export itself.
    signer
        Public key that signed it, ``""`` where none did.
    """

    model: str
    record: StageRecord
    folder: Path
    digest: str
    path: Path
    signer: str = ""

    def load(self, *, network: bool = True) -> Model:
        """Read its model.

        Parameters
        ----------
        network
            Whether the network is read, too; a site's export has none as a rule.

        Raises
        ------
        RegistryError
            If its parts do not fit together, or it has no network and one is asked for.
        """
        if network and WEIGHTS not in self.record.artifacts and MEMORY in self.record.artifacts:
            message = (
                f"{self.path} holds statistics of types and no network: it is the export of a site, made to be merged. "
                f"Make a model of it, or of several: canal merge {self.path} --out joint.canal"
            )
            raise RegistryError(message)
        try:
            return Model.load(self.folder, self.record, self.model, network=network)
        except RegistryError as error:
            # The folder is gone in a moment: what is wrong is the export.
            raise RegistryError(str(error).replace(str(self.folder), str(self.path))) from error


def write_package(
    path: Path,
    model: str,
    record: StageRecord,
    folder: Path,
    *,
    compressed: bool = True,
    private_key: bytes | None = None,
) -> int:
    """Write a stage whose files were checked; return the size in bytes.

    Parameters
    ----------
    path
        The file to write.
    model
        Name of the model.
    record, folder
        Record of the stage, and where its files and the record are.
    compressed
        Whether text is compressed. Without, the bytes of the archive follow from its content alone, whatever library
        wrote it; see `is_as_written`.
    private_key
        Signs the package; none by default.

    Raises
    ------
    RegistryError
        If the file exists or cannot be written, or the stage has files that no stage has; there is no half of it then.
    """
    if path.exists():
        message = f"{path} exists already. Choose another name, or delete it first."
        raise RegistryError(message)
    strange = strange_names(record.artifacts)
    if strange:
        message = (
            f"Stage {record.number} ({record.name}) holds the file {strange[0]!r}, which is no part of a stage: an "
            "older canal imported it from a file that somebody changed. It is not exported; `canal registry verify` "
            "names all such files. Do not load this stage with MLflow."
        )
        raise RegistryError(message)
    sources = {RECORD_FILE: folder / RECORD_FILE} | {_FOLDER + n: folder / n for n in sorted(record.artifacts)}
    manifest = _manifest(model, sources)
    signature = None if private_key is None else _signature(private_key, digest_bytes(manifest))
    try:
        write_and_move(path, lambda beside: _write_archive(beside, manifest, signature, sources, compressed))
        sync_folder(path.absolute().parent)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}. Choose another place for it."
        raise RegistryError(message) from error
    return path.stat().st_size


@contextmanager
def open_package(path: Path) -> Iterator[Package]:
    """Unpack an export into a temporary folder, every byte compared with its hash.

    Raises
    ------
    RegistryError
        If the file is missing, no export, damaged, of a newer canal, or holds files that no stage has.
    """
    if not path.is_file():
        message = f"{path} is not there; expected a file that `canal registry export` wrote."
        raise RegistryError(message)
    with tempfile.TemporaryDirectory(prefix="canal-") as temporary:
        folder = Path(temporary)
        try:
            with zipfile.ZipFile(path) as archive:
                manifest, digest = _read_manifest(archive, path)
                signer = _signer(archive, digest, path)
                _check_names(archive, manifest, path)
                _unpack(archive, manifest["files"], folder, path)
            record = parse_record((folder / RECORD_FILE).read_text(encoding="utf-8"), f"{path}: {RECORD_FILE}")
            _check_files(record, manifest["files"], path)
        except (RegistryError, ModuleNotFoundError):  # a library that is not installed is no fault of the file
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:  # they say themselves what is wrong
            raise RegistryError(_damaged(path, str(error))) from error
        except Exception as error:  # whatever an archive that somebody made up brings forth
            raise RegistryError(_damaged(path, f"{type(error).__name__}: {str(error)[:200]}")) from error
        for name in FLAVOUR_FILES:  # nobody needs those of another: they are written anew where the stage is kept
            (folder / _FOLDER / name).unlink(missing_ok=True)
        yield Package(
            model=str(manifest["model"]),
            record=record,
            folder=folder / _FOLDER,
            digest=digest,
            path=path,
            signer=signer,
        )


def _manifest(model: str, sources: dict[str, Path]) -> bytes:
    files = {n: {"digest": digest_file(p), "bytes": p.stat().st_size} for n, p in sources.items()}
    table = {"format": FORMAT, "canal": __version__, "model": model, "files": files}
    return (json.dumps(table, indent=1, ensure_ascii=False) + "\n").encode()


def _signature(private_key: bytes, digest: str) -> bytes:
    return (json.dumps(sign(private_key, digest), indent=1) + "\n").encode()


def _signer(archive: zipfile.ZipFile, digest: str, path: Path) -> str:
    """Return who signed the manifest of a package, ``""`` where nobody did."""
    if _SIGNATURE not in archive.namelist():
        return ""
    if archive.getinfo(_SIGNATURE).file_size > _SIGNATURE_LIMIT:
        raise RegistryError(_damaged(path, f"{_SIGNATURE} is too large"))
    table = json.loads(archive.read(_SIGNATURE))
    return signer_of(table if isinstance(table, dict) else {}, digest, path)


def package_digest(path: Path) -> str:
    """Return the digest that an export says to have, unchecked; empty where the file is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment.decode("utf-8", "replace")
    except (OSError, zipfile.BadZipFile):
        return ""


def is_as_written(package: Package) -> bool:
    """Tell whether an export that was written without compression has no other byte than those of its content.

    It is written again from what was unpacked and compared: so a change is seen also where no hash looks, such as in
    the dates of the archive or behind its end.
    """
    folder = package.folder.parent
    sources = {RECORD_FILE: folder / RECORD_FILE}
    for name in sorted(package.record.artifacts):
        sources[_FOLDER + name] = folder / _FOLDER / name
    again = folder / "again"
    with zipfile.ZipFile(package.path) as archive:
        manifest = archive.read(_MANIFEST)
        signature = archive.read(_SIGNATURE) if _SIGNATURE in archive.namelist() else None
    _write_archive(again, manifest, signature, sources, compressed=False)
    same = digest_file(again) == digest_file(package.path)
    again.unlink()
    return same


def _write_archive(
    path: Path, manifest: bytes, signature: bytes | None, sources: dict[str, Path], compressed: bool
) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = digest_bytes(manifest).encode()
        archive.writestr(zipfile.ZipInfo(_MANIFEST, _SAFE_DATE), manifest)
        if signature is not None:
            archive.writestr(zipfile.ZipInfo(_SIGNATURE, _SAFE_DATE), signature)
        for name, source in sources.items():
            info = zipfile.ZipInfo(name, _SAFE_DATE)
            # Weights are noise to a compressor; text is not.
            stored = name.endswith(".safetensors") or not compressed
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            info.file_size = source.stat().st_size
            with source.open("rb") as content, archive.open(info, "w") as place:
                shutil.copyfileobj(content, place, _BLOCK)


def _read_manifest(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Any], str]:
    if _MANIFEST not in archive.namelist():
        message = f"{path} is no export of canal: it has no {_MANIFEST}. Expected a file of `canal registry export`."
        raise RegistryError(message)
    if archive.getinfo(_MANIFEST).file_size > _MANIFEST_LIMIT:
        raise RegistryError(_damaged(path, f"{_MANIFEST} is too large"))
    text = archive.read(_MANIFEST)
    expected, found = archive.comment.decode("utf-8", "replace"), digest_bytes(text)
    if expected != found:
        raise RegistryError(_damaged(path, f"{_MANIFEST} has {found}, expected {expected or 'its hash'}"))
    table = json.loads(text)
    if not isinstance(table, dict):
        raise RegistryError(_damaged(path, f"{_MANIFEST} is a {type(table).__name__}; expected a table"))
    refuse_newer(f"{path}, of canal {str(table.get('canal'))[:40]},", table.get("format"), FORMAT)
    _check_manifest(archive, table, path)
    return table, found


def _check_manifest(archive: zipfile.ZipFile, table: dict[str, Any], path: Path) -> None:
    """Refuse a manifest that names no files, or files larger than the archive can hold."""
    files = table.get("files")
    if not isinstance(table.get("model"), str) or not isinstance(files, dict) or len(files) > _MOST_FILES:
        raise RegistryError(_damaged(path, f"{_MANIFEST} does not name a model and its files"))
    declared = 0
    for name, facts in files.items():
        digest, size = (facts.get("digest"), facts.get("bytes")) if isinstance(facts, dict) else (None, None)
        if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
            raise RegistryError(_damaged(path, f"{_MANIFEST} says of {name[:80]!r} neither hash nor size"))
        declared += size
    # Weights are noise to a compressor, and text shrinks to a tenth: more is an archive that is to fill the disk.
    stored = sum(info.compress_size for info in archive.infolist())
    if declared > _LARGEST_RATIO * stored + _MANIFEST_LIMIT:
        raise RegistryError(_damaged(path, f"it says to hold {declared:,} bytes in {stored:,} bytes"))


def _check_names(archive: zipfile.ZipFile, manifest: dict[str, Any], path: Path) -> None:
    """Refuse a package with a file that no stage has, told or untold by its manifest, before anything is unpacked."""
    names = set(archive.namelist()) | set(manifest["files"])
    bad = sorted(name for name in names if not _NAME.fullmatch(name))
    if bad:
        raise RegistryError(_damaged(path, f"{bad[0]!r} is no name of a file"))
    inside = names - {_MANIFEST, _SIGNATURE, RECORD_FILE}
    strange = sorted(name for name in inside if not name.startswith(_FOLDER))
    strange += strange_names(name.removeprefix(_FOLDER) for name in inside if name.startswith(_FOLDER))
    if strange:
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        message = (
            f"{path} holds the file {strange[0]!r}{more}, which is no part of a stage; it says to be written by canal "
            f"{manifest.get('canal')!r}, this is {__version__}. Nothing was changed. Update canal if that is newer; "
            "otherwise do not use this file, for somebody put in what is not a model."
        )
        raise RegistryError(message)


def _unpack(archive: zipfile.ZipFile, files: dict[str, Any], folder: Path, path: Path) -> None:
    present = archive.namelist()
    for name, facts in files.items():
        if name not in present:
            raise RegistryError(_damaged(path, f"{name} is missing"))
        parse_digest(facts["digest"])
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as content, place.open("wb") as file:
            found = _copy(content, file, int(facts["bytes"]))
        if found != facts["digest"]:
            raise RegistryError(_damaged(path, f"{name} has {found}, expected {facts['digest']}"))
    (folder / _FOLDER).mkdir(exist_ok=True)


def _copy(content: IO[bytes], file: IO[bytes], limit: int) -> str:
    """Copy at most ``limit`` bytes and one, so that a small archive cannot fill the disk; return the digest."""
    digest, left = hashlib.sha256(), limit + 1
    while left > 0 and (block := content.read(min(_BLOCK, left))):
        digest.update(block)
        file.write(block)
        left -= len(block)
    return f"sha256:{digest.hexdigest()}"


def _check_files(record: StageRecord, files: dict[str, Any], path: Path) -> None:
    expected = {_FOLDER + name: digest for name, digest in record.artifacts.items()}
    found = {name: facts["digest"] for name, facts in files.items() if name != RECORD_FILE}
    if found != expected:
        strange = sorted(set(found.items()) ^ set(expected.items()))[0][0]
        raise RegistryError(_damaged(path, f"{strange} is not the file that its record names"))


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged: {reason}. Nothing was changed. Fetch it again, or ask for a new export."
