"""A declared stream: read as written, refused with what is wrong, and told apart by content."""

from pathlib import Path

import pytest

from canal.benchmark.methods.published import read_markers
from canal.benchmark.stream import read_stage, read_stream, stream_digest
from canal.errors import ConfigError, DataError
from tests.make import make_adata

STREAM = """\
labels = "cell_type"
[[stage]]
data = "one.h5ad"
test = "one.test.h5ad"
[[stage]]
name = "second"
data = "two.h5ad"
[[test]]
name = "elsewhere"
data = "one.test.h5ad"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_adata(60).write_h5ad(tmp_path / "one.h5ad")
    make_adata(20, prefix="t", seed=1).write_h5ad(tmp_path / "one.test.h5ad")
    make_adata(60, types=4, prefix="x", seed=2).write_h5ad(tmp_path / "two.h5ad")
    (tmp_path / "blood.toml").write_text(STREAM)
    return tmp_path


def test_a_declaration_is_relative_to_itself(folder):
    """Paths, names and labels are filled in; a stage without a test holds out a fifth of each type."""
    stream = read_stream(str(folder / "blood.toml"), folder)
    assert [s.name for s in stream.stages] == ["one", "second"]
    assert (stream.name, stream.stages[0].test) == ("blood", folder / "one.test.h5ad")
    assert [t.labels for t in stream.tests] == ["cell_type"]
    given, shared = (read_stage(s) for s in stream.stages)
    assert (len(given.train), len(given.test)) == (60, 20)
    assert (len(shared.train), len(shared.test)) == (48, 12)
    assert not set(shared.train.names) & set(shared.test.names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stage = 3", "stage: "),
        ("name = ", "not valid TOML"),
        ("labels = 'cell_type'", "stage: field required"),
        ("[[stage]]\ndata = 'one.h5ad'", "labels: field required"),
        ("[[stage]]\ndata = 'one.h5ad'\nlabels = 'cell_type'\ncolour = 'red'", "colour: extra inputs"),
        ("[[stage]]\ndata = 'gone.h5ad'\nlabels = 'cell_type'", "files that are not there: .*gone.h5ad"),
    ],
)
def test_a_bad_declaration_says_what_is_wrong(folder, text, said):
    """Nothing is guessed: the message names the key or the file."""
    (folder / "bad.toml").write_text(text)
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        read_stream(str(folder / "bad.toml"), folder)


def test_a_stream_that_is_nowhere_says_what_may_stand_there(folder):
    """The message names all three kinds."""
    with pytest.raises(ConfigError, match=r"TOML file .* folder of stage declarations, or 'demo'"):
        read_stream("nowhere.toml", folder)


def test_the_digest_follows_the_content_not_the_place(folder, tmp_path_factory):
    """The same files elsewhere are the same stream; another cell is another."""
    stream = read_stream(str(folder / "blood.toml"), folder)
    before = stream_digest(stream)
    other = tmp_path_factory.mktemp("other")
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert stream_digest(read_stream(str(other / "blood.toml"), other)) == before
    make_adata(59).write_h5ad(folder / "one.h5ad")
    assert stream_digest(stream) != before


def test_the_demonstration_is_a_stream(tmp_path):
    """It works everywhere: its cells come with scanpy, and are the same each time."""
    first, second = (read_stream("demo", tmp_path / name) for name in "ab")
    assert [s.name for s in first.stages] == ["myeloid-b", "t-cells", "nk-stem"]
    assert stream_digest(first) == stream_digest(second)


def test_markers_are_read_and_refused(tmp_path):
    """A header is optional, genes are upper case, and a row of another shape is named."""
    table = tmp_path / "markers.csv"
    table.write_text("type,gene\nB,Cd79a\nB,MS4A1\nNK,GNLY\n")
    assert read_markers(table) == {"B": ("CD79A", "MS4A1"), "NK": ("GNLY",)}
    table.write_text("B,CD79A\nB\n")
    with pytest.raises(DataError, match="line 2: expected two columns"):
        read_markers(table)
    with pytest.raises(DataError, match="no marker table"):
        read_markers(tmp_path / "gone.csv")
