"""Chunks of Blosc are as long as they say, and no longer unpacked than their array has them."""

import struct
from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from canal.data.blosc_checks import check_blosc_chunks
from canal.errors import DataError


def store(folder: Path, version: int) -> Path:
    """Write an array of two chunks and one of texts; return the first chunk of the array."""
    path = folder / "x.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    compressor = Blosc() if version == 2 else BloscCodec(typesize=4)
    numbers = group.create_array("numbers", shape=(200,), chunks=(100,), dtype="int32", compressors=compressor)
    numbers[:] = np.arange(200)
    return path / "numbers" / ("0" if version == 2 else "c/0")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("place", "value"), [(12, 2**20), (4, 2**23), (12, 3)])
def test_a_chunk_that_lies_is_refused(version: int, place: int, value: int, tmp_path: Path) -> None:
    """In its length as it is stored, or unpacked."""
    chunk = store(tmp_path, version)
    check_blosc_chunks(tmp_path / "x.zarr")
    content = bytearray(chunk.read_bytes())
    content[place : place + 4] = struct.pack("<I", value)
    chunk.write_bytes(bytes(content))
    with pytest.raises(DataError, match="is damaged: the chunk numbers"):
        check_blosc_chunks(tmp_path / "x.zarr")
