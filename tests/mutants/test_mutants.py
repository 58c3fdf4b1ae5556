"""The list of plausible bugs does not rot, and the command that tries them tells caught from not."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.mutants.mutants import ROOT, Mutant, Outcome, copy_tree, misplaced, put_in, read_mutants

# The parts that the first tests had missed.
CORE = (
    "the distillation term dropped",
    "held-out cells trained on",
    "held-out cells chosen for the bank first",
    "calibration by a memory that saw the held-out cells",
    "a quota off by one",
    "pseudo-cells without the rest of the variance",
    "the transductive temperature",
    "a moved table's trust ignored",
    "test cells taught",
    "macro-F1 over predicted types too",
)


def test_every_bug_can_be_put_in() -> None:
    """Its text stands once in its file, and the tests that must fail are there."""
    mutants = read_mutants()

    assert [text for text in map(misplaced, mutants) if text] == []
    names = Counter(mutant.name for mutant in mutants)
    assert names.most_common(1)[0][1] == 1
    assert len(names) >= 80
    assert set(CORE) <= set(names)


def test_a_bug_is_taken_out_again(tmp_path: Path) -> None:
    """The copy is the project's before and after, and another in between."""
    mutant = read_mutants()[0]
    tree = copy_tree(tmp_path)
    before = (ROOT / mutant.file).read_text(encoding="utf-8")

    with put_in(mutant, tree):
        assert mutant.new in (tree / mutant.file).read_text(encoding="utf-8")

    assert (tree / mutant.file).read_text(encoding="utf-8") == before
    assert (ROOT / mutant.file).read_text(encoding="utf-8") == before


def test_a_text_that_is_gone_is_told() -> None:
    """So that a changed line takes its bug along."""
    mutant = Mutant(area="a", name="b", file="canal/seeds.py", old="no such text", new="x", tests=("tests/make.py",))

    assert "occurs 0 times" in misplaced(mutant)
    assert Outcome(mutant=mutant, verdict="caught", seconds=0.0, told="").mutant is mutant


def test_a_sample_is_caught() -> None:
    """Two bugs, put in and caught; the others by ``python -m tests.mutants``."""
    command = [sys.executable, "-m", "tests.mutants", "--area", "registry", "--sample", "2", "--seed", "3"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "all: 2 of 2 caught" in done.stdout
