"""Files that are written for people: checked before any work is done for them."""

import os
from collections.abc import Callable
from pathlib import Path

from canal.errors import DataError


def check_file(out: Path, suffix: str, option: str) -> Path:
    """Return the path if such a file can be written there.

    Parameters
    ----------
    out
        The file.
    suffix
        What its name must end in.
    option
        The option it was given with, for the message.

    Raises
    ------
    DataError
        If it is of another kind, its folder does not exist, or a folder has its name.
    """
    if out.suffix != suffix:
        message = f"{out} does not end in {suffix}; name such a file with {option}."
    elif not out.parent.is_dir():
        message = (
            f"There is no folder {out.parent} to write {out.name} to. Make it first, or name another with {option}."
        )
    elif out.is_dir():
        message = f"{out} is a folder; expected a file. Name another with {option}."
    else:
        return out
    raise DataError(message)


def write_whole(out: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then move: a file that is there is whole.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    temporary = out.parent / f".{out.name}.{os.getpid()}.tmp"
    try:
        write(temporary)
        temporary.replace(out)
    except OSError as error:
        message = f"{out} cannot be written: {error}. Check the free space and your rights there."
        raise DataError(message) from error
    finally:
        temporary.unlink(missing_ok=True)
