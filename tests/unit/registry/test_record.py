"""A record comes back as it was written, from this version of canal and from older ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from canal.errors import RegistryError
from canal.model import record as module
from canal.model.record import parse_record
from tests.unit.registry.make import make_record


def test_a_record_survives_json() -> None:
    """What is parsed equals what was written, and is written again as the same bytes."""
    record = make_record(
        3,
        data=({"path": Path("/x.h5ad"), "cells": np.int64(3), "warnings": ("a", "b")},),
        bank={"size": np.int32(2), "per_type": {"NK": 2}},
        notes={"nested": {"tuple": (1, 2), "none": None}, "unicode": "β-cell"},
    )

    assert record == parse_record(record.to_json(), "test")
    assert record.to_json() == parse_record(record.to_json(), "test").to_json()


def test_figures_that_could_not_be_computed_are_left_out() -> None:
    """JSON has no NaN; a metric that is none is not kept."""
    record = make_record(metrics={"good": 0.5, "nan": float("nan"), "inf": float("inf")})

    assert record.metrics == {"good": 0.5}
    json.loads(record.to_json(), parse_constant=pytest.fail)


def test_a_record_cannot_be_changed() -> None:
    """Frozen; `with_fields` makes another and checks it."""
    record = make_record()
    with pytest.raises(ValidationError):
        record.number = 2  # type: ignore[misc]

    assert record.with_fields(version=4).version == 4
    with pytest.raises(ValidationError):
        record.with_fields(number=0)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        pytest.param("{", "not a stage record", id="no-json"),
        pytest.param("[]", "not a stage record", id="no-table"),
        pytest.param("{}", "not a stage record", id="no-schema"),
        pytest.param('{"schema_version": 99}', "Update canal", id="newer"),
        pytest.param('{"schema_version": "1"}', "Update canal", id="odd-schema"),
        pytest.param('{"schema_version": 1}', "does not fit", id="empty"),
    ],
)
def test_what_is_no_record_is_refused(text: str, match: str) -> None:
    """One message that names the source and says what to do."""
    with pytest.raises(RegistryError, match=match) as caught:
        parse_record(text, "the file")

    assert "the file" in str(caught.value)


def test_an_unknown_key_is_refused() -> None:
    """A record holds what its schema says, nothing else."""
    table = json.loads(make_record().to_json()) | {"surprise": 1}

    with pytest.raises(RegistryError, match="surprise"):
        parse_record(json.dumps(table), "the file")


def test_a_digest_names_its_algorithm() -> None:
    """Artifacts are kept by sha256 digests only."""
    with pytest.raises(ValidationError):
        make_record(artifacts={"weights.safetensors": "md5:abc"})


def test_older_records_are_upgraded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each schema has one function that leads to the next."""
    table = json.loads(make_record().to_json())
    table["cells_of_stage"] = table.pop("cells")
    table["schema_version"] = 0

    def zero_to_one(old: dict[str, object]) -> dict[str, object]:
        cells = old.pop("cells_of_stage")
        return old | {"cells": cells, "schema_version": 1}

    monkeypatch.setitem(module.UPGRADES, 0, zero_to_one)

    assert parse_record(json.dumps(table), "old").cells == 100


def test_every_schema_so_far_has_an_upgrade() -> None:
    """Records are kept for years."""
    assert set(module.UPGRADES) == set(range(1, module.SCHEMA_VERSION))
