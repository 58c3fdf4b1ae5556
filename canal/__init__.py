"""canal: the cell-type annotator a lab never has to retrain from scratch."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canal.workspace import Workspace as Workspace
    from canal.workspace import open_workspace as open_workspace

__version__ = version("canal")
__all__ = ["Workspace", "__version__", "open_workspace"]

_LAZY = {"Workspace": "canal.workspace", "open_workspace": "canal.workspace"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import canal` stays light."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    message = f"module 'canal' has no attribute {name!r}"
    raise AttributeError(message)
