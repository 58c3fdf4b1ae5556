"""A committed stage comes back whole, and MLflow shows it."""

import errno
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from canal.cli import workspace as doctor
from canal.cli.main import app
from canal.errors import RegistryError
from canal.files import digest_file
from canal.registry.flavour import model_card
from canal.registry.registry import Registry
from canal.registry.store import Store
from canal.stages.layout import Layout
from canal.stages.layout import open_registry as registry_of
from tests.integration.registry.conftest import OpenRegistry, add
from tests.unit.registry.make import fill, make_files, make_record


def test_a_stage_comes_back_as_it_was_committed(open_registry: OpenRegistry, tmp_path: Path) -> None:
    """Record, files, champion: to any other process."""
    committed = add(open_registry(), 1)
    registry = open_registry()

    assert registry.records() == [committed]
    assert registry.record() == registry.record(1) == committed
    assert registry.champion() == 1
    expected = make_record(1, created=committed.created).with_fields(
        version=committed.version, run_id=committed.run_id, artifacts=committed.artifacts
    )
    assert committed == expected
    folder = registry.artifacts(committed)
    for name, path in make_files(tmp_path, 1).items():
        assert (folder / name).read_bytes() == path.read_bytes()
        assert committed.artifacts[name] == digest_file(path)


def test_stages_are_listed_by_number(open_registry: OpenRegistry) -> None:
    """One version a stage, each the child of the one before, the last one in use."""
    registry = open_registry()
    for number in (1, 2, 3):
        add(registry, number)

    assert [r.number for r in registry.records()] == [1, 2, 3]
    assert [r.version for r in registry.records()] == [1, 2, 3]
    assert [r.parent for r in registry.records()] == [None, 1, 2]
    assert registry.champion() == 3
    assert registry.verify() == []
    assert registry.orphans() == []


def test_the_short_way_says_what_mlflow_says(open_registry: OpenRegistry) -> None:
    """Plain SQL and MLflow's client give the same snapshot, also with foreign and deleted versions."""
    registry = open_registry()
    for number in (1, 2, 3):
        add(registry, number, promote=number < 3)
    client = registry._store.client
    client.create_model_version(registry.name, source="s3://elsewhere/model", tags={"who": "knows"})
    client.delete_model_version(registry.name, "2")

    found = registry._store.snapshot()
    assert found == registry._store.snapshot_by_mlflow()
    assert [v.stage for v in found.versions] == [1, 3]
    assert found.aliases == {"candidate": 3}


def test_mlflow_shows_the_stage(open_registry: OpenRegistry) -> None:
    """Tags, parameters, curves by epoch, the data set without its cells, aliases instead of stages."""
    registry = open_registry()
    record = add(registry, 1)
    client = registry._store.client
    version = client.get_model_version_by_alias(registry.name, "champion")
    run = client.get_run(record.run_id)

    assert version.current_stage == "None"  # MLflow's own stages are deprecated
    assert version.source == f"runs:/{record.run_id}/model"
    assert version.tags["canal.stage"] == "1"
    assert version.tags["canal.name"] == "toy1"
    assert version.tags["canal.data_digest"] == record.data[0]["digest"]
    assert json.loads(version.tags["canal.types"]) == list(record.types)
    assert version.tags["canal.genes"] == "50"
    assert version.description == run.data.tags["mlflow.note.content"] == model_card(record)
    assert run.info.status == "FINISHED"
    assert run.data.tags["canal.state"] == "committed"
    assert run.data.params["training.epochs"] == "3"
    assert run.data.params["seed"] == "7"
    assert [m.value for m in client.get_metric_history(record.run_id, "validation_accuracy")] == [0.9]  # as on the card
    of_network = client.get_metric_history(record.run_id, "network_validation_accuracy")
    assert [m.value for m in of_network] == [0.0, 0.1, 0.2]
    curve = client.get_metric_history(record.run_id, "loss")
    assert [(m.step, m.value) for m in curve] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "toy1.h5ad"
    assert record.data[0]["digest"].startswith(f"sha256:{dataset.dataset.digest}")
    assert [(t.key, t.value) for t in dataset.tags] == [("mlflow.data.context", "stage-1-train")]


def test_the_stage_is_declared(open_registry: OpenRegistry) -> None:
    """``stages/NNN-name.toml`` appears with the commit."""
    registry = open_registry()
    add(registry, 1)

    path = registry.declarations / "001-toy1.toml"
    assert tomllib.loads(path.read_text())["stage"]["name"] == "toy1"


def test_a_candidate_is_not_in_use(open_registry: OpenRegistry) -> None:
    """Until it is chosen; and one may go back."""
    registry = open_registry()
    add(registry, 1)
    add(registry, 2, promote=False)
    assert registry.champion() == 1

    registry.set_champion(2)
    assert open_registry().champion() == 2
    registry.set_champion(1)
    assert open_registry().record().number == 1


def test_the_draft_is_gone_after_the_commit(open_registry: OpenRegistry) -> None:
    """Neither checkpoints nor copies of old cells stay."""
    registry = open_registry()
    add(registry, 1)

    assert list((registry.root / "drafts").iterdir()) == []


