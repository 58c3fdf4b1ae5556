"""What MLflow needs to load a stage follows from the stage alone."""

import json

from canal.registry.flavour import write_flavour
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


def test_a_model_that_has_them_keeps_its_own(tmp_path):
    """An imported stage stays as it was, byte for byte."""
    (tmp_path / "MLmodel").write_text("{}")

    assert write_flavour(tmp_path / "out", {"MLmodel": tmp_path / "MLmodel"}) == {}


def test_a_table_becomes_one_column(tmp_path):
    """In the order of its genes, with its index."""
    import pandas as pd

    found = as_input(pd.DataFrame({"A": [1, 0], "B": [0, 2]}, index=["x", "y"]))
    assert found.to_dict() == {"counts": {"x": {"A": 1, "B": 0}, "y": {"A": 0, "B": 2}}}
