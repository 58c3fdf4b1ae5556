"""The labelled cells that a request names."""

from pathlib import Path
from typing import Any

from canal.data.cells import Cells
from canal.data.check import check_adata, read_cells
from canal.stages.request import StageRequest


def cells_of(request: StageRequest, *, require_two: bool = False) -> Cells:
    """Return the cells of a request, read as it says.

    Parameters
    ----------
    request
        Names file, labels, genes and what to leave out.
    require_two
        Whether one cell type alone is refused.

    Raises
    ------
    DataError
        If they cannot be used.
    """
    options: dict[str, Any] = {
        "labels": request.labels,
        "label_map": request.label_map,
        "gene_key": request.gene_key,
        "drop_rare": request.drop_rare,
        "require_two": require_two,
    }
    if isinstance(request.data, str | Path):
        return read_cells(request.data, **options)
    return check_adata(request.data, **options)
