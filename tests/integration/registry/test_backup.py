"""Back up a lab's server, lose everything, restore: nothing is missing afterwards.

`backup.sh` and `restore.sh` run as they are, with PostgreSQL, MLflow with passwords and an S3 server on this machine;
only `docker` is a stand-in that runs a container's command here.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from canal.errors import RegistryError
from canal.model.record import StageRecord
from canal.registry.registry import Registry
from canal.registry.store import PASSWORD
from canal.registry.store import USER as USER_VARIABLE
from tests.integration.registry.conftest import add
from tests.integration.registry.server import DEPLOYMENT, USER, Server, postgres_programs
from tests.integration.registry.test_server_trouble import _user_script

pytest.importorskip("moto", reason="needs moto and boto3 for an S3 server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed (Debian: postgresql)"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="user.sh needs curl"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
BUCKET, PLACE = "canal", "s3://canal/artifacts"
_MAKE_BUCKET = f"import boto3, os; boto3.client('s3', endpoint_url=os.environ['MLFLOW_S3_ENDPOINT_URL']).create_bucket(Bucket='{BUCKET}')"  # noqa: E501


@dataclass
class Lab:
    """A server, its bucket, and the scripts."""

    server: Server
    bucket: Any
    folder: Path

    def script(self, name: str, *words: str, answer: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a script of registry/server/ with the stand-in for `docker`."""
        programs = postgres_programs()
        environment = os.environ | {
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(programs), os.environ["PATH"]]),
            "FAKE_CONTAINERS": str(self.folder / "containers.json"),
        }
        return subprocess.run(
            [DEPLOYMENT / name, *words], input=answer, env=environment, capture_output=True, text=True, check=False
        )

    def calls(self) -> list[str]:
        """Return what `docker` was asked so far, and forget it."""
        log = self.folder / "docker.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def keys(self) -> set[str]:
        """Return the names of all objects in the bucket."""
        return {entry.key for entry in self.bucket.objects.all()}

    def lose_everything(self) -> None:
        """Destroy database, users and artifacts; something else is in their place."""
        self.server.stop_mlflow()
        self.server.recreate_database()
        self.server.users.unlink()
        self.bucket.objects.all().delete()
        self.bucket.put_object(Key="artifacts/9/of-another-time", Body=b"x")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab's server with artifacts on S3, and a stand-in for `docker`."""
    import boto3
    from moto.server import ThreadedMotoServer

    folder = tmp_path_factory.mktemp("lab")
    storage = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    storage.start()
    host, port = storage.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "canal", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = keys | {"MLFLOW_S3_ENDPOINT_URL": address}
    bucket = boto3.resource(
        "s3", endpoint_url=address, aws_access_key_id="canal", aws_secret_access_key="secret", region_name="us-east-1"
    ).Bucket(BUCKET)
    bucket.create()
    server = Server(destination=PLACE, environment=environment)
    server.start()
    python = [sys.executable, "-c", _MAKE_BUCKET]
    facts = {
        "log": str(folder / "docker.log"),
        "places": {"/opt/artifacts.py": str(DEPLOYMENT / "artifacts.py"), "/auth/": f"{server.users.parent}/"},
        "commands": {"bucket": python},
        "environment": environment | server.database | {"ARTIFACTS": PLACE},
    }
    (folder / "containers.json").write_text(json.dumps(facts))
    (folder / "bin").mkdir()
    for name, words in {"docker": f"-P {Path(__file__).with_name('containers.py')} ", "python": ""}.items():
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        program.chmod(0o755)
    yield Lab(server, bucket, folder)
    server.stop()
    storage.stop()


@dataclass
class Saved:
    """A backup, and what the server held then."""

    folder: Path
    model: str
    guest: str
    records: list[StageRecord]
    keys: set[str]


@pytest.fixture(autouse=True)
def _administrator(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER_VARIABLE, USER)
    monkeypatch.setenv(PASSWORD, lab.server.password)


