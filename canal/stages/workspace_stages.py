"""What is done with the stages of a workspace once they are there: compare, use another, take out, hand over."""

from pathlib import Path
from typing import TYPE_CHECKING

from canal.learn.progress import Progress
from canal.registry.artifacts import Problem
from canal.registry.cache import LIMIT
from canal.registry.health import Orphan
from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from canal.stages.connection import open_registry
from canal.stages.layout import Layout

if TYPE_CHECKING:
    import anndata as ad

    from canal.report.compare_report import CompareReport
    from canal.stages.difference import StageDiff
    from canal.stages.promotion import Promotion
    from canal.stages.removal import RemovalResult
    from canal.stages.replay import ReplayReport


class WorkspaceStages:
    """The part of `canal.Workspace` that works on stages already committed.

    Parameters
    ----------
    layout
        Where everything is.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def compare(
        self,
        *numbers: int,
        html: str | Path | None = None,
        recompute: bool = False,
        references: bool = False,
        progress: Progress | None = None,
    ) -> "CompareReport":
        """Put stages side by side, all by default; with ``html``, write the page of it there, too."""
        from canal.report.target import check_file
        from canal.stages.compare import compare_stages

        if html is not None:
            check_file(Path(html), ".html", "html")
        report = compare_stages(
            self.layout, numbers, recompute=recompute, references=references, progress=progress
        )  # fmt: skip
        if html is not None:
            from canal.stages.compare_html import write_compare_page

            write_compare_page(self.layout, report, Path(html), progress)
        return report

    def diff(
        self,
        a: int,
        b: int,
        *,
        data: "str | Path | ad.AnnData | None" = None,
        gene_key: str | None = None,
        progress: Progress | None = None,
    ) -> "StageDiff":
        """Tell what is different in stage ``b`` as compared with stage ``a``; with ``data``, annotate it with both."""
        from canal.stages.difference import stage_difference

        return stage_difference(self.layout, a, b, data=data, gene_key=gene_key, progress=progress)

    def remove(self, number: int, *, progress: Progress | None = None) -> "RemovalResult":
        """Commit a new stage without the cells of stage ``number``; nothing is deleted."""
        from canal.stages.removal import remove_stage

        return remove_stage(self.layout, number, progress=progress)

    def promote(self, number: int) -> "Promotion":
        """Let a stage annotate; its files are checked first."""
        from canal.stages.promotion import promote

        return promote(self.layout, number)

    def rollback(self) -> "Promotion":
        """Let the stage annotate that the one in use was learned from."""
        from canal.stages.promotion import roll_back

        return roll_back(self.layout)

    def replay(self, out: str | Path, *, progress: Progress | None = None) -> "ReplayReport":
        """Learn all stages again in a new workspace, and tell whether every file comes out the same."""
        from canal.stages.replay import replay

        return replay(self.layout.stages, Path(out), progress=progress)

    def export(self, path: str | Path, number: int | None = None) -> StageRecord:
        """Write a stage, by default the one in use, to one file for another machine; return its record."""
        registry = self._registry()
        return registry.export(registry.record(number).number, Path(path))[0]

    def import_stage(self, path: str | Path, *, name: str | None = None) -> StageRecord:
        """Take the stage of an export into the registry, as its next stage; return its record."""
        from canal.stages.exchange import import_stage

        return import_stage(self.layout, Path(path), name)[0]

    def verify(self) -> list[Problem]:
        """Compare every file of every stage with its hash and follow every reference; return what is wrong."""
        return self._registry().verify()

    def gc(self, *, keep_drafts: bool = False, cache_limit: int = LIMIT) -> list[Orphan]:
        """Delete what killed runs left, and copies beyond ``cache_limit`` bytes; return what was deleted."""
        from canal.stages.garbage import collect_garbage

        return collect_garbage(self.layout, keep_drafts=keep_drafts, cache_limit=cache_limit)

    def _registry(self) -> Registry:
        return open_registry(self.layout)
