"""What an export of a site says of itself, and how one is read: checked before anything of it is used."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canal.errors import RegistryError
from canal.files import refuse_newer
from canal.model.bank import BANK
from canal.model.model import WEIGHTS, Model
from canal.registry.package import Package, is_as_written, open_package

FORMAT = 1  # of the manifest
SITE = "site"  # in the notes of a record: the manifest of an export
AUDIT = "audit"  # in the manifest: the outcome of an audit, where there was one
MERGED = "merged"  # in the notes of a record: the sites that a model was merged from
# Cells of a type behind each direction at the least. With 100, directions tell no more of who was there than the mean
# does; with 50 they do (docs/privacy.md). It costs nothing on the immune stream, and .03 of macro-F1 on pancreas, whose
# rare types have none then; with 200 both are answered worse.
CELLS_PER_DIRECTION = 100
# What an export may hold, beside its record.
EXPECTED = frozenset({"memory.safetensors", "genes.json", "types.json", "calibration.json", "novelty.json"})
EXPECTED_FILES = EXPECTED | {"config.toml"}


def exported_directions(n: int, most: int) -> int:
    """Return how many directions an export keeps of a type of n cells."""
    return min(most, n // CELLS_PER_DIRECTION)


@dataclass(frozen=True, kw_only=True)
class SiteExport:
    """An export that was read and checked.

    Attributes
    ----------
    path, digest
        The file, and the SHA-256 of what it holds.
    signer
        Public key that signed it, ``""`` where none did.
    manifest
        What it says of itself.
    model
        Statistics, calibration, gene panel and preset; without a network unless it holds one.
    """

    path: Path
    digest: str
    signer: str
    manifest: Mapping[str, Any]
    model: Model

    @property
    def site(self) -> str:
        """Name of the site."""
        return str(self.manifest["site"])


def contents_of(reduced: Model, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what each file of an export holds, in a sentence for people."""
    memory = reduced.memory
    assert memory is not None
    most = max((len(one.factors) for one in memory.statistics), default=0)
    novelties = sum(len(held_out.novelty) for held_out in reduced.novelty.stages)
    holds = {
        "memory.safetensors": (
            f"of each type with {facts['min_cells']} cells or more: number of cells, and over {len(memory.panel)} "
            f"genes the mean profile, up to {most} directions of the spread, and the variance beside them"
        ),
        "novelty.json": f"{novelties} numbers that say how unusual held-out cells are, as means of several cells",
        "calibration.json": "one number: how sure answers are",
        "genes.json": f"names of {len(reduced.panel)} variable genes",
        "types.json": "names of the cell types",
        "config.toml": "the settings of the training",
    }
    if facts["network"]:
        holds[WEIGHTS] = "a network that was trained on cells, because it was asked for"
    return holds


