"""Check every link within a built site: ``python docs/check_site.py docs/_build/html``.

A link must lead to a file of the site, and what stands behind ``#`` must be a target there. Addresses elsewhere are
counted, not asked.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.targets: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the addresses and the targets of a tag."""
        for name, value in attrs:
            if value is None:
                continue
            if name in ("href", "src"):
                self.links.append(value)
            if name == "id" or (name == "name" and tag == "a"):
                self.targets.add(value)


def dead_links(site: Path) -> tuple[list[str], int, int]:
    """Return what each dead link is and where, the links within the site, and those elsewhere.

    Parameters
    ----------
    site
        Folder with the built pages.
    """
    # What the theme brings under `_static` are its own templates, and no pages.
    paths = [path for path in sorted(site.rglob("*.html")) if path.relative_to(site).parts[0] != "_static"]
    pages = {path: Page(path) for path in paths}
    dead, within, elsewhere = [], 0, 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                elsewhere += 1
                continue
            within += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                dead.append(f"{path.relative_to(site)}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].targets:
                dead.append(f"{path.relative_to(site)}: {link} (no such place in the page)")
    return dead, within, elsewhere


def main() -> int:
    """Print what was checked and what is dead; 1 if anything is."""
    site = Path(sys.argv[1]).resolve()
    dead, within, elsewhere = dead_links(site)
    for line in dead:
        print(line)
    print(f"{within:,} links within the site, {len(dead)} of them dead; {elsewhere:,} lead elsewhere.")
    return 1 if dead or not within else 0


if __name__ == "__main__":
    sys.exit(main())
