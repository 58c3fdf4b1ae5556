"""The cells of a new file through the model in use, before it learns them.

They were labelled by somebody who did not know the model, and come from a data set that no stage has seen: what the
model answers on those of known types is the honest figure for a data set like this one when it is new. Held-out cells
of a stage are no such test, for their neighbours of the same file were learned.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from canal.data.cells import Cells
from canal.data.panel import check_overlap
from canal.figures import score
from canal.model.model import Model
from canal.model.reliability import expected_calibration_error
from canal.model.voter import Voter, probabilities
from canal.stages.novelty_rules import ALPHA, file_p_values, judging_reader
from canal.stages.testing.held_out import chosen_rows

MOST_CELLS = 10_000  # of a file, the same share of each type: it bounds the time that adding a stage takes
METRIC = "incoming"  # the figures begin with this among those of a record


@dataclass(frozen=True, kw_only=True)
class IncomingAnswers:
    """What the model in use says of the labelled cells of a new file.

    Attributes
    ----------
    labels, predicted
        Given type and the model's, (cells,); the given one where that is coarse and the model's one of its kinds.
    confidence
        Of the model's answer, (cells,).
    p_value
        Of its novelty, (cells,); ``None`` where the model cannot tell.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    p_value: np.ndarray | None

    @property
    def looks_known(self) -> np.ndarray:
        """Whether a cell is not called novel at `ALPHA`, bool (cells,); all where the model cannot tell."""
        if self.p_value is None:
            return np.ones(len(self.labels), dtype=bool)
        return np.asarray(self.p_value > ALPHA)


@dataclass(frozen=True, kw_only=True)
class IncomingFigures:
    """Figures of the model in use on cells of known types that it has not learned; part of JSON and record.

    Attributes
    ----------
    cells
        Cells of known types that were scored.
    accuracy, macro_f1
        Of the predicted types.
    calibration_error
        Expected calibration error of the confidence.
    false_alarms
        Share of these cells that is called novel at `ALPHA`; ``None`` where the model cannot tell.
    """

    cells: int
    accuracy: float
    macro_f1: float
    calibration_error: float
    false_alarms: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """Return the figures for the record of the stage."""
        return {f"{METRIC}_{name}": float(value) for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of_metrics(cls, metrics: dict[str, float]) -> "IncomingFigures | None":
        """Return the figures of a record's metrics; ``None`` for a first stage or one of an older canal."""
        if f"{METRIC}_accuracy" not in metrics:
            return None
        return cls(
            cells=int(metrics[f"{METRIC}_cells"]),
            accuracy=metrics[f"{METRIC}_accuracy"],
            macro_f1=metrics[f"{METRIC}_macro_f1"],
            calibration_error=metrics[f"{METRIC}_calibration_error"],
            false_alarms=metrics.get(f"{METRIC}_false_alarms"),
        )


def answer_incoming(parent: Model, cells: Cells) -> IncomingAnswers:
    """Annotate the labelled cells of a new file with the model in use, `MOST_CELLS` of them at most."""
    assert cells.labels is not None
    rows = chosen_rows(cells.labels, MOST_CELLS)
    reader = parent.reader(cells.genes)
    # With novelty where the model can tell.
    judging = judging_reader(reader)
    prediction = judging.predict(cells.expression[rows])
    p_value = None
    if prediction.novelty is not None:
        p_value = file_p_values(judging, prediction.novelty)
    predicted, confidence = reader.answered(prediction)
    labels = cells.labels[rows]
    return IncomingAnswers(
        labels=labels,
        predicted=parent.as_labelled(labels, predicted),
        confidence=confidence,
        p_value=p_value,
    )


def answer_by_voter(voter: Voter, cells: Cells) -> IncomingAnswers:
    """Annotate the labelled cells of a new file with a voter that nothing was taught beside, `MOST_CELLS` at most.

    Raises
    ------
    DataError
        If the file measures no gene of the voter.
    """
    assert cells.labels is not None
    match = voter.panel.match(cells.genes)
    check_overlap(match, 0.0, cells.report.path)
    rows = chosen_rows(cells.labels, MOST_CELLS)
    scores = voter.scores(cells.expression[rows][:, match.columns[match.measured]], match)
    return IncomingAnswers(
        labels=cells.labels[rows],
        predicted=np.array(voter.types, dtype=object)[scores.argmax(axis=1)],
        confidence=probabilities(scores).max(axis=1).astype(np.float32),
        p_value=None,
    )


def incoming_figures(answers: IncomingAnswers, known: tuple[str, ...]) -> IncomingFigures | None:
    """Return the figures of the cells whose type the model knows; ``None`` where there is none.

    Parameters
    ----------
    answers
        Of the model in use.
    known
        Its types.
    """
    rows = np.flatnonzero(np.isin(answers.labels, list(known)))
    if not len(rows):
        return None
    labels, predicted = answers.labels[rows], answers.predicted[rows]
    figures = score(labels, predicted)
    false_alarms = None if answers.p_value is None else float((answers.p_value[rows] <= ALPHA).mean())
    return IncomingFigures(
        cells=len(rows),
        accuracy=float(figures["accuracy"]),
        macro_f1=float(figures["macro_f1"]),
        calibration_error=expected_calibration_error(answers.confidence[rows], labels == predicted),
        false_alarms=false_alarms,
    )
