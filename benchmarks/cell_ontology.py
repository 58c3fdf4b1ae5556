"""Build the Cell Ontology that canal bundles, from a wheel of the package `cellxgene-ontology-guide`.

    pip download --no-deps cellxgene-ontology-guide==1.11.1
    python benchmarks/cell_ontology.py cellxgene_ontology_guide-1.11.1-py3-none-any.whl

The package holds the release that CELLxGENE asks for, as JSON compressed with Zstandard: label, synonyms, definition
and ancestors with their distance, of every term; obsolete terms with their replacement. It keeps the exact synonyms
alone, so the kind of every synonym is "exact". The Cell Ontology is licensed CC BY 4.0 (cited in docs/labels.md).
"""

import argparse
import gzip
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa

PROJECT = Path(__file__).resolve().parents[1]
OUT = PROJECT / "canal" / "ontology" / "cell_ontology.json.gz"
LARGEST = 400_000  # bytes that the wheel may grow by
MEMBER = re.compile(r"cellxgene_ontology_guide/data/CL-ontology-v(\d{4}-\d{2}-\d{2})\.json\.zst")


def main() -> int:
    """Write the bundle and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="wheel of cellxgene-ontology-guide")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()

    release, source = read_newest(arguments.wheel)
    bundle = {
        "ontology": "Cell Ontology",
        "release": release,
        "license": "CC BY 4.0",
        "source": f"https://purl.obolibrary.org/obo/cl/releases/{release}/cl.owl",
        "package": arguments.wheel.name.removesuffix("-py3-none-any.whl"),
        "terms": [term_of(name, source) for name in sorted(source)],
    }

    # One line without spaces, and no time in the header of the file: the same wheel gives the same bytes.
    text = json.dumps(bundle, separators=(",", ":"), ensure_ascii=False)
    content = gzip.compress(text.encode(), compresslevel=9, mtime=0)
    if len(content) > LARGEST:
        print(f"{len(content)} bytes; at most {LARGEST} may be bundled", file=sys.stderr)
        return 1
    arguments.out.write_bytes(content)
    obsolete = sum("obsolete" in term for term in bundle["terms"])
    print(f"release {release}: {len(bundle['terms'])} terms, {obsolete} of them obsolete; {len(content)} bytes")
    return 0


def read_newest(wheel: Path) -> tuple[str, dict[str, Any]]:
    """Return the newest release in the wheel, and its terms by id."""
    with zipfile.ZipFile(wheel) as archive:
        releases = {}
        for name in archive.namelist():
            matched = MEMBER.fullmatch(name)
            if matched:
                releases[matched.group(1)] = name
        release = max(releases)
        packed = archive.read(releases[release])
    with pa.input_stream(pa.BufferReader(packed), compression="zstd") as stream:
        return release, json.loads(stream.read())


def term_of(name: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return what is bundled of a term: id, label, synonyms, definition, and parents or replacement."""
    given = source[name]
    term: dict[str, Any] = {"id": name, "label": given["label"]}
    if given.get("synonyms"):
        term["synonyms"] = given["synonyms"]
    if given["deprecated"]:
        replacement = [given["replaced_by"]] if given.get("replaced_by") else given.get("consider", [])
        term["obsolete"] = [other for other in replacement if other.startswith("CL:")]
        return term
    term["definition"] = given.get("description", "")
    term["parents"] = parents_of(name, source)
    return term


def parents_of(name: str, source: dict[str, Any]) -> list[str]:
    """Return the nearest ancestors of a term, such that their ancestors and they are all of the term's ancestors."""
    ancestors = source[name]["ancestors"]
    parents: list[str] = []
    reached: set[str] = set()
    for ancestor in sorted(ancestors, key=lambda other: (ancestors[other], other)):
        if ancestor in reached and ancestors[ancestor] > 1:
            continue
        parents.append(ancestor)
        reached |= {ancestor, *source[ancestor]["ancestors"]}
    return parents


if __name__ == "__main__":
    raise SystemExit(main())
