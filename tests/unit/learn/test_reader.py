"""What a file's cells are put through: the same as each part by itself, and the same bits in any block."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.special import softmax

from canal.config import load_preset
from canal.data.stream import read_cells
from canal.model.model import LEAST_VOTE, Fusion, Model
from canal.model.network import PanelCells, run_network
from canal.model.reader import Prediction
from tests.learning import learn, toy
from tests.make import make_adata
from tests.products import assert_same

SETTINGS = ("training.epochs=2", "training.min_steps=10", "bank.size=24", "genes.per_stage=40", "genes.statistics=55")
QUERY = {"n_cells": 150, "n_genes": 50, "types": ("B", "NK", "HSC"), "seed": 4}


@pytest.fixture(scope="module")
def model() -> Model:
    """Return the model of one stage on 60 genes, of which the query measures 50."""
    cells = read_cells(make_adata(160, 60, types=("B", "NK")), labels="cell_type")
    return learn(cells, preset=load_preset("compact", SETTINGS)).model


def test_the_parts_are_what_they_are_alone(model: Model) -> None:
    """One product for memory and detector, and the network on arrays, against each computed by itself."""
    cells = read_cells(make_adata(**QUERY), labels=None)
    reader = model.reader(cells.genes)
    detector = reader.novelty()
    assert detector is not None
    assert reader.solved is not None

    found = reader.with_novelty(detector, neighbors=3).predict_columns(cells.expression[:, reader.columns])

    values = reader.match.project(cells.expression)
    panel = PanelCells(values=values, measured=reader.match.measured[None], source=np.zeros(len(cells), dtype=int))
    logits, rep = run_network(model.network, panel)
    memory = reader.solved.moments.discriminants.of(reader.solved.scores(cells.expression))
    evidence = np.log(softmax(logits, axis=1) + LEAST_VOTE) + model.fusion.memory * memory
    np.testing.assert_allclose(found.representation, rep, atol=2e-5)
    np.testing.assert_allclose(found.probabilities, softmax(evidence / model.fusion.temperature, axis=1), atol=1e-4)
    assert found.novelty is not None
    assert found.neighbours is not None
    np.testing.assert_allclose(found.novelty.novelty, detector.score(cells.expression).novelty, atol=1e-4)
    near = detector.neighbours(cells.expression, 3)
    np.testing.assert_allclose(found.neighbours.distances, near.distances, atol=1e-4)


def test_a_model_of_the_older_rule_adds_scores_to_probabilities(model: Model) -> None:
    """The same model with a calibration from before there were rules answers as then."""
    cells = read_cells(make_adata(**QUERY), labels=None)
    old = replace(model, fusion=Fusion.from_dict({"format": 1, "memory": 3.0, "temperature": 0.4, "stages": 1}))
    reader = old.reader(cells.genes)
    assert reader.solved is not None

    found = reader.predict(cells.expression)

    evidence = softmax(found.logits, axis=1) + 3.0 * reader.solved.scores(cells.expression)
    np.testing.assert_allclose(found.probabilities, softmax(evidence / 0.4, axis=1), atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 64, 149])
def test_a_cell_gets_the_same_bits_in_any_block(model: Model, size: int) -> None:
    """Probabilities, representations and novelties do not depend on which cells come along."""
    cells = read_cells(make_adata(**QUERY), labels=None)
    reader = model.reader(cells.genes)
    detector = reader.novelty()
    assert detector is not None
    reader = reader.with_novelty(detector)
    kept = cells.expression[:, reader.columns]

    whole = reader.predict_columns(kept)
    parts = [reader.predict_columns(kept[k : k + size]) for k in range(0, len(cells), size)]

    assert whole.novelty is not None
    assert_same(np.concatenate([p.probabilities for p in parts]), whole.probabilities)
    assert_same(np.concatenate([p.representation for p in parts]), whole.representation)
    assert_same(np.concatenate([p.novelty.novelty for p in parts if p.novelty]), whole.novelty.novelty)


def test_a_cell_without_counts_is_answered(model: Model) -> None:
    """A profile of zeros gives numbers, not NaN."""
    cells = read_cells(make_adata(**QUERY), labels=None)
    reader = model.reader(cells.genes)

    found = reader.predict(sp.csr_matrix((2, len(cells.genes)), dtype=np.float32))

    assert np.isfinite(found.probabilities).all()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, atol=1e-5)


def test_weights_survive_torch(model: Model) -> None:
    """The network in torch has the weights that are kept, and is made once."""

    state = model.network.state_dict()

    assert model.network is model.network
    assert all(torch.equal(state[name], torch.from_numpy(values)) for name, values in model.weights.items())


def test_the_most_probable_type_is_the_answer() -> None:
    """By name, for every cell."""
    stage, query = learn(toy()), toy(seed=4)
    reader = stage.model.reader(query.genes)

    names = np.array(stage.model.types, dtype=object)[reader.predict(query.expression).probabilities.argmax(axis=1)]

    assert reader.best_types(query.expression).tolist() == names.tolist()
    assert stage.model.types_of(query).tolist() == names.tolist()
    assert (names == query.labels).mean() > 0.8


def test_types_that_are_not_allowed_have_no_probability() -> None:
    """The others share it as they stand to each other; evenly where they have none."""
    probabilities = np.array([[0.6, 0.3, 0.1], [1.0, 0.0, 0.0]], dtype=np.float32)
    empty = np.zeros((2, 1), dtype=np.float32)
    prediction = Prediction(probabilities=probabilities, representation=empty, logits=probabilities)

    restricted = prediction.restricted_to(np.array([False, True, True]))

    np.testing.assert_allclose(restricted.probabilities, [[0.0, 0.75, 0.25], [0.0, 0.5, 0.5]], atol=1e-6)
