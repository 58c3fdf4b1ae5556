"""canal: a cell-type annotator that learns data set by data set and keeps what it knew.

>>> import canal
>>> workspace = canal.open_workspace("my-atlas", create=True)  # doctest: +SKIP
>>> workspace.add_stage("baron.h5ad", labels="cell_type")  # learn labelled cells  # doctest: +SKIP
>>> annotation = workspace.annotate("new.h5ad", out="annotated.h5ad")  # doctest: +SKIP
>>> model = canal.load_model("model.canal")  # annotates without a workspace  # doctest: +SKIP
>>> adata = canal.annotate(adata, model="blood")  # one line, with a model that comes with canal  # doctest: +SKIP

`open_workspace` opens what `canal init` made, `load_model` the file of `canal registry export`; `help(canal.Workspace)`
lists every method. Errors that can be mended are `canal.CanalError`. Pictures are in `canal.pl`.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canal import pl as pl
    from canal.errors import CanalError as CanalError
    from canal.report.annotation import Annotation as Annotation
    from canal.workspace import Workspace as Workspace
    from canal.workspace import annotate as annotate
    from canal.workspace import load_model as load_model
    from canal.workspace import open_workspace as open_workspace

__version__ = version("canal")
__all__ = ["Annotation", "CanalError", "Workspace", "__version__", "annotate", "load_model", "open_workspace", "pl"]

_LAZY = {
    "Annotation": "canal.report.annotation",
    "CanalError": "canal.errors",
    "Workspace": "canal.workspace",
    "annotate": "canal.workspace",
    "load_model": "canal.workspace",
    "open_workspace": "canal.workspace",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import canal` stays light."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name == "pl":
        return import_module("canal.pl")
    message = f"module 'canal' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """List the public names alone."""
    return sorted(__all__)
