"""Where a catalogue is, and how its files come here: a folder, or a server that is asked by HTTPS.

Nothing is fetched unless it is asked for. A server is believed nothing: a file has the size and hash of the index, or
is deleted; a redirect leads to the same host, or is refused.
"""

import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit
from urllib.request import url2pathname

from canal.catalogue.index import INDEX_FILE, LARGEST_INDEX, Entry, Index, parse_index
from canal.errors import ConfigError, RegistryError
from canal.files import digest_file, sync_folder

TIMEOUT = 30.0  # seconds without a byte, after which a server is taken to be gone
ATTEMPTS = 4  # at a file whose connection is cut; each goes on where the one before ended
MOST_REDIRECTS = 5
_BLOCK = 1 << 16
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
Told = Callable[[int], None]  # told the number of bytes that came


@dataclass(frozen=True)
class Address:
    """The address of a catalogue.

    Attributes
    ----------
    text
        As it was given.
    folder
        The folder, where it is one; else ``None``.
    """

    text: str
    folder: Path | None

    @classmethod
    def of(cls, text: str) -> "Address":
        """Return the address that a text names: a folder, ``file:`` or ``https:``.

        Raises
        ------
        ConfigError
            If it is none of these, or carries a password.
        """
        parts = urlsplit(text)
        if parts.scheme == "file":
            return cls(text, Path(url2pathname(parts.path)))
        # A drive letter of Windows is no scheme.
        if len(parts.scheme) <= 1:
            return cls(text, Path(text))
        if "@" in parts.netloc:
            message = "The address of a catalogue carries a name or password; expected one without. Leave them out."
            raise ConfigError(message)
        local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if (parts.scheme == "https" or local) and parts.hostname:
            return cls(text.rstrip("/"), None)
        message = (
            f"{text} is no address of a catalogue; expected a folder, file:///folder or https://host/folder (http: "
            "only on this machine). Name one with --catalogue, CANAL_CATALOGUE, or catalogue in canal.toml."
        )
        raise ConfigError(message)

    def index(self) -> Index:
        """Read the index.

        Raises
        ------
        RegistryError
            If there is none, it is too large, or cannot be read.
        """
        if self.folder is None:
            return parse_index(self._fetch_index(), self.text)
        path = self.folder / INDEX_FILE
        try:
            if path.stat().st_size > LARGEST_INDEX:
                raise RegistryError(_too_large(self.text))
            return parse_index(path.read_bytes(), self.text)
        except OSError as error:
            message = (
                f"{self.text} is no catalogue of models: {INDEX_FILE} cannot be read ({error.strerror or error}). "
                "Check the address, or make a catalogue with `canal models add FILE --catalogue FOLDER`."
            )
            raise RegistryError(message) from error

    def fetch(self, entry: Entry, target: Path, told: Told) -> None:
        """Bring the file of a model here: whole, of the size and hash of the index, or not at all.

        What came before a connection was cut lies beside the target, and the next call goes on from there.

        Parameters
        ----------
        entry
            The model.
        target
            Where its file is to stand; what stands there is replaced.
        told
            Told the number of bytes that came.

        Raises
        ------
        RegistryError
            If the file cannot be had, or is not the one of the index.
        """
        # Named after the content: a part of another version is never gone on with.
        part = target.parent / f".{target.name}.{entry.sha256[7:19]}.part"
        try:
            if self.folder is None:
                self._download(entry, part, told)
            else:
                _copy(self.folder / entry.file, part, entry, told)
            _check(part, entry, self.text)
            part.replace(target)
            sync_folder(target.absolute().parent)
        except OSError as error:
            message = f"{entry.file} of {self.text} cannot be had: {error.strerror or error}. Try again."
            raise RegistryError(message) from error

    def _fetch_index(self) -> bytes:
        """Return the index as the server gives it."""
        try:
            with self._open(INDEX_FILE) as response:
                content: bytes = response.read(LARGEST_INDEX + 1)
        except (OSError, http.client.HTTPException) as error:
            raise RegistryError(_no_answer(self.text, INDEX_FILE, error)) from error
        if len(content) > LARGEST_INDEX:
            raise RegistryError(_too_large(self.text))
        return content

    def _download(self, entry: Entry, part: Path, told: Told) -> None:
        """Write the file of a model to ``part``; where the connection is cut, go on from there."""
        if part.exists():
            told(part.stat().st_size)
        trouble: Exception | None = None
        for _ in range(ATTEMPTS):
            have = part.stat().st_size if part.exists() else 0
            if have >= entry.bytes:
                return
            try:
                with self._open(entry.file, have) as response:
                    _receive(response, part, have, entry, told)
            except (OSError, http.client.HTTPException) as error:
                trouble = error
                # Only a connection that broke is tried again; what the server refuses stays refused.
                if isinstance(error, urllib.error.HTTPError):
                    break
        if part.exists() and part.stat().st_size >= entry.bytes:
            return
        raise RegistryError(_no_answer(self.text, entry.file, trouble)) from trouble

    def _open(self, name: str, start: int = 0) -> Any:
        """Return the answer of the server for a file, from a byte on; redirects lead to the same host alone."""
        home = urlsplit(self.text)
        headers = {"User-Agent": "canal", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        url = f"{self.text}/{quote(name)}"
        opener = urllib.request.build_opener(_NoRedirect)
        for _ in range(MOST_REDIRECTS + 1):
            request = urllib.request.Request(url, headers=headers)
            try:
                return opener.open(request, timeout=TIMEOUT)
            except urllib.error.HTTPError as error:
                # Whatever it says beside its code is not read.
                error.close()
                location = error.headers.get("Location")
                if error.code not in (301, 302, 303, 307, 308) or not location:
                    raise
                url = urljoin(url, location)
            _refuse_other_host(home, urlsplit(url), self.text)
        message = f"{self.text} redirects more than {MOST_REDIRECTS} times. Nothing was fetched. Check the address."
        raise RegistryError(message)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect by itself: each is looked at first."""

    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        """Return that nothing is to be asked for."""
        return


def _refuse_other_host(home: SplitResult, there: SplitResult, address: str) -> None:
    if (there.scheme, there.netloc) == (home.scheme, home.netloc):
        return
    message = (
        f"{address} redirects to {there.scheme}://{there.hostname or '(no host)'}, which is not the host that was "
        "named. Nothing was fetched. If that is meant, name it as the catalogue."
    )
    raise RegistryError(message)


def _receive(response: IO[bytes], part: Path, have: int, entry: Entry, told: Told) -> None:
    """Append what comes to the part; begin anew where the server does not go on from where it was asked to."""
    going_on = have > 0 and getattr(response, "status", 200) == 206
    headers: Any = getattr(response, "headers", {})
    if going_on and not str(headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
        going_on = False
        message = "the server sent another part than was asked for"
        part.unlink()
        raise OSError(message)
    if have and not going_on:
        told(-have)
    with part.open("ab" if going_on else "wb") as file:
        size = have if going_on else 0
        # Never more than the index says, and one byte that tells of more.
        while size <= entry.bytes and (block := response.read(min(_BLOCK, entry.bytes + 1 - size))):
            file.write(block)
            size += len(block)
            told(len(block))


def _copy(source: Path, part: Path, entry: Entry, told: Told) -> None:
    """Copy a file of a folder, if it has the size of the index."""
    if source.stat().st_size == entry.bytes:
        shutil.copyfile(source, part)
        told(entry.bytes)
        return
    part.write_bytes(b"")


def _check(part: Path, entry: Entry, address: str) -> None:
    """Refuse, and delete, a file that is not the one of the index."""
    size = part.stat().st_size
    digest = digest_file(part) if size == entry.bytes else f"another size than {entry.bytes:,} bytes"
    if digest == entry.sha256:
        return
    part.unlink()
    message = (
        f"{entry.file} of {address} is not the file of its index: it has {digest}, expected {entry.sha256}. It was "
        "deleted, and nothing was changed. Tell whoever keeps the catalogue."
    )
    raise RegistryError(message)


def _no_answer(address: str, name: str, error: Exception | None) -> str:
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server answers {error.code} {error.reason}"
    elif isinstance(error, urllib.error.URLError):
        reason = f"no connection ({error.reason})"
    else:
        reason = f"the connection was cut {ATTEMPTS} times" if error is None else f"{type(error).__name__}: {error}"
    return (
        f"{name} of {address} cannot be had: {reason}. What came of a model is kept, and the same command goes on from "
        "there. Check the address and the network."
    )


def _too_large(address: str) -> str:
    return (
        f"{address} is no catalogue of models: {INDEX_FILE} has more than {LARGEST_INDEX:,} bytes. Check the address."
    )
