"""The model card of a stage: what MLflow's pages show of it.

The files that let MLflow load a stage by itself: ``mlflow.pyfunc.load_model("models:/NAME@champion")``.

They follow from the stage alone, so that the same stage has the same files. The model is a Python
function of `canal.registry.pyfunc`; nothing is pickled, and MLflow loads it with pickles forbidden.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from canal import __version__
from canal.errors import RegistryError
from canal.files import Problem
from canal.model.record import IMPORTED, StageRecord
from canal.text import markdown_text

LONGEST = 5000  # characters of a version's description; MLflow's limit
# Of a record's figures, those that the card shows.
_FIGURES = (
    "average_accuracy",
    "forgetting",
    "backward_transfer",
    "validation_accuracy",
    "validation_macro_f1",
    "validation_cells",
)
_END = "\n\n*Cut: `canal stage show` has all of it.*"


def model_card(record: StageRecord) -> str:
    """Return the card as Markdown: what was learned from what, how well, what it is for and what it holds."""
    parts = [
        f"# Stage {record.number}: {markdown_text(record.name)}",
        _summary(record),
        _use(record),
        "## Figures\n" + _table(("figure", "value"), [(k.replace("_", " "), f"{v:.4g}") for k, v in _figures(record)]),
        "## Data\n" + _data(record),
        "## Limits\nA cell of a type that nobody taught still gets its best known type: see the novelty of its answer. "
        + _kept(record),
        "## Types\n" + ", ".join(_type(record, name) for name in record.types),
    ]
    text = "\n\n".join(part for part in parts if part)
    return text if len(text) <= LONGEST else text[: LONGEST - len(_END)] + _END


def _kept(record: StageRecord) -> str:
    """Return what the model holds of the cells that taught it."""
    size = record.bank.get("size", 0)
    if not size:
        return "No cell is kept: it holds statistics of the types alone."
    return f"The example bank holds {size} real expression profiles: treat the model as the data."


def _summary(record: StageRecord) -> str:
    preset = markdown_text(str(record.preset.get("name", "")))
    origin = f"on top of stage {record.parent}" if record.parent else "as the first of its line"
    text = (
        f"Names the cell types of single-cell RNA-seq: {len(record.types)} types, {len(record.new_types)} of them new, "
        f"on {record.genes} genes. Learned from {record.cells} cells {origin}, with preset "
        f"{preset} and seed {record.seed}, by canal {record.canal_version}, {record.created}."
    )
    removed = None if IMPORTED in record.notes else record.notes.get("removed")  # else a number of another registry
    return text + (f" Without the cells of stage {removed[0]}." if removed else "")


def _use(record: StageRecord) -> str:
    why = record.notes.get("held_back")
    return f"**Candidate.** {markdown_text(str(why))}" if why else ""


def _figures(record: StageRecord) -> list[tuple[str, float]]:
    """Return the figures over all cells, then those on the cells of each earlier stage."""
    first = [(name, record.metrics[name]) for name in _FIGURES if name in record.metrics]
    return first + [(k, v) for k, v in record.metrics.items() if k.startswith("test/") and k.endswith("/accuracy")]


def _data(record: StageRecord) -> str:
    rows = [(str(d.get("path", "")), str(d.get("cells", "")), str(d.get("digest", ""))) for d in record.data]
    return _table(("file", "cells", "digest"), rows) if rows else "No file."


def _type(record: StageRecord, name: str) -> str:
    text = markdown_text(name)
    return f"**{text}** (new)" if name in record.new_types else text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(markdown_text(cell).replace('|', '/') for cell in line)} |" for line in lines)


LOADER = "canal.registry.pyfunc"
COUNTS, CELL_TYPE, CONFIDENCE = "counts", "cell_type", "confidence"
MODEL_FILE, EXAMPLE_FILE, SERVED_EXAMPLE_FILE = "MLmodel", "input_example.json", "serving_input_example.json"
REQUIREMENTS_FILE, ENVIRONMENT_FILE = "requirements.txt", "python_env.yaml"
FLAVOUR_FILES = frozenset({MODEL_FILE, EXAMPLE_FILE, SERVED_EXAMPLE_FILE, REQUIREMENTS_FILE, ENVIRONMENT_FILE})

# The files of a stage, the one list of their names. A file from elsewhere that bears another name is no part of a
# model. It is not taken into a registry and not read: MLflow would import the modules that a foreign ``MLmodel``
# names, and put a foreign ``code/`` on Python's path.
# What stages write, in the parts of canal that are named. None is pickled and none is run.
MODEL_FILES = frozenset(
    {
        # canal.model.model
        "weights.safetensors",
        "memory.safetensors",
        "genes.json",
        "types.json",
        "calibration.json",
        "novelty.json",
        "sure.json",
        "config.toml",
        # canal.model.voter
        "voter.safetensors",
        # canal.model.bank
        "bank.safetensors",
        # canal.stages.testing.tests
        "tests.json",
        "reliability.json",
        "reliability.svg",
    }
)
_ENVIRONMENT = f'python: "3.11"\ndependencies:\n- -r {REQUIREMENTS_FILE}\n'
_REQUIREMENTS = re.compile(r"canal==[\w.+!-]+\n")
_GENES_FILE = "genes.json"
_INPUTS = [{"type": "map", "values": {"type": "any"}, "name": COUNTS, "required": True}]
_OUTPUTS = [
    {"type": "string", "name": CELL_TYPE, "required": True},
    {"type": "double", "name": CONFIDENCE, "required": True},
]


def write_flavour(folder: Path, files: Mapping[str, Path]) -> dict[str, Path]:
    """Write what MLflow needs to load a stage; whatever came with an imported one is not looked at.

    Parameters
    ----------
    folder
        Where to write.
    files
        Files of the model; the example's genes are those of its panel.

    Returns
    -------
    The files written, by name.

    Raises
    ------
    RegistryError
        If the panel of the model cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    example = {"columns": [COUNTS], "data": [[_example(files)]]}
    contents = {
        MODEL_FILE: _model_file(),
        EXAMPLE_FILE: json.dumps(example),
        SERVED_EXAMPLE_FILE: json.dumps({"dataframe_split": example}),
        REQUIREMENTS_FILE: f"canal=={__version__}\n",
        ENVIRONMENT_FILE: _ENVIRONMENT,
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return {name: folder / name for name in contents}


def _example(files: Mapping[str, Path]) -> dict[str, int]:
    """Return the counts of one cell that the model can annotate."""
    path = files.get(_GENES_FILE)
    if path is None:
        return {"CD3D": 0, "CD19": 1}
    try:
        genes = json.loads(path.read_text(encoding="utf-8"))["genes"]
        # A voter that nothing was taught beside has no panel.
        return {str(gene): k % 3 for k, gene in enumerate(genes)} or {"CD3D": 0, "CD19": 1}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{path.name} does not hold the gene panel of a stage ({error!r}). Ask for a new export of it."
        raise RegistryError(message) from error


def flavour_problems(folder: Path) -> list[Problem]:
    """Return what MLflow would load or install from a stage's folder that is not what `write_flavour` writes.

    The version of canal is not compared: it is that of whoever committed the stage. Examples run nothing.
    """
    problems = []
    for name, ours in ((MODEL_FILE, _model_file()), (ENVIRONMENT_FILE, _ENVIRONMENT), (REQUIREMENTS_FILE, None)):
        path = folder / name
        if not path.is_file():
            continue  # the hashes tell
        text = path.read_text(encoding="utf-8", errors="replace")
        same = text == ours if ours is not None else _REQUIREMENTS.fullmatch(text) is not None
        if not same:
            problems.append(Problem(what=name, kind="altered", expected="what canal writes", found="something else"))
    return problems


def _model_file() -> str:
    """Return MLflow's description of the model; JSON is YAML, too."""
    table: dict[str, Any] = {
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "env": {"virtualenv": "python_env.yaml"},
            }
        },
        "signature": {"inputs": json.dumps(_INPUTS), "outputs": json.dumps(_OUTPUTS), "params": None},
        "saved_input_example_info": {
            "artifact_path": EXAMPLE_FILE,
            "serving_input_path": SERVED_EXAMPLE_FILE,
            "type": "dataframe",
            "pandas_orient": "split",
        },
    }
    return json.dumps(table, indent=1) + "\n"


def strange_names(names: Iterable[str]) -> list[str]:
    """Return the names that no file of a stage has, sorted."""
    return sorted(set(names) - MODEL_FILES - FLAVOUR_FILES)


def without_flavour(files: dict[str, str]) -> dict[str, str]:
    """Return the files that make up the model, by name: without those that are written anew for MLflow."""
    return {name: digest for name, digest in files.items() if name not in FLAVOUR_FILES}
