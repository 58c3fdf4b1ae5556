"""Stages with `--ontology`: the same model, and beside its answers those that are as specific as they are sure of."""

import json
from shutil import copytree

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import ConfigError, DataError, StageError
from canal.history.replay import replay
from canal.labels.picture import tree_figure
from canal.registry.flavour import FLAVOUR_FILES, MODEL_FILES
from tests.labs import QUICK, add, everything, write
from tests.make import make_adata


@pytest.fixture(scope="module")
def placed(made, tmp_path_factory):
    """Return a workspace with the first two stages of the toy lab, taught with the ontology."""
    workspace = canal.open_workspace(tmp_path_factory.mktemp("placed") / "ws", create=True)
    for name in ("first", "second"):
        add(workspace, made / f"{name}.h5ad", ontology="auto")
    return workspace.root


def artifacts(folder, number):
    """Return the digest of every file of a stage by name."""
    return canal.open_workspace(folder).stage(number).artifacts


def test_off_is_as_before_and_auto_changes_no_answer(made, placed):
    """With `auto` every file of the model is the same, bit for bit; one more says where its types stand."""
    for number in (1, 2):
        off, auto = artifacts(made / "ws", number), artifacts(placed, number)
        assert set(auto) - set(off) == {"sure.json"}
        assert all(auto[name] == digest for name, digest in off.items())
    assert "ontology" not in canal.open_workspace(made / "ws").stage(2).notes
    noted = canal.open_workspace(placed).stage(2).notes["ontology"]
    assert noted["release"] == "2026-03-26"
    assert {name: place["id"] for name, place in noted["places"].items()} == {
        "B": "CL:0000236",
        "NK": "CL:0000623",
        "CD4 T": "CL:0000624",
    }


def test_annotations_have_sure_answers(made, placed, tmp_path):
    """Beside the best type stand the node and its id; what is not sure is "lymphocyte", not a wrong type."""
    workspace = canal.open_workspace(placed)
    cells = make_adata(90, types=("B", "NK", "CD4 T"), seed=9)
    annotation = workspace.annotate(cells)
    plain = canal.open_workspace(made / "ws").annotate(cells, stage=2)
    assert (annotation.cell_type == plain.cell_type).all()
    assert "cell_type_sure" not in plain.columns
    sure, ids = annotation.columns["cell_type_sure"], annotation.columns["cell_type_sure_id"]
    assert set(ids[sure == "NK"]) <= {"CL:0000623"}
    assert annotation.facts["alpha_label"] == 0.05
    # A threshold that no type reaches leaves terms above them.
    none_sure = workspace.annotate(cells, alpha_label=0.0001)
    assert set(none_sure.columns["cell_type_sure"]) == {"lymphocyte"}
    assert none_sure.facts["label_threshold"] == 1.0
    # On the command line, and in the file.
    cells.write_h5ad(tmp_path / "new.h5ad")
    words = ["-C", str(placed), "annotate", "--data", str(tmp_path / "new.h5ad")]
    words += ["--out", str(tmp_path / "out.h5ad"), "--alpha-label", "0.1", "--json"]
    answer = json.loads(CliRunner().invoke(app, words).stdout)
    assert (answer["alpha_label"], answer["ontology_release"]) == (0.1, "2026-03-26")
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert {"canal_cell_type_sure", "canal_cell_type_sure_id"} <= set(written.obs.columns)


def test_terms_stand_for_the_types_below(made, placed):
    """`--types lymphocyte` answers with NK, B and T cells; an id does the same."""
    workspace = canal.open_workspace(placed)
    cells = make_adata(60, types=("B", "MK"), seed=3)
    for name in ("lymphocyte", "CL:0000542", "CL_0000542"):
        assert set(workspace.annotate(cells, types=[name]).cell_type) <= {"B", "NK", "CD4 T"}
    with pytest.raises(StageError, match="does not know the types 'neuron'"):
        workspace.annotate(cells, types=["neuron"])
    with pytest.raises(StageError, match="does not know the types 'lymphocyte'"):
        canal.open_workspace(made / "ws").annotate(cells, types=["lymphocyte"])


