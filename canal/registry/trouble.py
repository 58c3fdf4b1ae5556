"""What MLflow and its server say when something is wrong, as one message that says what to do."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"

_DUPLICATE = re.compile(r"UniqueViolation|UNIQUE constraint|duplicate key", re.IGNORECASE)
_STATUS = re.compile(r"error code (\d{3})|(\d{3}) (?:Client|Server) Error")
_CODES = {
    "UNAUTHENTICATED": 401,
    "CUSTOMER_UNAUTHORIZED": 401,
    "PERMISSION_DENIED": 403,
    "TEMPORARILY_UNAVAILABLE": 503,
}
_UNREACHABLE = ("failed with exception", "failed with timeout", "Max retries exceeded", "Connection aborted")
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
