"""What users rely on: names, commands, options, presets. A change here is a change for them."""

import importlib
import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.config import dump_preset, load_preset, shipped_presets
from tests.commands import all_commands, options_of

# Frozen: a new knob goes into the presets (`--set`), not onto the command line.
OPTIONS = {
    "init": ["--from", "DIR"],
    "demo": ["--out", "--seed"],
    "ui": ["--port"],
    "doctor": ["--data", "--gene-key", "--stage"],
    "version": [],
    "stage add": [
        "--again", "--data", "--devices", "--drop-label", "--drop-rare", "--gene-key", "--keep-label", "--label-map",
        "--labels", "--name", "--nodes", "--ontology", "--preset", "--resume", "--seed", "--set", "--strict-labels",
        "--test", "--weights",
    ],
    "stage list": [],
    "stage show": ["N"],
    "stage promote": ["N"],
    "stage rollback": [],
    "stage diff": ["--data", "--gene-key", "--out", "A", "B"],
    "stage remove": ["N"],
    "stage replay": ["--out", "STAGES"],
    "registry verify": [],
    "registry gc": ["--keep-drafts"],
    "registry export": ["FILE", "N"],
    "registry import": ["--name", "--unsigned", "FILE"],
    "compare": ["--html", "--recompute", "--references", "N"],
    "benchmark": [
        "--first-seed", "--kept", "--list", "--markers", "--methods", "--orders", "--out", "--peers", "--preset",
        "--seeds", "--set", "--stream",
    ],
    "bank show": ["--stage"],
    "annotate": [
        "--adapt", "--alpha", "--alpha-label", "--author", "--batch", "--cas", "--dask", "--data", "--filter",
        "--format", "--gene-key", "--key-added", "--majority-voting", "--min-probability", "--model", "--neighbors",
        "--out", "--over-clustering", "--overwrite", "--scores", "--stage", "--transductive", "--types",
    ],
    "evaluate": [
        "--adapt", "--alpha", "--batch", "--data", "--drop-label", "--filter", "--gene-key", "--keep-label",
        "--label-map", "--labels", "--min-probability", "--model", "--novel", "--out", "--site", "--stage",
        "--transductive",
    ],
    "explain": [
        "--cells", "--data", "--enrich", "--gene-key", "--labels", "--out", "--rank", "--stage", "--top", "--type",
    ],
    "panel check": ["--depth", "--model", "--stage", "GENES"],
    "panel design": ["--add", "--from", "--model", "--out", "--overwrite", "--stage"],
    "pretrain": [
        "--data", "--gene-key", "--gene2vec", "--genes", "--name", "--preset", "--resume", "--seed", "--set",
        "FILES",
    ],
    "weights import": ["--gene2vec", "--genes", "--name", "FILE"],
    "weights list": [],
    "weights show": ["NAME"],
    "weights export": ["FILE", "NAME"],
    "models list": ["--catalogue"],
    "models get": ["--catalogue", "--out", "NAME"],
    "models mirror": ["--catalogue", "DIR"],
    "models add": ["--catalogue", "FILE"],
    "models show": ["NAME|FILE"],
    "models import-celltypist": ["--out", "FILE"],
    "novel find": [
        "--adapt", "--alpha", "--batch", "--data", "--gene-key", "--min-size", "--out", "--resolution", "--stage",
        "--uncertain",
    ],
    "novel name": ["--known-ok", "--labels", "--name", "--names", "--with-known", "DIR"],
    "review open": ["--basis", "--fresh", "--gene-key", "--labels", "--no-browser", "--port", "--user", "FILE"],
    "review export": ["--approved", "--cas", "--out", "--overwrite", "FILE"],
    "labels suggest": [
        "--data", "--labels", "--names", "--out", "--overwrite", "--species", "--stage", "--tissue",
    ],
    "labels accept": ["CSV"],
    "labels list": ["--stage"],
    "labels tree": ["--out", "--stage"],
    "labels rename": ["NEW", "OLD"],
    "labels merge": ["--into", "TYPES"],
    "labels split": ["--data", "--gene-key", "--label-map", "--labels", "--name", "TYPE"],
    "site genes": ["--gene-key", "--out", "FILES"],
    "site export": ["--genes", "--max-directions", "--min-cells", "--site", "--stage", "--with-network", "FILE"],
    "site show": ["--html", "FILE"],
    "site key": [],
    "site trust": ["KEY", "NAME"],
    "site report": ["--html", "FILES"],
    "merge": ["--disjoint", "--map", "--name", "--out", "--preset", "--unsigned", "--without", "FILES"],
    "privacy audit": ["--data", "--donor", "--gene-key", "--labels", "--out", "--seed", "EXPORT"],
    "config list": [],
    "config show": ["PRESET"],
}  # fmt: skip
HEAVY = ("torch", "mlflow", "scanpy", "anndata", "pandas", "numpy", "scipy", "avalanche", "matplotlib")


def test_all_is_true():
    """Every public name is there, and nothing is public by accident."""
    for name in canal.__all__:
        assert getattr(canal, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = canal.nothing


@pytest.mark.parametrize("module", ["canal", "canal.cli.main"])
def test_imports_are_light(module):
    """Help and completion wait for no library."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) & set(HEAVY) == set()


def test_the_commands_are_frozen():
    """Commands and options are these, and every one has --json."""
    found = {name: options_of(command) for name, command in all_commands().items()}
    assert {name: sorted(set(options) - {"--json", "--help"}) for name, options in found.items()} == OPTIONS
    assert all("--json" in options for options in found.values())


@pytest.mark.parametrize("name", all_commands())
def test_every_command_has_help_with_an_example(name):
    """The help says what the command does and shows a line that works."""
    result = CliRunner().invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0
    epilog = all_commands()[name].epilog or ""
    assert epilog.startswith("Example: canal ")
    assert name in epilog.replace("canal -C my-atlas", "canal").replace("canal -C canal-demo", "canal")
    assert "Example: canal" in result.stdout
    assert all(option.help for option in all_commands()[name].params if option.name != "help")


def test_groups_show_their_commands():
    """A noun alone is not an error without words."""
    for noun in ("stage", "registry", "bank", "config", "models"):
        assert "Usage" in CliRunner().invoke(app, [noun]).output
    assert isinstance(app, typer.Typer)


@pytest.mark.parametrize("name", shipped_presets())
def test_every_preset_loads(name):
    """A shipped preset is complete and carries its own name."""
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description


def test_old_names_of_presets_work():
    """`canal` is the Performer under the name it had: the same values, and its own name in the record."""
    old, new = dump_preset(load_preset("canal")), dump_preset(load_preset("performer"))
    assert (old.pop("name"), new.pop("name")) == ("canal", "performer")
    assert old == new
    assert "canal" not in shipped_presets()


def test_modules_import():
    """The lazy names are where the package says."""
    assert importlib.import_module("canal.workspace").Workspace is canal.Workspace
