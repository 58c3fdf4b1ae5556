"""The index of a catalogue: what each model is, and the size and hash of its file.

``catalogue.json`` in the catalogue's folder, beside the ``.canal`` files that it names.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from canal.errors import RegistryError
from canal.files import digest_file, parse_digest, refuse_newer, write_whole
from canal.registry.shipped import SUFFIX, describe_package

INDEX_FILE = "catalogue.json"
FORMAT = 1
LARGEST_INDEX = 10_000_000  # bytes; an entry is a few thousand
LARGEST_MODEL = 50_000_000_000  # bytes
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
# Of a card, what the index repeats, so that a model can be chosen before it is fetched.
_CARD_FIELDS = ("title", "tissue", "species", "licence", "types", "sources", "donors", "limits")


def _file_name(value: Any) -> Any:
    """Refuse a name that leads out of the catalogue's folder."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*\.canal", value):
        message = "expected the name of a .canal file without a folder"
        raise ValueError(message)
    return value


def _digest(value: Any) -> Any:
    try:
        parse_digest(str(value))
    except RegistryError as error:
        raise ValueError(str(error)) from error
    return value


class Entry(BaseModel):
    """One model of a catalogue.

    Attributes
    ----------
    name
        By which it is asked for.
    file, bytes, sha256
        Its file beside the index, its size, and ``"sha256:<hex>"`` of its content.
    title, tissue, species, licence
        What it is; empty where its card does not say.
    types
        Each type with its id in the Cell Ontology, name there, and cells.
    genes, cells, donors
        Their numbers; donors ``None`` where nobody said.
    sources
        Data sets with accessions.
    figures
        What was measured.
    limits
        What it cannot tell.
    """

    model_config = ConfigDict(frozen=True)  # keys of a later canal are left aside

    name: str = Field(pattern=_NAME, max_length=100)
    file: Annotated[str, BeforeValidator(_file_name)]
    bytes: int = Field(ge=1, le=LARGEST_MODEL)
    sha256: Annotated[str, BeforeValidator(_digest)]
    title: str = ""
    tissue: str = ""
    species: str = ""
    licence: str = ""
    types: dict[str, dict[str, Any]] = Field(default_factory=dict)
    genes: int = 0
    cells: int = 0
    donors: int | None = None
    sources: tuple[dict[str, Any], ...] = ()
    figures: dict[str, Any] = Field(default_factory=dict)
    limits: tuple[str, ...] = ()


class Index(BaseModel):
    """The content of ``catalogue.json``."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    models: tuple[Entry, ...] = ()

    def entry(self, name: str, address: str) -> Entry:
        """Return the entry of a model.

        Raises
        ------
        RegistryError
            If there is none of that name.
        """
        for entry in self.models:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.models) or "none"
        message = f"The catalogue {address} has no model {name!r}; it has: {known}."
        raise RegistryError(message)

    def with_entry(self, entry: Entry) -> "Index":
        """Return the index with one more entry, by name."""
        models = sorted((*self.models, entry), key=lambda model: model.name)
        return Index(models=tuple(models))

    def write(self, folder: Path) -> None:
        """Write the index into a folder, whole or not at all; the same index gives the same bytes."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False)
        write_whole(folder / INDEX_FILE, (text + "\n").encode())


def parse_index(content: bytes, address: str) -> Index:
    """Read an index.

    Raises
    ------
    RegistryError
        If it is no JSON, no index, of a newer canal, or names a model or a file twice.
    """
    try:
        table = json.loads(content)
        if not isinstance(table, dict) or "format" not in table:
            message = "it is no table with a format"
            raise ValueError(message)
        refuse_newer(f"{address}/{INDEX_FILE}", table["format"], FORMAT)
        index = Index.model_validate(table)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise RegistryError(_unfit(address, f"{where}: {problem['msg'].lower()}")) from error
    except (ValueError, RecursionError) as error:  # no JSON, or no text
        raise RegistryError(_unfit(address, str(error)[:200])) from error
    for key in ("name", "file"):
        values = [getattr(entry, key) for entry in index.models]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise RegistryError(_unfit(address, f"two models have the {key} {twice[0]}"))
    return index


def entry_of(path: Path) -> Entry:
    """Return the entry of a ``.canal`` file from its card.

    Raises
    ------
    RegistryError
        If the file is no whole model, or its name cannot stand in an index.
    """
    facts = describe_package(path)
    card = facts["card"]
    fields = {key: card[key] for key in _CARD_FIELDS if card.get(key) is not None}
    # A model without a card has the names of its types at least.
    fields.setdefault("types", {name: {} for name in facts["types"]})
    if card.get("left_out"):
        fields["figures"] = {"left_out": card["left_out"], "mean": card.get("mean", {})}
    try:
        return Entry(
            name=path.name.removesuffix(SUFFIX),
            file=path.name,
            bytes=path.stat().st_size,
            sha256=digest_file(path),
            genes=facts["genes"],
            cells=facts["cells"],
            **fields,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        message = (
            f"{path} cannot stand in a catalogue: {'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}. "
            f"Its name must be of letters, digits, - and _, and end in {SUFFIX}."
        )
        raise RegistryError(message) from error


def _unfit(address: str, reason: str) -> str:
    return (
        f"{address} is no catalogue of models: {INDEX_FILE} cannot be read ({reason}). Nothing was fetched. Check the "
        "address, or make a catalogue with `canal models add FILE --catalogue FOLDER`."
    )
