"""Chunks of a zarr store that Blosc compressed, checked before the library reads them.

A chunk begins with 16 bytes that say how long it is. numcodecs hands it to Blosc without its real length, and Blosc
reads on to where a damaged number points: a crash of the process. The form is that of c-blosc's README_CHUNK_FORMAT.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from canal.errors import DataError

# Two versions, flags, size of an element; bytes of the content, of a block, of the chunk.
HEADER = struct.Struct("<BBBBIII")


def check_blosc_chunks(store: Path) -> None:
    """Refuse a store with a chunk that is not as long as it says, or longer when it is unpacked than its array has it.

    Raises
    ------
    DataError
        If so; what cannot be understood of the store is left to who reads it.
    """
    for array, largest in _blosc_arrays(store):
        for chunk in array.rglob("*"):
            if chunk.name.startswith(".") or chunk.name == "zarr.json" or not chunk.is_file():
                continue
            with chunk.open("rb") as file:
                start = file.read(HEADER.size)
            size = chunk.stat().st_size
            # Whatever is shorter than a header Blosc refuses by itself.
            if len(start) < HEADER.size:
                continue
            *_, content, _, stored = HEADER.unpack(start)
            if stored != size or (largest is not None and content > largest):
                message = (
                    f"{store} is damaged: the chunk {chunk.relative_to(store)} has {size:,} bytes and says {stored:,}, "
                    f"{content:,} unpacked. Copy it again, or write it anew."
                )
                raise DataError(message)


def _blosc_arrays(store: Path) -> Iterator[tuple[Path, int | None]]:
    """Yield the folder of each array whose chunks are Blosc's, and the bytes of an unpacked one, if known."""
    for name, described in ((".zarray", _described_v2), ("zarr.json", _described_v3)):
        for path in sorted(store.rglob(name)):
            try:
                facts = json.loads(path.read_text(encoding="utf-8"))
                chunk_shape, dtype = described(facts)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
                continue
            if chunk_shape is not None:
                yield path.parent, _bytes_of(chunk_shape, dtype)


def _described_v2(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Return shape and type of a chunk by the metadata of zarr 2; ``None`` where Blosc is not what is read first."""
    compressor = facts["compressor"] or {}
    # Filters come after it when a chunk is read, and may change the size.
    dtype = None if facts.get("filters") else facts["dtype"]
    return (facts["chunks"] if compressor.get("id") == "blosc" else None), dtype


def _described_v3(facts: dict[str, Any]) -> tuple[Any, Any]:
    """Return the same by the metadata of zarr 3; shards hold several chunks and are left out."""
    codecs = [codec["name"] for codec in facts.get("codecs", [])]
    if facts.get("node_type") != "array" or not codecs or codecs[-1] != "blosc":
        return None, None
    dtype = facts["data_type"] if codecs == ["bytes", "blosc"] else None
    return facts["chunk_grid"]["configuration"]["chunk_shape"], dtype


def _bytes_of(chunk_shape: Any, dtype: Any) -> int | None:
    """Return the bytes of a chunk of numbers, ``None`` where they are not known: texts are longer than their places."""
    try:
        kind = np.dtype(dtype) if isinstance(dtype, str) else None
        if kind is None or kind.kind not in "biuf":
            return None
        return int(np.prod([int(length) for length in chunk_shape], dtype=object)) * kind.itemsize
    except (TypeError, ValueError):
        return None
