"""Commands run in this process, on a fake workspace."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from canal.cli.answer import Session
from canal.cli.main import app
from tests.unit.cli.fakes import FakeWorkspace

Run = Callable[..., Result]


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> FakeWorkspace:
    """Put a fake in the place of the workspace."""
    fake = FakeWorkspace()
    monkeypatch.setattr(Session, "workspace", lambda _session, **_options: fake)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CANAL_WORKSPACE", raising=False)
    return lambda *parts: CliRunner().invoke(app, " ".join(map(str, parts)).split())


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Return a function that runs a command line that must work, and gives its JSON."""

    def answer(*arguments: Any) -> Any:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return answer
