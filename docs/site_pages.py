"""Pages that are made when the site is built: one for each command, and those that live outside this folder."""

import re
import shutil
from pathlib import Path
from typing import Any

GENERATED = "generated"
# Files of the project that are pages of the site, too, and their names there.
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "configs/README.md": "configs.md",
    "stages/README.md": "stages.md",
    "registry/README.md": "registry-server.md",
    "canal/review/static/VENDORED.md": "vendored.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def write_pages(docs: Path) -> None:
    """Write every page that is made, after those of the last build were removed.

    Parameters
    ----------
    docs
        The folder of the guides; the pages come into ``generated/`` in it.
    """
    target = docs / GENERATED
    shutil.rmtree(target, ignore_errors=True)
    (target / "commands").mkdir(parents=True)
    # One page for each command, and one that lists them by what they begin with.
    pages = command_pages()
    for name, text in pages.items():
        (target / "commands" / f"{_slug(name)}.md").write_text(text, encoding="utf-8")
    (target / "commands" / "index.md").write_text(_list_of_commands(pages), encoding="utf-8")
    # Pages that live elsewhere; their links are adapted when they are read.
    for path, name in OUTSIDE.items():
        shutil.copyfile(docs.parent / path, target / name)


def command_pages() -> dict[str, str]:
    """Return the Markdown of each command by its full name, such as ``stage add``."""
    import typer.main

    from canal.cli.main import app

    pages: dict[str, str] = {}
    _walk("", typer.main.get_command(app), pages)
    return pages


def _walk(prefix: str, command: Any, pages: dict[str, str]) -> None:
    """Add the pages of a command and of all below it."""
    below = getattr(command, "commands", None)
    if below is None:
        pages[prefix] = _page(prefix, command)
        return
    for name, inner in below.items():
        _walk(f"{prefix} {name}".strip(), inner, pages)


def _page(name: str, command: Any) -> str:
    """Return the page of one command: what it does, how it is called, an example, its arguments and options."""
    arguments, options = [], []
    for parameter in command.params:
        (arguments if parameter.param_type_name == "argument" else options).append(parameter)
    words = ["canal", name, *(parameter.metavar or parameter.name.upper() for parameter in arguments)]
    # What must be given stands in the line that shows the call, the rest as [OPTIONS].
    for option in options:
        if option.required:
            words += [max(option.opts, key=len), option.metavar or option.name.upper()]
    lines = [f"# canal {name}", "", _plain(command.help or ""), "", "```text"]
    lines += [" ".join([*words, "[OPTIONS]"]), "```", ""]
    if command.epilog:
        example = command.epilog.removeprefix("Example: ")
        lines += ["**Example**", "", "```bash", example, "```", ""]
    if arguments:
        lines += ["| argument | |", "|---|---|"]
        for argument in arguments:
            lines.append(f"| `{(argument.metavar or argument.name).strip('[]')}` | {_cell(argument.help)} |")
        lines.append("")
    lines += ["| option | |", "|---|---|"]
    for option in options:
        shown = ", ".join(f"`{spelling}`" for spelling in (*option.opts, *option.secondary_opts))
        lines.append(f"| {shown} | {_cell(option.help)}{_default(option)} |")
    lines += ["", f"More on it, and what its JSON holds: [canal {name}](../../commands.md#canal-{_slug(name)})."]
    return "\n".join(lines) + "\n"


def _list_of_commands(pages: dict[str, str]) -> str:
    """Return the page that lists the commands with the first sentence of each."""
    lines = ["# Commands, from their help", "", "| command | |", "|---|---|"]
    for name, text in pages.items():
        first = text.splitlines()[2]
        lines.append(f"| [canal {name}]({_slug(name)}.md) | {_cell(first)} |")
    lines += ["", "```{toctree}", ":hidden:", ""]
    lines += [_slug(name) for name in pages]
    return "\n".join([*lines, "```", ""])


def _default(option: Any) -> str:
    """Return what an option is where it is not given, if that says anything."""
    default = option.default
    if default is None or isinstance(default, bool) or default in ((), [], "") or not option.show_default:
        return ""
    return f" Default: `{default}`."


def _plain(text: str) -> str:
    """Return a help text with its paragraphs as they are, and nothing that Markdown would take for its own."""
    return re.sub(r"\n(?!\n)\s*(?!\n)", "\n", text.strip()).replace("*", r"\*").replace("<", r"\<")


def _cell(text: str | None) -> str:
    """Return a text for a cell of a table."""
    return " ".join((text or "").split()).replace("|", r"\|").replace("*", r"\*").replace("<", r"\<")


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def adapt_links(app: Any, docname: str, source: list[str]) -> None:
    """Turn links that lead out of the folder of the guides into links that lead somewhere on the site.

    Parameters
    ----------
    app
        Sphinx.
    docname
        Page that is read.
    source
        Its text, as the only item; replaced.
    """
    docs = Path(app.srcdir)
    page = docs / f"{docname}.md"
    outside = {docs.parent / path: docs / GENERATED / name for path, name in OUTSIDE.items()}
    home = {made: path for path, made in outside.items()}.get(page, page).parent  # where its links are relative to

    def adapted(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (home / target).resolve()
        path = outside.get(path, path)
        # A folder, and the first page of the repository, are no pages here: their names stand without a link.
        if path.is_dir() or path == docs.parent / "README.md":
            return text
        climbs = len(page.relative_to(docs).parts) - 1
        if path.is_relative_to(docs):
            return f"[{text}]({'../' * climbs}{path.relative_to(docs).as_posix()}{anchor})"
        # Code: the file itself is fetched.
        return f"[{text}]({'../' * (climbs + 1)}{path.relative_to(docs.parent).as_posix()})"

    source[0] = LINK.sub(adapted, source[0])
    # A site fetches nothing from elsewhere, and what draws Mermaid would be fetched: its text is read as it stands.
    source[0] = source[0].replace("```mermaid", "```text")
