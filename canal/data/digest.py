"""A digest of what is used of a file, whatever container and path it has."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.sparse as sp


class CellsDigest:
    """SHA-256 over cells that come in blocks; blocks of any size give the same digest."""

    def __init__(self) -> None:
        self._parts = {part: hashlib.sha256() for part in ("lengths", "columns", "values", "names", "labels")}

    def update(self, block: sp.csr_matrix, names: Iterable[str], labels: Iterable[str] | None) -> None:
        """Add cells: their values as stored (CSR, sorted, no zeros), names and labels."""
        self._parts["lengths"].update(np.diff(block.indptr).astype("<i4").data)
        self._parts["columns"].update(np.ascontiguousarray(block.indices, dtype="<i4").data)
        self._parts["values"].update(np.ascontiguousarray(block.data, dtype="<f4").data)
        self._parts["names"].update(_bytes(names))
        if labels is not None:
            self._parts["labels"].update(_bytes(labels))

    def finish(self, scale: str, genes: Sequence[str], ensembl: Sequence[str]) -> str:
        """Return ``"sha256:..."`` over the cells so far, their scale and their genes."""
        whole = hashlib.sha256(_bytes((scale, str(len(genes)), *genes, *ensembl)))
        for name, part in self._parts.items():
            whole.update(name.encode() + part.digest())
        return f"sha256:{whole.hexdigest()}"


def _bytes(texts: Iterable[str]) -> bytes:
    return b"".join(len(raw).to_bytes(4, "little") + raw for raw in (str(t).encode() for t in texts))
