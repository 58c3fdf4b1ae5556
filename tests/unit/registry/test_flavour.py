"""What MLflow needs to load a stage follows from the stage alone."""

import json

import pytest

from canal.errors import RegistryError
from canal.registry.flavour import flavour_problems, write_flavour
from canal.registry.pyfunc import as_input
from tests.unit.registry.make import make_files


def test_the_same_stage_has_the_same_files(tmp_path):
    """No time, no id, no address in them."""
    files = make_files(tmp_path)
    one, two = (write_flavour(tmp_path / name, files) for name in ("one", "two"))

    assert set(one) == set(two) >= {"MLmodel", "input_example.json"}
    assert all(one[name].read_bytes() == two[name].read_bytes() for name in one)


def test_the_example_is_of_the_panel(tmp_path):
    """Every gene of it is measured."""
    (tmp_path / "genes.json").write_text(json.dumps({"genes": ["A", "B"]}))
    found = write_flavour(tmp_path / "out", {"genes.json": tmp_path / "genes.json"})

    example = json.loads(found["input_example.json"].read_text())
    assert example == {"columns": ["counts"], "data": [[{"A": 0, "B": 1}]]}
    assert json.loads(found["serving_input_example.json"].read_text()) == {"dataframe_split": example}


def test_what_came_with_a_model_is_not_taken(tmp_path):
    """MLflow would run what a foreign file names: all are ours, whatever there is."""
    files = make_files(tmp_path)
    ours = {name: path.read_bytes() for name, path in write_flavour(tmp_path / "ours", files).items()}
    for name in ours:
        (tmp_path / name).write_text("foreign")

    again = write_flavour(tmp_path / "out", files | {name: tmp_path / name for name in ours})

    assert {name: path.read_bytes() for name, path in again.items()} == ours


@pytest.mark.parametrize("content", ["[]", "{}", '{"genes": [[1]]}', '{"genes": 3}', "no json"])
def test_a_panel_that_is_none_is_told(tmp_path, content):
    """It comes from a file of somebody else."""
    (tmp_path / "genes.json").write_text(content)
    if content == '{"genes": [[1]]}':  # a strange name is a name
        assert write_flavour(tmp_path / "out", {"genes.json": tmp_path / "genes.json"})
        return
    with pytest.raises(RegistryError, match=r"genes\.json does not hold the gene panel"):
        write_flavour(tmp_path / "out", {"genes.json": tmp_path / "genes.json"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("MLmodel", '{"flavors": {"python_function": {"loader_module": "evil"}}}'),
        ("requirements.txt", "canal==0.1.0\nevil\n"),
        ("requirements.txt", "canal @ file:///evil\n"),
        ("python_env.yaml", "dependencies:\n- evil\n"),
    ],
)
def test_what_mlflow_would_load_is_ours(tmp_path, name, content):
    """Any other text is named; the version of canal may be any."""
    write_flavour(tmp_path, make_files(tmp_path))
    (tmp_path / "requirements.txt").write_text("canal==0.0.9.dev1+old\n")
    assert flavour_problems(tmp_path) == []

    (tmp_path / name).write_text(content)

    assert [(p.what, p.kind) for p in flavour_problems(tmp_path)] == [(name, "altered")]


def test_a_table_becomes_one_column(tmp_path):
    """In the order of its genes, with its index."""
    import pandas as pd

    found = as_input(pd.DataFrame({"A": [1, 0], "B": [0, 2]}, index=["x", "y"]))
    assert found.to_dict() == {"counts": {"x": {"A": 1, "B": 0}, "y": {"A": 0, "B": 2}}}
