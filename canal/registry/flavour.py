"""The files that let MLflow load a stage by itself: ``mlflow.pyfunc.load_model("models:/NAME@champion")``.

They follow from the stage alone, so that the same stage has the same files. The model is a Python
function of `canal.registry.pyfunc`; nothing is pickled, and MLflow loads it with pickles forbidden.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canal import __version__

LOADER = "canal.registry.pyfunc"
COUNTS, CELL_TYPE, CONFIDENCE = "counts", "cell_type", "confidence"
MODEL_FILE, EXAMPLE_FILE, SERVED_EXAMPLE_FILE = "MLmodel", "input_example.json", "serving_input_example.json"
_GENES_FILE = "genes.json"
_INPUTS = [{"type": "map", "values": {"type": "any"}, "name": COUNTS, "required": True}]
_OUTPUTS = [
    {"type": "string", "name": CELL_TYPE, "required": True},
    {"type": "double", "name": CONFIDENCE, "required": True},
]


def write_flavour(folder: Path, files: Mapping[str, Path]) -> dict[str, Path]:
    """Write what MLflow needs to load a stage.

    Parameters
    ----------
    folder
        Where to write.
    files
        Files of the model; the example's genes are those of its panel.

    Returns
    -------
    The files written, by name; none where the model has them already, for it was imported.
    """
    if MODEL_FILE in files:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    example = {"columns": [COUNTS], "data": [[_example(files)]]}
    contents = {
        MODEL_FILE: _model_file(),
        EXAMPLE_FILE: json.dumps(example),
        SERVED_EXAMPLE_FILE: json.dumps({"dataframe_split": example}),
        "requirements.txt": f"canal=={__version__}\n",
        "python_env.yaml": 'python: "3.11"\ndependencies:\n- -r requirements.txt\n',
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return {name: folder / name for name in contents}


def _example(files: Mapping[str, Path]) -> dict[str, int]:
    """Return the counts of one cell that the model can annotate."""
    path = files.get(_GENES_FILE)
    genes: list[str] = json.loads(path.read_text(encoding="utf-8"))["genes"] if path is not None else ["CD3D", "CD19"]
    return {gene: k % 3 for k, gene in enumerate(genes)}


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
