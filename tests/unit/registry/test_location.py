"""Addresses of registries: a folder or a server, and never a password."""

import pytest

from canal.errors import RegistryError
from canal.registry.location import RegistryLocation


def test_a_folder_is_sqlite(tmp_path):
    """Database and artifacts stand in it."""
    found = RegistryLocation.of(tmp_path)

    assert found.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert found.artifacts == tmp_path / "artifacts"


@pytest.mark.parametrize(
    "uri", ["https://registry.example.org", "http://127.0.0.1:5000/", "https://example.org/mlflow/"]
)
def test_a_server_keeps_everything(tmp_path, uri):
    """Nothing of it is here; a slash at the end makes no other server."""
    found = RegistryLocation.of(tmp_path, uri)

    assert (found.uri, found.database, found.artifacts, found.artifact_uri) == (uri.rstrip("/"), None, None, None)
    assert str(found) == uri.rstrip("/")


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("ftp://example.org", "'ftp://example.org' is no address of a registry; expected 'local' or a server's"),
        ("registry.example.org", "no address"),
        ("https://", "no address"),
        ("postgresql://canal:secret@db/mlflow", "'postgresql://db/mlflow' is no address"),
        ("https://canal:secret@example.org", "holds a user or a password.*set MLFLOW_TRACKING_USERNAME"),
        ("https://canal@example.org", "holds a user or a password"),
    ],
)
def test_other_addresses_are_refused(tmp_path, uri, match):
    """No message repeats a password."""
    with pytest.raises(RegistryError, match=match) as caught:
        RegistryLocation.of(tmp_path, uri)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["what?", "100%"])
def test_a_folder_that_mlflow_cannot_address_is_refused(tmp_path, name):
    """Before anything is written to a wrong place."""
    with pytest.raises(RegistryError, match="Rename it"):
        RegistryLocation.of(tmp_path / name)