def manifest_of(
    reduced: Model,
    site: str,
    facts: Mapping[str, Any],
    ids: Mapping[str, str],
    sources: Mapping[int, list[str]],
    donors: Mapping[int, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Return what an export says of itself.

    Parameters
    ----------
    reduced
        What is given away.
    site
        Name of the site.
    facts
        What was left out, as `canal.sites.export.reduced_model` tells it.
    ids
        Id in the Cell Ontology of each type that has one.
    sources
        Hashes that stand for the cells of each key.
    donors
        Of how many donors the cells of a key are, by type, as far as a file named them.
    """
    assert reduced.memory is not None
    cells: dict[str, int] = {}
    most_donors: dict[str, int] = {}
    stages = []
    for key, positions in reduced.memory.measured.items():
        own = [one for one in reduced.memory.statistics if one.stage == key]
        known = (donors or {}).get(facts["keys"][key], {})
        for one in own:
            cells[one.name] = cells.get(one.name, 0) + one.n
            # One donor may be in several stages: of so many the cells are at the least.
            if one.name in known:
                most_donors[one.name] = max(most_donors.get(one.name, 0), known[one.name])
        stages.append(
            {
                "key": key,
                "cells": sum(one.n for one in own),
                "types": len(own),
                "genes": len(positions),
                "source": sources.get(facts["keys"][key], []),
            }
        )
    types = {}
    for name in sorted(cells):
        types[name] = {"cells": cells[name], "id": ids.get(name, ""), "donors": most_donors.get(name)}
    told = {key: value for key, value in facts.items() if key != "keys"}
    return {
        "format": FORMAT,
        "site": site,
        "types": types,
        "cells": sum(cells.values()),
        "genes": len(reduced.memory.panel),
        "stages": stages,
        **told,
        "holds": contents_of(reduced, facts),
    }


@contextmanager
def open_export(path: Path) -> Iterator[tuple[Package, Mapping[str, Any]]]:
    """Unpack an export into a temporary folder and check that it is one: whole, unchanged, and without cells.

    Raises
    ------
    RegistryError
        If it is missing, damaged, changed, of a newer canal, no export of a site, or holds cells.
    """
    with open_package(path) as package:
        notes = package.record.notes
        if MERGED in notes:
            message = f"{path} is a model that was merged from exports. Merge the exports themselves."
            raise RegistryError(message)
        _refuse_cells(package)
        if SITE not in notes:
            message = f"{path} is no export of a site; expected a file that `canal site export` wrote."
            raise RegistryError(message)
        manifest = notes[SITE]
        refuse_newer(f"{path} (the export of a site)", manifest.get("format"), FORMAT)
        strange = sorted(set(package.record.artifacts) - EXPECTED_FILES - {WEIGHTS})
        if strange or not set(package.record.artifacts) >= EXPECTED_FILES:
            message = (
                f"{path} does not hold the files of an export ({', '.join(strange) or 'some are missing'}). Ask for a "
                "new one: `canal site export`."
            )
            raise RegistryError(message)
        if not is_as_written(package):
            message = (
                f"{path} was changed after it was written: it has other bytes than those of its content. Nothing was "
                "changed here. Fetch it again, or ask for a new export."
            )
            raise RegistryError(message)
        yield package, manifest


def read_export(path: Path) -> SiteExport:
    """Read an export.

    Raises
    ------
    RegistryError
        As `open_export`; also if its statistics are not those that its manifest tells of.
    """
    with open_export(path) as (package, manifest):
        model = package.load(network=WEIGHTS in package.record.artifacts)
        _check_statistics(path, model, manifest)
        return SiteExport(path=path, digest=package.digest, signer=package.signer, manifest=manifest, model=model)


def _refuse_cells(package: Package) -> None:
    """Refuse a package with an example bank."""
    cells = int(package.record.bank.get("size", 0))
    if not cells and BANK not in package.record.artifacts:
        return
    message = (
        f"{package.path} holds {cells} cells with their names: it is a whole stage, of `canal registry export`. Cells "
        "are not merged here. Delete this copy if they may not leave their house, and ask for the statistics alone: "
        "canal site export OUT.canal."
    )
    raise RegistryError(message)


def _check_statistics(path: Path, model: Model, manifest: Mapping[str, Any]) -> None:
    """Refuse statistics of fewer cells than the manifest says, or from whose directions cells could be told."""
    problem = ""
    if model.memory is None or not model.memory.statistics:
        problem = "no statistics"
    else:
        cells: dict[str, int] = {}
        for one in model.memory.statistics:
            cells[one.name] = cells.get(one.name, 0) + one.n
            most = exported_directions(one.n, int(manifest["max_directions"]))
            if one.n < int(manifest["min_cells"]):
                problem = f"{one.name!r} of {one.n} cells, fewer than the {manifest['min_cells']} of its manifest"
            elif len(one.factors) > most:
                problem = f"{len(one.factors)} directions of {one.name!r}, from which cells could be told"
        told = {name: facts.get("cells") for name, facts in manifest["types"].items()}
        if not problem and told != cells:
            problem = "other types or numbers of cells than its manifest tells"
    if problem:
        message = f"{path} holds {problem}. Ask for a new export: `canal site export`."
        raise RegistryError(message)
