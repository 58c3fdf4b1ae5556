"""CellTypist's models as voters: its labels and probabilities, and no pickle that runs anything."""

import json
import pickle
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from canal.cli.main import app
from canal.data.genes import Genes
from canal.data.stream import read_cells
from canal.errors import CanalError, WeightsError
from canal.model.voter import Voter
from canal.voter.annotate import NO_NOVELTY
from canal.voter.celltypist import voter_of
from canal.voter.pickles import read_pickle
from canal.workspace import import_celltypist, load_model
from tests.make import make_adata

GENES = 60


def trained(types: tuple[str, ...] = ("B", "NK", "DC"), sgd: bool = False) -> dict[str, Any]:
    """Return a model as CellTypist keeps it: classifier and scaler of scikit-learn, with the genes as an attribute."""
    cells = read_cells(make_adata(90, GENES, types=types, seed=1), labels="cell_type")
    scaler = StandardScaler().fit(cells.expression.toarray().astype(np.float64))
    values = np.minimum(scaler.transform(cells.expression.toarray().astype(np.float64)), 10)
    classifier: Any = SGDClassifier(loss="log_loss", random_state=0) if sgd else LogisticRegression()
    classifier.fit(values, cells.labels)
    classifier.features = np.array(cells.genes.names, dtype=object)
    description = {"date": "2026-01-01", "details": "toy", "url": "", "version": "v1", "number_celltypes": len(types)}
    return {"Model": classifier, "Scaler_": scaler, "description": description}


