"""What the documents show exists, and what exists is documented."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests.commands import all_commands, options_of

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path for folder in ("", "docs", "registry", "stages", "configs") for path in (ROOT / folder).glob("*.md")
)
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
COMMANDS = all_commands()
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
GLOBAL_OPTIONS = {"-C", "--help", "-h"}


def shown_lines(text: str) -> list[list[str]]:
    """Return every `canal ...` line of code blocks and of inline code, split into words."""
    blocks = re.findall(r"```(?:bash|console|sh)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(canal [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(line, comments=True) for line in lines if line.startswith("canal ")]


def without_globals(words: list[str]) -> list[str]:
    """Return the words after `canal` and its own options."""
    rest = words[1:]
    return rest[2:] if rest[:1] == ["-C"] else rest


def command_of(words: list[str]) -> str | None:
    """Return the command that the words begin with, or None; what opens a file needs no name of its own."""
    if words[0] == "review" and " ".join(words[:2]) not in COMMANDS:
        words = ["review", "open", *words[1:]]
    return next(
        (name for name in sorted(COMMANDS, key=len, reverse=True) if words[: name.count(" ") + 1] == name.split()), None
    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_shown_commands_exist(path):
    """Every command and option that a document shows is known to the command line."""
    for words in shown_lines(path.read_text(encoding="utf-8")):
        rest = without_globals(words)
        if not rest or rest[0] in GLOBAL_OPTIONS or rest in (["stage"], ["registry"], ["bank"], ["config"]):
            continue
        name = command_of(rest)
        assert name is not None, f"{path.name} shows an unknown command: {' '.join(words)}"
        used = {word.split("=")[0] for word in rest if word.startswith("--")}
        known = {*options_of(COMMANDS[name]), "--help"}
        assert used <= known, f"{path.name} shows unknown options {used - known}: {' '.join(words)}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    """Links inside the repository lead to files."""
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name):
    """The commands page has a section for each command that names each of its options."""
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `canal ([^`]+)`\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE))
    assert name in sections, f"docs/commands.md has no section for `canal {name}`"
    missing = [o for o in options_of(COMMANDS[name]) if o not in sections[name] and o not in {"--json", "--help"}]
    assert missing == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_shown_benchmarks_start(path):
    """A shown script exists; one that takes parts of the tests is shown as a module: run by its path it would find
    another package's `tests`.
    """
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"python (?:-m benchmarks\.|benchmarks/)(\w+)", text):
        assert ROOT / "benchmarks" / f"{name}.py" in SCRIPTS, f"{path.name} shows benchmarks/{name}.py"
    for name in re.findall(r"python benchmarks/(\w+)\.py", text):
        source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
        message = f"{path.name} shows benchmarks/{name}.py, which needs python -m benchmarks.{name}"
        assert "from tests" not in source, message


def test_the_table_of_commands_is_whole():
    """Every command stands in the table that begins the page of commands."""
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    table = page[: page.index("\n## ")]
    assert [name for name in COMMANDS if f"`canal {name}`" not in table] == []


def test_make_targets_of_the_readme_exist():
    """`make demo` and `make test` are real."""
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for path in DOCUMENTS:
        shown = re.findall(r"^make ([a-z]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert set(shown) <= made, path
    assert {"demo", "test", "lint", "check", "clean"} <= made


def test_the_table_of_pretraining_presets_has_every_value():
    """docs/scbert.md shows each key of each preset of `canal pretrain`, as the preset has it."""
    page = (ROOT / "docs/scbert.md").read_text(encoding="utf-8")
    table = re.search(r"^\| key \|.*?(?=\n\n)", page, flags=re.DOTALL | re.MULTILINE)
    assert table, "docs/scbert.md has no table of keys"
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group().splitlines()]
    presets = {cell.strip("`"): column for column, cell in enumerate(header) if cell.startswith("`")}
    files = sorted((ROOT / "configs/pretrain").glob("*.toml"))
    assert sorted(presets) == [file.stem for file in files]
    for file in files:
        preset = tomllib.loads(file.read_text(encoding="utf-8"))
        shown = {}
        for row in rows:
            first, *others = re.findall(r"`([^`]+)`", row[0])
            section, values = first.split(".")[0], row[presets[file.stem]].split(", ")
            for key, value in zip([first, *(f"{section}.{other}" for other in others)], values, strict=True):
                shown[key] = value
        expected = {
            f"{part}.{key}": v for part, keys in preset.items() if isinstance(keys, dict) for key, v in keys.items()
        }
        assert sorted(shown) == sorted(expected)
        for key, value in expected.items():
            assert shown[key] == value or float(shown[key]) == value, f"{file.stem}: {key} is {value}"
