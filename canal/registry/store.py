"""What MLflow and its server say when something is wrong, as one message that says what to do.

MLflow behind a few calls: tracking and model registry at explicit addresses, and no chatter.

This is the only module that imports MLflow, and it does so when the first call needs it.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from canal.errors import RegistryError
from canal.registry.location import RegistryLocation
from canal.registry.snapshot import STATE, Snapshot, StoredVersion, failing_disk, no_model, read_snapshot

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
DEFAULT_PASSWORDS = frozenset({"password", "password1234"})  # of the administrator of an MLflow that nobody set up

_DUPLICATE = re.compile(r"UniqueViolation|UNIQUE constraint|duplicate key", re.IGNORECASE)
_STATUS = re.compile(r"error code (\d{3})|(\d{3}) (?:Client|Server) Error")
_CODES = {
    "UNAUTHENTICATED": 401,
    "CUSTOMER_UNAUTHORIZED": 401,
    "PERMISSION_DENIED": 403,
    "TEMPORARILY_UNAVAILABLE": 503,
}
_UNREACHABLE = ("failed with exception", "failed with timeout", "Max retries exceeded", "Connection aborted")
_DISK = re.compile(  # as SQLite says it
    r"disk I/O error|database or disk is full|readonly database|unable to open database file|database is locked"
)
_REASON = re.compile(r"(Connection refused|Name or service not known|timed out|No route to host|certificate [\w ]+)")


def explain(place: str, uri: str, error: Exception) -> str:
    """Return the message for something that MLflow raised.

    Parameters
    ----------
    place
        Address of the registry without a password.
    uri
        Address as MLflow knows it.
    error
        What it raised.
    """
    text = str(error)
    status = _status(error, text)
    found = _DISK.search(text)
    if uri.startswith("sqlite:") and (status == 503 or found):
        return failing_disk(place, found[0] if found else "it is locked")
    if status == 401:
        return _unauthorized(place)
    if status == 403:
        who = os.environ.get(USER, "this user")
        return (
            f"The server {place} does not allow {who} to do this. Ask whoever runs it for EDIT permission on the "
            "model and its experiment (docs/registry.md)."
        )
    if any(sign in text for sign in _UNREACHABLE) or status in {502, 503, 504}:
        found = _REASON.search(text)
        reason = found[1] if found else "no answer"
        return (
            f"The server {place} does not answer ({reason}). Nothing was changed. Check that it runs and that "
            "`registry` in canal.toml or --registry is its address; then run this again."
        )
    if "valid JSON format" in text or (status in {404, 405} and "RESOURCE_DOES_NOT_EXIST" not in text):
        return f"{place} is no MLflow server. Set `registry` in canal.toml to the address that `mlflow server` shows."
    message = f"The registry {place} refused: {_first_line(text)}."
    if "out-of-date database schema" in text:
        message += f" It was made by an older MLflow: back it up, then run `mlflow db upgrade {uri}`."
    return message


@contextmanager
def excused(code: str) -> Iterator[None]:
    """Pass over one kind of MLflow's errors, by its code."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def insist(call: Callable[[], object], times: int = 4) -> None:
    """Call again where two machines wrote the same row at once, which MLflow does not expect.

    It looks for a data set, a tag or an alias, then writes it; of two at once the later is refused, and finds it the
    next time.
    """
    from mlflow.exceptions import MlflowException

    for left in reversed(range(times)):
        try:
            call()
            return
        except MlflowException as error:
            if left == 0 or _DUPLICATE.search(str(error)) is None:
                raise


def _status(error: Exception, text: str) -> int | None:
    code = _CODES.get(str(getattr(error, "error_code", "")))
    if code is not None:
        return code
    response = getattr(error, "response", None)  # of `requests`, on the way of the artifacts
    if response is not None:
        return int(response.status_code)
    found = _STATUS.search(text)
    return int(found[1] or found[2]) if found else None


def _unauthorized(place: str) -> str:
    missing = [name for name in (USER, PASSWORD) if not os.environ.get(name)]
    if missing:
        fix = f"Set {' and '.join(missing)}: the server wants a user and a password."
    else:
        fix = f"It does not know user {os.environ[USER]!r} with this password. Check {USER} and {PASSWORD}."
    return f"The server {place} refused to let us in. {fix} Nothing was changed."


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].rstrip(".")