def test_a_table_places_types(made, tmp_path):
    """A table's rows come before anything that names say; a wrong one is refused before anything is written."""
    table = tmp_path / "places.csv"
    table.write_text("name,id,relation\nB,CL:0000945,broad\nNK,CL:0000623,\n")
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    before = everything(tmp_path / "ws")
    table_wrong = tmp_path / "wrong.csv"
    table_wrong.write_text("name,id\nB,CL:9999999\n")
    with pytest.raises(DataError, match="CL:9999999 is not in release"):
        add(workspace, made / "first.h5ad", ontology=table_wrong)
    assert everything(tmp_path / "ws") == before
    result = add(workspace, made / "first.h5ad", ontology=table)
    assert not [text for text in result.warnings if "Cell Ontology" in text]
    listed = {label.type: (label.id, label.relation) for label in workspace.list_labels().labels}
    assert listed == {"B": ("CL:0000945", "broad"), "NK": ("CL:0000623", "exact")}
    more = add(workspace, made / "third.h5ad", ontology="auto")
    assert any("'HSC'" in text and "stand nowhere" in text for text in more.warnings)


def test_it_is_replayed_renamed_and_removed(placed, tmp_path):
    """The places and the calibration follow whatever is done to a stage."""
    copytree(placed, tmp_path / "ws")
    workspace = canal.open_workspace(tmp_path / "ws")
    workspace.rename_type("NK", "killer")
    report = replay(workspace.layout.stages, tmp_path / "again")
    assert report.identical
    renamed = workspace.model().sure
    assert renamed.placement.exact_id("killer") == "CL:0000623"
    assert set(renamed.stages) == {1, 2}
    workspace.remove(2)
    assert set(workspace.model().sure.stages) == {1}
    annotation = workspace.annotate(make_adata(40, types=("B", "NK"), seed=2))
    assert set(annotation.columns["cell_type_sure"]) <= {"B", "killer", "lymphocyte", "cell"}


def test_a_file_of_the_model_gives_sure_answers(placed, tmp_path):
    """What is exported has every file that a stage can have, and answers without a workspace."""
    files = MODEL_FILES - {"voter.safetensors"}  # of lines that start from one
    assert set(artifacts(placed, 1)) == files | FLAVOUR_FILES
    workspace = canal.open_workspace(placed)
    workspace.export(tmp_path / "model.canal")
    cells = make_adata(40, types=("B", "NK"), seed=2)
    ours, theirs = (w.annotate(cells) for w in (workspace, canal.load_model(tmp_path / "model.canal")))
    assert (ours.columns["cell_type_sure"] == theirs.columns["cell_type_sure"]).all()


def test_asking_a_model_without_places(made, placed):
    """A rate for sure answers needs a model that can give them, and has to be a share."""
    cells = make_adata(20, types=("B", "NK"), seed=4)
    with pytest.raises(StageError, match="Teach with --ontology auto"):
        canal.open_workspace(made / "ws").annotate(cells, alpha_label=0.1)
    with pytest.raises(StageError, match="alpha is 2; expected a share"):
        canal.open_workspace(placed).annotate(cells, alpha_label=2)


def test_learning_without_the_ontology_on_top(placed, tmp_path):
    """A stage with `off` has no sure answers, whatever its parent had."""
    copytree(placed, tmp_path / "ws")
    workspace = canal.open_workspace(tmp_path / "ws")
    workspace.add_stage(make_adata(60, types=("B", "MK"), prefix="third", seed=5), labels="cell_type", overrides=QUICK)
    assert workspace.model().sure is None
    assert np.isin(["B", "MK"], workspace.model().types).all()


def test_labels_of_mixed_granularity_are_scored(made, placed):
    """A coarser label is right where the answer is a kind of it, unless the file has a name for that kind, too."""
    workspace = canal.open_workspace(placed)
    cells = make_adata(90, types=("B", "NK", "CD4 T"), seed=9)
    truth = cells.obs["cell_type"].astype(str)
    fine = workspace.evaluate(cells)
    assert fine.granularity["exact"] == pytest.approx(fine.accuracy)
    assert fine.granularity["ancestor_correct"] == pytest.approx(fine.accuracy)
    assert fine.granularity["mean_depth"] > 5
    # "lymphocyte" is above all that is answered; "T lymphocytes" is another name of what is above CD4 T.
    cells.obs["cell_type"] = truth.replace({"CD4 T": "T lymphocytes", "NK": "lymphocyte"}).astype(object)
    coarse = workspace.evaluate(cells)
    assert coarse.accuracy == pytest.approx(1 / 3, abs=0.05)
    assert coarse.granularity["ancestor_correct"] == pytest.approx(fine.accuracy, abs=0.05)
    assert coarse.granularity["placed"] == 1.0
    # Where the file has both "lymphocyte" and "NK", a lymphocyte is something else than NK.
    cells.obs["cell_type"] = np.where(np.arange(90) % 2 == 0, "lymphocyte", truth.to_numpy())
    both = workspace.evaluate(cells)
    assert both.granularity["ancestor_correct"] == pytest.approx(both.accuracy, abs=0.02)
    assert "granularity" not in canal.open_workspace(made / "ws").evaluate(cells).to_dict()


