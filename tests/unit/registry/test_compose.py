"""The files that start a lab's server fit together, and hold no password."""

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "registry" / "server"
# What the Compose specification knows of a service, as far as it is used here.
KEYS = {
    "image", "build", "restart", "environment", "volumes", "healthcheck", "command", "depends_on", "entrypoint",
    "ports",
}  # fmt: skip
SECRET = re.compile(r"PASSWORD|SECRET|KEY", re.IGNORECASE)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return the compose file."""
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    """Return what env.example says."""
    lines = (FOLDER / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_services_are_whole(compose):
    """Known keys; what they wait for and where they write is declared."""
    assert set(compose) == {"name", "services", "volumes"}
    services = compose["services"]
    for name, service in services.items():
        assert set(service) <= KEYS, name
        assert ("image" in service) != ("build" in service), name
        assert set(service.get("depends_on", {})) <= set(services), name
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], (name, needed)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (FOLDER / source).is_file() if source.startswith("./") else source in compose["volumes"], volume
    assert (FOLDER / services["mlflow"]["build"] / "Dockerfile").is_file()


def test_only_mlflow_has_a_port_and_only_here(compose):
    """Passwords must not cross a network in the clear."""
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert list(ports) == ["mlflow"]
    assert all(port.startswith("127.0.0.1:") for port in ports["mlflow"])


def test_nothing_has_a_default_password(compose, example):
    """Every secret comes from .env, which nothing starts without and git does not know; the example has none."""
    texts = []
    for service in compose["services"].values():
        for key, value in service.get("environment", {}).items():
            texts.append(str(value))
            if SECRET.search(key):
                assert re.fullmatch(r"\$\{\w+(:\?[^}]*)?\}", str(value)), key
    named = re.findall(r"\$\{(\w+)(:?[-?]?)", (FOLDER / "compose.yaml").read_text())
    assert {name for name, _ in named} <= set(example)
    required = {name for name, sign in named if sign == ":?"}
    assert {name for name in example if SECRET.search(name)} <= required
    assert [value for name, value in example.items() if SECRET.search(name)] == [""] * 4
    assert all(sign != ":-" for name, sign in named if SECRET.search(name))
    ini = configparser.ConfigParser()
    ini.read(FOLDER / "basic_auth.ini")
    assert [key for key in ini["mlflow"] if "password" in key] == []
    ignored = (FOLDER.parents[1] / ".gitignore").read_text().splitlines()
    assert "registry/server/.env" in ignored
    assert not any(re.search(r"://\w+:[^$@\s]+@", text) for text in texts)


def test_passwords_are_asked_for(compose):
    """MLflow runs with the shipped rules, where the compose file puts them."""
    mlflow = compose["services"]["mlflow"]
    assert "--app-name=basic-auth" in mlflow["command"]
    assert f"./basic_auth.ini:{mlflow['environment']['MLFLOW_AUTH_CONFIG_PATH']}:ro" in mlflow["volumes"]
    ini = configparser.ConfigParser()
    ini.read(FOLDER / "basic_auth.ini")
    users = Path(ini["mlflow"]["database_uri"].removeprefix("sqlite:///"))
    assert f"auth:{users.parent}" in mlflow["volumes"]
    for script in ("backup.sh", "restore.sh"):
        assert str(users) in (FOLDER / script).read_text()


def test_the_scripts_mean_the_services_of_the_compose_file(compose):
    """Services, database, place of the artifacts and mounted files are those that are declared."""
    mlflow = compose["services"]["mlflow"]
    assert f"--artifacts-destination={mlflow['environment']['ARTIFACTS']}" in mlflow["command"]
    assert mlflow["environment"]["ARTIFACTS"].removeprefix("s3://").split("/")[0] in str(
        compose["services"]["bucket"]["entrypoint"]
    )
    assert "./artifacts.py:/opt/artifacts.py:ro" in mlflow["volumes"]
    database = compose["services"]["database"]["environment"]
    for script in ("backup.sh", "restore.sh"):
        text = (FOLDER / script).read_text().replace("\\\n", " ")
        calls = re.findall(r"docker compose (?:exec|run)((?: -\S+)*) (\S+)", text)
        assert {service for _, service in calls} <= set(compose["services"])
        assert f"--username={database['POSTGRES_USER']}" in text
        assert database["POSTGRES_DB"] in text
        assert "/opt/artifacts.py" in text
