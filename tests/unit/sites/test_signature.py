"""Exports are signed by a site's key; what nobody signed whom we trust is refused unless it is asked for."""

import json
import stat
import zipfile

import pytest

import canal
from canal.errors import RegistryError
from canal.registry.signature import make_key, own_key, public_key, trust, trusted_keys
from canal.sites.export import ExportOptions, reduced_model, write_export
from canal.sites.manifest import manifest_of, read_export
from tests.labs import add, write

FAR = "ed25519:" + "ab" * 32


@pytest.fixture
def signed(models, tmp_path):
    """The signed export of a toy site, and the folder of its key."""
    private = make_key(tmp_path / "south")
    reduced, facts = reduced_model(models["south"], ExportOptions())
    manifest = manifest_of(reduced, "south", facts, {}, {1: ["south"]})
    write_export(tmp_path / "south.canal", reduced, manifest, private_key=private)
    return tmp_path / "south.canal", public_key(private)


def test_a_key_is_made_once_and_for_its_owner(tmp_path):
    """Another call gives the same key; nobody else can read it."""
    first = make_key(tmp_path / "keys")
    assert make_key(tmp_path / "keys") == first == own_key(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys" / "site.key").stat().st_mode) == 0o600
    (tmp_path / "keys" / "site.key").write_text("00")
    with pytest.raises(RegistryError, match="holds 1 bytes"):
        own_key(tmp_path / "keys")


def test_who_signed_is_known(signed):
    """The signature is of the content: the same export, the same signature."""
    path, key = signed
    assert read_export(path).signer == key


def test_the_signature_of_another_file_is_refused(signed, exports, tmp_path):
    """A signature that was moved, or any changed byte of it."""
    path, _ = signed
    with zipfile.ZipFile(path) as archive:
        table = json.loads(archive.read("signature.json"))
        comment = archive.comment
        files = {info: archive.read(info) for info in archive.infolist()}
    table["signature"] = table["signature"][:-2] + ("00" if table["signature"][-2:] != "00" else "11")
    with zipfile.ZipFile(tmp_path / "forged.canal", "w") as archive:
        archive.comment = comment
        for info, content in files.items():
            archive.writestr(info, json.dumps(table) if info.filename == "signature.json" else content)
    with pytest.raises(RegistryError, match="not signed by the key that it names"):
        read_export(tmp_path / "forged.canal")


def test_only_trusted_exports_are_merged(signed, exports, tmp_path):
    """Unsigned and unknown are refused, and taken with a word; a trusted key is enough."""
    path, key = signed
    workspace = canal.open_workspace(tmp_path / "w", create=True)
    with pytest.raises(RegistryError, match=r"is not signed.*--unsigned"):
        workspace.merge_sites([exports["north"]], tmp_path / "a.canal")
    with pytest.raises(RegistryError, match=r"does not trust.*canal site trust NAME"):
        workspace.merge_sites([path], tmp_path / "a.canal")
    assert not (tmp_path / "a.canal").exists()
    workspace.trust_key("south", key)
    record = workspace.merge_sites([path], tmp_path / "a.canal")
    assert record.notes["merged"]["sites"][0]["signed_by"] == key
    workspace.merge_sites([path, exports["north"]], tmp_path / "b.canal", unsigned=True)


def test_the_list_of_trusted_keys(tmp_path):
    """A name has one key, a key one name; what is no key is refused."""
    assert trust(tmp_path, "far", FAR) == {FAR: "far"} == trust(tmp_path, "far", FAR)
    for name, key, message in (
        ("far", "ed25519:" + "cd" * 32, "stands for another key"),
        ("other", FAR, "trusted already, as 'far'"),
        ("x", "ed25519:12", "is no key"),
        ("x", "ed25519:" + "zz" * 32, "is no key"),
    ):
        with pytest.raises(RegistryError, match=message):
            trust(tmp_path, name, key)
    assert trusted_keys(tmp_path) == {FAR: "far"}


def test_stages_of_others_have_to_be_signed_where_keys_are_listed(tmp_path):
    """`registry export` signs, too; a workspace that lists keys imports what these have signed."""
    there = canal.open_workspace(tmp_path / "there", create=True)
    add(there, write(tmp_path, "cells"))
    there.export(tmp_path / "plain.canal")
    key = there.site_key()
    there.export(tmp_path / "signed.canal")
    here = canal.open_workspace(tmp_path / "here", create=True)
    here.trust_key("far", FAR)
    for name, message in (("plain", "is not signed"), ("signed", "does not trust")):
        with pytest.raises(RegistryError, match=message):
            here.import_stage(tmp_path / f"{name}.canal")
    here.trust_key("there", key)
    assert here.import_stage(tmp_path / "signed.canal").number == 1
