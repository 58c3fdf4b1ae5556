"""A workspace: what a lab works with, from Python as from the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.learn.progress import Progress
from canal.registry.record import StageRecord
from canal.report.annotation import Annotation, write_annotation
from canal.stages.layout import Layout
from canal.stages.metrics import Evaluation
from canal.stages.request import StageRequest, StageResult
from canal.stages.workspace_stages import WorkspaceStages

if TYPE_CHECKING:
    import anndata as ad

    from canal.detect.reliability import Reliability
    from canal.stages.annotate import Model
    from canal.stages.explain import Explanation


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
        """Score the genes that the model looks at; ``options`` as `canal.stages.explain.explain`."""
        from canal.stages.explain import explain

        return explain(self.model(stage), data, **options)

    def stages(self) -> list[StageRecord]:
        """Return the record of every committed stage, in order."""
        return self._registry().records()

    def stage(self, number: int | None = None) -> StageRecord:
        """Return the record of a stage, by default the one in use."""
        return self._registry().record(number)

    def reliability(self, number: int | None = None) -> "Reliability | None":
        """Return how well a stage's confidence met its accuracy; ``None`` where nothing was kept of it."""
        from canal.stages.reliability import read_reliability

        registry = self._registry()
        return read_reliability(registry, registry.record(number))

    def champion(self) -> int | None:
        """Return the number of the stage in use, or ``None`` before the first."""
        return self._registry().champion()

    def bank(self, number: int | None = None) -> dict[str, Any]:
        """Return size, cells per type and cells per stage of a stage's example bank."""
        return dict(self.stage(number).bank)

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