def celltypist_scores(model: dict[str, Any], adata: ad.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities by the formulas of CellTypist 1.7.1, with scikit-learn's own objects."""
    cells = read_cells(adata, labels=None)
    classifier, scaler = model["Model"], model["Scaler_"]
    known = np.flatnonzero(np.isin(np.array(cells.genes.names), classifier.features))
    place = [list(classifier.features).index(cells.genes.names[k]) for k in known]
    values = (cells.expression[:, known].toarray() - scaler.mean_[place]) / scaler.scale_[place]
    values[values > 10] = 10
    scores = values @ classifier.coef_[:, place].T + classifier.intercept_
    if scores.shape[1] == 1:
        scores = np.column_stack([-scores[:, 0], scores[:, 0]])
    return classifier.classes_[scores.argmax(axis=1)], expit(scores)


def written(folder: Path, content: Any, protocol: int = 4) -> Path:
    """Write a pickle."""
    path = folder / "Toy.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("sgd", [False, True])
def test_labels_and_probabilities_are_celltypists(tmp_path: Path, protocol: int, sgd: bool) -> None:
    """To 1e-6, on a file that lacks genes and has others, whatever protocol wrote the model."""
    model = trained(sgd=sgd)
    voter, path = import_celltypist(written(tmp_path, model, protocol), tmp_path / "toy.voter")
    genes = [f"GENE{g}" for g in range(45)] + [f"OTHER{g}" for g in range(30)]
    cells = make_adata(70, types=("B", "NK", "DC"), genes=genes, seed=3)[:, ::-1].copy()

    labels, probabilities = celltypist_scores(model, cells)
    annotation = load_model(path).annotate(cells)

    assert list(voter.voter.types) == model["Model"].classes_.tolist()
    assert annotation.cell_type.tolist() == labels.tolist()
    assert np.abs(expit(annotation.representation.astype(np.float64)) - probabilities).max() < 1e-6
    assert np.abs(annotation.confidence - probabilities.max(axis=1)).max() < 1e-6


OLD_NAMES = {
    b"cnumpy._core.": b"cnumpy.core.",
    b"csklearn.linear_model._logistic\n": b"csklearn.linear_model.logistic\n",
    b"csklearn.linear_model._stochastic_gradient\n": b"csklearn.linear_model.stochastic_gradient\n",
    b"csklearn.preprocessing._data\n": b"csklearn.preprocessing.data\n",
    b"c_loss\nCyHalfBinomialLoss\n": b"csklearn.linear_model._sgd_fast\nLog\n",
}


@pytest.mark.parametrize("sgd", [False, True])
def test_models_of_older_libraries_are_read(tmp_path: Path, sgd: bool) -> None:
    """NumPy and scikit-learn moved their classes over the years; the models that were published name the old places."""
    content = new = pickle.dumps(trained(sgd=sgd), protocol=2)
    for today, then in OLD_NAMES.items():
        content = content.replace(today, then)
    assert content != new
    assert b"_core" not in content
    for name, content_of in (("new", new), ("old", content)):
        (tmp_path / f"{name}.pkl").write_bytes(content_of)
    old, today = (voter_of(read_pickle(path), path) for path in (tmp_path / "old.pkl", tmp_path / "new.pkl"))
    assert (old.types, old.genes) == (today.types, today.genes)
    assert (old.weights == today.weights).all()


def test_two_types_have_two_scores(tmp_path: Path) -> None:
    """CellTypist keeps one row of weights for two types; the first type has the opposite."""
    model = trained(("B", "NK"))
    loaded, _ = import_celltypist(written(tmp_path, model), tmp_path / "toy.voter")
    cells = make_adata(40, GENES, types=("B", "NK"), seed=5)
    labels, probabilities = celltypist_scores(model, cells)
    annotation = loaded.annotate(cells)
    assert annotation.cell_type.tolist() == labels.tolist()
    assert np.abs(annotation.confidence - probabilities.max(axis=1)).max() < 1e-6


def test_the_command_imports_and_the_voter_annotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is safetensors, holds nothing pickled, says where it came from; the answer says what it cannot tell."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, trained())
    done = CliRunner().invoke(app, ["models", "import-celltypist", "Toy.pkl", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["out"], answer["genes"], answer["description"]["version"]) == ("Toy.voter", GENES, "v1")
    assert b"sklearn" not in Path("Toy.voter").read_bytes()
    make_adata(50, GENES, types=("B", "NK"), seed=2).write_h5ad("new.h5ad")
    done = CliRunner().invoke(app, ["annotate", "--model", "Toy.voter", "--data", "new.h5ad", "--out", "out.h5ad"])
    assert done.exit_code == 0, done.output
    assert "cannot tell cells of a type that it does not know" in done.stdout.replace("\n", " ")
    result = ad.read_h5ad("out.h5ad")
    assert set(result.obs["canal_cell_type"]) <= {"B", "NK", "DC"}
    assert "canal_status" not in result.obs
    assert NO_NOVELTY in list(result.uns["canal"]["warnings"])
    # A second import does not replace the first.
    assert CliRunner().invoke(app, ["models", "import-celltypist", "Toy.pkl"]).exit_code == 2


def test_a_vote_of_clusters_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clusters are found among the scores, as for any model in its representation."""
    seen = []

    def vote(cell_type: np.ndarray, representation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        seen.append(representation.shape)
        return np.full(len(cell_type), "NK", dtype=object)

    monkeypatch.setattr("canal.stages.clusters.majority_vote", vote)
    loaded, _ = import_celltypist(written(tmp_path, trained()), tmp_path / "toy.voter")
    annotation = loaded.annotate(make_adata(60, GENES, types=("B", "NK", "DC"), seed=4), majority_voting=True)
    assert seen == [(60, 3)]
    assert set(annotation.cell_type) == {"NK"}
    assert annotation.facts["majority_voting"] is True


@pytest.mark.parametrize(
    ("options", "named"),
    [({"alpha": 0.1}, "--alpha"), ({"adapt": True}, "--adapt"), ({"neighbors": 3}, "--neighbors")],
)
def test_what_a_voter_has_not_is_refused(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    """Novelty, adapting and neighbours need statistics or cells."""
    loaded, _ = import_celltypist(written(tmp_path, trained()), tmp_path / "toy.voter")
    with pytest.raises(CanalError, match=f"cannot follow {named}"):
        loaded.annotate(make_adata(30, GENES), **options)
    with pytest.raises(CanalError, match="neither be evaluated nor explained"):
        loaded.evaluate(make_adata(30, GENES), labels="cell_type")


def test_a_file_without_its_genes_is_refused(tmp_path: Path) -> None:
    """One message that shows both sides' names; nothing is written."""
    loaded, _ = import_celltypist(written(tmp_path, trained()), tmp_path / "toy.voter")
    with pytest.raises(CanalError, match="no gene in common"):
        loaded.annotate(make_adata(30, genes=[f"X{g}" for g in range(40)]), out=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


# Pickles that are no models. The first kinds would run code where they are unpickled: each would touch MARKER.

MARKER = "touched"
TOUCH = f"__import__('pathlib').Path({MARKER!r}).touch()"


class Reduced:
    """What `__reduce__` gives is called when this is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.parts


def text(value: str) -> bytes:
    """Return the instruction that pushes a text."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def hostile() -> dict[str, bytes]:
    """Return files that no CellTypist wrote, by kind."""
    import copyreg
    import os
    import subprocess

    model = trained()
    touch = f"touch {MARKER}"
    inside = trained()
    inside["Model"].coef_ = np.array([[Reduced(os.system, touch)]], dtype=object)
    described = trained() | {"description": {"date": Reduced(os.system, touch)}}
    dumped = {
        "os.system by reduce": Reduced(os.system, touch),
        "subprocess": Reduced(subprocess.check_call, ["touch", MARKER]),
        "builtins.eval": Reduced(eval, TOUCH),
        "builtins.exec": Reduced(exec, TOUCH),
        "a chain of getattr": Reduced(getattr, Reduced(__import__, "os"), "system"),
        "inside an array of objects": inside,
        "inside the description": described,
        "beside a whole model": model | {"more": Reduced(eval, TOUCH)},
        "copyreg": Reduced(copyreg._reconstructor, SimpleNamespace, object, None),
        "another class of ours": SimpleNamespace(a=1),
        "another class of scikit-learn": model | {"Scaler_": __import__("sklearn").svm.SVC()},
        "numpy.load by name": Reduced(np.load, "x.npy"),
        "an array of records": model | {"Scaler_": np.zeros(2, dtype=[("a", "f8")])},
    }
    files = {kind: pickle.dumps(content, protocol=4) for kind, content in dumped.items()}
    end = b"."
    return files | {
        # Text instructions of old protocols, and those that call without REDUCE.
        "GLOBAL and REDUCE": b"cposix\nsystem\n(" + text(touch) + b"tR" + end,
        "INST": b"(" + text(touch) + b"iposix\nsystem\n" + end,
        "OBJ": b"(cposix\nsystem\n" + text(touch) + b"o" + end,
        "NEWOBJ_EX": b"\x80\x04cbuiltins\neval\n(" + text(TOUCH) + b"t}\x92" + end,
        "EXT1": b"\x80\x02\x82\x01" + end,
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00" + end,
        "a persistent id": b"Pid\n" + end,
        "a persistent id from the stack": text("id") + b"Q" + end,
        "a dotted name": b"\x80\x04" + text("numpy") + text("ndarray.__class__") + b"\x93" + end,
        "a name that is no text": b"\x80\x04K\x01K\x02\x93" + end,
        "BUILD with __setstate__": b"\x80\x04cnumpy\nndarray\n}" + text("__setstate__") + b"cposix\nsystem\nsb" + end,
        "a state for a name": b"\x80\x04cnumpy\nndarray\n}b" + end,
        "a call of an array": b"\x80\x04cnumpy\nndarray\n)R" + end,
        "a dict whose keys are deep": b"\x80\x04})" + b"\x85" * 200_000 + b"Ns" + end,
        "a memo that is not there": b"\x80\x04j\xff\xff\xff\x7f" + end,
        "a remembered place far away": b"\x80\x04Nr\xff\xff\xff\x7f0" + end,
        "a text longer than the file": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc" + end,
        "an array larger than its content": pickle.dumps(np.zeros(3), 2).replace(
            b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"
        ),
        "a mark alone": b"(" + end,
        "nothing left": end,
        "an empty file": b"",
        "no pickle": b"PK\x03\x04 this is a zip",
        "no end": b"\x80\x04}",
    }


HOSTILE = hostile()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_that_is_no_model_is_refused_and_runs_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message, exit code 2, no code run, no file written."""
    monkeypatch.chdir(tmp_path)
    Path("Evil.pkl").write_bytes(HOSTILE[kind])
    done = CliRunner().invoke(app, ["models", "import-celltypist", "Evil.pkl"])
    assert done.exit_code == 2, done.output
    assert "Evil.pkl" in done.stderr
    assert "Traceback" not in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Evil.pkl"]


def test_the_files_would_run_code_if_they_were_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the tests: Python's own machine follows them."""
    monkeypatch.chdir(tmp_path)
    for kind in (
        "os.system by reduce",
        "builtins.eval",
        "inside an array of objects",
        "GLOBAL and REDUCE",
        "INST",
        "OBJ",
    ):
        pickle.loads(HOSTILE[kind])
        assert Path(MARKER).exists(), kind
        Path(MARKER).unlink()


def spoiled(change: str) -> dict[str, Any]:
    """Return a model in which one part does not fit."""
    model = trained()
    classifier, scaler = model["Model"], model["Scaler_"]
    if change == "not finite":
        classifier.coef_[0, 0] = np.nan
    elif change == "fewer genes":
        classifier.features = classifier.features[:-1]
    elif change == "a gene twice":
        classifier.features[1] = classifier.features[0]
    elif change == "no spread":
        scaler.scale_[0] = 0
    elif change == "no genes":
        del classifier.features
    elif change == "no weights":
        classifier.coef_ = None
    elif change == "no scaler":
        model["Scaler_"] = None
    elif change == "no classifier":
        del model["Model"]
    elif change == "scaler for classifier":
        model["Model"] = scaler
    return model


@pytest.mark.parametrize(
    "change",
    ["not finite", "fewer genes", "a gene twice", "no spread", "no genes", "no weights", "no scaler", "no classifier",
     "scaler for classifier"],
)  # fmt: skip
def test_a_model_whose_parts_do_not_fit_is_refused(change: str, tmp_path: Path) -> None:
    """One message; nothing is written."""
    path = written(tmp_path, spoiled(change))
    with pytest.raises(WeightsError, match="no model of CellTypist that can be used"):
        import_celltypist(path, tmp_path / "toy.voter")
    assert not (tmp_path / "toy.voter").exists()


def test_a_list_is_no_model(tmp_path: Path) -> None:
    """Values that are harmless, but no model."""
    path = written(tmp_path, [1, "a", None, True, 2.5, (1, 2, 3, 4), b"bytes", {"a": []}])
    assert read_pickle(path) == [1, "a", None, True, 2.5, (1, 2, 3, 4), b"bytes", {"a": []}]
    with pytest.raises(WeightsError, match="no classifier under 'Model'"):
        voter_of(read_pickle(path), path)


def test_a_missing_file_and_a_wrong_name_are_refused(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(WeightsError, match="is not there"):
        import_celltypist(tmp_path / "none.pkl", tmp_path / "toy.voter")
    with pytest.raises(CanalError, match=r"does not end in \.voter"):
        import_celltypist(written(tmp_path, trained()), tmp_path / "toy.canal")


def test_a_damaged_voter_is_refused(tmp_path: Path) -> None:
    """Cut short, or of other content."""
    import_celltypist(written(tmp_path, trained()), tmp_path / "toy.voter")
    content = (tmp_path / "toy.voter").read_bytes()
    (tmp_path / "short.voter").write_bytes(content[:-40])
    (tmp_path / "other.voter").write_bytes(b"not a voter")
    for name in ("short.voter", "other.voter"):
        with pytest.raises(CanalError, match="is not an imported voter"):
            load_model(tmp_path / name)


def test_dense_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cells are made dense a few at a time; the scores are those of all at once."""
    loaded, _ = import_celltypist(written(tmp_path, trained()), tmp_path / "toy.voter")
    voter: Voter = loaded.voter
    cells = read_cells(make_adata(50, GENES, seed=8), labels=None)
    match = voter.panel.match(Genes.of(cells.genes.names))
    values = cells.expression[:, match.columns[match.measured]]
    whole = voter.scores(values, match)
    monkeypatch.setattr("canal.model.voter.DENSE_ROWS", 7)
    assert np.allclose(voter.scores(values, match), whole, rtol=0, atol=1e-12)
