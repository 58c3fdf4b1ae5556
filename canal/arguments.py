"""What people give from Python, as the rest of canal takes it: names, paths and label maps."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from canal.errors import ConfigError


def names_of(value: object, argument: str) -> tuple[str, ...]:
    """Return names that were given as one text, a list, an array or a column; a text is one name.

    Parameters
    ----------
    value
        What was given; ``None`` for none.
    argument
        Name of the argument, for the message.

    Raises
    ------
    ConfigError
        If it is anything else.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        names = list(value)
        if all(isinstance(name, str) for name in names):
            return tuple(str(name) for name in names)
    message = f'{argument} is {_shown(value)}; expected a name or a list of names, such as ["B", "NK"].'
    raise ConfigError(message)


def path_of(value: object, argument: str) -> Path | None:
    """Return a path that was given as a text or a path; ``None`` stays ``None``.

    Raises
    ------
    ConfigError
        If it is anything else.
    """
    if value is None or isinstance(value, Path):
        return value
    if isinstance(value, str) and value:
        return Path(value)
    message = f"{argument} is {_shown(value)}; expected the name of a file."
    raise ConfigError(message)


def expanded(files: object) -> list[Path]:
    """Return the files that are named, patterns such as ``runs/*.h5ad`` filled in, each once and in order.

    Raises
    ------
    ConfigError
        If a pattern names no file.
    """
    paths: dict[Path, None] = {}
    for name in [files] if isinstance(files, str | Path) else list(files):  # type: ignore[call-overload]
        path = Path(name)
        if path.exists() or not set(str(name)) & set("*?["):
            paths[path] = None
            continue
        # The pattern begins with the first folder that has a wildcard in its name.
        parts = path.parts
        first = next(place for place, part in enumerate(parts) if set(part) & set("*?["))
        matching = sorted(Path(*parts[:first]).glob(str(Path(*parts[first:]))))
        if not matching:
            message = f"No file is called like {name}. Check the folder, and put the pattern in quotes."
            raise ConfigError(message)
        paths |= dict.fromkeys(matching)
    return list(paths)


def map_of(value: object) -> Path | dict[str, Any] | None:
    """Return a label map that was given as a file or as a mapping; what is in it is checked where it is used.

    Raises
    ------
    ConfigError
        If it is anything else.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if value is None or isinstance(value, str | Path):
        return path_of(value, "label_map")
    message = f"label_map is {_shown(value)}; expected a CSV file of two columns, or a dict of their names to ours."
    raise ConfigError(message)


def column_of(value: object, argument: str) -> str | None:
    """Return the name of a column; ``None`` stays ``None``.

    Raises
    ------
    ConfigError
        If it is anything else, such as the column itself.
    """
    if value is None or (isinstance(value, str) and value):
        return value
    message = (
        f"{argument} is {_shown(value)}; expected the name of a column of obs. Put the values there first: "
        'adata.obs["mine"] = values.'
    )
    raise ConfigError(message)


def _shown(value: object) -> str:
    """Return a value that is not long by itself, and any other by its kind."""
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else f"of type {type(value).__name__}"
