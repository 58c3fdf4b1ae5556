"""What is read and written without anndata is what anndata reads and writes."""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import read_elem, write_elem

from canal.data.source import read_element, write_element

VALUES = {
    "numbers": np.arange(4, dtype=np.float32),
    "integers": np.arange(4),
    "truth": np.array([True, False]),
    "texts": np.array(["a", "", "\N{GREEK SMALL LETTER BETA} cell"], dtype=object),
    "no texts": np.array([], dtype=object),
    "categorical": pd.Categorical(["B", "NK", None, "B"]),
    "one category": pd.Categorical(["B"] * 3),
    "no category": pd.Categorical([None, None], categories=np.array([], dtype=object)),
    "text": "sha256:0",
    "integer": 3,
    "number": 0.05,
    "yes": True,
    "numpy number": np.float32(0.5),
}


@pytest.fixture
def file() -> Iterator[Any]:
    """Return an HDF5 file in memory."""
    with h5py.File("unused", "w", driver="core", backing_store=False) as opened:
        yield opened


def same(found: Any, expected: Any) -> bool:
    """Tell whether two values are the same, with their kinds."""
    if isinstance(expected, pd.Categorical):
        return bool(found.equals(expected)) and found.ordered == expected.ordered
    if isinstance(expected, np.ndarray):
        return np.array_equal(np.asarray(found), expected) and np.asarray(found).dtype.kind in {
            expected.dtype.kind,
            "O",
        }
    return bool(found == expected)


@pytest.mark.parametrize("name", VALUES)
def test_anndata_reads_what_is_written(name: str, file: Any) -> None:
    """Every kind of value comes back from anndata, also over an earlier one."""
    write_element(file, "x", {"earlier": 1})
    write_element(file, "x", VALUES[name])
    assert same(read_elem(file["x"]), VALUES[name])


@pytest.mark.parametrize("name", [n for n, v in VALUES.items() if hasattr(v, "__len__") and not isinstance(v, str)])
def test_what_anndata_writes_is_read(name: str, file: Any) -> None:
    """Columns that anndata wrote are read as anndata reads them."""
    write_elem(file, "x", VALUES[name])
    assert same(read_element(file["x"]), VALUES[name])


@pytest.mark.parametrize("value", [pd.array([1, None, 3], dtype="Int64"), pd.array([True, None], dtype="boolean")])
def test_other_kinds_go_to_anndata(value: Any, file: Any) -> None:
    """Nullable numbers and whatever else there is are read by anndata."""
    write_elem(file, "x", value)
    pd.testing.assert_extension_array_equal(read_element(file["x"]), value)


def test_a_table_of_facts(file: Any) -> None:
    """A mapping comes back with all it holds."""
    facts = {"model": "blood", "stage": 2, "nested": {"share": 0.5}, "types": np.array(["B", "NK"], dtype=object)}
    write_element(file, "x", facts)
    found = read_elem(file["x"])
    assert found["types"].tolist() == ["B", "NK"]
    assert (found["model"], found["stage"], found["nested"]["share"]) == ("blood", 2, 0.5)
