"""A workspace is made once, found where it is meant, and its settings are checked."""

from pathlib import Path

import pytest

from canal.errors import ConfigError
from canal.stages.layout import Layout, Settings, model_name


def test_init_makes_what_it_promises(tmp_path):
    """Three folders and a file whose settings load."""
    layout = Layout.init(tmp_path / "My Atlas, 2")
    assert layout.configs.is_dir()
    assert layout.stages.is_dir()
    assert layout.registry.is_dir()
    assert layout.settings == Settings(
        name="My-Atlas-2", registry="local", labels="cell_type", preset="compact", seed=0
    )
    assert not layout.may_have_stages()


def test_init_overwrites_nothing(tmp_path):
    """A workspace that exists is left as it is."""
    Layout.init(tmp_path)
    (tmp_path / "canal.toml").write_text('name = "mine"\nseed = 3\n')
    (tmp_path / "configs/own.toml").write_text("x = 1\n")
    layout = Layout.init(tmp_path)
    assert (layout.settings.name, layout.settings.seed) == ("mine", 3)
    assert (tmp_path / "configs/own.toml").read_text() == "x = 1\n"


def test_a_kill_in_init_leaves_a_folder_that_can_be_used(tmp_path, monkeypatch):
    """Whatever moment it comes at: the folder is still empty, or a workspace already."""
    made = []
    make = Path.mkdir

    for fatal in range(1, 5):
        root = tmp_path / str(fatal)
        made.clear()

        def killed(path, *args, **options):
            made.append(path)
            if len(made) == fatal:  # noqa: B023
                raise KeyboardInterrupt
            make(path, *args, **options)

        monkeypatch.setattr(Path, "mkdir", killed)
        with pytest.raises(KeyboardInterrupt):
            Layout.init(root)
        monkeypatch.undo()

        Layout(root).require(or_vacant=True)
        assert Layout.init(root).registry.is_dir()


def test_init_where_nothing_may_be_made(tmp_path):
    """A file in the way is one clear error."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="No workspace can be made"):
        Layout.init(tmp_path / "file/inside")


def test_find_prefers_the_explicit_folder(tmp_path, monkeypatch):
    """Explicit, then the variable, then here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANAL_WORKSPACE", "/there")
    assert Layout.find(Path("here")).root == Path("here")
    assert Layout.find().root == Path("/there")
    monkeypatch.setenv("CANAL_WORKSPACE", "")
    assert Layout.find().root == tmp_path


def test_require(tmp_path):
    """A missing workspace says how to make one; a vacant folder may be taken."""
    with pytest.raises(ConfigError, match="canal init"):
        Layout(tmp_path).require()
    (tmp_path / ".DS_Store").touch()
    assert Layout(tmp_path).require(or_vacant=True).root == tmp_path
    assert Layout(tmp_path / "new").require(or_vacant=True)
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(ConfigError, match=r"no canal\.toml"):
        Layout(tmp_path).require(or_vacant=True)
    assert Layout.init(tmp_path).require().root == tmp_path


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name = 'x'\nlabel = 'y'", "unknown key 'label'.*labels"),
        ("seed = 1", "missing key 'name'"),
        ("name = 'a/b'", "name = 'a/b'"),
        ("name = 'x'\nseed = -1", "seed = -1"),
        ("name = 'x'\nregistry = 'ftp://x'", "registry"),
        ("name =", "not valid TOML"),
    ],
    ids=["unknown", "missing", "unsafe", "negative", "server", "broken"],
)
def test_bad_settings_are_named(tmp_path, text, match):
    """The error names the file, the key and the keys there are."""
    (tmp_path / "canal.toml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        _ = Layout(tmp_path).settings


@pytest.mark.parametrize(("folder", "name"), [("pbmc", "pbmc"), ("日本", "canal"), ("a b/..c ", "c"), ("_x_", "x")])
def test_names_are_safe(tmp_path, folder, name):
    """Whatever the folder is called, its model has a name that MLflow takes."""
    assert model_name(tmp_path / folder) == name
    assert Settings(name=name)
