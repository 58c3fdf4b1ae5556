"""A workspace: the one door to everything that canal does, from Python as from the command line.

Every command calls a method of `Workspace` and prints what it returns. What a method needs is imported when it is
called, so that opening a workspace is quick.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.arguments import column_of, expanded, map_of, names_of, path_of
from canal.errors import ConfigError, DataError
from canal.files import Problem, check_new
from canal.model.record import IMPORTED, StageRecord
from canal.progress import Progress, watching
from canal.registry.cache import LIMIT
from canal.registry.health import Orphan, remove_working_folders
from canal.registry.registry import Registry
from canal.stages.layout import Layout, has_registry, open_registry

if TYPE_CHECKING:
    import anndata as ad
    import numpy as np
    import pandas as pd

    from canal.catalogue.catalogue import Mirror
    from canal.compare.report import CompareReport
    from canal.explain.explain import Explanation
    from canal.history.diff import StageDiff
    from canal.history.relabel import RenamingResult
    from canal.history.remove import RemovalResult
    from canal.history.replay import ReplayReport
    from canal.labels.accepted import AcceptedLabels, LabelList, LabelTree
    from canal.labels.suggest import LabelReport
    from canal.model.model import Model
    from canal.model.reliability import Reliability
    from canal.model.voter import Voter
    from canal.novel.folder import Naming
    from canal.novel.report import NovelReport
    from canal.panels.check import PanelCheck
    from canal.panels.design import PanelDesign
    from canal.report.annotation import Annotation
    from canal.sites.audit import Audit
    from canal.sites.report import SiteReport
    from canal.stages.annotate import AnnotateOptions
    from canal.stages.check_file import FileCheck
    from canal.stages.evaluate import Evaluation
    from canal.stages.request import StageResult
    from canal.stages.use import Promotion
    from canal.training.start import PretrainedWeights


def _annotate_options(
    *,
    alpha: float | None = None,
    neighbors: int = 0,
    transductive: bool = False,
    min_probability: float | None = None,
    adapt: bool = False,
    batch: str | None = None,
    **options: Any,
) -> "AnnotateOptions":
    """Return the options that the keywords of `Annotator.annotate` stand for."""
    from canal.stages.adapting import AdaptOptions
    from canal.stages.annotate import AnnotateOptions
    from canal.stages.novelty_rules import NoveltyOptions

    novelty = NoveltyOptions(
        alpha=alpha, neighbors=neighbors, transductive=transductive, min_probability=min_probability
    )
    return AnnotateOptions(novelty=novelty, adapting=AdaptOptions(adapt=adapt, batch=batch), **options)


class Annotator:
    """What a workspace and a model that was loaded from a file have in common: they annotate, evaluate and explain."""

    @property
    def labels(self) -> str:
        """Column of ``obs`` with the cell types, where none is named."""
        raise NotImplementedError

    def model(self, number: int | None = None) -> "Model":
        """Return the model of a stage, by default of the one in use."""
        raise NotImplementedError

    def _answering(self, number: int | None) -> "Model":
        """Return the model that annotates; a workspace's may be a voter alone."""
        return self.model(number)

    def annotate(
        self,
        data: "str | Path | ad.AnnData",
        *,
        stage: int | None = None,
        types: str | Sequence[str] | None = None,
        majority_voting: bool = False,
        over_clustering: "str | Sequence[object] | np.ndarray | pd.Series | None" = None,
        key_added: str = "canal",
        gene_key: str | None = None,
        alpha: float | None = None,
        neighbors: int = 0,
        transductive: bool = False,
        min_probability: float | None = None,
        adapt: bool = False,
        batch: str | None = None,
        alpha_label: float | None = None,
        format: str | None = None,
        cas: str | Path | None = None,
        author: str | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
        inplace: bool = False,
        scores: str = "best",
        filter: str | None = None,
        progress: Progress | bool | None = None,
    ) -> "Annotation":
        """Annotate the type of every cell; with ``out``, write the cells with their annotation there.

        Examples
        --------
        >>> annotation = workspace.annotate("new.h5ad", out="annotated.h5ad")  # doctest: +SKIP
        >>> annotation.to_frame().head()  # doctest: +SKIP

        Parameters
        ----------
        data
            File of cells, or an AnnData; it is not changed.
        stage
            Model of this stage; by default the one in use.
        types
            The answer is one of these types; every known type by default. A text is one type.
        majority_voting
            Give every cell of a cluster the type most of them have.
        over_clustering
            Column of ``obs`` with the clusters for the vote, or the cluster of each cell; by default they are found in
            the representation.
        key_added
            Prefix of every name that is added in ``out``.
        gene_key
            Column of ``var`` with the gene names.
        alpha
            Share of known cells that may be called novel; 0.05 by default, where the model can tell.
        neighbors
            Nearest reference cells to name for each cell.
        transductive
            Judge novelty by the paper's rule: the verdict on a cell then depends on the other cells of the file.
        min_probability
            Call cells novel whose highest probability is below it, in place of the memory's detector.
        adapt
            The file's own cells help to answer, where a guard finds that they do; see docs/unseen.md.
        batch
            Column of ``obs`` whose batches are adapted to each for itself; found by its name by default.
        alpha_label
            Share of the sure answers that may be wrong, 0.05 by default where the types stand in the Cell Ontology.
        format
            ``"cellxgene"``: add the column of terms that CELLxGENE's schema asks for; ``"cap"``: the columns of the
            Cell Annotation Platform.
        cas, author
            JSON file to write by the Cell Annotation Schema, too; first and last name of its author.
        out
            File to write: ``.h5ad`` (the cells with the annotation) or ``.csv``.
        overwrite
            Replace ``out`` where it is there already, be it the file of the cells itself.
        inplace
            Add the annotation to the AnnData that was given, too, as scanpy does.
        scores
            ``"all"``: keep the probability of every type, in ``obsm[key_probabilities]`` (types in
            ``uns[key]["probability_types"]``), or as columns of a CSV; see `Annotation.to_probabilities`.
        filter
            Of a SOMA experiment, annotate the cells of this condition on ``obs``, such as ``"tissue == 'blood'"``.
        progress
            Told about every block of cells; ``True`` for a bar, or lines in a log. A notebook shows a bar by itself.

        Raises
        ------
        ConfigError, DataError, StageError, RegistryError
            If the file cannot be annotated, a type is not known, or novelty is asked of a model that cannot tell.
        """
        from canal.data.soma import chosen_cells
        from canal.stages.annotate import annotate_to

        if inplace and (isinstance(data, str | Path) or data is None):
            message = "inplace adds the annotation to an AnnData in memory; the cells are in a file. Name one with out."
            raise ConfigError(message)
        asked: dict[str, Any] = {
            "types": None if types is None else names_of(types, "types"),
            "majority_voting": majority_voting,
            "over_clustering": over_clustering,
            "key_added": key_added,
            "gene_key": gene_key,
            "alpha": alpha,
            "neighbors": neighbors,
            "transductive": transductive,
            "min_probability": min_probability,
            "overwrite": overwrite,
            "scores": scores,
            "adapt": adapt,
            "batch": batch,
            "alpha_label": alpha_label,
            "format": format,
            "cas": path_of(cas, "cas"),
            "author": author,
        }
        model = self._answering(stage)
        if model.voter is not None and not model.is_taught:
            alone = LoadedVoter(model.voter, stage=model.stage.number)
            return alone.annotate(data, out=out, inplace=inplace, filter=filter, progress=progress, **asked)
        options = _annotate_options(**asked)
        data = chosen_cells(data, filter)
        annotation = annotate_to(model, data, options, path_of(out, "out"), watching(progress))
        if inplace:
            assert not isinstance(data, str | Path)
            annotation.to_adata(data, key=key_added, copy=False)
        return annotation

    def annotate_files(
        self, files: Sequence[str | Path], out: str | Path, *, stage: int | None = None, **options: Any
    ) -> "list[Annotation]":
        """Annotate files one after the other.

        Parameters
        ----------
        files, out
            Files of cells, or patterns such as ``"runs/*.h5ad"``; the file to write, or a folder for several.
        stage
            Model of this stage; by default the one in use.
        options
            As for `annotate`.
        """
        from canal.stages.annotate import output_paths

        # Every path is checked before the first file is annotated.
        paths = expanded(files)
        targets = output_paths(paths, Path(out), overwrite=bool(options.get("overwrite", False)))
        if options.get("cas") is not None and len(paths) > 1:
            message = f"{len(paths)} files are annotated, and --cas names one document. Annotate one at a time."
            raise ConfigError(message)
        annotations = []
        for path, target in zip(paths, targets, strict=True):
            annotations.append(self.annotate(path, out=target, stage=stage, **options))
        return annotations

    def check_file(
        self, data: "str | Path | ad.AnnData", *, stage: int | None = None, gene_key: str | None = None
    ) -> "FileCheck":
        """Say how far a file is from what a model was taught, before it is annotated.

        Parameters
        ----------
        data
            File of cells, or an AnnData; some of its cells are looked at.
        stage
            Model of this stage; by default the one in use.
        gene_key
            Column of ``var`` with the gene names.

        Raises
        ------
        DataError
            If the file cannot be annotated by the model.
        """
        from canal.stages.check_file import check_file

        return check_file(self.model(stage), data, gene_key)

    def evaluate(
        self,
        data: "str | Path | ad.AnnData",
        *,
        labels: str | None = None,
        stage: int | None = None,
        label_map: str | Path | Mapping[str, str] | None = None,
        drop_labels: str | Sequence[str] = (),
        keep_labels: str | Sequence[str] = (),
        gene_key: str | None = None,
        novel: str | Sequence[str] = (),
        alpha: float | None = None,
        transductive: bool = False,
        min_probability: float | None = None,
        adapt: bool = False,
        batch: str | None = None,
        filter: str | None = None,
        progress: Progress | bool | None = None,
    ) -> "Evaluation":
        """Annotate labelled cells and score the annotation.

        Parameters
        ----------
        data
            File of labelled cells, or an AnnData.
        labels
            Column of ``obs`` with the cell types; by default `labels` of the workspace.
        stage
            Model of this stage; by default the one in use.
        label_map, gene_key
            CSV with the file's names of types and ours, or a dict of them; column of ``var`` with the gene names.
        drop_labels, keep_labels
            Labels whose cells do not count; types although they are called "other", "doublet" or the like.
        novel
            Types of the file that the model was never taught: how well it tells them from the others is scored, too.
        alpha, transductive, min_probability
            How novelty is judged, as for `annotate`.
        adapt, batch
            Whether the file's own cells help to answer, as for `annotate`.
        filter
            Of a SOMA experiment, the cells that count, as for `annotate`.
        progress
            Told about every block of cells.

        Raises
        ------
        DataError
            If the file cannot be used, has no label, or has no cell of a type that is said to be novel.
        """
        from canal.data.soma import chosen_cells
        from canal.stages.adapting import AdaptOptions
        from canal.stages.evaluate import EvaluateOptions, evaluate
        from canal.stages.novelty_rules import NoveltyOptions

        options = EvaluateOptions(
            labels=column_of(labels, "labels") or self.labels,
            label_map=map_of(label_map),
            drop_labels=names_of(drop_labels, "drop_labels"),
            keep_labels=names_of(keep_labels, "keep_labels"),
            gene_key=gene_key,
            novel=names_of(novel, "novel"),
            novelty=NoveltyOptions(alpha=alpha, transductive=transductive, min_probability=min_probability),
            adapting=AdaptOptions(adapt=adapt, batch=batch),
        )
        return evaluate(self.model(stage), chosen_cells(data, filter), options, watching(progress))

    def explain(
        self, data: "str | Path | ad.AnnData | None" = None, *, stage: int | None = None, **options: Any
    ) -> "Explanation":
        """Score the genes by which the model decides; ``options`` as `canal.explain.explain.ExplainOptions`.

        Without ``data``, in the cells that were taught, as the analytic memory knows them.
        """
        from canal.explain.explain import ExplainOptions, explain

        if "types" in options:
            options["types"] = names_of(options["types"], "types")
        progress = watching(options.pop("progress", None))
        return explain(self.model(stage), data, ExplainOptions(**options), progress)

    def markers(
        self, types: str | Sequence[str] | None = None, *, stage: int | None = None, top: int = 20
    ) -> "pd.DataFrame":
        """Return the genes by which the model tells each type, from what was taught: no file is needed.

        Parameters
        ----------
        types
            Types to list; every type by default. A text is one type.
        stage
            Model of this stage; by default the one in use.
        top
            Most genes of a type, for it and against others.

        Returns
        -------
        A row a gene: ``cell_type``, ``evidence`` (``for``: the type expresses it; ``against``: others do, and the type
        has less of it), ``gene``, ``score`` and ``others``: the gene's part in the score, in the cells of the type and
        in those of others.
        """
        asked = () if types is None else names_of(types, "types")
        return self.explain(stage=stage, types=asked).to_frame(top)

    def check_panel(
        self,
        genes: str | Path | Sequence[str],
        *,
        depth: int | None = None,
        stage: int | None = None,
        progress: Progress | bool | None = None,
    ) -> "PanelCheck":
        """Say what a targeted panel will tell apart, before it is bought; no cell is needed.

        Parameters
        ----------
        genes
            Names of its genes, or a file of them: text with a name a line, or ``.json``.
        depth
            Counts a cell on the panel; by default as in the data sets that were taught.
        stage
            Model of this stage; by default the one in use.
        progress
            Told about every stage.

        Raises
        ------
        ConfigError, DataError
            If the model has no analytic memory, or knows none of the genes.
        """
        from canal.panels.check import check_panel, read_panel

        return check_panel(self.model(stage), read_panel(genes), depth, watching(progress))

    def design_panel(
        self,
        add: int,
        *,
        start: str | Path | Sequence[str] | None = None,
        stage: int | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
    ) -> "PanelDesign":
        """Choose genes to add to a targeted panel so that it tells the taught types apart.

        Parameters
        ----------
        add
            Number of genes to add.
        start
            Genes that are on it already, or a file of them.
        stage
            Model of this stage; by default the one in use.
        out
            Text file to write: all genes of the panel, a name a line.
        overwrite
            Replace it.

        Raises
        ------
        ConfigError, DataError
            If the model has no analytic memory or fewer genes, or the file cannot be written; nothing is written then.
        """
        from canal.panels.check import read_panel
        from canal.panels.design import design_panel, writable_panel

        target = None if out is None else writable_panel(Path(out), overwrite=overwrite)
        design = design_panel(self.model(stage), add, None if start is None else read_panel(start))
        if target is not None:
            design.write(target)
        return design

    def explain_to(
        self,
        out: str | Path | None,
        *,
        data: "str | Path | ad.AnnData | None" = None,
        stage: int | None = None,
        top: int = 20,
        gene_sets: str | Path | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Score the genes by which the model decides, and write tables and a picture of them.

        Parameters
        ----------
        out
            Folder for genes.csv, gene_sets.csv and top-genes.png; nothing is written where ``None``.
        data, stage, options
            As for `explain`.
        top
            Genes of a type that are shown and tested.
        gene_sets
            Gene sets (.gmt) to test the top genes against.

        Returns
        -------
        The explanation as plain values, with gene sets and the names of the files where there are some.
        """
        from canal.explain.files import explain_to

        # Folder and gene sets are checked first: what takes long is called when they are known to be usable.
        folder = None if out is None else Path(out)
        return explain_to(lambda: self.explain(data, stage=stage, **options), folder, top, gene_sets)


class Workspace(Annotator):
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
        Folders, settings and registry of the workspace.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._models: dict[str, Model] = {}  # that were read, by the digests of their files

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self.layout.root

    @property
    def labels(self) -> str:
        """Column of ``obs`` with the cell types, as ``canal.toml`` names it."""
        return self.layout.settings.labels

    # The main path: add, annotate, evaluate, promote.

    def add_stage(
        self,
        data: "str | Path | ad.AnnData",
        *,
        labels: str | None = None,
        name: str | None = None,
        preset: str | None = None,
        overrides: str | Sequence[str] = (),
        seed: int | None = None,
        label_map: str | Path | Mapping[str, str] | None = None,
        drop_labels: str | Sequence[str] = (),
        keep_labels: str | Sequence[str] = (),
        gene_key: str | None = None,
        strict_labels: bool = False,
        drop_rare: bool = False,
        resume: bool = False,
        again: bool = False,
        test: str | Path | None = None,
        weights: str | None = None,
        ontology: str | Path = "off",
        devices: int = 1,
        nodes: int = 1,
        promote: bool = True,
        progress: Progress | bool | None = None,
    ) -> "StageResult":
        """Learn the labelled cells of one file as a stage, and keep it.

        Examples
        --------
        >>> result = workspace.add_stage("baron.h5ad", labels="celltype1", name="baron")  # doctest: +SKIP
        >>> result.new_types  # doctest: +SKIP

        Parameters
        ----------
        data
            File of labelled cells, or an AnnData; it is not changed.
        labels
            Column of ``obs`` with the cell types; by default `labels` of the workspace.
        name
            Name of the stage; the file's by default.
        preset, overrides
            Named configuration, and changes of it such as ``["training.epochs=20"]``.
        seed
            From which all randomness comes; it is recorded.
        label_map
            The file's names of types and ours: a CSV file, or a dict. A name mapped to ``None`` is left out.
        drop_labels, keep_labels
            Labels whose cells are left out; types although they are called "other", "doublet" or the like.
        gene_key
            Column of ``var`` with the gene names.
        strict_labels
            Refuse new names that look like known types.
        drop_rare
            Leave out types with fewer than two cells.
        resume
            Go on from the last epoch of a run that was stopped.
        again
            Take cells that were added before.
        test
            File of labelled cells to test on, from now on at every stage.
        weights
            Pre-trained weights to start from, by name or folder.
        ontology
            ``"auto"``: types are placed in the Cell Ontology by their names, and answers are also given as specifically
            as they are sure; a table as of `accept_labels` instead; ``"off"``: neither.
        devices, nodes
            Processes on each node, and nodes, that train together.
        promote
            Bring the stage into use where it does not forget too much; else it stays a candidate, to be looked at and
            brought into use with `promote`.
        progress
            Told how far the training is.

        Raises
        ------
        ConfigError, DataError, StageError, RegistryError
            If preset, file, request or registry does not allow it; nothing is kept then.
        """
        from canal.stages.add import add_stage
        from canal.stages.request import StageRequest

        settings = self.layout.settings
        request = StageRequest(
            data=data,
            labels=column_of(labels, "labels") or settings.labels,
            name=name,
            preset=settings.preset if preset is None else preset,
            overrides=names_of(overrides, "overrides"),
            seed=settings.seed if seed is None else seed,
            resume=resume,
            again=again,
            drop_rare=drop_rare,
            strict_labels=strict_labels,
            label_map=map_of(label_map),
            gene_key=gene_key,
            drop_labels=names_of(drop_labels, "drop_labels"),
            keep_labels=names_of(keep_labels, "keep_labels"),
            test=path_of(test, "test"),
            weights=weights,
            ontology=None if str(ontology) == "off" else ontology,
            devices=devices,
            nodes=nodes,
            promote=promote,
        )
        return add_stage(self.layout, request, watching(progress))

    def annotate_files(
        self,
        files: Sequence[str | Path],
        out: str | Path,
        *,
        stage: int | None = None,
        dask: str | None = None,
        **options: Any,
    ) -> "list[Annotation]":
        """Annotate files one after the other, or on the workers of a Dask cluster.

        Parameters
        ----------
        files, out
            Files of cells, or patterns such as ``"runs/*.h5ad"``; the file to write, or a folder for several.
        stage
            Model of this stage; by default the one in use.
        dask
            ``tcp://host:port`` of a scheduler, or ``local:N`` for N workers on this machine.
        options
            As for `annotate`.
        """
        if dask is None:
            return super().annotate_files(files, out, stage=stage, **options)
        from canal.cluster.shards import annotate_on_dask

        if options.get("cas") is not None:
            message = "A document of --cas is written of cells that are annotated here. Leave --dask out."
            raise ConfigError(message)
        if options.pop("filter", None) is not None:
            message = "A filter chooses cells of a SOMA experiment that is annotated here. Leave --dask out."
            raise ConfigError(message)

        # The progress stays here; what is left are the keywords that travel to the workers.
        progress = watching(options.pop("progress", None))
        return annotate_on_dask(
            self.layout,
            expanded(files),
            dask,
            out=Path(out),
            stage=stage,
            options=_annotate_options(**options),
            progress=progress,
        )

    def promote(self, number: int) -> "Promotion":
        """Bring a stage into use, so that it annotates from now on; its files are checked first."""
        from canal.stages.use import promote

        return promote(self.layout, number)

    def rollback(self) -> "Promotion":
        """Bring the stage into use again that the one in use was learned from."""
        from canal.stages.use import roll_back

        return roll_back(self.layout)

    # What was kept: stages, models, files.

    def stages(self) -> list[StageRecord]:
        """Return the record of every committed stage, in order."""
        return self._registry().records()

    def stage(self, number: int | None = None) -> StageRecord:
        """Return the record of a stage, by default the one in use."""
        return self._registry().record(number)

    def champion(self) -> int | None:
        """Return the number of the stage in use, or ``None`` before the first."""
        return self._registry().champion()

    def reliability(self, number: int | None = None) -> "Reliability | None":
        """Return how well a stage's confidence agrees with its accuracy; ``None`` where nothing was kept of it."""
        from canal.stages.testing.tests import read_reliability

        registry = self._registry()
        return read_reliability(registry, registry.record(number))

    def bank(self, number: int | None = None) -> dict[str, Any]:
        """Return size, cells per type and cells per stage of a stage's example bank."""
        record = self.stage(number)
        contents = dict(record.bank)
        if IMPORTED in record.notes:  # its own record counts by the stages of the registry that it comes from
            contents["per_stage"] = {str(record.number): contents["size"]} if contents.get("size") else {}
        return contents

    def model(self, number: int | None = None) -> "Model":
        """Return the model of a stage, by default of the one in use; read once."""
        return self._read_model(number)

    def _answering(self, number: int | None) -> "Model":
        """Return the model that annotates, be it a voter alone."""
        return self._read_model(number, voter_alone=True)

    def _read_model(self, number: int | None, *, voter_alone: bool = False) -> "Model":
        """Return the model of a stage, read once; see `Registry.model` on voters."""
        registry = self._registry()
        record = registry.record(number)
        if record.is_voter:
            return registry.model(record, voter_alone=voter_alone)
        # By content, not by number: the stage in use may change between two calls.
        key = " ".join(sorted(record.artifacts.values()))  # weights alone are the same where types were renamed
        if key not in self._models:
            self._models[key] = registry.model(record)
        return self._models[key]

    @property
    def registry_place(self) -> str:
        """Address of the registry for messages, never with a password."""
        return self._registry().place

    def verify(self) -> list[Problem]:
        """Compare every file of every stage with its hash, follow every reference, and return the problems."""
        return self._registry().verify()

    def leftovers(self) -> list[Orphan]:
        """Return what killed commands left and no stage needs: what `gc` deletes."""
        return self._registry().orphans()

    def gc(self, *, keep_drafts: bool = False, cache_limit: int = LIMIT) -> list[Orphan]:
        """Delete what killed runs left behind, and cached copies beyond a limit; return what was deleted.

        Parameters
        ----------
        keep_drafts
            Keep what `canal stage add` and `canal pretrain` could go on from with ``--resume``.
        cache_limit
            Bytes that cached copies may take.
        """
        removed: list[Orphan] = []
        # A workspace can have weights before its first stage: then there is no registry to clean. With neither, opening
        # the registry says so.
        if has_registry(self.layout) or not self.layout.weights.is_dir():
            removed += self._registry().collect_garbage(keep_drafts=keep_drafts, cache_limit=cache_limit)
        if not keep_drafts:
            removed += remove_working_folders(self.layout.weights)
        return removed

    # Features; each is a folder of its own.

    def find_novel(
        self,
        data: "str | Path | ad.AnnData",
        out: str | Path,
        *,
        alpha: float = 0.05,
        stage: int | None = None,
        min_size: int = 10,
        resolution: float = 1.0,
        batch: str | None = None,
        gene_key: str | None = None,
        uncertain: bool = False,
        adapt: bool = False,
        progress: Progress | bool | None = None,
    ) -> "NovelReport":
        """Group the novel cells of a file and write the evidence for each group.

        Parameters
        ----------
        data
            File of cells, or an AnnData; it is not changed.
        out
            Folder to write, whole or not at all: ``novel.h5ad``, ``names.csv``, ``novel.json``, ``index.html`` and
            pictures.
        alpha
            Share of known cells that may be called novel.
        stage
            Model of this stage; by default the one in use.
        min_size
            Clusters of fewer cells are set aside.
        resolution
            Of the clustering; higher for more clusters.
        batch
            Column of ``obs`` with batch or donor; found by its name by default.
        gene_key
            Column of ``var`` with the gene names.
        uncertain
            Group uncertain cells, too.
        adapt
            Adapt the model to the file, batch by batch, before it judges; as for `annotate`.
        progress
            Told about every block of cells.

        Raises
        ------
        DataError, StageError
            If file, folder, column or model cannot be used; nothing is written then.
        """
        from canal.novel.find import FindOptions, find_novel

        options = FindOptions(
            alpha=alpha,
            min_size=min_size,
            resolution=resolution,
            batch=batch,
            gene_key=gene_key,
            uncertain=uncertain,
            adapt=adapt,
        )
        return find_novel(self.model(stage), data, Path(out), options, watching(progress))

    def name_novel(
        self,
        folder: str | Path,
        *,
        names: "str | Path | Mapping[str, str] | None" = None,
        labels: str = "cell_type",
        known_ok: bool = False,
        with_known: bool = True,
    ) -> "Naming":
        """Write the cells of the named groups of `find_novel`, ready for `add_stage`.

        Parameters
        ----------
        folder
            Result of `find_novel`.
        names
            The filled table, or the name of each cluster, as ``{"1": "B"}``; ``names.csv`` of the folder by default.
        labels
            Column of ``obs`` for the names.
        known_ok
            Allow names of types that the model knows.
        with_known
            Write the file's cells that are surely of known types along with them, so that the stage is balanced.
        """
        from canal.novel.folder import name_novel

        given = names if isinstance(names, Mapping) else path_of(names, "names")
        return name_novel(Path(folder), names=given, labels=labels, known_ok=known_ok, with_known=with_known)

    def suggest_labels(
        self,
        *,
        names: "str | Path | Sequence[str] | None" = None,
        data: "str | Path | ad.AnnData | None" = None,
        labels: str | None = None,
        stage: int | None = None,
        tissue: str = "",
        species: str = "",
        out: str | Path | None = None,
        overwrite: bool = False,
    ) -> "LabelReport":
        """Suggest terms of the Cell Ontology for names of cell types.

        Parameters
        ----------
        names
            CSV file with a column ``name``, or the names themselves.
        data, labels
            Labelled cells, and the column of ``obs`` with their types.
        stage
            Types of this stage; without names and data those of the one in use.
        tissue, species
            Where the cells come from, in words; ``"human"`` or ``"mouse"``, by default as the genes of ``data`` are.
        out, overwrite
            Table to write, to look through and give to `accept_labels`; replace it where it is there.

        Raises
        ------
        ConfigError, DataError, StageError, RegistryError
            If there is nothing to read names from, or more than one thing.
        """
        from canal.files import check_file
        from canal.labels.suggest import names_in_file, names_in_table, species_of_file, suggest_labels

        if sum(given is not None for given in (names, data, stage)) > 1:
            message = "Names can come from a table, from a file of cells or from a stage; expected one of the three."
            raise ConfigError(message)
        if out is not None and check_file(Path(out), ".csv", "--out").exists() and not overwrite:
            message = f"{out} is there already, and somebody may have filled it. Name another file, or --overwrite it."
            raise DataError(message)
        if isinstance(names, str | Path):
            chosen = names_in_table(Path(names))
        elif names is not None:
            chosen = tuple(names)
        elif data is not None:
            chosen = names_in_file(data, column_of(labels, "labels") or self.labels)
            species = species or species_of_file(data)
        else:
            chosen = self.stage(stage).types
        report = suggest_labels(chosen, tissue=tissue, species=species)
        if out is not None:
            report.write(Path(out))
        return report

    def accept_labels(self, table: str | Path) -> "AcceptedLabels":
        """Take the terms of a table that `suggest_labels` wrote and somebody filled into the workspace."""
        from canal.labels.accepted import accept_labels

        return accept_labels(self.layout, Path(table))

    def list_labels(self, stage: int | None = None) -> "LabelList":
        """Return the types of a stage, by default of the one in use, and the terms they stand for."""
        from canal.labels.accepted import list_labels

        return list_labels(self.layout, stage)

    def label_tree(self, stage: int | None = None, *, out: str | Path | None = None) -> "LabelTree":
        """Return the types of a stage, by default of the one in use, as a tree of the Cell Ontology.

        With ``out``, a picture of it is written there, too: ``.svg`` or ``.png``.
        """
        from canal.labels.accepted import label_tree, list_labels

        if out is None:
            return label_tree(list_labels(self.layout, stage))
        from canal.labels.picture import check_picture, write_tree_picture

        check_picture(Path(out))
        tree = label_tree(list_labels(self.layout, stage))
        write_tree_picture(tree, Path(out))
        return tree

    def rename_type(self, old: str, new: str, *, progress: Progress | None = None) -> "RenamingResult":
        """Commit a new stage in which the type ``old`` is called ``new``; nothing is deleted."""
        from canal.history.relabel import rename_type

        return rename_type(self.layout, old, new, progress=progress)

    def merge_types(self, *types: str, into: str, progress: Progress | None = None) -> "RenamingResult":
        """Commit a new stage in which two types or more are one, called ``into``; nothing is deleted."""
        from canal.history.relabel import merge_types

        return merge_types(self.layout, types, into, progress=progress)

    def split_type(
        self,
        type_: str,
        data: "str | Path | ad.AnnData",
        *,
        labels: str | None = None,
        name: str | None = None,
        label_map: str | Path | Mapping[str, str] | None = None,
        gene_key: str | None = None,
        progress: Progress | bool | None = None,
    ) -> "StageResult":
        """Commit a new stage that tells kinds of a type apart; nothing is deleted.

        Parameters
        ----------
        type_
            A type of the model in use. It is answered as one of its kinds from then on.
        data
            Cells of this type under finer names: a file, or an AnnData.
        labels, name, label_map, gene_key, progress
            As for `add_stage`.
        """
        from canal.stages.add import add_stage
        from canal.stages.placing import AUTO
        from canal.stages.request import StageRequest

        settings = self.layout.settings
        request = StageRequest(
            data=data,
            labels=column_of(labels, "labels") or settings.labels,
            name=name,
            preset=settings.preset,
            seed=settings.seed,
            label_map=map_of(label_map),
            gene_key=gene_key,
            # A model that answers as specifically as it is sure of goes on doing so.
            ontology=None if self.model().sure is None else AUTO,
            split=type_.strip(),
        )
        return add_stage(self.layout, request, watching(progress))

    def compare(
        self,
        *numbers: int,
        html: str | Path | None = None,
        recompute: bool = False,
        references: bool = False,
        progress: Progress | bool | None = None,
    ) -> "CompareReport":
        """Compare stages, all by default; with ``html``, write a page of the comparison there, too."""
        from canal.compare.gather import compare_stages
        from canal.files import check_file

        # Refused before the work, not after it.
        if html is not None:
            check_file(Path(html), ".html", "--html")
        watched = watching(progress)
        report = compare_stages(self.layout, numbers, recompute=recompute, references=references, progress=watched)
        if html is not None:
            from canal.compare.page import write_compare_page

            write_compare_page(self.layout, report, Path(html), watched)
        return report

    def diff(
        self,
        a: int,
        b: int,
        *,
        data: "str | Path | ad.AnnData | None" = None,
        out: str | Path | None = None,
        gene_key: str | None = None,
        progress: Progress | bool | None = None,
    ) -> "StageDiff":
        """Return what is different in stage ``b`` as compared with stage ``a``.

        Parameters
        ----------
        a, b
            Numbers of the stages.
        data
            Cells to annotate with both.
        out
            CSV file to write: the cells of ``data`` whose type changes.
        gene_key
            Column of ``var`` with the gene names.
        progress
            Told about every block of cells.
        """
        from canal.history.diff import check_changes_file, stage_difference, write_changes

        # Refused before the work, not after it.
        if out is not None:
            check_changes_file(Path(out), data)
        difference = stage_difference(self.layout, a, b, data=data, gene_key=gene_key, progress=watching(progress))
        if out is not None and difference.cells is not None:
            write_changes(difference.cells, (a, b), Path(out))
        return difference

    def remove(self, number: int, *, progress: Progress | bool | None = None) -> "RemovalResult":
        """Commit a new stage without the cells of stage ``number``; nothing is deleted."""
        from canal.history.remove import remove_stage

        return remove_stage(self.layout, number, progress=watching(progress))

    def replay(
        self, out: str | Path, *, declarations: str | Path | None = None, progress: Progress | bool | None = None
    ) -> "ReplayReport":
        """Build all stages again in a new workspace, and compare every file with the one there was.

        Parameters
        ----------
        out
            The new workspace; empty or not there yet.
        declarations
            Folder of declarations, ``NNN-name.toml``; the workspace's own by default.
        progress
            Told how far the training is.
        """
        from canal.history.replay import replay

        folder = self.layout.stages if declarations is None else Path(declarations)
        return replay(folder, Path(out), progress=watching(progress))

    def export(self, path: str | Path, number: int | None = None) -> StageRecord:
        """Write a stage, by default the one in use, to one file, signed where this has a key; return its record."""
        from canal.registry.signature import own_key

        registry = self._registry()
        number = registry.record(number).number
        return registry.export(number, Path(path), private_key=own_key(self.layout.keys))[0]

    def import_stage(self, path: str | Path, *, name: str | None = None, unsigned: bool = False) -> StageRecord:
        """Import the stage of an export as the next stage of the registry; return its record.

        Parameters
        ----------
        path
            File of `export`.
        name
            Name of the stage here; the one it had by default.
        unsigned
            Take it, too, where this workspace lists keys that it trusts and none of them signed it.
        """
        from canal.history.exchange import import_stage
        from canal.registry.package import open_package
        from canal.registry.signature import check_signer, demands_signatures

        if not unsigned and demands_signatures(self.layout.keys):
            with open_package(Path(path)) as package:
                check_signer(Path(path), package.signer, self.layout.keys)
        return import_stage(self.layout, Path(path), name)[0]

    def export_site(
        self,
        out: str | Path,
        *,
        stage: int | None = None,
        site: str | None = None,
        genes: str | Path | None = None,
        min_cells: int | None = None,
        max_directions: int | None = None,
        with_network: bool = False,
    ) -> dict[str, Any]:
        """Write the statistics of a stage to one file that can be merged with those of other sites.

        Parameters
        ----------
        out
            File to write, such as ``north.canal``.
        stage
            Number of the stage; the one in use by default.
        site
            Name of the site; the name of the file by default.
        genes
            List of the genes that the sites agreed on.
        min_cells, max_directions
            Types of fewer cells are left out; most directions of the spread of a type.
        with_network
            Give the network away, too, which was trained on cells.

        Returns
        -------
        The manifest of the export.
        """
        from canal.sites.export import MAX_DIRECTIONS, MIN_CELLS, ExportOptions, export_site

        options = ExportOptions(
            site=site,
            stage=stage,
            genes=path_of(genes, "genes"),
            min_cells=MIN_CELLS if min_cells is None else min_cells,
            max_directions=MAX_DIRECTIONS if max_directions is None else max_directions,
            with_network=with_network,
        )
        return export_site(self.layout, Path(out), options)

    def audit_export(
        self,
        export: str | Path,
        data: str | Path,
        *,
        labels: str | None = None,
        donor: str | None = None,
        gene_key: str | None = None,
        out: str | Path | None = None,
        seed: int = 0,
        progress: Progress | bool | None = None,
    ) -> "Audit":
        """Attack an export with the cells of its site, and say how well it is told who was among them.

        Parameters
        ----------
        export
            File of `export_site`.
        data
            The labelled cells that were taught.
        labels
            Column of ``obs`` with the cell types; by default `labels` of the workspace.
        donor
            Column of ``obs`` with the donors.
        gene_key
            Column of ``var`` with the gene names.
        out
            File to write: the export with the outcome in its manifest, signed where this workspace has a key.
        seed
            Of the way in which the cells are parted.
        progress
            Told about every type.
        """
        from canal.registry.signature import own_key
        from canal.sites.audit import AuditOptions, audit_export
        from canal.sites.export import with_audit

        target = path_of(out, "out")
        if target is not None:
            check_new(target)
        options = AuditOptions(
            labels=column_of(labels, "labels") or self.labels,
            gene_key=gene_key,
            donor=column_of(donor, "donor"),
            seed=seed,
        )
        audit = audit_export(Path(export), Path(data), options, watching(progress))
        if target is not None:
            with_audit(Path(export), target, audit.to_dict(), own_key(self.layout.keys))
        return audit

    def site_key(self) -> str:
        """Return the public key of this workspace, whose exports are signed from then on.

        One is made where there is none; the private key stays in ``keys/site.key``.
        """
        from canal.registry.signature import make_key, public_key

        return public_key(make_key(self.layout.require().keys))

    def trust_key(self, name: str, key: str) -> dict[str, str]:
        """Trust the exports that a key signed; return the names of all trusted keys, by key.

        Parameters
        ----------
        name
            Whose key it is.
        key
            As `site_key` returned it there: ``ed25519:`` and 64 hexadecimal digits.
        """
        from canal.registry.signature import trust

        return trust(self.layout.require().keys, name, key)

    def trusted_keys(self) -> dict[str, str]:
        """Return the names of the keys that this workspace trusts, by key."""
        from canal.registry.signature import trusted_keys

        return trusted_keys(self.layout.keys)

    def merge_sites(
        self,
        files: Sequence[str | Path],
        out: str | Path | None = None,
        *,
        name: str = "joint",
        without: str | Sequence[str] = (),
        type_map: str | Path | None = None,
        preset: str | None = None,
        disjoint: bool = False,
        unsigned: bool = False,
        progress: Progress | bool | None = None,
    ) -> StageRecord:
        """Merge exports of sites into one model, without a cell; return its record.

        Parameters
        ----------
        files
            Files of `export_site`, in any order.
        out
            File to write; without one the model becomes the next stage of this workspace.
        name
            Name of the joint model.
        without
            Files or names of sites that are left out.
        type_map
            CSV file with the columns ``name`` and ``to``, and if wanted ``site``: which types are the same.
        preset
            Preset of the joint model; that of the sites by default.
        disjoint
            Whether a site may have no type in common with any other.
        unsigned
            Take exports, too, that nobody signed, or whose signer this workspace does not trust; see `trust_key`.
        progress
            Told about the training of the network.

        Raises
        ------
        StageError, RegistryError, DataError
            If an export cannot be used, or the exports do not fit together; nothing is written then.
        """
        from tempfile import TemporaryDirectory

        from canal.sites.merge import MergeOptions, merge_sites, write_merged

        target = path_of(out, "out")
        # What cannot be written is told before anything is computed.
        if target is None:
            self.layout.require(or_vacant=True)
        else:
            check_new(target)
        options = MergeOptions(
            without=names_of(without, "without"),
            type_map=path_of(type_map, "type_map"),
            preset=preset,
            disjoint=disjoint,
            name=name,
            keys=None if unsigned else self.layout.keys,
        )
        model = merge_sites([Path(file) for file in files], options, watching(progress))
        if target is not None:
            write_merged(target, model)
            return model.stage
        with TemporaryDirectory(prefix="canal-merge-") as folder:
            write_merged(Path(folder) / "joint.canal", model)
            return self.import_stage(Path(folder) / "joint.canal", unsigned=True)

    def start_from(self, model: str | Path) -> StageRecord:
        """Make a model the first stage of this workspace, which has none yet; return its record.

        Parameters
        ----------
        model
            Name of a model that comes with canal, such as ``blood``, or a file of `export` or `import_celltypist`.

        Raises
        ------
        ConfigError, RegistryError
            If there is no such model, or the workspace has stages already; nothing is changed then.
        """
        from canal.history.exchange import import_stage
        from canal.registry.shipped import model_file

        path = model_file(model)
        if path.suffix == ".pkl":
            message = (
                f"{path} is a pickle; expected a voter, which is made from it without running it: canal models "
                f"import-celltypist {path}. Then start from {path.stem}.voter."
            )
            raise ConfigError(message)
        # Asked before anything is made: a workspace in use goes on as it is.
        if self.layout.exists and has_registry(self.layout) and (stages := self._registry().records()):
            message = (
                f"{self.layout.root} has stages already ({len(stages)}); a model can be the start of a new workspace "
                f"only. Make another with `canal init DIR --from {model}`, or add it as one more stage with "
                f"`canal registry import {path}`."
            )
            raise ConfigError(message)
        if path.suffix == ".voter":
            from canal.stages.voted import add_voter

            return add_voter(self.layout, path)
        return import_stage(self.layout, path)[0]

    def weights(self) -> list[dict[str, Any]]:
        """Return name, digest and facts of each of the workspace's pre-trained weights, by name."""
        from canal.stages.starting import list_weights

        return list_weights(self.layout.require())

    def find_weights(self, name: str) -> "PretrainedWeights":
        """Read pre-trained weights by their name or folder; their files are compared with their hashes."""
        from canal.stages.starting import find_weights

        return find_weights(self.layout, name)

    def import_weights(
        self, file: str | Path, *, genes: str | Path, gene2vec: str | Path | None = None, name: str | None = None
    ) -> "PretrainedWeights":
        """Check a checkpoint in scBERT's published layout and keep it.

        Parameters
        ----------
        file
            ``.pth``, ``.pt`` or ``.safetensors``.
        genes
            Genes of its table in order: text, ``.json`` or ``.h5ad``.
        gene2vec
            Vectors of these genes: compared with the checkpoint's, or used where it has none.
        name
            Name of the weights; the file's by default.
        """
        from canal.weights.weights import import_weights

        return import_weights(
            self.layout, Path(file), genes=Path(genes), gene2vec=path_of(gene2vec, "gene2vec"), name=name
        )

    def export_weights(self, name: str, out: str | Path) -> "tuple[PretrainedWeights, Path]":
        """Write weights in scBERT's published layout; return them and the file of their genes beside it."""
        from canal.weights.weights import export_weights, genes_beside

        return export_weights(self.layout, name, Path(out)), genes_beside(Path(out))

    def pretrain(
        self,
        data: Sequence[str | Path],
        *,
        name: str = "pretrained",
        seed: int | None = None,
        progress: Progress | bool | None = None,
        **options: Any,
    ) -> "PretrainedWeights":
        """Pre-train a Performer on unlabelled cells and keep its weights.

        Parameters
        ----------
        data
            Files of cells; they may be larger than memory.
        name
            Name of the weights.
        seed
            The recorded seed; by default what ``canal.toml`` says.
        progress
            Told about every group of blocks.
        options
            The other fields of `canal.pretrain.run.PretrainRequest`.
        """
        from canal.pretrain.run import PretrainRequest, pretrain

        chosen = self.layout.settings.seed if seed is None else seed
        request = PretrainRequest(data=[Path(path) for path in data], name=name, seed=chosen, **options)
        return pretrain(self.layout, request, watching(progress))

    def list_models(self, catalogue: str | None = None) -> "list[dict[str, Any]]":
        """Return the ready-made models: those that come with canal, then those of the catalogue, if one is named.

        Parameters
        ----------
        catalogue
            Folder, ``file:`` or ``https:`` address; else that of ``CANAL_CATALOGUE``, else that of ``canal.toml``.

        Returns
        -------
        One table a model, as it stands in an index, with ``from``: ``canal``, or the address.

        Raises
        ------
        ConfigError, RegistryError
            If the catalogue cannot be read.
        """
        from canal.catalogue.catalogue import chosen_address
        from canal.catalogue.index import entry_of
        from canal.registry.shipped import shipped_models

        models = []
        for path in shipped_models().values():
            models.append(entry_of(path).model_dump(mode="json") | {"from": "canal"})
        address = chosen_address(catalogue, self.layout.settings.catalogue)
        if address is not None:
            for entry in address.index().models:
                models.append(entry.model_dump(mode="json") | {"from": address.text})
        return models

    def get_model(
        self,
        name: str,
        *,
        out: str | Path | None = None,
        catalogue: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Fetch a model of the catalogue; return its file, whose size and hash are those of the index.

        Parameters
        ----------
        name
            Name of the model.
        out
            File to write; the model's own name in the current folder by default.
        catalogue
            As for `list_models`.
        progress
            Told about the bytes that came.

        Raises
        ------
        ConfigError, DataError, RegistryError
            If the model cannot be had; there is no half of it then.
        """
        from canal.catalogue.catalogue import get_model, required_address

        address = required_address(catalogue, self.layout.settings.catalogue)
        return get_model(address, name, path_of(out, "out"), progress)[1]

    def mirror_models(
        self, folder: str | Path, *, catalogue: str | None = None, progress: Progress | None = None
    ) -> "Mirror":
        """Copy the whole catalogue into a folder, which is one then; what is there already is not fetched again.

        Parameters
        ----------
        folder
            Where the copy is to be.
        catalogue, progress
            As for `get_model`.
        """
        from canal.catalogue.catalogue import mirror, required_address

        address = required_address(catalogue, self.layout.settings.catalogue)
        return mirror(address, Path(folder), progress)

    def add_model(self, file: str | Path, *, catalogue: str | None = None) -> dict[str, Any]:
        """Put a model into a catalogue that is a folder; return its entry in the index.

        Parameters
        ----------
        file
            File of `export`, or one that was built to be given away.
        catalogue
            As for `list_models`; a new or empty folder becomes a catalogue.
        """
        from canal.catalogue.catalogue import add_model, required_address

        address = required_address(catalogue, self.layout.settings.catalogue)
        return add_model(address, Path(file)).model_dump(mode="json")

    def presets(self) -> "dict[str, tuple[str, str]]":
        """Return text and origin of every preset by name: ``canal``, or the file in the workspace's ``configs/``."""
        from canal.config import shipped_presets

        presets = {name: (text, "canal") for name, text in shipped_presets().items()}
        # A preset of the workspace takes the place of a shipped one of the same name.
        for path in sorted(self.layout.configs.glob("*.toml")):
            presets[path.stem] = (path.read_text(encoding="utf-8"), str(path))
        return presets

    def preset(self, name: str | None = None) -> dict[str, Any]:
        """Return every value of a preset, by default of the workspace's own."""
        from canal.config import dump_preset, load_preset

        return dump_preset(load_preset(name or self.layout.settings.preset, folder=self.layout.configs))

    def _registry(self) -> Registry:
        return open_registry(self.layout)


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


class LoadedModel(Annotator):
    """A model that was loaded from a file: it annotates without a workspace.

    Parameters
    ----------
    model
        Model of the stage that the file holds.
    """

    labels = "cell_type"  # there is no canal.toml to name another column

    def __init__(self, model: "Model") -> None:
        self._model = model

    def model(self, number: int | None = None) -> "Model":
        """Return the model; it is of one stage only."""
        if number is not None and number != self._model.stage.number:
            message = (
                f"The file holds the model of stage {self._model.stage.number} alone; stage {number} was asked for."
            )
            raise ConfigError(message)
        return self._model


class LoadedVoter(Annotator):
    """A voter that was imported from CellTypist: it annotates without a workspace, and has no stage.

    Parameters
    ----------
    voter
        Its weights.
    stage
        Number of the stage that it is; 0 of a voter that is none.
    """

    labels = "cell_type"

    def __init__(self, voter: "Voter", stage: int = 0) -> None:
        self.voter = voter
        self._stage = stage

    def model(self, number: int | None = None) -> "Model":  # noqa: ARG002
        """Refuse: a voter has weights of genes alone, and none of what a model of canal keeps."""
        message = (
            f"{self.voter.name} is a voter of CellTypist: it annotates, and can neither be evaluated nor explained. "
            "Use a model that was taught by `canal stage add`."
        )
        raise ConfigError(message)

    def annotate(
        self,
        data: "str | Path | ad.AnnData",
        *,
        out: str | Path | None = None,
        inplace: bool = False,
        filter: str | None = None,
        progress: Progress | bool | None = None,
        **options: Any,
    ) -> "Annotation":
        """Annotate the type of every cell as CellTypist does; with ``out``, write the cells there.

        Parameters
        ----------
        data, out, inplace, filter, progress
            As for `Annotator.annotate`.
        options
            ``majority_voting``, ``key_added``, ``gene_key`` and ``overwrite``; a voter cannot follow the others.

        Raises
        ------
        ConfigError, DataError
            If an option asks for what a voter has not, or the file cannot be annotated.
        """
        from canal.data.soma import chosen_cells
        from canal.voter.annotate import annotate_with_voter

        if inplace and isinstance(data, str | Path):
            message = "inplace adds the annotation to an AnnData in memory; the cells are in a file. Name one with out."
            raise ConfigError(message)
        data = chosen_cells(data, filter)
        annotation = annotate_with_voter(
            self.voter, data, options, path_of(out, "out"), watching(progress), stage=self._stage
        )
        if inplace:
            assert not isinstance(data, str | Path)
            annotation.to_adata(data, key=str(options.get("key_added") or "canal"), copy=False)
        return annotation


def load_model(name: str | Path) -> LoadedModel | LoadedVoter:
    """Load a model that comes with canal, such as ``blood``, or that of an export; every byte is checked.

    Parameters
    ----------
    name
        Name of a model that comes with canal, or a file: of `Workspace.export`, such as ``model.canal``, or of
        `import_celltypist`, such as ``Immune_All_Low.voter``.

    Raises
    ------
    ConfigError, RegistryError
        If there is no such model; if the file is damaged, or of a newer canal.
    """
    from canal.registry.package import open_package
    from canal.registry.shipped import model_file

    path = model_file(name)
    if path.suffix == ".voter":
        from canal.model.voter import Voter

        return LoadedVoter(Voter.load(path))
    with open_package(path) as package:
        model = package.load()
    if model.voter is not None and not model.is_taught:
        return LoadedVoter(model.voter, stage=model.stage.number)
    return LoadedModel(model)


def annotate(
    adata: "ad.AnnData", model: str | Path = "blood", *, inplace: bool = False, **options: Any
) -> "ad.AnnData":
    """Annotate cells in one line, with a ready-made model.

    Examples
    --------
    >>> adata = canal.annotate(adata, model="blood")  # doctest: +SKIP
    >>> adata.obs["canal_cell_type"]  # doctest: +SKIP

    Parameters
    ----------
    adata
        Cells.
    model
        As for `load_model`, or the folder of a workspace, whose stage in use annotates.
    inplace
        Add the annotation to ``adata`` itself, and return it.
    options
        As for `Workspace.annotate`, without ``stage`` where the model is no workspace.

    Returns
    -------
    A copy of the cells with the annotation; ``adata`` itself with ``inplace``.

    Raises
    ------
    CanalError
        If there is no such model, or the cells cannot be annotated.
    """
    if isinstance(adata, str | Path):
        message = (
            f"{adata} is a file; expected an AnnData. Read it with anndata.read_h5ad, or write the annotated file with "
            f"canal.load_model({str(model)!r}).annotate({str(adata)!r}, out=...)."
        )
        raise DataError(message)
    annotator = open_workspace(model) if Path(model).is_dir() else load_model(model)
    annotation = annotator.annotate(adata, inplace=inplace, **options)
    if inplace:
        return adata
    return annotation.to_adata(adata, key=str(options.get("key_added") or "canal"))


def import_celltypist(file: str | Path, out: str | Path | None = None) -> "tuple[LoadedVoter, Path]":
    """Read a model of CellTypist without running anything in it, and write it as a voter that annotates.

    Parameters
    ----------
    file
        ``.pkl`` as CellTypist writes it.
    out
        File to write, ``NAME.voter``; of the model's name in the current folder by default.

    Returns
    -------
    The voter, and the file it was written to.

    Raises
    ------
    WeightsError, DataError
        If the file is no such model, or the voter cannot be written; nothing is written then.
    """
    from canal.voter.celltypist import import_celltypist

    voter, path = import_celltypist(Path(file), path_of(out, "out"))
    return LoadedVoter(voter), path


def describe_model(name: str | Path) -> dict[str, Any]:
    """Return what is known of a model without a workspace: its card, types, genes, figures, size and digest.

    Parameters
    ----------
    name
        As for `load_model`.

    Raises
    ------
    ConfigError, RegistryError
        As `load_model`.
    """
    from canal.registry.shipped import describe_package, model_file

    return describe_package(model_file(name))


def describe_site(file: str | Path, html: str | Path | None = None) -> dict[str, Any]:
    """Return what the export of a site says of itself, with its size and digest; every byte is checked.

    Parameters
    ----------
    file
        The export.
    html
        Page to write of it, for whoever has to allow that it leaves the house.

    Raises
    ------
    RegistryError
        If it is damaged, changed, of a newer canal, holds cells, or is no export of a site.
    """
    from canal.sites.show import describe_export, write_export_page

    facts = describe_export(Path(file))
    if html is not None:
        write_export_page(Path(html), facts)
    return facts


def write_site_numbers(
    evaluation: "Evaluation",
    annotator: Annotator,
    out: str | Path,
    *,
    site: str | None = None,
    stage: int | None = None,
) -> None:
    """Write what may leave a site of an evaluation: figures and names of types.

    Parameters
    ----------
    evaluation
        What `Annotator.evaluate` returned.
    annotator, stage
        The workspace or loaded model that evaluated, and the stage whose model it was.
    out
        File to write, ``.json``.
    site
        Name of the site; the name of the file by default.
    """
    from canal.sites.report import check_numbers_file, numbers_of, write_numbers

    target = Path(out)
    check_numbers_file(target)
    write_numbers(target, numbers_of(evaluation, annotator.model(stage), site or target.stem))


def check_site_numbers(out: str | Path) -> None:
    """Refuse a file that `write_site_numbers` cannot write, before cells are annotated."""
    from canal.sites.report import check_numbers_file

    check_numbers_file(Path(out))


def site_report(files: Sequence[str | Path], html: str | Path | None = None) -> "SiteReport":
    """Join the numbers that sites measured at home into one matrix; with ``html``, write its page.

    Parameters
    ----------
    files
        Files of `write_site_numbers`, or patterns such as ``"numbers/*.json"``.
    html
        Page to write.
    """
    from canal.files import check_file
    from canal.sites.report import join_numbers, write_page

    target = path_of(html, "html")
    if target is not None:
        check_file(target, ".html", "--html")
    report = join_numbers(expanded(files))
    if target is not None:
        write_page(target, report)
    return report


def site_genes(
    files: Sequence[str | Path], out: str | Path | None = None, *, gene_key: str | None = None
) -> tuple[str, ...]:
    """Return the names of the genes that all files have; with ``out``, write them there, a name a line.

    Parameters
    ----------
    files
        Files of cells, of which the genes alone are looked at, and lists of other sites (``.txt``, ``.json``).
    out
        Text file to write.
    gene_key
        Column of ``var`` with the gene names.
    """
    from canal.sites.genes import common_genes, write_genes

    genes = common_genes([Path(file) for file in files], gene_key)
    target = path_of(out, "out")
    if target is not None:
        write_genes(target, genes)
    return genes