MODEL_FOLDER = "model"  # of the files of a stage, inside the artifacts of its run

# Before the import: no network beside the registry's own, nothing on stdout, nothing pickled.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a server that is down is told after seconds, not minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_PAGE = 200
_BATCH = 100  # parameters a call; MLflow's limit
_METRICS_BATCH = 500  # metrics a call; its limit is 1000


def import_mlflow() -> Any:
    """Import MLflow quietly."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs what it raises with a traceback; what is raised becomes one message (`explain`).
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return mlflow


class Store:
    """The registered model of a workspace and the runs of its experiment.

    Parameters
    ----------
    location
        Where the registry is.
    name
        Name of the registered model and of the experiment.
    """

    def __init__(self, location: RegistryLocation, name: str) -> None:
        self.location, self.name = location, name

    @cached_property
    def client(self) -> Any:
        """MLflow's client for this registry; no global address is read or set."""
        import_mlflow()
        from mlflow.tracking import MlflowClient

        if self.location.database is None and os.environ.get(PASSWORD) in DEFAULT_PASSWORDS:
            message = (
                f"{PASSWORD} is a password that MLflow servers come with, and that everybody knows. Let whoever runs "
                f"{self.location} give {os.environ.get(USER, 'you')!r} another one (registry/README.md), and set it."
            )
            raise RegistryError(message)
        return MlflowClient(tracking_uri=self.location.uri, registry_uri=self.location.uri)

    def snapshot(self) -> Snapshot:
        """Return what is committed: by SQL where the database is a local file, else by MLflow."""
        if self.location.database is not None:
            found = read_snapshot(self.location.database, self.name)
            if found is not None:
                return found
        return self.snapshot_by_mlflow()

    def snapshot_by_mlflow(self) -> Snapshot:
        """Return what is committed as MLflow tells it."""
        with self._told():
            models = self.client.search_registered_models(filter_string=f"name = '{self.name}'")
            if not models:
                names = [m.name for m in self.client.search_registered_models()]
                raise RegistryError(no_model(str(self.location), self.name, names))
            found = _pages(self.client.search_model_versions, f"name = '{self.name}'")
            versions = [StoredVersion(version=int(v.version), run_id=v.run_id, tags=dict(v.tags)) for v in found]
            aliases = {alias: int(v) for alias, v in models[0].aliases.items()}
        return Snapshot.of(versions, aliases)

    def exists(self) -> bool:
        """Tell whether there is such a registered model."""
        with self._told():
            return bool(self.client.search_registered_models(filter_string=f"name = '{self.name}'"))

    def make_model(self) -> None:
        """Make experiment and registered model where they are missing."""
        with self._told():
            if self.client.get_experiment_by_name(self.name) is None:
                with excused("RESOURCE_ALREADY_EXISTS"):  # another machine made it in this moment
                    self.client.create_experiment(self.name, artifact_location=self.location.artifact_uri)
            if not self.exists():
                with excused("RESOURCE_ALREADY_EXISTS"):  # another machine made it in this moment
                    self.client.create_registered_model(self.name)

    def create_run(self, run_name: str, tags: Mapping[str, str]) -> str:
        """Begin a run; return its id."""
        with self._told():
            experiment = self.client.get_experiment_by_name(self.name)
            run = self.client.create_run(experiment.experiment_id, run_name=run_name, tags=dict(tags))
            return str(run.info.run_id)

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Write the parameters of a run."""
        from mlflow.entities import Param

        with self._told():
            found = [Param(key, value) for key, value in params.items()]
            for start in range(0, len(found), _BATCH):
                self.client.log_batch(run_id, params=found[start : start + _BATCH])

    def log_metrics(self, run_id: str, metrics: Sequence[tuple[str, float, int, int]]) -> None:
        """Write figures of a run: name, value, time in ms, step."""
        from mlflow.entities import Metric

        with self._told():
            found = [Metric(*metric) for metric in metrics]
            for start in range(0, len(found), _METRICS_BATCH):
                self.client.log_batch(run_id, metrics=found[start : start + _METRICS_BATCH])

    def log_inputs(self, run_id: str, inputs: Sequence[Mapping[str, str]], context: str) -> None:
        """Write which data sets a run read: name, digest, source, profile; never the cells."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", context)]
        with self._told():
            datasets = [DatasetInput(Dataset(source_type="local", **i), tags) for i in inputs]
            insist(lambda: self.client.log_inputs(run_id, datasets=datasets))

    def upload(self, run_id: str, folder: Path) -> None:
        """Write all files of a folder to the artifacts of a run."""
        with self._told():
            self.client.log_artifacts(run_id, str(folder), MODEL_FOLDER)

    def download(self, run_id: str, folder: Path) -> None:
        """Fetch the files of a run from a server, if it has any."""
        with self._told():
            if self.client.list_artifacts(run_id, MODEL_FOLDER):
                self.client.download_artifacts(run_id, MODEL_FOLDER, str(folder))

    def download_file(self, run_id: str, name: str, folder: Path) -> Path | None:
        """Fetch one file of a run from a server into a folder; return where it is now, ``None`` if there is none."""
        path = f"{MODEL_FOLDER}/{name}"
        with self._told():
            listed = {file.path for file in self.client.list_artifacts(run_id, path.rpartition("/")[0])}
            if path not in listed:
                return None
            return Path(self.client.download_artifacts(run_id, path, str(folder)))

    def create_version(self, run_id: str, tags: Mapping[str, str], description: str) -> int:
        """Register the files of a run as the next version: the commit."""
        with self._told():
            version = self.client.create_model_version(
                self.name,
                source=f"runs:/{run_id}/{MODEL_FOLDER}",
                run_id=run_id,
                tags=dict(tags),
                description=description,
            )
            return int(version.version)

    def delete_version(self, version: int) -> None:
        """Take a version back; doing it twice does no harm."""
        with self._told(), excused("RESOURCE_DOES_NOT_EXIST"):
            self.client.delete_model_version(self.name, str(version))

    def tag_version(self, version: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        with self._told():
            insist(lambda: self.client.set_model_version_tag(self.name, str(version), key, value))

    def set_alias(self, alias: str, version: int) -> None:
        """Let an alias point to a version."""
        with self._told():
            insist(lambda: self.client.set_registered_model_alias(self.name, alias, str(version)))

    def finish_run(self, run_id: str, state: str) -> None:
        """End a run; ending it twice does no harm."""
        with self._told():
            insist(lambda: self.client.set_tag(run_id, STATE, state))
            self.client.set_terminated(run_id, "FINISHED")

    def run_states(self) -> dict[str, tuple[str | None, float]]:
        """Return canal's state and the age in seconds of every run of the experiment that is not deleted."""
        with self._told():
            experiment = self.client.get_experiment_by_name(self.name)
            if experiment is None:
                return {}
            runs = _pages(self.client.search_runs, experiment_ids=[experiment.experiment_id])
            now = time.time()
            return {r.info.run_id: (r.data.tags.get(STATE), now - r.info.start_time / 1000) for r in runs}

    def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted; a server deletes its files, too."""
        with self._told():
            if self.location.artifacts is None:
                from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

                address = self.client.get_run(run_id).info.artifact_uri
                get_artifact_repository(address, tracking_uri=self.location.uri).delete_artifacts()
            self.client.delete_run(run_id)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what MLflow raises into one message."""
        import_mlflow()
        from mlflow.exceptions import MlflowException
        from requests import RequestException  # of the way of the artifacts

        try:
            yield
        except (MlflowException, RequestException) as error:
            raise RegistryError(explain(str(self.location), self.location.uri, error)) from error
        except OSError as error:
            message = (
                f"The registry {self.location} could not be read or written: {error}. "
                "Check disk space and permissions, and run this again."
            )
            raise RegistryError(message) from error


def _pages(search: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*args, max_results=_PAGE, page_token=token, **kwargs)
        yield from page
        token = page.token
        if not token:
            return


def close_database(location: RegistryLocation) -> None:
    """Close MLflow's connections to a local database; it keeps them in maps of its own."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as ModelStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as RunStore

    for kind in (RunStore, ModelStore):
        engine = getattr(kind, "_engine_map", {}).get(location.uri)
        if engine is not None:
            engine.dispose()
