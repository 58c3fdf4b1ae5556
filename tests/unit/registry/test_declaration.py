"""The declaration of a stage says all that is needed to add it again."""

import tomllib

import pytest

from canal.registry.settle import declaration, declaration_name
from tests.unit.registry.make import make_record


def test_it_holds_data_labels_preset_seed_and_parent() -> None:
    """TOML that says what was added, how, and what came of it; null values are left out."""
    record = make_record(2)

    table = tomllib.loads(declaration(record))

    assert table["stage"]["number"] == 2
    assert table["stage"]["parent"] == 1
    assert table["stage"]["seed"] == 7
    assert table["data"][0]["path"] == "/data/toy2.h5ad"
    assert table["data"][0]["digest"] == record.data[0]["digest"]
    assert table["data"][0]["labels"] == "cell_type"
    assert table["preset"] == record.preset
    assert table["options"] == {"overrides": ["training.epochs=3"]}


def test_the_first_stage_has_no_parent() -> None:
    """TOML has no null."""
    assert "parent" not in tomllib.loads(declaration(make_record(1)))["stage"]


def test_it_is_the_same_text_each_time() -> None:
    """Recovery after a kill writes the same file again."""
    record = make_record()

    assert declaration(record) == declaration(record)


@pytest.mark.parametrize(
    ("number", "name", "expected"),
    [
        (1, "pbmc", "001-pbmc.toml"),
        (12, "Muraro 2016 / pancreas", "012-Muraro-2016-pancreas.toml"),
        (3, "../../etc/passwd", "003-etc-passwd.toml"),
        (4, "β", "004-stage.toml"),
        (1234, "x" * 300, f"1234-{'x' * 80}.toml"),
    ],
)
def test_its_name_is_a_safe_file_name(number: int, name: str, expected: str) -> None:
    """Sorted by number; a name can lead nowhere else."""
    assert declaration_name(make_record(number, name=name)) == expected
