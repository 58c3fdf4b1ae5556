"""Under which names an annotation is stored in an AnnData, and in which form."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from canal.errors import DataError


def check_names_free(names: Iterable[str], key: str, *, obs: Iterable[str], obsm: Iterable[str], uns: Any) -> None:
    """Let an annotation replace only what an earlier one with the same key has written.

    Parameters
    ----------
    names
        Names of the columns, without the key.
    key
        Begins every name that is added.
    obs, obsm
        Names that the file has.
    uns
        Its ``uns``: a mapping or an HDF5 group.

    Raises
    ------
    DataError
        If a name is taken by something else.
    """
    earlier: Any = uns.get(key)
    if hasattr(earlier, "keys") and "model" in set(earlier.keys()):
        return
    taken = [f"obs[{name!r}]" for name in sorted({f"{key}_{name}" for name in names} & set(obs))]
    taken += [f"obsm[{name!r}]" for name in sorted({f"X_{key}"} & set(obsm))]
    taken += [] if earlier is None else [f"uns[{key!r}]"]
    if taken:
        message = f"The file already has {', '.join(taken)}, not written by canal. Choose other names with --key-added."
        raise DataError(message)


def storable(value: Any) -> Any:
    """Return facts as h5ad can keep them: no ``None``, lists as arrays, paths as text."""
    if isinstance(value, Mapping):
        return {str(k): storable(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        if value and all(isinstance(v, bool | int | float) for v in value):
            return np.array(value)
        return np.array([str(v) for v in value], dtype=object)
    return str(value) if isinstance(value, Path) else value
