"""All that can be wrong on the way to a server: each is told in one message, and nothing is changed."""

import http.server
import os
import shutil
import subprocess
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from canal.errors import RegistryError
from canal.registry.registry import Registry
from canal.registry.store import PASSWORD, USER
from tests.integration.registry.conftest import add
from tests.integration.registry.server import DEPLOYMENT, Server

pytestmark = pytest.mark.slow


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def _refused(uri: str, tmp_path: Path) -> str:
    with pytest.raises(RegistryError) as caught:
        Registry.open(tmp_path / "registry", "lab", create=True, uri=uri)
    return str(caught.value)


def test_a_server_that_is_down_is_told(tmp_path: Path, quickly: None) -> None:
    """Within seconds; with the reason and what to check."""
    message = _refused("http://127.0.0.1:9", tmp_path)

    assert "http://127.0.0.1:9 does not answer (Connection refused)" in message
    assert "`registry` in canal.toml" in message


def test_a_wrong_password_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password itself is not shown; nothing is made."""
    monkeypatch.setenv(PASSWORD, "a wrong one")
    message = _refused(server.url, tmp_path)

    assert "does not know user 'admin' with this password" in message
    assert "a wrong one" not in message


def test_a_default_password_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody knows it: before the server is asked, and without showing it."""
    monkeypatch.setenv(USER, "admin")
    monkeypatch.setenv(PASSWORD, "password1234")
    message = _refused("http://127.0.0.1:9", tmp_path)

    assert f"{PASSWORD} is a password that MLflow servers come with" in message
    assert "password1234" not in message


def test_a_missing_password_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variables to set."""
    monkeypatch.delenv(USER)
    monkeypatch.delenv(PASSWORD)

    assert f"Set {USER} and {PASSWORD}" in _refused(server.url, tmp_path)


@pytest.mark.skipif(shutil.which("curl") is None, reason="user.sh needs curl")
def test_users_may_read_until_they_may_more(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`registry/server/user.sh` makes them; who may only read is told whom to ask, and the stages are as before."""
    name, guest = f"lab-{uuid.uuid4().hex[:12]}", f"guest-{uuid.uuid4().hex[:6]}"
    owner = Registry.open(tmp_path / "a" / "registry", name, create=True, uri=server.url)
    one = add(owner, 1)
    _user_script(server, guest, secrets=(server.password, "a-guests-password"))
    monkeypatch.setenv(USER, guest)
    monkeypatch.setenv(PASSWORD, "a-guests-password")
    registry = Registry.open(tmp_path / "b" / "registry", name, uri=server.url)

    assert registry.records() == [one]
    with pytest.raises(RegistryError, match=rf"does not allow {guest} to do this\. Ask whoever runs it"):
        registry.set_champion(1)
    with pytest.raises(RegistryError, match="does not allow"):
        add(registry, 2)
    assert registry.records() == [one]
    _user_script(server, guest, name, secrets=(server.password,))
    assert add(registry, 2).number == 2
    assert owner.champion() == 2


class _NoMlflow(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_another_kind_of_server_is_told(tmp_path: Path, quickly: None) -> None:
    """Such as the lab's home page."""
    with http.server.HTTPServer(("127.0.0.1", 0), _NoMlflow) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        message = _refused(f"http://127.0.0.1:{page.server_port}", tmp_path)
        page.shutdown()

    assert "is no MLflow server" in message


def test_an_unknown_model_is_told_with_those_there_are(server: Server, tmp_path: Path) -> None:
    """Without --create nothing is made."""
    Registry.open(tmp_path / "a" / "registry", "known", create=True, uri=server.url)
    with pytest.raises(RegistryError, match=r"no model 'unknown'; it has: .*known"):
        Registry.open(tmp_path / "b" / "registry", "unknown", uri=server.url)


def _user_script(server: Server, *words: str, secrets: tuple[str, ...]) -> None:
    done = subprocess.run(
        [DEPLOYMENT / "user.sh", *words],
        input="".join(f"{secret}\n" for secret in secrets),
        env=os.environ | {"MLFLOW_TRACKING_URI": server.url},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
