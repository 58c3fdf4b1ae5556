"""Pages of hostile names, opened in a real Chromium: nothing of a name runs, nothing becomes an element."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from canal.compare.page import compare_page
from canal.compare.report import PageArt
from canal.novel.page import novel_page
from canal.sites.report import SiteReport, site_page
from canal.sites.show import export_page
from tests.unit.report import test_pages_escape
from tests.unit.report.test_compare_page import make_report
from tests.unit.report.test_pages_escape import marked, novel_report

CHROMIUM = shutil.which("chromium")
# It runs in three ways where a page takes it for markup, and reads from right to left.
NAME = (
    "\u202e</td><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    "'\"><b onmouseover= $\\foo$"
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def dom(html: str, folder: Path) -> str:
    """Return a page as Chromium has it when everything in it has run."""
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    assert CHROMIUM is not None
    words = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder / 'profile'}", page.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


def pages() -> dict[str, str]:
    """Return every page that canal writes, with a hostile name wherever somebody else chooses the text."""
    report, art = make_report(), PageArt(maps=(), pictures=())
    site = SiteReport(
        models=({"name": NAME, "digest": "sha256:0"},), sites=(NAME, "south"), cells=(10, 20),
        accuracy=((0.9, 0.8),), macro_f1=((0.9, 0.8),), mean=({"accuracy": 0.85, "macro_f1": 0.85},),
        per_type={NAME: {"sha256:0": {NAME: 0.9}}},
    )  # fmt: skip
    export = {
        "site": NAME, "types": {NAME: {"cells": 20, "id": NAME, "donors": None}}, "cells": 20, "genes": 100,
        "bytes": 10, "digest": "sha256:0", "signed_by": NAME, "network": False, "holds": {NAME: NAME},
        "min_cells": 20, "max_directions": 5, "left_out": {"types": 0, "cells": 0},
    }  # fmt: skip
    return {
        "compare": compare_page(marked(report), art),
        "novel": novel_page(marked(novel_report()), b"png", b"png"),
        "sites": site_page(site),
        "export": export_page(export),
    }


def test_no_name_runs_or_becomes_an_element(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages in one, each in a frame of its own document; and the same name does run where it is not escaped."""
    monkeypatch.setattr(test_pages_escape, "MARKUP", NAME)
    for name, html in pages().items():
        assert "document.title" in html, name  # the name is on the page
        shown = dom(html, tmp_path)
        assert "<title>taken" not in shown, name
        assert not re.search(r"<img[^>]*src=.?x\b", shown), name
    assert "<title>taken" in dom(f"<title>page</title><table><td>{NAME}", tmp_path)