def test_the_column_that_cellxgene_asks_for(made, placed, tmp_path):
    """It holds terms or "unknown" alone, in the file under its own name; somebody's column is not replaced."""
    workspace = canal.open_workspace(placed)
    cells = make_adata(90, types=("B", "NK", "CD4 T", "MK"), seed=9)
    out = tmp_path / "out.h5ad"
    cells.write_h5ad(tmp_path / "new.h5ad")
    words = ["-C", str(placed), "annotate", "--data", str(tmp_path / "new.h5ad"), "--out", str(out)]
    done = CliRunner().invoke(app, [*words, "--format", "cellxgene", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["schema_version"] == "7.1.0"
    written = ad.read_h5ad(out)
    terms = written.obs["cell_type_ontology_term_id"].astype(str)
    assert set(terms) <= {"CL:0000236", "CL:0000623", "CL:0000624", "CL:0000542", "unknown"}
    assert set(terms[written.obs["canal_status"] == "novel"]) == {"unknown"}
    assert (terms == "unknown").mean() < 0.5
    # Once more over its own answer, but not over what somebody curated.
    assert "cell_type_ontology_term_id" in workspace.annotate(written, format="cellxgene").to_adata(written).obs
    cells.obs["cell_type_ontology_term_id"] = "CL:0000084"
    with pytest.raises(DataError, match="not written by canal"):
        workspace.annotate(cells, format="cellxgene").to_adata(cells)
    cells.write_h5ad(tmp_path / "curated.h5ad")
    with pytest.raises(DataError, match="not written by canal"):
        workspace.annotate(tmp_path / "curated.h5ad", format="cellxgene", out=tmp_path / "no.h5ad")
    assert not (tmp_path / "no.h5ad").exists()
    # What it needs.
    with pytest.raises(ConfigError, match="no format 'loom'; expected cellxgene or cap"):
        workspace.annotate(cells, format="loom")
    with pytest.raises(StageError, match="whose terms --format cellxgene writes"):
        canal.open_workspace(made / "ws").annotate(cells, format="cellxgene")


def test_the_columns_that_cap_asks_for(placed):
    """Full name, id and label of the sure term stand beside the sure answer; what is novel has none."""
    cells = make_adata(90, types=("B", "NK", "CD4 T", "MK"), seed=9)
    workspace = canal.open_workspace(placed)
    annotation = workspace.annotate(cells, format="cap")
    obs = annotation.to_adata(cells).obs
    assert annotation.facts["schema_version"] == "1.0.0"
    beside = {name: obs[f"canal_cell_type_sure--{name}"].to_numpy() for name in CAP}
    novel = (obs["canal_status"] == "novel").to_numpy()
    assert novel.any()
    assert set(beside["cell_fullname"][novel]) == {"unknown"}
    assert not beside["cell_ontology_exists"][novel].any()
    is_nk = (obs["canal_cell_type_sure"] == "NK").to_numpy() & ~novel
    assert is_nk.any()
    assert set(beside["cell_fullname"][is_nk]) == set(beside["cell_ontology_term"][is_nk]) == {"natural killer cell"}
    assert set(beside["cell_ontology_term_id"][is_nk]) == {"CL:0000623"}
    assert beside["cell_ontology_exists"][is_nk].all()
    # They go when the file is annotated anew without.
    again = workspace.annotate(annotation.to_adata(cells)).to_adata(annotation.to_adata(cells)).obs
    assert not [name for name in again if "--" in name]


CAP = ("cell_fullname", "cell_ontology_exists", "cell_ontology_term_id", "cell_ontology_term")


def test_a_document_of_the_cell_annotation_schema(made, placed, tmp_path):
    """Every cell has one label in every set, with the term where the type is one; novel cells are "unknown"."""
    cells = make_adata(90, types=("B", "NK", "CD4 T", "MK"), seed=9)
    cells.write_h5ad(tmp_path / "new.h5ad")
    words = ["-C", str(placed), "annotate", "--data", str(tmp_path / "new.h5ad"), "--out", str(tmp_path / "out.h5ad")]
    words += ["--cas", str(tmp_path / "cas.json")]
    done = CliRunner().invoke(app, [*words, "--author", "Jane Doe"])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "cas.json").read_text())
    assert (document["author_name"], document["title"]) == ("Jane Doe", "new.h5ad")
    assert [labelset["name"] for labelset in document["labelsets"]] == ["canal_cell_type", "canal_cell_type_sure"]
    obs = ad.read_h5ad(tmp_path / "out.h5ad").obs
    for labelset in ("canal_cell_type", "canal_cell_type_sure"):
        entries = [entry for entry in document["annotations"] if entry["labelset"] == labelset]
        assert sorted(name for entry in entries for name in entry["cell_ids"]) == sorted(obs.index)
        for entry in entries:
            own = obs.loc[entry["cell_ids"]]
            if entry["cell_label"] == "unknown":
                assert set(own["canal_status"]) == {"novel"}
            else:
                assert set(own[labelset]) == {entry["cell_label"]}
        terms = {entry["cell_label"]: entry.get("cell_ontology_term_id") for entry in entries}
        assert (terms["B"], terms["unknown"]) == ("CL:0000236", None)
    # Refused before anything is written: a document that is there, two files, an author without a document.
    (tmp_path / "out.h5ad").unlink()
    again = CliRunner().invoke(app, words)
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    assert not (tmp_path / "out.h5ad").exists()
    workspace = canal.open_workspace(placed)
    cells.write_h5ad(tmp_path / "other.h5ad")
    both = [tmp_path / "new.h5ad", tmp_path / "other.h5ad"]
    with pytest.raises(ConfigError, match="--cas names one document"):
        workspace.annotate_files(both, tmp_path / "both", cas=tmp_path / "two.json")
    with pytest.raises(ConfigError, match="written to a document of --cas"):
        workspace.annotate(cells, author="Jane Doe")
    # A model without places has labels without terms, and says that nobody is named.
    plain = canal.open_workspace(made / "ws")
    plain.annotate(cells, stage=2, cas=tmp_path / "plain.json")
    document = json.loads((tmp_path / "plain.json").read_text())
    assert document["author_name"] == "not given"
    assert not [entry for entry in document["annotations"] if "cell_ontology_term_id" in entry]


