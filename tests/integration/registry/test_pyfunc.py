"""MLflow's own tools load and serve a stage, with pickles forbidden."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import canal
from canal.errors import DataError, RegistryError
from canal.registry.pyfunc import as_input
from canal.registry.registry import Registry
from canal.registry.store import import_mlflow
from tests.make import make_adata

# MLflow's own, when its module is imported; of a type that we do not use.
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")


@pytest.fixture(scope="module")
def uri(learned: Path) -> Iterator[str]:
    """Address of the registry with the learned stage, set as MLflow's own."""
    mlflow = import_mlflow()
    registry = Registry.open(learned / "registry", canal.open_workspace(learned).layout.settings.name)
    before = mlflow.get_tracking_uri()
    # The registry follows; once it is set by itself it stays so for every later test of this process.
    mlflow.set_tracking_uri(registry.uri)
    yield f"models:/{registry.name}@champion"
    mlflow.set_tracking_uri(before)
    registry.close()


@pytest.fixture(scope="module")
def model(uri: str) -> Any:
    """The champion as MLflow loads it, pickles forbidden."""
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    return import_mlflow().pyfunc.load_model(uri)


def table(n_cells: int = 30, **options: Any) -> pd.DataFrame:
    """Return counts of cells x genes."""
    return make_adata(n_cells, types=("B", "NK"), seed=5, **options).to_df()


def test_mlflow_loads_the_champion(model: Any, learned: Path) -> None:
    """It says of each cell what `canal annotate` says."""
    cells = make_adata(30, types=("B", "NK"), seed=5)
    expected = canal.open_workspace(learned).annotate(cells)

    found = model.predict(as_input(cells.to_df()))
    assert found.index.tolist() == cells.obs_names.tolist()
    assert found["cell_type"].tolist() == expected.cell_type.tolist()
    np.testing.assert_allclose(found["confidence"], expected.confidence, rtol=1e-6)


def test_the_signature_is_mlflows(model: Any) -> None:
    """Named columns in and out."""
    signature = model.metadata.signature

    assert signature.inputs.input_names() == ["counts"]
    assert signature.outputs.input_names() == ["cell_type", "confidence"]
    assert str(signature.inputs) == "['counts': Map(str -> Any) (required)]"


def test_the_input_example_can_be_annotated(model: Any) -> None:
    """It fits the signature and the panel."""
    found = model.predict(model.input_example)

    assert found.shape == (1, 2)
    assert found.loc[0, "cell_type"] in {"B", "NK"}


def test_a_gene_that_some_cells_do_not_name_is_zero(model: Any) -> None:
    """Sparse rows give what full rows give."""
    cells = table()
    sparse = as_input(cells)
    sparse["counts"] = [{g: v for g, v in row.items() if v or k == 0} for k, row in enumerate(sparse["counts"])]

    pd.testing.assert_frame_equal(model.predict(sparse), model.predict(as_input(cells)))


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        pytest.param([{}], "Cell 0 .* has no counts", id="empty"),
        pytest.param([{"GENE0": "many"}], "count that is no number", id="text"),
        pytest.param([{"OTHER0": 3, "OTHER1": 1}], "no gene in common", id="other-genes"),
    ],
)
def test_bad_cells_are_told(model: Any, counts: list[dict[str, Any]], match: str) -> None:
    """Found, expected."""
    with pytest.raises(DataError, match=match):
        model.predict(pd.DataFrame({"counts": counts}))


def test_a_damaged_model_is_not_loaded(model: Any, uri: str, tmp_path: Path) -> None:
    """Not even where MLflow alone looks at it."""
    mlflow = import_mlflow()
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(tmp_path)))
    (folder / "types.json").write_text('{"types": ["NK", "B"]}')
    with pytest.raises(RegistryError, match=r"types\.json is altered"):
        mlflow.pyfunc.load_model(str(folder))


@pytest.mark.slow
def test_mlflow_serves_the_champion(uri: str, learned: Path, tmp_path: Path) -> None:
    """Over HTTP, in this environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": import_mlflow().get_tracking_uri(),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # of uvicorn
    }
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        cells = table(5)
        payload = {"dataframe_records": [{"counts": row} for row in as_input(cells)["counts"]]}
        found = _ask(f"http://127.0.0.1:{port}/invocations", payload, server)
    finally:
        log.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)

    expected = canal.open_workspace(learned).annotate(make_adata(5, types=("B", "NK"), seed=5))
    assert [row["cell_type"] for row in found["predictions"]] == expected.cell_type.tolist()


def _ask(url: str, payload: Any, server: "subprocess.Popen[bytes]", patience: float = 120) -> Any:
    request = urllib.request.Request(url, json.dumps(payload).encode(), {"Content-Type": "application/json"})
    deadline = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.5)
