"""A file that comes from elsewhere runs no code: not when it is taken in, and not when MLflow loads it afterwards."""

import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from canal.errors import RegistryError
from canal.files import digest_bytes
from canal.history.exchange import export_stage, import_stage
from canal.registry.flavour import FLAVOUR_FILES, LOADER, MODEL_FILES
from canal.registry.registry import Registry
from canal.registry.store import import_mlflow
from canal.stages.layout import Layout
from canal.workspace import load_model
from tests.archives.write import HERE
from tests.integration.registry.conftest import add
from tests.make import make_adata
from tests.unit.registry.make import fill, make_record

# MLflow's own, when its module is imported; of a type that we do not use.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")

EVIL = "import pathlib\npathlib.Path({mark!r}).touch()\n\n\ndef _load_pyfunc(path):\n    return None\n"
MLMODEL = json.dumps({"flavors": {"python_function": {"loader_module": "canal_evil", "code": "code"}}})


def forged(path: Path, changes: Mapping[str, bytes], *, told: bool = True) -> Path:
    """Put files into a package with all its hashes right; ``told``: in record and manifest, too."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest, record = json.loads(files["canal.json"]), json.loads(files["record.json"])
    for name, content in changes.items():
        files[f"model/{name}"] = content
        if told:
            record["artifacts"][name] = digest_bytes(content)
    files["record.json"] = json.dumps(record).encode()
    for name, content in files.items():
        if name in manifest["files"] or (told and name != "canal.json"):
            manifest["files"][name] = {"digest": digest_bytes(content), "bytes": len(content)}
    files["canal.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.comment = digest_bytes(files["canal.json"]).encode()
    return path


@pytest.fixture
def exported(learned: Path, tmp_path: Path) -> Path:
    """A learned stage in a file."""
    export_stage(Layout(learned), 1, tmp_path / "model.canal")
    return tmp_path / "model.canal"


def test_a_learned_stage_has_exactly_the_files_of_the_list(learned: Path) -> None:
    """A file that a stage writes and the list lacks could not be imported anywhere."""
    registry = Registry.open(learned / "registry", "ws")
    of_others = {"sure.json", "voter.safetensors"}  # of stages with --ontology, and of lines that start from a voter

    assert set(registry.record(1).artifacts) == (MODEL_FILES - of_others) | FLAVOUR_FILES


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("name", ["code/evil.py", "evil.pkl", "conda.yaml", "code/__init__.py"])
def test_a_file_that_no_stage_has_is_refused(exported: Path, tmp_path: Path, name: str, *, told: bool) -> None:
    """By import and by annotate, with one message and before anything is written."""
    forged(exported, {name: b"print()"}, told=told)

    with pytest.raises(RegistryError, match=f"holds the file '{name}', which is no part of a stage"):
        import_stage(Layout(tmp_path / "other"), exported)
    assert not (tmp_path / "other").exists()
    with pytest.raises(RegistryError, match="no part of a stage"):
        load_model(exported).annotate(make_adata(10, types=("B", "NK")))


def test_mlflow_loads_our_code_alone(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loader and requirements the package names: they are written anew, and verify has nothing to say."""
    mark = tmp_path / "code-ran"
    (tmp_path / "canal_evil.py").write_text(EVIL.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    foreign = {
        "MLmodel": MLMODEL.encode(),
        "requirements.txt": b"evil\n",
        "python_env.yaml": b"dependencies:\n- evil\n",
        "input_example.json": b"{}",
    }
    forged(exported, foreign)

    record, _ = import_stage(Layout(tmp_path / "other"), exported)

    registry = Registry.open(tmp_path / "other" / "registry", "other")
    folder = registry.artifacts(record)
    assert not [name for name, content in foreign.items() if (folder / name).read_bytes() == content]
    assert registry.verify() == []
    found = import_mlflow().pyfunc.load_model(str(folder))
    assert found.loader_module == LOADER
    assert found.predict(found.input_example).shape == (1, 2)
    assert not mark.exists()
    assert "canal_evil" not in sys.modules
    registry.close()


def test_what_an_older_canal_took_in_is_named(local_registry: Registry, tmp_path: Path, monkeypatch) -> None:
    """It imported anything: verify says so, and the stage goes no further."""
    monkeypatch.setattr("canal.registry.flavour.write_flavour", lambda *_: {})
    with local_registry.writing():
        draft = local_registry.draft("import-1")
        files = fill(draft, 1)
        for name, content in {"MLmodel": MLMODEL, "evil.py": "import os"}.items():
            (draft.folder / name).write_text(content)
            files[name] = draft.folder / name
        draft.commit(make_record(1), files | {"code/evil.py": files.pop("evil.py")})

    found = [(p.stage, p.what, p.kind) for p in local_registry.verify()]

    assert found == [(1, "code/evil.py", "extra"), (1, "MLmodel", "altered")]
    with pytest.raises(RegistryError, match=r"'code/evil\.py', which is no part of a stage"):
        local_registry.export(1, tmp_path / "model.canal")
    assert not (tmp_path / "model.canal").exists()


@pytest.mark.parametrize("archive", sorted(HERE.glob("v*/model.canal")), ids=lambda path: path.parent.name)
def test_old_exports_are_imported(archive: Path, tmp_path: Path) -> None:
    """Of every version; the model is the same to the byte."""
    record, champion = import_stage(Layout(tmp_path / "other"), archive)

    registry = Registry.open(tmp_path / "other" / "registry", "other")
    assert champion
    assert registry.verify() == []
    with zipfile.ZipFile(archive) as package:
        kept = json.loads(package.read("record.json"))["artifacts"]
    assert {n: d for n, d in record.artifacts.items() if n in MODEL_FILES} == {
        n: d for n, d in kept.items() if n not in FLAVOUR_FILES
    }
    registry.close()


@pytest.mark.usefixtures("made_up_files")
def test_the_same_model_with_other_mlflow_files_is_the_same(local_registry: Registry, tmp_path: Path) -> None:
    """Only the model decides: an export of another version of canal is not a new stage."""
    add(local_registry, 1)
    local_registry.export(1, tmp_path / "one.canal")
    Layout.init(tmp_path / "other")
    import_stage(Layout(tmp_path / "other"), tmp_path / "one.canal")
    forged(tmp_path / "one.canal", {"requirements.txt": b"canal==0.0.1\n"})

    with pytest.raises(RegistryError, match=r"is stage 1 .* already"):
        import_stage(Layout(tmp_path / "other"), tmp_path / "one.canal")
