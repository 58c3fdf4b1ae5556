"""What was computed once is given back unaltered, or not at all."""

import json

import pytest

import canal
from canal.registry.cache import Memo, key_of


def test_the_same_question_has_the_same_answer(tmp_path):
    """Across objects; another question has none."""
    key = key_of("sum", a=1, b=[2, 3])
    Memo(tmp_path / "m").put(key, {"sum": 6.5})

    assert Memo(tmp_path / "m").get(key) == {"sum": 6.5}
    assert Memo(tmp_path / "m").get(key_of("sum", a=1, b=[3, 2])) is None


@pytest.mark.parametrize("changes", [{"a": 2}, {"c": None}, {"kind": "product"}])
def test_every_input_counts(changes):
    """Another value, another input, another computation."""
    assert key_of(**({"kind": "sum", "a": 1} | changes)) != key_of("sum", a=1)


def test_another_canal_computes_again(monkeypatch):
    """Its figures may differ."""
    before = key_of("sum", a=1)
    monkeypatch.setattr("canal.registry.cache.__version__", canal.__version__ + ".1")
    assert key_of("sum", a=1) != before


@pytest.mark.parametrize("spoil", [lambda s: s[:-9], lambda s: s.replace("6.5", "7.5"), lambda _: "[]"])
def test_an_altered_answer_is_none(tmp_path, spoil):
    """It is computed again."""
    memo, key = Memo(tmp_path), key_of("sum", a=1)
    memo.put(key, {"sum": 6.5})
    path = tmp_path / f"{key}.json"
    path.write_text(spoil(path.read_text()))
    assert memo.get(key) is None


def test_a_file_under_another_name_is_no_answer(tmp_path):
    """The key stands in the file, too."""
    memo, key, other = Memo(tmp_path), key_of("sum", a=1), key_of("sum", a=2)
    memo.put(key, 1)
    (tmp_path / f"{key}.json").rename(tmp_path / f"{other}.json")
    assert memo.get(other) is None
    assert json.loads((tmp_path / f"{other}.json").read_text())["answer"] == 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    """The answer is computed again the next time."""
    (tmp_path / "file").write_text("")
    Memo(tmp_path / "file").put("k", 1)
    assert Memo(tmp_path / "file").get("k") is None
