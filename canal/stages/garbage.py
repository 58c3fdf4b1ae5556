"""What killed processes left in a workspace."""

from canal.registry.cache import LIMIT
from canal.registry.health import Orphan
from canal.stages.connection import has_registry, open_registry
from canal.stages.layout import Layout
from canal.stages.pretrain_draft import remove_pretrain_drafts


def collect_garbage(layout: Layout, *, keep_drafts: bool = False, cache_limit: int = LIMIT) -> list[Orphan]:
    """Delete what no stage and no weights need, and copies beyond ``cache_limit`` bytes; return it.

    Parameters
    ----------
    layout
        The workspace.
    keep_drafts
        Whether to keep what `canal stage add` and `canal pretrain` could go on from with ``--resume``.
    cache_limit
        Bytes that copies may take.
    """
    removed: list[Orphan] = []
    if has_registry(layout) or not layout.weights.is_dir():  # weights can be there before any stage
        removed += open_registry(layout).collect_garbage(keep_drafts=keep_drafts, cache_limit=cache_limit)
    return removed if keep_drafts else removed + remove_pretrain_drafts(layout.weights)