@pytest.fixture(scope="module")
def saved(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Back up two stages, of which the first annotates, and a guest."""
    folder, guest = tmp_path_factory.mktemp("backup"), f"guest-{uuid.uuid4().hex[:6]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(USER_VARIABLE, USER)
        patch.setenv(PASSWORD, lab.server.password)
        registry = Registry.open(folder / "ws" / "registry", "lab", create=True, uri=lab.server.url)
        for number in (1, 2):
            add(registry, number)
        registry.set_champion(1)
        _user_script(lab.server, guest, secrets=(lab.server.password, "a-guests-password"))
        done = lab.script("backup.sh", str(folder / "saved"))
        assert done.returncode == 0, done.stderr
        return Saved(folder / "saved", registry.name, guest, registry.records(), lab.keys())


def test_all_is_lost_and_restored(lab: Lab, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages, champion, every byte, users and their passwords; what came after the backup is gone."""
    assert {p.name for p in saved.folder.iterdir()} == {"SHA256SUMS", "artifacts.tar", "database.dump", "users.db"}
    assert (saved.folder / "users.db").stat().st_mode & 0o077 == 0
    add(Registry.open(tmp_path / "a" / "registry", saved.model, uri=lab.server.url), 3)
    lab.lose_everything()
    lab.calls()

    done = lab.script("restore.sh", str(saved.folder), answer="replace\n")
    assert done.returncode == 0, done.stderr
    lab.server.start_mlflow()

    again = Registry.open(tmp_path / "b" / "registry", saved.model, uri=lab.server.url)
    assert again.records() == saved.records
    assert again.champion() == 1
    assert again.verify() == []
    assert lab.keys() == saved.keys
    assert add(again, 3, parent=1).number == 3
    verbs = [call.split()[1] for call in lab.calls()]
    assert (verbs[0], verbs[1], verbs[-1]) == ("up", "stop", "up")  # MLflow does not write meanwhile
    monkeypatch.setenv(USER_VARIABLE, saved.guest)
    monkeypatch.setenv(PASSWORD, "a-guests-password")
    assert len(Registry.open(tmp_path / "c" / "registry", saved.model, uri=lab.server.url).records()) == 3
    monkeypatch.setenv(PASSWORD, "another-password")
    with pytest.raises(RegistryError, match="does not know user"):
        Registry.open(tmp_path / "c" / "registry", saved.model, uri=lab.server.url)


def test_a_damaged_backup_changes_nothing(lab: Lab, saved: Saved, tmp_path: Path) -> None:
    """One byte in any file, or a file less; nobody is asked to do anything."""
    lab.calls()
    for name in ("database.dump", "users.db", "artifacts.tar", "SHA256SUMS"):
        copy = tmp_path / f"damaged-{name}"
        shutil.copytree(saved.folder, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        done = lab.script("restore.sh", str(copy), answer="replace\n")
        assert (done.returncode, lab.calls()) == (2, []), name
        assert "damaged; nothing was changed" in done.stderr
    (copy / "SHA256SUMS").write_text("")
    assert lab.script("restore.sh", str(copy), answer="replace\n").returncode == 2
    assert lab.calls() == []


def test_what_is_not_meant_is_refused(lab: Lab, saved: Saved, tmp_path: Path) -> None:
    """No folder, a folder that is there, an answer that is not `replace`: nobody is asked to do anything."""
    lab.calls()
    (tmp_path / "there").mkdir()
    for name, words, code in (
        ("backup.sh", (), 2),
        ("backup.sh", (str(tmp_path / "there"),), 2),
        ("restore.sh", (str(tmp_path / "there"),), 2),
    ):
        assert lab.script(name, *words).returncode == code
    assert lab.script("restore.sh", str(saved.folder), answer="yes\n").returncode == 1
    assert lab.calls() == []


def test_a_backup_that_fails_is_no_backup(lab: Lab, tmp_path: Path) -> None:
    """A server that does not answer leaves no folder that looks like one."""
    facts = (lab.folder / "containers.json").read_text()
    (lab.folder / "containers.json").write_text(facts.replace(lab.server.database["PGPORT"], "9"))
    try:
        done = lab.script("backup.sh", str(tmp_path / "saved"))
    finally:
        (lab.folder / "containers.json").write_text(facts)
    assert done.returncode != 0
    assert not (tmp_path / "saved").exists()
