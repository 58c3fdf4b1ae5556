"""Files of others that the pages load: unchanged, with their licence, and small."""

import hashlib
from pathlib import Path

import canal

STATIC = Path(canal.__file__).parent / "review" / "static"
MOST_BYTES = 250_000  # of all that is sent to the browser
OWN = {"points.js", "review.js", "early.js", "review.css", "icon.svg", "VENDORED.md"}


def rows() -> dict[str, str]:
    """Return the hash of each file in the table of `VENDORED.md`."""
    found = {}
    for line in (STATIC / "VENDORED.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and len(cells[5]) == 64:
            found[cells[0]] = cells[5]
    return found


def test_files_of_others_are_unchanged_and_listed() -> None:
    """Every file that is not ours stands in the table, with the hash of its content and a licence beside it."""
    listed = rows()

    assert set(listed) == {path.name for path in STATIC.iterdir()} - OWN
    for name, digest in listed.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name
    assert "htmx.LICENSE.txt" in listed


def test_the_pages_are_light() -> None:
    """All files together are smaller than the 250 kB that a page may weigh."""
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < MOST_BYTES


def test_no_page_names_another_server() -> None:
    """No template, style or script of ours names an address elsewhere; the name of a standard is none."""
    ours = [STATIC / name for name in OWN - {"VENDORED.md"}]
    for path in [*ours, *(STATIC.parent / "web" / "pages").iterdir()]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, path
        assert "https:" not in text, path
        assert "<script>" not in text, path
        assert " style=" not in text, path