def test_the_tree_as_a_picture(placed, tmp_path):
    """Every term and every type is in it; the same tree gives the same SVG."""
    workspace = canal.open_workspace(placed)
    for name in ("tree.svg", "again.svg", "tree.png"):
        workspace.label_tree(out=tmp_path / name)
    assert (tmp_path / "tree.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    assert (tmp_path / "tree.png").read_bytes().startswith(b"\x89PNG")
    tree = workspace.label_tree()
    figure = tree_figure(tree)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"lymphocyte (CL:0000542)", "B", "NK", "CD4 T"} <= texts
    with pytest.raises(DataError, match=r"expected one that ends in \.svg or \.png"):
        workspace.label_tree(out=tmp_path / "tree.pdf")


COARSE = {"B": "lymphocyte", "NK": "lymphocyte", "CD14 Mono": "CD14 Mono"}  # what the second lab writes


@pytest.fixture(scope="module")
def labs(tmp_path_factory):
    """Return the files of a lab with fine labels and of one with coarse ones, on cells of its own."""
    folder = tmp_path_factory.mktemp("labs")
    fine = write(folder, "fine", ("B", "NK"), 120, seed=1)
    coarse = write(folder, "coarse", ("B", "NK", "CD14 Mono"), 150, seed=2)
    return fine, coarse


def taught(folder, labs, ontology):
    """Return a workspace that was taught by both labs, the coarse one first, and what the last stage said."""
    workspace = canal.open_workspace(folder, create=True)
    for data, names in zip(labs[::-1], (COARSE, None), strict=True):
        result = add(workspace, data, ontology=ontology, label_map=names)
    return workspace, result


