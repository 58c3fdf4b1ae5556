"""A review: one open file, its queue, its map, the evidence, what people decide, and what is taught of it.

`Review` is all that a page or a program needs; it may be called by several threads at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canal.progress import Progress
from canal.review.values import (
    Colour,
    Column,
    Decision,
    DotPlot,
    Evidence,
    GroupState,
    MapPoints,
    NameSuggestion,
    Queue,
    Reason,
    ReferenceCells,
    StageAnswer,
    StagesView,
    Teaching,
)
from canal.workspace import Workspace


def open_review(
    workspace: Workspace,
    path: str | Path,
    *,
    basis: str | None = None,
    labels: str | None = None,
    gene_key: str | None = None,
    fresh: bool = False,
    progress: Progress | bool | None = None,
) -> "Review":
    """Open a file for review: annotate it where it is not, group its cells, and make ready what the map needs.

    Beside ``cells.h5ad`` stand ``cells.h5ad.review.jsonl`` with the decisions, and the folder ``cells.h5ad.review/``
    with what was computed, which may be deleted. Of a result of `canal novel find` both stand in its folder.

    Parameters
    ----------
    workspace
        Whose stages annotate and are taught.
    path
        ``.h5ad`` file, annotated or not, or the folder of a result of `Workspace.find_novel`.
    basis
        Name in ``obsm`` of the coordinates of the map; ``X_umap`` by default where the file has it.
    labels
        Column of ``obs`` with given labels; that of the workspace by default, where the file has it.
    gene_key
        Column of ``var`` with the gene names.
    fresh
        Put the decisions that are there aside (``.1.jsonl``) and begin anew with the stage in use.
    progress
        Told how far it is.

    Raises
    ------
    DataError, StageError, RegistryError
        If the file cannot be reviewed: no cells, annotated by a stage that is gone, a folder that cannot be written to.
    """
    raise NotImplementedError


class Review:
    """An open review; made by `open_review`."""

    workspace: Workspace
    path: Path
    stage: int  # whose model annotated the cells
    notes: tuple[str, ...]  # what to mind, told where the review is shown

    # What is reviewed.

    @property
    def title(self) -> str:
        """Name of the file, for headings."""
        raise NotImplementedError

    @property
    def cells(self) -> int:
        """Number of cells."""
        raise NotImplementedError

    @property
    def types(self) -> tuple[str, ...]:
        """Types that the model knows."""
        raise NotImplementedError

    @property
    def decisions_path(self) -> Path:
        """The file of decisions."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return title, path, stage (number and name), stage in use, cells, cells by status, types and notes."""
        raise NotImplementedError

    # The queue.

    def queue(self, search: str = "", *, kind: str | None = None, status: str | None = None) -> Queue:
        """Return the groups to decide on, those most worth a look first.

        Parameters
        ----------
        search
            Words that must occur in id, title, names, facts or comments; case does not count.
        kind, status
            Only groups of this kind or status.
        """
        raise NotImplementedError

    def group(self, group_id: str) -> GroupState:
        """Return one group; DataError where there is none of that id."""
        raise NotImplementedError

    def history(self, group_id: str | None = None) -> list[Decision]:
        """Return the decisions in order, of one group or all; what was undone is among them."""
        raise NotImplementedError

    def undone(self) -> frozenset[str]:
        """Return the ids of the decisions that were undone."""
        raise NotImplementedError

    # The map.

    def map(self, basis: str | None = None) -> MapPoints:
        """Return the coordinates of all cells, in a basis of `bases` or the one that was chosen at opening."""
        raise NotImplementedError

    def bases(self) -> list[str]:
        """Return the names in ``obsm`` that a map can be drawn by."""
        raise NotImplementedError

    def columns(self) -> list[Column]:
        """Return the columns of ``obs`` to colour by."""
        raise NotImplementedError

    def find_genes(self, text: str, most: int = 20) -> list[str]:
        """Return gene names that begin with a text, then those that contain it; case does not count."""
        raise NotImplementedError

    def colour(self, by: str, name: str = "") -> Colour:
        """Return a value for each cell.

        Parameters
        ----------
        by
            ``"obs"`` or ``"gene"`` with a name; ``"type"``, ``"status"`` (of the model), ``"confidence"``, ``"group"``
            (of the queue), ``"review"`` (the name that people gave).
        name
            Of the column or the gene.

        Raises
        ------
        DataError
            If there is no such column or gene.
        """
        raise NotImplementedError

    # Evidence; of a group, or of any cells by their positions.

    def evidence(self, cells: str | Sequence[int] | np.ndarray) -> Evidence:
        """Return what speaks for one type or another."""
        raise NotImplementedError

    def reasons(self, cells: str | Sequence[int] | np.ndarray, *, top: int = 10) -> list[Reason]:
        """Return the genes by which the model answers as it does, for the types it answers most."""
        raise NotImplementedError

    def reference_cells(self, cells: str | Sequence[int] | np.ndarray) -> list[ReferenceCells]:
        """Return the taught cells that lie nearest, by type."""
        raise NotImplementedError

    def stage_answers(self, cells: str | Sequence[int] | np.ndarray) -> list[StageAnswer]:
        """Return what each taught stage says of the cells, the first stage first."""
        raise NotImplementedError

    def dot_plot(
        self, groups: Sequence[str], genes: Sequence[str], cells: Sequence[int] | np.ndarray | None = None
    ) -> DotPlot:
        """Return the figures of a dot plot.

        Parameters
        ----------
        groups
            Ids of groups, or names of known types (their known cells).
        genes
            Names; unknown ones are an error.
        cells
            Positions of a selection, which becomes the first row.
        """
        raise NotImplementedError

    def composition(self, cells: str | Sequence[int] | np.ndarray, column: str) -> dict[str, int]:
        """Return the cells by value of a column of ``obs``, most first."""
        raise NotImplementedError

    def suggest_names(self, text: str, most: int = 12) -> list[NameSuggestion]:
        """Return names that begin with or resemble a text: given here, known types, terms of the Cell Ontology."""
        raise NotImplementedError

    # Decisions.

    def decide(  # noqa: PLR0913
        self,
        action: str,
        user: str,
        *,
        group: str = "",
        groups: Sequence[str] = (),
        cells: Sequence[int] | np.ndarray = (),
        name: str = "",
        text: str = "",
        decision: str = "",
        key: str = "",
    ) -> Decision:
        """Write one decision down; when this returns it is on disk.

        ::

            name         group, name             reject, doublet, low_quality   group
            split        cells (and group: they leave this one; else whichever they are in), name where known
            merge        groups (two or more), name where known
            comment      group or none, text     approve  group (in a conflict also the decision that is right)
            undo         decision (one's own)

        Parameters
        ----------
        action
            One of `canal.review.values.ACTIONS` but those of stages.
        user
            Who decides.
        group, groups, cells, name, text, decision
            As above; ``cells`` are positions in the file.
        key
            Id for the decision; one that is there already is returned, and nothing is written.

        Raises
        ------
        DataError
            If it is not possible: unknown action or group, empty name, one's own decision to approve, a group that
            somebody split meanwhile. Nothing is written then.
        """
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return all decisions and what holds, as plain values: the export of ``--json``."""
        raise NotImplementedError

    def write_reviewed(
        self, out: str | Path, *, overwrite: bool = False, approved: bool = False, cas: str | Path | None = None
    ) -> dict[str, Any]:
        """Write the file with ``obs["canal_reviewed"]`` and ``obs["canal_reviewer"]``; return the cells by name.

        Parameters
        ----------
        out
            ``.h5ad`` file to write, whole or not at all.
        overwrite
            Replace it where it is there.
        approved
            Only what a second person approved.
        cas
            Document of the Cell Annotation Schema to write, too.
        """
        raise NotImplementedError

    # Teaching.

    def teach(self, user: str, *, approved: bool = False, name: str | None = None) -> Teaching:
        """Begin to teach the named groups in a process of its own; see `teaching`.

        Parameters
        ----------
        user
            Who asks for it.
        approved
            Only groups that a second person approved; else all that are named without a conflict.
        name
            Name of the stage.

        Raises
        ------
        StageError
            If nothing is named, or a teaching is running or waits for promote or discard.
        """
        raise NotImplementedError

    def teaching(self) -> Teaching | None:
        """Return how far the last teaching is, ``None`` before the first."""
        raise NotImplementedError

    def promote(self, user: str) -> Teaching:
        """Bring the candidate of the last teaching into use."""
        raise NotImplementedError

    def discard(self, user: str) -> Teaching:
        """Do not use the candidate of the last teaching; a running teaching is stopped."""
        raise NotImplementedError

    # Stages.

    def stages(self) -> StagesView:
        """Return the stages of the workspace."""
        raise NotImplementedError

    def registry_health(self) -> list[str]:
        """Compare every file of every stage with its hash; return a sentence for each problem."""
        raise NotImplementedError

    def promote_stage(self, number: int, user: str) -> dict[str, Any]:
        """Bring any stage into use; return what changed."""
        raise NotImplementedError

    def roll_back(self, user: str) -> dict[str, Any]:
        """Bring the parent of the stage in use into use; return what changed."""
        raise NotImplementedError

    def stage_diff(self, a: int, b: int, *, file: bool = False) -> dict[str, Any]:
        """Return what is different in stage ``b``; with ``file``, also in the answers for this file."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what is open."""
        raise NotImplementedError
