"""Read a file of cells, or take an AnnData, and check everything that later steps rely on."""

from pathlib import Path
from typing import TYPE_CHECKING

import scipy.sparse as sp

from canal.data.cells import Cells
from canal.data.labels import TakenLabels, take_labels
from canal.data.read import open_file
from canal.data.source import CellSource, from_adata
from canal.data.stream import CHUNK, CellStream

if TYPE_CHECKING:
    import anndata as ad

__all__ = ["CellStream", "check_adata", "open_stream", "read_cells"]


def read_cells(
    path: str | Path,
    *,
    labels: str | None,
    label_map: Path | None = None,
    gene_key: str | None = None,
    drop_rare: bool = False,
    require_two: bool = False,
    keep_rare: bool = False,
) -> Cells:
    """Read and check a file of cells.

    Parameters
    ----------
    path
        See `canal.data.read.open_file`.
    labels
        Column of ``obs`` with the cell types, or ``None`` for none; cells without a label are left
        out.
    label_map
        CSV of two columns: their name, our name.
    gene_key
        Column of ``var`` with the gene names; found without help where ``None``.
    drop_rare
        Leave out types with a single cell instead of refusing the file.
    require_two
        Refuse a file with one type only.
    keep_rare
        Take types with a single cell as they are, for cells that are not trained on.

    Raises
    ------
    DataError
        If the file cannot be used; the message says what was found, what was expected and how to
        mend it.
    """
    with open_file(path) as source:
        taken = None
        if labels is not None:
            taken = take_labels(
                source.obs,
                labels,
                source=source.source,
                label_map=label_map,
                drop_rare=drop_rare,
                require_two=require_two,
                keep_rare=keep_rare,
            )
        return _collect(source, taken, gene_key)


def check_adata(
    adata: "ad.AnnData",
    *,
    labels: str | None,
    source: str = "AnnData",
    label_map: Path | None = None,
    gene_key: str | None = None,
    drop_rare: bool = False,
    require_two: bool = False,
    keep_rare: bool = False,
) -> Cells:
    """Check an AnnData; as `read_cells`, and the AnnData is not changed.

    Parameters
    ----------
    source
        Name of the data for messages and the report.

    Raises
    ------
    DataError
        As `read_cells`.
    """
    taken = None
    if labels is not None:
        taken = take_labels(
            adata.obs,
            labels,
            source=source,
            label_map=label_map,
            drop_rare=drop_rare,
            require_two=require_two,
            keep_rare=keep_rare,
        )
    return _collect(from_adata(adata, source), taken, gene_key)


def open_stream(
    file: "str | Path | ad.AnnData",
    *,
    gene_key: str | None = None,
    labels: str | None = None,
    label_map: Path | None = None,
    chunk: int = CHUNK,
) -> CellStream:
    """Open cells for reading in blocks and in constant memory; use it in a ``with`` statement.

    All cells pass, also those without a label, and a type may have a single cell. A matrix that is stored by columns
    (CSC) is turned into rows first; see `canal.data.stored.StoredColumns`.

    Parameters
    ----------
    file
        See `canal.data.read.open_file`; or an AnnData, in memory or backed.
    gene_key
        Column of ``var`` with the gene names; found without help where ``None``.
    labels, label_map
        Column of ``obs`` with the cell types, and their mapping, where they are to be compared.
    chunk
        Most cells in a block.

    Raises
    ------
    DataError
        As `read_cells`.
    """
    source = open_file(file) if isinstance(file, str | Path) else from_adata(file)
    try:
        taken = None
        if labels is not None:
            taken = take_labels(source.obs, labels, source=source.source, label_map=label_map, keep_rare=True)
        return CellStream(source, gene_key=gene_key, taken=taken, chunk=chunk)
    except BaseException:
        source.close()
        raise


def _collect(source: CellSource, taken: TakenLabels | None, gene_key: str | None) -> Cells:
    stream = CellStream(source, gene_key=gene_key, taken=taken, keep_unlabelled=False)
    expression = sp.vstack(list(stream.chunks()), format="csr")
    return Cells(
        expression=expression,
        genes=stream.genes,
        ensembl=stream.ensembl,
        names=stream.names,
        labels=stream.labels,
        report=stream.report,
    )