def test_a_coarse_label_teaches_its_kinds(labs, tmp_path):
    """Cells of a lab that writes "lymphocyte" are answered as B and NK cells once another lab has taught these."""
    cells = make_adata(150, types=("B", "NK", "CD14 Mono"), seed=5)
    workspace, result = taught(tmp_path / "auto", labs, "auto")
    assert workspace.model().kinds == {"lymphocyte": ("B", "NK")}
    assert any("'lymphocyte' is a name for 2 of the types ('B', 'NK')" in text for text in result.warnings)
    # Its cells count as right where a kind is answered: the label says no more, and nothing is held back.
    assert result.champion
    assert min(change["accuracy"] for change in result.tested) > 0.9
    assert result.metrics["validation_accuracy"] > 0.9
    annotation = workspace.annotate(cells, scores="all")
    assert (annotation.cell_type == cells.obs["cell_type"].to_numpy()).mean() > 0.95
    assert np.allclose(annotation.to_probabilities().sum(axis=1), 1.0, atol=1e-4)
    # In place of the coarse type its kinds may be asked for.
    assert set(workspace.annotate(cells, types=["lymphocyte"]).cell_type) == {"B", "NK"}
    # Without the ontology it is a type beside them, which takes cells of its kinds.
    off, _ = taught(tmp_path / "off", labs, None)
    assert off.model().kinds == {}
    assert "lymphocyte" in set(off.annotate(cells).cell_type)
    # Statistics are the same; the network has learned what the label means, and is calibrated anew.
    auto, plain = artifacts(tmp_path / "auto", 2), artifacts(tmp_path / "off", 2)
    different = {name for name in plain if auto[name] != plain[name]}
    of_network = {"weights.safetensors", "calibration.json", "reliability.json", "reliability.svg", "tests.json"}
    assert "weights.safetensors" in different
    assert different <= of_network


def test_a_type_is_split(tmp_path):
    """The finer names are answered in its place, without the old files; undone, replayed and removed as any stage."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    first = write(tmp_path, "first", ("B", "NK", "CD14 Mono"), 120, seed=1)
    add(workspace, first, label_map={"B": "lymphocyte", "NK": "lymphocyte", "CD14 Mono": "CD14 Mono"})
    finer = write(tmp_path, "finer", ("B", "NK"), 80, seed=2)
    first.rename(tmp_path / "gone")
    for wrong, message in (("T cell", "knows no type 'T cell'"), ("", "knows no type ''")):
        with pytest.raises(StageError, match=message):
            workspace.split_type(wrong, finer, labels="cell_type")
    with pytest.raises(StageError, match="'CD14 Mono' is a type already"):
        workspace.split_type("lymphocyte", finer, labels="cell_type", label_map={"B": "CD14 Mono", "NK": "NK"})
    with pytest.raises(StageError, match="expected 2 finer names at least"):
        workspace.split_type("lymphocyte", finer, labels="cell_type", label_map={"B": "NK", "NK": "NK"})
    (tmp_path / "gone").rename(first)
    words = ["-C", str(workspace.root), "labels", "split", "lymphocyte", "--data", str(finer), "--json"]
    answer = json.loads(CliRunner().invoke(app, words).stdout)
    assert (answer["stage"], answer["new_types"], answer["champion"]) == (2, ["B", "NK"], True)
    # The held-out cells of the old stage are right under a kind.
    assert answer["tested"][0]["accuracy"] > 0.9
    cells = make_adata(90, types=("B", "NK", "CD14 Mono"), seed=5)
    assert (workspace.annotate(cells).cell_type == cells.obs["cell_type"].to_numpy()).mean() > 0.95
    # A kind that is renamed stays one; merged with all its kinds a type is whole again.
    workspace.rename_type("NK", "killer")
    assert workspace.model().kinds == {"lymphocyte": ("B", "killer")}
    assert replay(workspace.layout.stages, tmp_path / "again").identical
    workspace.rollback()
    workspace.merge_types("lymphocyte", "B", "NK", into="lymphocyte")
    assert workspace.model().kinds == {}
    workspace.promote(1)
    assert set(workspace.annotate(cells).cell_type) == {"lymphocyte", "CD14 Mono"}
