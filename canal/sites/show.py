"""`canal site show`: what an export says of itself, for programs and for whoever has to allow it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canal import __version__
from canal.files import check_file, write_text_whole
from canal.report.plots import render_page
from canal.sites.manifest import AUDIT, read_export


def describe_export(path: Path) -> dict[str, Any]:
    """Return the manifest of an export, with its size, digest and signer; every byte of it is checked.

    Raises
    ------
    RegistryError
        If it is damaged, changed, of a newer canal, holds cells, or is no export of a site.
    """
    export = read_export(path)
    # Exports of the first version say nothing of donors.
    types = {name: {"donors": None, **facts} for name, facts in export.manifest["types"].items()}
    facts = {"file": str(path), "bytes": path.stat().st_size, "digest": export.digest, "signed_by": export.signer}
    return {**export.manifest, "types": types, **facts}


def export_page(facts: Mapping[str, Any]) -> str:
    """Return what `describe_export` returned as one HTML page."""
    return render_page(
        "sites/export.html.jinja",
        title=f"What {facts['site']} gives away",
        canal_version=__version__,
        facts=facts,
        audit=facts.get(AUDIT),
    )


def write_export_page(out: Path, facts: Mapping[str, Any]) -> None:
    """Write the page of an export.

    Raises
    ------
    DataError
        If it cannot be written there.
    """
    check_file(out, ".html", "--html")
    page = export_page(facts)
    write_text_whole(out, page)
