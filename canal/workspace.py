"""What is done with the stages of a workspace once they are there: compare, use another, take out, hand over.

What killed processes left in a workspace.

A workspace: what a lab works with, from Python as from the command line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.files import Problem
from canal.model.record import IMPORTED, StageRecord
from canal.progress import Progress
from canal.registry.cache import LIMIT
from canal.registry.health import Orphan, remove_pretrain_drafts
from canal.registry.registry import Registry
from canal.report.annotation import Annotation, write_annotation
from canal.stages.evaluate import Evaluation
from canal.stages.layout import Layout, has_registry, open_registry
from canal.stages.request import StageRequest, StageResult

if TYPE_CHECKING:
    import anndata as ad

    from canal.compare.report import CompareReport
    from canal.explain.explain import Explanation
    from canal.history.diff import StageDiff
    from canal.history.remove import RemovalResult
    from canal.history.replay import ReplayReport
    from canal.model.reliability import Reliability
    from canal.stages.annotate import Model
    from canal.stages.use import Promotion


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
        from canal.compare.gather import compare_stages
        from canal.files import check_file

        if html is not None:
            check_file(Path(html), ".html", "html")
        report = compare_stages(
            self.layout, numbers, recompute=recompute, references=references, progress=progress
        )  # fmt: skip
        if html is not None:
            from canal.compare.page import write_compare_page

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
        from canal.history.diff import stage_difference

        return stage_difference(self.layout, a, b, data=data, gene_key=gene_key, progress=progress)

    def remove(self, number: int, *, progress: Progress | None = None) -> "RemovalResult":
        """Commit a new stage without the cells of stage ``number``; nothing is deleted."""
        from canal.history.remove import remove_stage

        return remove_stage(self.layout, number, progress=progress)

    def promote(self, number: int) -> "Promotion":
        """Let a stage annotate; its files are checked first."""
        from canal.stages.use import promote

        return promote(self.layout, number)

    def rollback(self) -> "Promotion":
        """Let the stage annotate that the one in use was learned from."""
        from canal.stages.use import roll_back

        return roll_back(self.layout)

    def replay(self, out: str | Path, *, progress: Progress | None = None) -> "ReplayReport":
        """Learn all stages again in a new workspace, and tell whether every file comes out the same."""
        from canal.history.replay import replay

        return replay(self.layout.stages, Path(out), progress=progress)

    def export(self, path: str | Path, number: int | None = None) -> StageRecord:
        """Write a stage, by default the one in use, to one file for another machine; return its record."""
        registry = self._registry()
        return registry.export(registry.record(number).number, Path(path))[0]

    def import_stage(self, path: str | Path, *, name: str | None = None) -> StageRecord:
        """Take the stage of an export into the registry, as its next stage; return its record."""
        from canal.history.exchange import import_stage

        return import_stage(self.layout, Path(path), name)[0]

    def verify(self) -> list[Problem]:
        """Compare every file of every stage with its hash and follow every reference; return what is wrong."""
        return self._registry().verify()

    def gc(self, *, keep_drafts: bool = False, cache_limit: int = LIMIT) -> list[Orphan]:
        """Delete what killed runs left, and copies beyond ``cache_limit`` bytes; return what was deleted."""
        return collect_garbage(self.layout, keep_drafts=keep_drafts, cache_limit=cache_limit)

    def _registry(self) -> Registry:
        return open_registry(self.layout)


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


class Workspace(WorkspaceStages):
    """Presets, declarations and the registry of one lab's annotator.

    Examples
    --------
    >>> import canal
    >>> workspace = canal.open_workspace("blood", create=True)  # doctest: +SKIP
    >>> workspace.add_stage("pbmc.h5ad", labels="cell_type")  # doctest: +SKIP
    >>> annotation = workspace.annotate(adata)  # doctest: +SKIP

    Parameters
    ----------
    layout
        Where everything is.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._models: dict[str, Model] = {}

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self.layout.root

    def add_stage(
        self,
        data: "str | Path | ad.AnnData",
        *,
        labels: str | None = None,
        preset: str | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> StageResult:
        """Learn a stage and commit it; ``options`` are the other fields of `StageRequest`."""
        from canal.stages.add import add_stage

        settings = self.layout.settings
        request = StageRequest(
            data=data,
            labels=settings.labels if labels is None else labels,
            preset=settings.preset if preset is None else preset,
            seed=settings.seed if seed is None else seed,
            **options,
        )
        return add_stage(self.layout, request, progress)

    def annotate(
        self,
        data: "str | Path | ad.AnnData",
        *,
        stage: int | None = None,
        types: Sequence[str] | None = None,
        majority_voting: bool = False,
        over_clustering: str | None = None,
        key_added: str = "canal",
        gene_key: str | None = None,
        alpha: float | None = None,
        neighbors: int = 0,
        transductive: bool = False,
        min_probability: float | None = None,
        out: Path | None = None,
        progress: Progress | None = None,
    ) -> Annotation:
        """Say of every cell which type it is; with ``out``, write the cells with their annotation there."""
        from canal.stages.annotate import annotate

        annotation = annotate(
            self.model(stage), data,
            types=types, majority_voting=majority_voting, over_clustering=over_clustering,
            gene_key=gene_key, alpha=alpha, neighbors=neighbors,
            transductive=transductive, min_probability=min_probability,
            folder=None if out is None else out.absolute().parent, progress=progress,
        )  # fmt: skip
        if out is not None:
            write_annotation(data, annotation, out, key_added)
        return annotation

    def evaluate(
        self, data: "str | Path | ad.AnnData", *, labels: str | None = None, stage: int | None = None, **options: Any
    ) -> Evaluation:
        """Annotate labelled cells and score the annotation; ``options`` as `canal.stages.evaluate.evaluate`."""
        from canal.stages.evaluate import evaluate

        column = self.layout.settings.labels if labels is None else labels
        return evaluate(self.model(stage), data, labels=column, **options)

    def explain(self, data: "str | Path | ad.AnnData", *, stage: int | None = None, **options: Any) -> "Explanation":
        """Score the genes that the model looks at; ``options`` as `canal.explain.explain.explain`."""
        from canal.explain.explain import explain

        return explain(self.model(stage), data, **options)

    def stages(self) -> list[StageRecord]:
        """Return the record of every committed stage, in order."""
        return self._registry().records()

    def stage(self, number: int | None = None) -> StageRecord:
        """Return the record of a stage, by default the one in use."""
        return self._registry().record(number)

    def reliability(self, number: int | None = None) -> "Reliability | None":
        """Return how well a stage's confidence met its accuracy; ``None`` where nothing was kept of it."""
        from canal.stages.tests import read_reliability

        registry = self._registry()
        return read_reliability(registry, registry.record(number))

    def champion(self) -> int | None:
        """Return the number of the stage in use, or ``None`` before the first."""
        return self._registry().champion()

    def bank(self, number: int | None = None) -> dict[str, Any]:
        """Return size, cells per type and cells per stage of a stage's example bank."""
        record = self.stage(number)
        contents = dict(record.bank)
        if IMPORTED in record.notes:  # its own record counts by the stages of the registry that it comes from
            contents["per_stage"] = {str(record.number): contents["size"]} if contents.get("size") else {}
        return contents

    def model(self, number: int | None = None) -> "Model":
        """Return the model of a stage, by default of the one in use; read once."""
        from canal.stages.annotate import Model

        registry = self._registry()
        record = registry.record(number)
        key = record.artifacts["weights.safetensors"]
        if key not in self._models:
            folder = registry.artifacts(record)
            self._models[key] = Model.open(folder, record, self.layout.settings.name)
        return self._models[key]


def open_workspace(path: str | Path = ".", *, create: bool = False, registry: str | None = None) -> Workspace:
    """Open a workspace.

    Parameters
    ----------
    path
        Its folder.
    create
        Make the folders and ``canal.toml`` where they are missing.
    registry
        Address of a server that keeps the stages; what ``canal.toml`` says by default.

    Raises
    ------
    ConfigError
        If there is no workspace and ``create`` is false, or its settings do not fit.
    """
    layout = (Layout.init if create else Layout.find)(Path(path), registry)
    if not create:
        layout.require()
    return Workspace(layout)
