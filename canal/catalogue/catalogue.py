"""What is done with a catalogue: list it, get a model, mirror it whole, add a model."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from canal.catalogue.address import Address
from canal.catalogue.index import INDEX_FILE, Entry, Index, entry_of
from canal.errors import ConfigError, RegistryError
from canal.files import check_file, digest_file, write_file_whole
from canal.progress import Progress, Silent
from canal.registry.package import open_package
from canal.registry.shipped import SUFFIX

VARIABLE = "CANAL_CATALOGUE"  # of the environment: the catalogue where none is named


def chosen_address(asked: str | None, setting: str) -> Address | None:
    """Return the catalogue: the one asked for, else that of the environment, else that of the settings, else none.

    Parameters
    ----------
    asked
        What the command line says.
    setting
        ``catalogue`` of ``canal.toml``; empty where it has none.

    Raises
    ------
    ConfigError
        If it is no address of a catalogue.
    """
    text = asked or os.environ.get(VARIABLE) or setting
    return Address.of(text) if text else None


def required_address(asked: str | None, setting: str) -> Address:
    """Return the catalogue as `chosen_address` does; refuse where there is none."""
    address = chosen_address(asked, setting)
    if address is None:
        message = (
            "No catalogue is named; expected a folder, file: or https: address. Name one with --catalogue, with "
            f"{VARIABLE}, or as catalogue in canal.toml."
        )
        raise ConfigError(message)
    return address


def get_model(address: Address, name: str, out: Path | None, progress: Progress | None = None) -> tuple[Entry, Path]:
    """Fetch a model of a catalogue; a file that is there already and is the same is not fetched again.

    Parameters
    ----------
    address
        The catalogue.
    name
        Name of the model.
    out
        File to write; by default the model's own name in the current folder.
    progress
        Told about every block of bytes.

    Raises
    ------
    DataError, RegistryError
        If there is no such model, the file is there with other content, or it cannot be had.
    """
    entry = address.index().entry(name, address.text)
    target = check_file(Path(entry.file) if out is None else out, SUFFIX, "--out")
    if target.exists():
        if digest_file(target) == entry.sha256:
            return entry, target
        message = f"{target} exists already, with other content. Name another file with --out, or delete it first."
        raise RegistryError(message)
    _fetch(address, entry, target, progress or Silent())
    return entry, target


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """What a mirror did.

    Attributes
    ----------
    folder
        Where the copy is.
    fetched, kept
        Names of the models that came, and of those that were there already.
    """

    folder: Path
    fetched: tuple[str, ...]
    kept: tuple[str, ...]


def mirror(address: Address, folder: Path, progress: Progress | None = None) -> Mirror:
    """Copy a whole catalogue into a folder, which is one then; what is there already is not fetched again.

    The index is written last: a mirror that was cut short is no catalogue, and the same command goes on.

    Raises
    ------
    ConfigError, RegistryError
        If the folder is the catalogue itself, or something cannot be had.
    """
    if address.folder is not None and address.folder.resolve() == folder.resolve():
        message = f"{folder} is the catalogue itself. Name another folder to mirror it to."
        raise ConfigError(message)
    index = address.index()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be made: {error.strerror or error}. Choose another folder."
        raise ConfigError(message) from error
    fetched, kept = [], []
    for entry in index.models:
        target = folder / entry.file
        if target.is_file() and digest_file(target) == entry.sha256:
            kept.append(entry.name)
            continue
        _fetch(address, entry, target, progress or Silent())
        fetched.append(entry.name)
    index.write(folder)
    return Mirror(folder=folder, fetched=tuple(fetched), kept=tuple(kept))


def add_model(address: Address, file: Path) -> Entry:
    """Put a model into a catalogue that is a folder; a new or empty folder becomes one.

    Raises
    ------
    ConfigError, RegistryError
        If the catalogue is on a server, the file is no whole model, or the catalogue has one of that name.
    """
    if address.folder is None:
        message = f"{address.text} is on a server; a model is added to a folder. Name one with --catalogue."
        raise ConfigError(message)
    entry = entry_of(file)
    folder = address.folder
    index = address.index() if (folder / INDEX_FILE).exists() else Index()
    for known in index.models:
        if entry.name == known.name:
            same = "the same file" if known.sha256 == entry.sha256 else "another file"
            message = (
                f"The catalogue {address.text} has a model {entry.name!r} already, {same}. Give the file another name."
            )
            raise RegistryError(message)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be made: {error.strerror or error}. Choose another folder."
        raise ConfigError(message) from error
    # The file first: an index never names what is not there.
    if not (folder / entry.file).exists() or digest_file(folder / entry.file) != entry.sha256:
        write_file_whole(folder / entry.file, lambda beside: shutil.copyfile(file, beside))
    index.with_entry(entry).write(folder)
    return entry


def _fetch(address: Address, entry: Entry, target: Path, progress: Progress) -> None:
    """Fetch one file, and make sure that it is a model that this canal reads."""
    progress.start(entry.bytes, f"fetching {entry.name}")
    try:
        address.fetch(entry, target, lambda count: progress.advance(count, ""))
    finally:
        progress.close()
    try:
        with open_package(target):
            pass
    except RegistryError:
        target.unlink()
        raise