@pytest.mark.parametrize("step", ["set_alias", "finish_run", "tag_version"])
def test_a_committed_stage_is_no_failure(
    open_registry: OpenRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """Where the disk fails after the commit, the command says so and succeeds; the next writer does the rest."""
    registry = open_registry()
    add(registry, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Store, step, full)
        record = add(registry, 2)

    assert "Stage 2 is committed. What follows is left to the next command that writes" in caplog.text
    assert open_registry().champion() == 2
    with open_registry().writing():
        pass
    assert open_registry().records()[-1] == record
    assert open_registry().verify() == open_registry().orphans() == []


def test_a_stage_that_mlflow_has_although_it_failed_is_committed(
    open_registry: OpenRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may hold the version before MLflow stumbles; one that it does not hold is a failure."""
    registry = open_registry()
    create = Store.create_version
    message = "the disk is full"

    def late(store: Store, *words: Any) -> int:
        create(store, *words)
        raise RegistryError(message)

    def early(_store: Store, *_words: Any) -> int:
        raise RegistryError(message)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "create_version", late)
        assert add(registry, 1).version == 1
        patch.setattr(Store, "create_version", early)
        with pytest.raises(RegistryError, match=message):
            add(registry, 2)
    assert [record.number for record in open_registry().records()] == [1]


def test_the_doctor_names_what_is_left_over(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft of a killed run is named with what may be done; it is no problem."""
    monkeypatch.setattr(doctor, "PROBES", {"json": "import json"})
    shutil.copytree(made / "ws", tmp_path / "ws")
    words = ["-C", str(tmp_path / "ws"), "doctor", "--json"]
    before = json.loads(CliRunner().invoke(app, words).stdout)["registry"]
    fill(registry_of(Layout(tmp_path / "ws")).draft("key"), 4)

    after = CliRunner().invoke(app, words)

    assert before["left over"] == []
    (left,) = json.loads(after.stdout)["registry"]["left over"]
    assert left.startswith("draft key (0.0 MB): canal stage add --resume, or canal registry gc")
    assert after.exit_code == 0


def test_a_draft_waits_for_resume(open_registry: OpenRegistry) -> None:
    """Its folder and curves are found again by the key; the registry shows no stage."""
    draft = open_registry().draft("key1")
    fill(draft, 1, epochs=2)
    registry = open_registry()

    assert registry.records() == []
    assert [o.kind for o in registry.orphans()] == ["draft"]
    again = registry.draft("key1")
    assert {path.name for path in again.folder.iterdir()} >= {"epochs.jsonl", "types.json"}
    assert {step for _, _, _, step in again.epochs()} == {0, 1}
    assert [o.name for o in registry.collect_garbage()] == ["key1"]
    assert registry.orphans() == []


def test_a_record_too_long_for_a_tag_is_read_from_its_file(open_registry: OpenRegistry) -> None:
    """Thousands of cell types are possible."""
    registry = open_registry()
    types = tuple(f"a cell type with a rather long name, number {k}" for k in range(3000))
    committed = add(registry, 1, types=types)

    assert open_registry().records() == [committed]
    assert registry.verify() == []


def test_files_may_stand_in_folders(open_registry: OpenRegistry) -> None:
    """A name may hold a slash."""
    registry = open_registry()
    with registry.writing():
        draft = registry.draft("key1")
        files = make_files(draft.folder)
        record = draft.commit(make_record(1), {"code/deep/types.json": files["types.json"]})

    assert (registry.artifacts(record) / "code/deep/types.json").is_file()


@pytest.mark.parametrize(
    ("number", "parent", "match"),
    [
        pytest.param(1, None, "exists already; the next number is 2", id="taken"),
        pytest.param(2, 7, "starts from stage 7, which does not exist", id="no-parent"),
    ],
)
def test_a_stage_that_does_not_fit_is_refused(
    open_registry: OpenRegistry, number: int, parent: int | None, match: str
) -> None:
    """Nothing is written then."""
    registry = open_registry()
    first = add(registry, 1)
    with pytest.raises(RegistryError, match=match):
        add(registry, number, parent=parent)

    assert registry.records() == [first]
    assert [o.kind for o in registry.orphans()] == ["draft"]


def test_a_missing_file_commits_nothing(open_registry: OpenRegistry, tmp_path: Path) -> None:
    """The error names it."""
    registry = open_registry()
    with registry.writing(), pytest.raises(RegistryError, match=r"weights\.safetensors"):
        registry.draft("key1").commit(make_record(1), {"weights.safetensors": tmp_path / "none"})

    assert registry.records() == []


@pytest.mark.parametrize(
    ("stages", "number", "match"),
    [
        pytest.param(0, None, "no stage yet", id="empty"),
        pytest.param(0, 1, "no stage yet", id="empty-number"),
        pytest.param(2, 3, "no stage 3. Stages: 1, 2", id="unknown"),
    ],
)
def test_an_unknown_stage_is_told_with_those_that_exist(
    open_registry: OpenRegistry, stages: int, number: int | None, match: str
) -> None:
    """One clear message."""
    registry = open_registry()
    for k in range(1, stages + 1):
        add(registry, k)
    with pytest.raises(RegistryError, match=match):
        registry.record(number)


def test_no_registry_is_no_error_of_ours(tmp_path: Path) -> None:
    """It says what makes one, and makes none."""
    with pytest.raises(RegistryError, match=r"no registry yet\. `canal stage add"):
        Registry.open(tmp_path / "registry", "lab")

    assert not Registry.exists(tmp_path / "registry")
    assert list(tmp_path.iterdir()) == []
