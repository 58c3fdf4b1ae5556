"""Twenty stages are compared at once."""

import pytest

import canal
from canal.compare.gather import compare_stages
from canal.compare.page import compare_page
from canal.compare.report import PageArt
from canal.registry.registry import Registry
from canal.stages.testing.held_out import HeldOutReference, ReadingOptions
from canal.stages.testing.tests import Outcome, StageTests
from tests.unit.registry.make import make_files, make_record

STAGES, TYPES = 20, 16


def kept_of(number: int) -> StageTests:
    """Return the tests of a stage on its own and all earlier ones, of 16 types."""
    names = [f"type {t}" for t in range(TYPES)]
    counts = {a: {a: 90, names[k - 1]: 10} for k, a in enumerate(names)}
    own = HeldOutReference(
        kind="share", path="/data/toy.h5ad", digest=str(number), rows=tuple(range(2000)), cells=1600,
        options=ReadingOptions(labels="cell_type"),
    )  # fmt: skip
    outcomes = tuple(Outcome(stage=k, digest=str(k), counts=counts) for k in range(1, number + 1))
    history = tuple({"training_loss": 1.0 / (e + 1), "validation_accuracy": 0.9} for e in range(8))
    return StageTests(own=own, outcomes=outcomes, history=history)


def test_twenty_stages_are_compared_without_a_model(tmp_path):
    """Table and page come from what was kept; no model is opened."""
    layout = canal.open_workspace(tmp_path / "ws", create=True).layout
    registry = Registry.open(layout.registry, layout.settings.name, create=True)
    for number in range(1, STAGES + 1):
        draft = registry.draft(f"toy-{number}")
        files = make_files(draft.folder, number)
        tests = kept_of(number).write(draft.folder)
        draft.commit(make_record(number), files | tests)

    report = compare_stages(layout)
    html = compare_page(report, PageArt())

    assert len(report.stages) == STAGES
    assert report.stages[-1].average == pytest.approx(0.9)
    assert report.stages[-1].forgetting == pytest.approx(0)
    assert len(report.types) == TYPES
    assert html.count("<img") == 6
