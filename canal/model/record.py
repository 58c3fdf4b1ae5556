"""The record of a stage: what the registry keeps beside the model's files, as JSON with a schema version."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import to_jsonable_python

from canal import __version__
from canal.errors import RegistryError
from canal.files import refuse_newer

SCHEMA_VERSION = 1
IMPORTED = "imported"  # in the notes: the registry and stage that this one was imported from
RENAMED = "renamed"  # in the notes of a stage that renamed types: the new name by the old
# In the notes of a line that started from a voter: its ``name`` and ``digest``, the ``types`` that are left to it, what
# it ``cannot``, and ``alone`` where the stage is nothing else.
VOTER_NOTE = "voter"
STAGE_KEYS = "stage_keys"  # in the notes: number of the stage by key; see `canal.model.stage_keys`

# Steps from an older schema to the next: ``UPGRADES[1]`` turns a record of schema 1 into one of schema 2. Records are
# kept for years; none of these steps is ever removed.
UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def _plain(value: Any) -> Any:
    """Turn tuples, paths and numpy scalars into what JSON has, so that what is read equals what was written."""
    return to_jsonable_python(value, fallback=lambda scalar: scalar.item())


def _finite(value: Any) -> Any:
    """Leave out figures that could not be computed: JSON has no NaN."""
    return {name: figure for name, figure in dict(value).items() if math.isfinite(float(figure))}


Plain = Annotated[dict[str, Any], BeforeValidator(_plain)]
PlainList = Annotated[tuple[Plain, ...], BeforeValidator(_plain)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class StageRecord(BaseModel):
    """One committed stage.

    Attributes
    ----------
    number, version
        Number of the stage, from 1; version of the registered model in MLflow, 0 before the commit.
    parent
        Number of the stage it started from.
    types, new_types
        All cell types in the order of the classifier; those that came with this stage.
    cells, genes
        Training cells of the stage; genes in the panel.
    data
        One `FileReport` as a dict for each file, with the options it was read with.
    bank
        ``size``, ``per_type`` and ``digest`` of the example bank.
    metrics
        Figures by name; what is not finite is left out.
    artifacts
        ``"sha256:..."`` of every file of the model, by its name.
    run_id
        Run in MLflow, ``""`` before the commit.
    notes
        Anything else worth keeping; plain values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    number: int = Field(ge=1)
    name: str = Field(min_length=1)
    version: int = 0
    parent: int | None = None
    created: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        description="UTC, ISO 8601",
    )
    seed: int
    preset: Plain
    types: tuple[str, ...]
    new_types: tuple[str, ...]
    cells: int = Field(ge=0)
    genes: int = Field(ge=0)
    data: PlainList = ()
    bank: Plain = Field(default_factory=dict)
    metrics: Annotated[dict[str, float], BeforeValidator(_finite)] = Field(default_factory=dict)
    label_warnings: PlainList = ()
    seconds: float = 0.0
    canal_version: str = __version__
    artifacts: dict[str, Digest] = Field(default_factory=dict)
    run_id: str = ""
    notes: Plain = Field(default_factory=dict)

    @property
    def data_digest(self) -> str:
        """Digests of the stage's files, joined by a space."""
        return " ".join(str(source.get("digest", "")) for source in self.data)

    @property
    def is_voter(self) -> bool:
        """Whether the stage is a voter alone, which no cell taught."""
        return bool(self.notes.get(VOTER_NOTE, {}).get("alone"))

    def with_fields(self, **changes: Any) -> "StageRecord":
        """Return a checked copy with some fields changed."""
        return StageRecord.model_validate(self.model_dump() | changes)

    def to_json(self) -> str:
        """Return the text that is kept; the record's hash is over its bytes."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)


def parse_record(text: str, source: str) -> StageRecord:
    """Read a record of any schema version so far.

    Parameters
    ----------
    text
        JSON.
    source
        Names where it comes from in the error.

    Raises
    ------
    RegistryError
        If it is no record, or one of a newer canal.
    """
    # Which schema it has.
    try:
        table = json.loads(text)
        schema = table["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{source} is not a stage record: {error}. Restore the registry from a backup."
        raise RegistryError(message) from error
    refuse_newer(source, schema, SCHEMA_VERSION)
    # From an older schema to this one, a step at a time.
    for step in range(schema, SCHEMA_VERSION):
        table = UPGRADES[step](table)
    try:
        return StageRecord.model_validate(table)
    except ValidationError as error:
        keys = [".".join(map(str, problem["loc"])) for problem in error.errors()]
        message = f"{source} does not fit a stage record ({', '.join(keys)}). Restore it from a backup."
        raise RegistryError(message) from error
