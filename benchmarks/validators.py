"""Whether the validators of CELLxGENE, of CAP and of the Cell Annotation Schema take what canal writes.

    python benchmarks/validators.py FOLDER

Each validator gets an environment of its own in FOLDER (it stays, and is used again; about 1.5 GB in all), from the
package index that pip is set up for: cellxgene-schema 7.1.2, cap-upload-validator 1.7.0, cell-annotation-schema 1.1.0.
Cells are drawn with Ensembl ids and all that the schemas ask of a file beside cell types (donor, assay, tissue, an
embedding, ...). A model is taught with ``--ontology auto``, and new cells are annotated with ``--format cellxgene``,
``--format cap`` and ``--cas``. Printed: a row a validator, "passes" or what it says.
"""

import argparse
import subprocess
import tempfile
import venv
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import canal
from canal.data.symbols.translation import symbol_table

PACKAGES = {
    "cellxgene-schema": "cellxgene-schema==7.1.2",
    "cap-upload-validator": "cap-upload-validator==1.7.0",
    "cell-annotation-schema": "cell-annotation-schema==1.1.0",
}
TYPES = ("B cell", "natural killer cell", "CD14-positive monocyte", "dendritic cell")
GENES = 400
# What the schemas ask of every cell beside its type, and would be the lab's to know.
ABOUT = {
    "organism": "Homo sapiens",
    "assay_ontology_term_id": "EFO:0009922",
    "assay": "10x 3' v3",
    "tissue_ontology_term_id": "UBERON:0000178",
    "tissue": "blood",
    "tissue_type": "tissue",
    "disease_ontology_term_id": "PATO:0000461",
    "disease": "normal",
    "sex_ontology_term_id": "PATO:0000383",
    "development_stage_ontology_term_id": "unknown",
    "self_reported_ethnicity_ontology_term_id": "unknown",
    "donor_id": "donor 1",
    "suspension_type": "cell",
    "is_primary_data": False,
}
LABELS = ("assay", "tissue", "disease", "organism")  # of terms: CELLxGENE adds them itself and refuses files with them


def main() -> int:
    """Write the files and print what each validator says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    failed = 0
    with tempfile.TemporaryDirectory() as work:
        files = write_files(Path(work))
        for name, package in PACKAGES.items():
            python = environment(folder / name, package)
            # Their functions are called, as some of their command lines end with 0 whatever they find.
            words = [str(python), "-c", PROGRAMS[name], str(files[name])]
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            passes = done.returncode == 0
            failed += not passes
            print(f"{package:32s} {'passes' if passes else (done.stdout + done.stderr).strip()[-1500:]}", flush=True)
    return 1 if failed else 0


PROGRAMS = {
    "cellxgene-schema": (
        "import sys\n"
        "from cellxgene_schema.validate import Validator\n"
        "validator = Validator(ignore_labels=True)\n"
        "passes = validator.validate_adata(sys.argv[1])\n"
        "print(*validator.errors, sep='\\n')\n"
        "sys.exit(not passes)\n"
    ),
    "cap-upload-validator": (
        "import sys\n"
        "from cap_upload_validator.upload_validator import UploadValidator\n"
        "UploadValidator(sys.argv[1]).validate()\n"
    ),
    "cell-annotation-schema": (
        "import json, sys\n"
        "from importlib.resources import files\n"
        "from cas_schema.schema_validator import validate\n"
        "schema = json.loads((files('cas_schema') / 'schemas' / 'general_schema.json').read_text())\n"
        "sys.exit(not validate(schema, 'general_schema', sys.argv[1]))\n"
    ),
}


def environment(folder: Path, package: str) -> Path:
    """Return the Python of an environment that holds a package, which is made where there is none."""
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", package], check=True)
    return python


def write_files(folder: Path) -> dict[str, Path]:
    """Teach a model and return what it writes for each validator."""
    workspace = canal.open_workspace(folder / "workspace", create=True)
    workspace.add_stage(drawn_cells(400, seed=1), labels="author_type", name="drawn", ontology="auto")
    new = drawn_cells(200, seed=2)
    files = {name: folder / f"{name}.h5ad" for name in ("cellxgene-schema", "cap-upload-validator")}
    # CELLxGENE takes no columns of labels beside its ids.
    without_labels = new[:, :].copy()
    without_labels.obs = without_labels.obs.drop(columns=list(LABELS))
    workspace.annotate(without_labels, format="cellxgene", out=files["cellxgene-schema"])
    cas = folder / "cas.json"
    workspace.annotate(new, format="cap", out=files["cap-upload-validator"], cas=cas, author="Jane Doe")
    return {**files, "cell-annotation-schema": cas}


def drawn_cells(n: int, seed: int) -> ad.AnnData:
    """Return counts of cells that have markers, with all that the schemas ask for but cell types of theirs."""
    draw = np.random.default_rng(seed)
    kinds = np.arange(n) % len(TYPES)
    rate = np.tile(np.random.default_rng(0).gamma(0.6, 1.0, GENES), (n, 1))
    for kind in range(len(TYPES)):
        rate[kinds == kind, 20 * kind : 20 * (kind + 1)] += 5.0
    counts = sp.csr_matrix(draw.poisson(rate).astype(np.float32))
    obs = pd.DataFrame(index=[f"cell {seed} {number}" for number in range(n)])
    for name, value in ABOUT.items():
        obs[name] = value if isinstance(value, bool) else pd.Categorical([value] * n)
    obs["author_type"] = pd.Categorical(np.array(TYPES, dtype=object)[kinds])
    ids = sorted(symbol_table("human").symbols)[:GENES]
    var = pd.DataFrame({"feature_is_filtered": np.zeros(GENES, dtype=bool)}, index=ids)
    # Normalised values, and the counts in raw, as the schemas ask.
    totals = np.asarray(counts.sum(axis=1)).ravel()
    values = sp.csr_matrix(sp.diags(1e4 / totals) @ counts, dtype=np.float32)
    values.data = np.log1p(values.data)
    cells = ad.AnnData(X=counts, obs=obs, var=var.drop(columns="feature_is_filtered"))
    cells.raw = cells
    cells.X, cells.var["feature_is_filtered"] = values, False
    cells.obsm["X_umap"] = draw.normal(size=(n, 2)).astype(np.float32)
    cells.uns["title"] = "Drawn cells"
    cells.uns["organism_ontology_term_id"] = "NCBITaxon:9606"
    return cells


if __name__ == "__main__":
    raise SystemExit(main())
