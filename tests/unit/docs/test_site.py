"""The pages that are made for the documentation site, and the check of its links."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.commands import all_commands, options_of

DOCS = Path(__file__).parents[3] / "docs"


def module(name: str) -> ModuleType:
    """Load a module of the folder of documents."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_a_page_for_every_command() -> None:
    """With its example, and every option and argument."""
    pages = module("site_pages").command_pages()
    commands = all_commands()
    assert set(pages) == set(commands)
    for name, command in commands.items():
        assert pages[name].startswith(f"# canal {name}\n")
        assert command.epilog.removeprefix("Example: ") in pages[name]
        assert [option for option in options_of(command) if f"`{option}`" not in pages[name]] == []


@pytest.mark.parametrize(
    ("page", "text", "adapted"),
    [
        ("data", "[a](models.md#blood)", "[a](models.md#blood)"),
        ("tutorials/first-annotator", "[a](../status.md)", "[a](../status.md)"),
        ("registry", "[a](../registry/README.md)", "[a](generated/registry-server.md)"),
        ("generated/contributing", "[a](docs/method.md#x)", "[a](../method.md#x)"),
        ("generated/contributing", "[a](CHANGELOG.md)", "[a](../generated/changelog.md)"),
        ("presets", "[a](../stages/paper/)", "a"),
        ("method", "[a](../canal/model/memory.py)", "[a](../canal/model/memory.py)"),
        ("data", "[a](https://doi.org/10.1093/bib/bbae047)", "[a](https://doi.org/10.1093/bib/bbae047)"),
    ],
)
def test_links_that_lead_out_are_adapted(page: str, text: str, adapted: str) -> None:
    """To the page of the same content, to the file, or to plain text where there is neither."""
    source = [text]
    module("site_pages").adapt_links(SimpleNamespace(srcdir=str(DOCS)), page, source)
    assert source == [adapted]


def test_every_page_stands_in_the_index() -> None:
    """A guide that is written and not listed is not found."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([a-z]+(?:[-/][a-z]+)*)$", index, flags=re.MULTILINE))
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= listed
    assert {f"tutorials/{path.stem}" for path in (DOCS / "tutorials").glob("*.md")} <= listed


def test_dead_links_of_a_site_are_named(tmp_path: Path) -> None:
    """A file that is not there, a place that is not in a page; addresses elsewhere are counted alone."""
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">x</a><a href="b.html#not">x</a><a href="https://x.org">x</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here"><img src="c.png"><a href="#here">x</a><a href="a.html">x</a></p>')

    dead, within, elsewhere = module("check_site").dead_links(tmp_path)

    assert dead == ["a.html: b.html#not (no such place in the page)", "b.html: c.png"]
    assert (within, elsewhere) == (5, 1)
