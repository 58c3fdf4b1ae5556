"""Signatures of packages, and the keys of a workspace: whose export a file is, and whom this workspace trusts.

Ed25519 over the hash that names the content of a package. A workspace keeps its own key in ``keys/site.key``, readable
by its owner alone, and the keys it trusts in ``keys/trusted.csv``, a name and a key a line.
"""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canal.errors import RegistryError
from canal.files import write_whole

PREFIX = "ed25519:"  # of a public key, before its 64 hexadecimal digits
KEY_BYTES, SIGNATURE_BYTES = 32, 64
KEY_FILE, TRUSTED_FILE = "site.key", "trusted.csv"
_MESSAGE = "canal package "  # comes before the hash that is signed, so that the signature is good for nothing else


def sign(private: bytes, digest: str) -> dict[str, str]:
    """Return the signature of a package's hash, and the key that checks it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(private)
    signature = key.sign((_MESSAGE + digest).encode()).hex()
    return {"algorithm": "ed25519", "key": public_key(private), "signature": signature}


def public_key(private: bytes) -> str:
    """Return the public key, as people pass it on, of a private one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return PREFIX + Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()


def signer_of(table: Mapping[str, Any], digest: str, source: Path) -> str:
    """Return the public key that signed a package's hash.

    Raises
    ------
    RegistryError
        If the signature is none of this hash by that key.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key, signature = str(table["key"]), bytes.fromhex(str(table["signature"]))
        if table["algorithm"] != "ed25519" or len(table) != 3 or len(signature) != SIGNATURE_BYTES:
            raise ValueError("algorithm")  # noqa: EM101 - told below
        Ed25519PublicKey.from_public_bytes(_raw(key)).verify(signature, (_MESSAGE + digest).encode())
    except (KeyError, TypeError, ValueError, InvalidSignature) as error:
        message = (
            f"{source} is not signed by the key that it names: it was changed, or the signature is of another file. "
            "Nothing was changed here. Fetch it again, or ask for a new export."
        )
        raise RegistryError(message) from error
    return key


def _raw(key: str) -> bytes:
    """Return the bytes of a public key; `ValueError` where it is none."""
    raw = bytes.fromhex(key.removeprefix(PREFIX))
    if not key.startswith(PREFIX) or len(raw) != KEY_BYTES or key != PREFIX + raw.hex():
        raise ValueError(key)
    return raw


def own_key(folder: Path) -> bytes | None:
    """Return the private key of a workspace, ``None`` where it has none.

    Raises
    ------
    RegistryError
        If it is damaged.
    """
    path = folder / KEY_FILE
    if not path.is_file():
        return None
    try:
        private = bytes.fromhex(path.read_text(encoding="utf-8").strip())
    except (ValueError, OSError) as error:
        message = f"{path} cannot be read as a key ({str(error)[:80]}). Put it back from a backup."
        raise RegistryError(message) from error
    if len(private) != KEY_BYTES:
        message = f"{path} holds {len(private)} bytes; a key has {KEY_BYTES}. Put it back from a backup."
        raise RegistryError(message)
    return private


def make_key(folder: Path) -> bytes:
    """Return the private key of a workspace; a new one, readable by its owner alone, where it has none."""
    private = own_key(folder)
    if private is not None:
        return private
    private = os.urandom(KEY_BYTES)
    folder.mkdir(parents=True, exist_ok=True)
    # Made with its rights, not given them later; one that another process made meanwhile stays.
    try:
        descriptor = os.open(folder / KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        existing = own_key(folder)
        assert existing is not None
        return existing
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(private.hex() + "\n")
    return private


def trusted_keys(folder: Path) -> dict[str, str]:
    """Return the name of each key that a workspace trusts, by key; its own is among them.

    Raises
    ------
    RegistryError
        If a line of the list is no name and key.
    """
    keys = {}
    path = folder / TRUSTED_FILE
    if path.is_file():
        for number, row in enumerate(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))), 1):
            if number == 1 or not row:
                continue  # the names of the columns
            if len(row) != 2:
                message = f"{path}, line {number}: expected a name and a key, found {len(row)} values."
                raise RegistryError(message)
            keys[checked_key(row[1], f"{path}, line {number}: ")] = row[0]
    private = own_key(folder)
    if private is not None:
        keys.setdefault(public_key(private), "this workspace")
    return keys


def trust(folder: Path, name: str, key: str) -> dict[str, str]:
    """Add a key to the list of those that a workspace trusts; return all by key.

    Raises
    ------
    RegistryError
        If it is no key, or the name or the key is in the list with another.
    """
    checked = checked_key(key, "")
    keys = trusted_keys(folder)
    if not name.strip() or (name in keys.values() and keys.get(checked) != name):
        message = f"The name {name!r} is empty, or stands for another key already; choose another."
        raise RegistryError(message)
    if keys.get(checked, name) != name:
        message = f"The key is trusted already, as {keys[checked]!r}."
        raise RegistryError(message)
    listed = {k: n for k, n in keys.items() if n != "this workspace"} | {checked: name}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "key"])
    for one in sorted(listed, key=lambda key: listed[key]):
        writer.writerow([listed[one], one])
    write_whole(folder / TRUSTED_FILE, text.getvalue().encode())
    return trusted_keys(folder)


def checked_key(key: str, where: str) -> str:
    """Return a public key.

    Raises
    ------
    RegistryError
        If it is none.
    """
    try:
        _raw(key.strip())
    except ValueError as error:
        message = (
            f"{where}{key[:80]!r} is no key; expected {PREFIX} and 64 hexadecimal digits: `canal site key` at theirs."
        )
        raise RegistryError(message) from error
    return key.strip()


def demands_signatures(folder: Path) -> bool:
    """Tell whether a workspace lists keys that it trusts: then stages of others have to be signed by one of them."""
    return (folder / TRUSTED_FILE).is_file()


def check_signer(source: Path, signer: str, folder: Path) -> str:
    """Return the name under which a workspace trusts the signer of a package.

    Parameters
    ----------
    source
        The package, for the message.
    signer
        Public key of whoever signed it, ``""`` where nobody did.
    folder
        Keys of the workspace.

    Raises
    ------
    RegistryError
        If nobody signed it, or somebody whom the workspace does not trust.
    """
    keys = trusted_keys(folder)
    if signer in keys:
        return keys[signer]
    if signer:
        message = (
            f"{source} is signed by {signer}, which this workspace does not trust. Ask the site for its key on another "
            f"way (canal site key), and if it is this one: canal site trust NAME {signer}. Or take the file as it is "
            "with --unsigned."
        )
    else:
        message = (
            f"{source} is not signed: nobody can tell who made it. Ask the site to make a key (canal site key) and "
            "export anew, or take the file as it is with --unsigned."
        )
    raise RegistryError(message)
