"""Who watches a long work sees a bar on a terminal and lines in a log."""

import sys

import pytest

from canal import progress
from canal.cli.answer import Bar, Lines, Session, watcher
from canal.progress import Late, NotebookBar, Silent, in_notebook, watching
from canal.stages.layout import Layout


@pytest.mark.parametrize(
    ("as_json", "terminal", "kind"),
    [(True, True, Bar), (True, False, Late), (False, True, Bar), (False, False, Lines)],
)
def test_watcher_suits_the_output(as_json, terminal, kind, tmp_path, monkeypatch):
    """A terminal has a bar, a log has lines; of a command that answers in JSON only long work has."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert isinstance(watcher(Session(Layout(tmp_path), as_json=as_json)), kind)


def test_an_answer_in_json_leaves_lines_of_long_work_on_stderr(tmp_path, capsys, monkeypatch):
    """A stage of an hour tells how far it is; one of a second leaves stderr empty, and stdout is the answer's alone."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    told = watcher(Session(Layout(tmp_path), as_json=True))
    for description, seconds in (("short", 1.0), ("long", 12.0)):
        told.start(10, description)
        for epoch in range(10):
            clock[0] += seconds
            told.advance(1, f"epoch {epoch + 1}")
        told.close()
    found = capsys.readouterr()
    assert found.out == ""
    assert "short" not in found.err
    lines = found.err.splitlines()
    assert lines[0] == "long"
    assert lines[1].startswith("long: 40%, ")
    assert lines[1].endswith("s left epoch 4")


def test_lines_are_rare_and_tell_the_time_left(capsys, monkeypatch):
    """A line at the start, then one every quarter of a minute at most."""
    clock = iter([0.0, 1.0, 20.0, 21.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines = Lines()
    lines.start(4, "stage 1")
    lines.advance(1)
    lines.advance(1, "epoch 2")
    lines.advance(1)
    lines.close()
    assert capsys.readouterr().err == "stage 1\nstage 1: 50%, 20 s left epoch 2\n"


def test_short_work_shows_nothing(capsys, monkeypatch):
    """What lasts longer is told with all that was done before; the next piece of work begins anew."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    late = Late(Lines(), seconds=3.0)
    for description, seconds in (("short", 0.5), ("long", 2.0), ("short again", 0.5)):
        late.start(20, description)
        for _ in range(5 if seconds < 1 else 15):
            clock[0] += seconds
            late.advance(1)
        late.close()
    # Told of from 4 seconds on, with 2 of 20 steps done.
    assert capsys.readouterr().err == "long\nlong: 50%, 16 s left\n"


def test_bar_draws_on_stderr_alone(capsys, monkeypatch):
    """The bar leaves stdout to the answer, and survives a second piece of work."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    bar = Bar()
    bar.advance(1)  # before the start: nothing
    for description in ("[one]", "[two]"):
        bar.start(2, description)
        bar.advance(1, "epoch 1")
        bar.advance(1)
    bar.close()
    bar.close()
    found = capsys.readouterr()
    assert found.out == ""
    assert "[two]" in found.err
    assert "left" in found.err


class Shell:
    """What IPython says of itself in the kernel of a notebook."""

    kernel = object()


class IPython:
    """The module, as far as it is asked."""

    @staticmethod
    def get_ipython() -> Shell:
        return Shell()


def test_a_notebook_shows_a_bar_by_itself(monkeypatch):
    """Elsewhere Python is silent, unless a bar is asked for; a log has lines."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert not in_notebook()
    assert isinstance(watching(None), Silent)
    assert isinstance(watching(True), Lines)
    own = Silent()
    assert watching(own) is own
    monkeypatch.setitem(sys.modules, "IPython", IPython)
    assert isinstance(watching(None), NotebookBar)
    assert isinstance(watching(False), Silent)


def test_a_terminal_shows_a_bar_where_it_is_asked_for(monkeypatch):
    """Of text, as there are no widgets."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(watching(True), NotebookBar)
    assert isinstance(watching(None), Silent)


def test_the_bar_of_a_notebook_moves(capsys):
    """It shows what is done and how far, on stderr alone, and survives a second piece of work."""
    bar = NotebookBar()
    bar.advance(1)  # before the start: nothing
    for description in ("stage 1", "testing"):
        bar.start(2, description)
        bar.advance(2, "epoch 2")
    bar.close()
    bar.close()
    found = capsys.readouterr()
    assert found.out == ""
    assert "stage 1" in found.err
    assert "testing" in found.err
