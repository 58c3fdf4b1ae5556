"""A stage as MLflow loads and serves it: one row a cell, its counts by gene, in; type and confidence out.

MLflow drops every column that a signature does not name, and a file may have any genes: so the genes
are keys in one column. `as_input` makes it from a table of cells x genes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from canal.data.panel import check_overlap
from canal.data.source import CellSource, Matrix
from canal.data.stream import CellStream
from canal.errors import DataError, RegistryError
from canal.files import verify
from canal.model.model import Model
from canal.model.voter import probabilities
from canal.registry.commit import MANIFEST_FILE
from canal.registry.flavour import CELL_TYPE, CONFIDENCE, COUNTS

if TYPE_CHECKING:
    from collections.abc import Hashable


_NAME = "the model's input"


def as_input(cells: pd.DataFrame) -> pd.DataFrame:
    """Return a table of cells x genes as the model takes it: one column, ``{gene: count}`` a cell.

    Examples
    --------
    >>> as_input(pd.DataFrame({"CD3D": [3], "CD19": [0]}, index=["cell1"])).loc["cell1", "counts"]
    {'CD3D': 3, 'CD19': 0}
    """
    rows = [dict(zip(map(str, cells.columns), row, strict=True)) for row in cells.to_numpy().tolist()]
    return pd.DataFrame({COUNTS: rows}, index=cells.index)


class StageModel:
    """What `mlflow.pyfunc` wraps."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, model_input: pd.DataFrame, params: "Mapping[str, Any] | None" = None) -> pd.DataFrame:
        """Return the type of every cell.

        Parameters
        ----------
        model_input
            A row a cell; its column ``counts`` holds ``{gene: count}``. A gene that no cell names was not
            measured; one that other cells name is zero.
        params
            None are known.

        Returns
        -------
        Columns ``cell_type`` and ``confidence``, in the order and with the index of the input.

        Raises
        ------
        DataError
            If the cells cannot be annotated.
        """
        del params
        matrix, genes = _matrix(model_input)
        names = pd.Index([f"cell{k}" for k in range(len(model_input))])
        source = CellSource(
            source=_NAME,
            obs=pd.DataFrame(index=names),
            var=pd.DataFrame(index=pd.Index(genes, dtype=object)),
            places={"X": Matrix(matrix, _NAME, "X")},
        )
        stream = CellStream(source)
        if not self.model.is_taught:
            return self._by_voter(stream, model_input.index)
        reader = self.model.reader(stream.genes)
        reader.check_overlap(_NAME)
        types, confidence = [], []
        for block in stream.chunks(reader.columns):
            prediction = reader.predict_columns(block)
            answered, sure = reader.answered(prediction)
            types.append(answered)
            confidence.append(sure)
        answer = {CELL_TYPE: np.concatenate(types), CONFIDENCE: np.concatenate(confidence).astype(float)}
        return pd.DataFrame(answer, index=model_input.index)

    def _by_voter(self, stream: CellStream, index: pd.Index) -> pd.DataFrame:
        """Return the answers of a voter that nothing was taught beside."""
        voter = self.model.voter
        assert voter is not None
        match = voter.panel.match(stream.genes)
        check_overlap(match, 0.0, _NAME)
        columns, order = voter.reading_order(match)
        scores = np.concatenate([voter.scores(block[:, order], match) for block in stream.chunks(columns)])
        types = np.array(voter.types, dtype=object)[scores.argmax(axis=1)]
        return pd.DataFrame({CELL_TYPE: types, CONFIDENCE: probabilities(scores).max(axis=1)}, index=index)


def _load_pyfunc(path: str) -> StageModel:
    """Load a stage from the files that MLflow fetched; MLflow calls this by its name.

    Raises
    ------
    RegistryError
        If a file is not as it was committed.
    """
    folder = Path(path)
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    bad = [problem for problem in verify(folder, manifest) if problem.kind != "extra"]
    if bad:
        message = f"{folder}: {bad[0]}. Put it back from a backup, or load another version."
        raise RegistryError(message)
    return StageModel(Model.load(folder))


def _matrix(cells: pd.DataFrame) -> tuple[sp.csr_matrix, "list[Hashable]"]:
    """Return counts of shape (cells, genes) and the genes that any cell names, in order of appearance."""
    place: dict[Hashable, int] = {}
    columns, values, ends = [], [], [0]
    for number, row in enumerate(cells[COUNTS]):
        if not isinstance(row, Mapping) or not row:
            message = f"Cell {number} of {_NAME} has no counts; expected {{gene: count, ...}} in column {COUNTS!r}."
            raise DataError(message)
        columns += [place.setdefault(gene, len(place)) for gene in row]
        values += list(row.values())
        ends.append(len(columns))
    try:
        data = np.array(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        message = f"{_NAME} has a count that is no number: {error}. Expected {{gene: count, ...}} for every cell."
        raise DataError(message) from error
    matrix = sp.csr_matrix((data, columns, ends), shape=(len(cells), len(place)))
    matrix.sort_indices()
    return matrix, list(place)
