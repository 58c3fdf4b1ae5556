"""What MLflow and its server say becomes one message that says what to do."""

import re

import pytest
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_ALREADY_EXISTS

from canal.registry.store import PASSWORD, USER, excused, explain, insist

PLACE = "https://registry.example.org"
DUPLICATE = "(psycopg2.errors.UniqueViolation) duplicate key value"


@pytest.mark.parametrize(
    ("error", "match"),
    [
        ("API request to endpoint /x failed with error code 401 != 200. Response body: 'You are'", "let us in"),
        ("API request to endpoint /x failed with error code 403 != 200. Response body: 'No'", "does not allow ann"),
        ("API request to https://x failed with exception (Connection refused)", r"answer \(Connection refused\)"),
        ("API request to https://x failed with timeout exception: timed out.", r"answer \(timed out\)"),
        ("API request to endpoint /x failed with error code 503 != 200.", "does not answer"),
        ("API request to endpoint /x failed with error code 404 != 200. Response body: '<html>'", "no MLflow server"),
        ("successful but the response body was not in a valid JSON format", "no MLflow server"),
        ("Detected out-of-date database schema (found version a)", "mlflow db upgrade https://registry"),
        ("Something else.\nwith a second line", r"refused: Something else\.$"),
    ],
)
def test_messages(monkeypatch, error, match):
    """Found by what MLflow writes, for it has no types for them."""
    monkeypatch.setenv(USER, "ann")
    monkeypatch.setenv(PASSWORD, "secret")

    message = explain(PLACE, PLACE, MlflowException(error))
    assert re.search(match, message), message
    assert "secret" not in message
    assert PLACE in message


@pytest.mark.parametrize("error", ["(sqlite3.OperationalError) disk I/O error", "database or disk is full"])
def test_a_failing_disk_is_no_failing_server(error):
    """SQLite is a file on this machine: nobody has to look for a server."""
    message = explain("/lab/registry/mlflow.db", "sqlite:////lab/registry/mlflow.db", MlflowException(error))
    assert re.match(r"The registry's database /lab/registry/mlflow.db cannot be read or written \(d", message), message


def test_codes_of_the_server_count(monkeypatch):
    """A permission that is missing is told by its code."""
    monkeypatch.setenv(USER, "ann")
    error = MlflowException("no", error_code=PERMISSION_DENIED)

    assert "does not allow ann" in explain(PLACE, PLACE, error)
    assert "does not allow" in explain(PLACE, PLACE, RestException({"error_code": "PERMISSION_DENIED", "message": ""}))


def test_a_missing_password_is_named(monkeypatch):
    """Only what is missing."""
    monkeypatch.setenv(USER, "ann")
    monkeypatch.delenv(PASSWORD, raising=False)

    assert f"Set {PASSWORD}: " in explain(PLACE, PLACE, MlflowException("failed with error code 401 != 200"))


def test_one_kind_of_error_is_excused():
    """And no other."""
    with excused("RESOURCE_ALREADY_EXISTS"):
        raise MlflowException("there", error_code=RESOURCE_ALREADY_EXISTS)
    with pytest.raises(MlflowException), excused("RESOURCE_ALREADY_EXISTS"):
        raise MlflowException("no", error_code=PERMISSION_DENIED)


@pytest.mark.parametrize(("failures", "calls", "raised"), [(0, 1, False), (2, 3, False), (9, 4, True)])
def test_a_row_that_two_wrote_is_tried_again(failures, calls, raised):
    """A few times; the other one's row is found then."""
    made = []

    def call():
        made.append(1)
        if len(made) <= failures:
            raise MlflowException(DUPLICATE)

    if raised:
        with pytest.raises(MlflowException, match="UniqueViolation"):
            insist(call)
    else:
        insist(call)
    assert len(made) == calls


def test_other_errors_are_not_tried_again():
    """They come at once."""
    made = []

    def call():
        made.append(1)
        raise MlflowException("no")

    with pytest.raises(MlflowException):
        insist(call)
    assert len(made) == 1
