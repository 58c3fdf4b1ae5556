"""A review: one open file, its queue, its map, the evidence, what people decide, and what is taught of it.

`Review` is all that a page or a program needs; it may be called by several threads at once.
"""

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

import canal
from canal.data.formats import open_file
from canal.errors import DataError, StageError
from canal.files import check_file
from canal.model.record import StageRecord
from canal.progress import Progress, watching
from canal.report.annotation import check_target, write_annotation
from canal.report.cas import cell_annotations, write_cell_annotations
from canal.review import export
from canal.review.evidence import SELECTION, EvidenceReader
from canal.review.groups import digest_of
from canal.review.journal import Journal
from canal.review.maps import (
    PCA,
    category_colour,
    computed_basis,
    computed_note,
    computed_points,
    number_colour,
    stored_bases,
    stored_points,
)
from canal.review.opening import (
    Places,
    Prepared,
    alone,
    obs_kind,
    places_of,
    plain_values,
    prepare,
    put_aside,
    stage_that,
    stored_facts,
)
from canal.review.stages_view import stages_view
from canal.review.state import ReviewState, check_person
from canal.review.suggestions import suggested_names
from canal.review.teaching import Teachings, lesson_of
from canal.review.values import (
    CHANGES,
    STAGES,
    VERDICTS,
    Colour,
    Column,
    Decision,
    DecisionRequest,
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
from canal.review.waiting import Wait, Waiting
from canal.stages.sure_answers import terms_by_name
from canal.stages.use import lineage
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
    told = watching(progress)
    places = places_of(Path(path))
    with alone(places):
        notes: list[str] = []
        # 1. Whose answers are reviewed: those that the decisions began with, else the file's own, else those of now.
        if fresh and (aside := put_aside(places)) is not None:
            notes.append(f"The decisions so far stand in {aside}.")
        journal = Journal(places.decisions)
        head = journal.head() if journal.exists else None
        record = _reviewed_stage(workspace, places, head, fresh=fresh, notes=notes)
        if head is not None:
            labels, gene_key = _as_begun(head, labels, gene_key, notes)
        # 2. What is computed once.
        prepared = prepare(workspace, places, record, labels=labels, gene_key=gene_key, progress=told)
        notes += _map_notes(prepared, basis)
        prepared = replace(prepared, notes=(*notes, *prepared.notes))
        # 3. The decisions so far; a new file of them says what they are about.
        digest = digest_of(prepared.annotation.cell_names)
        if head is None:
            journal.create(_head_of(places, record, prepared, digest, gene_key, workspace))
        elif head.get("cells_digest") != digest:
            prepared.close()
            message = (
                f"{places.decisions} is about other cells than those of {places.reviewed}: {head.get('cells')} "
                f"then, {len(prepared.annotation)} now, or other names. Move that file away, or restore the cells."
            )
            raise DataError(message)
    return Review(workspace, places, record, prepared, journal, gene_key=gene_key, basis=basis)


def _reviewed_stage(
    workspace: Workspace, places: Places, head: dict[str, Any] | None, *, fresh: bool, notes: list[str]
) -> StageRecord:
    """Return the record of the stage whose answers are reviewed."""
    in_use = workspace.champion()
    if head is not None:
        record = stage_that(workspace, head, f"The decisions in {places.decisions} are on cells that were annotated")
    else:
        facts = _own_facts(places)
        # A file that begins anew is asked of the stage in use; the clusters of a folder belong to the stage it has.
        if facts is None or (fresh and not places.is_folder):
            record = workspace.stage()
        else:
            record = stage_that(workspace, facts, f"{places.reviewed} was annotated")
    if in_use is not None and record.number != in_use:
        notes.append(
            f"These are the answers of stage {record.number} ({record.name}); stage {in_use} is in use. Begin anew to "
            "review its answers."
        )
    return record


def _own_facts(places: Places) -> dict[str, Any] | None:
    """Return which stage the file says it was annotated by, ``None`` where it was not."""
    file = places.reviewed
    if places.is_folder:
        from canal.novel.folder import read_summary

        file = places.reviewed / "novel.h5ad"
        if not file.is_file():
            return read_summary(places.reviewed)
    with open_file(file) as source:
        return stored_facts(source)


def _map_notes(prepared: Prepared, basis: str | None) -> list[str]:
    """Return what is to be minded of a map that is no UMAP; told at opening, not only where it is drawn."""
    cells = len(prepared.annotation)
    stored = basis is not None or "X_umap" in stored_bases(prepared.source.handles[0].get("obsm", {}))
    return [] if stored or computed_basis(cells) != PCA else [computed_note(cells)]


def _as_begun(
    head: dict[str, Any], labels: str | None, gene_key: str | None, notes: list[str]
) -> tuple[str, str | None]:
    """Return the columns of labels and of genes that the decisions began with: other ones would make other groups."""
    begun = str(head.get("labels", ""))
    if labels is not None and labels != begun:
        notes.append(f"The decisions began with the labels in {begun or 'no column'!r}; {labels!r} is not looked at.")
    return begun, head.get("gene_key") or gene_key


def _head_of(
    places: Places, record: StageRecord, prepared: Prepared, digest: str, gene_key: str | None, workspace: Workspace
) -> dict[str, Any]:
    """Return the first line of a new file of decisions."""
    groups = []
    for group in prepared.groups:
        groups.append(
            {"id": group.id, "kind": group.kind, "title": group.title, "cells": group.cells, "digest": group.digest}
        )
    return {
        "reviewed": places.reviewed.name,
        "cells": len(prepared.annotation),
        "cells_digest": digest,
        "model": str(prepared.annotation.facts.get("model", "")),
        "stage": record.number,
        "stage_name": record.name,
        "model_digest": record.artifacts.get("weights.safetensors", ""),
        "workspace": str(workspace.root.absolute()),
        "labels": prepared.labels,
        "gene_key": gene_key,
        "groups": groups,
        "created": _now(),
        "canal_version": canal.__version__,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


MOST_KEPT = 200  # pieces of evidence
KEY_FORM = re.compile(r"[A-Za-z0-9_-]{1,64}")  # of an id that a page chooses


class Review:
    """An open review; made by `open_review`.

    Parameters
    ----------
    workspace
        Whose stages annotate and are taught.
    places
        Where it stands on disk.
    record
        Of the stage whose answers are reviewed.
    prepared
        Cells, answers, groups and expression.
    journal
        The decisions.
    gene_key, basis
        As for `open_review`.

    Attributes
    ----------
    path
        The file or folder that is reviewed.
    stage
        Number of the stage whose answers are reviewed.
    """

    def __init__(
        self,
        workspace: Workspace,
        places: Places,
        record: StageRecord,
        prepared: Prepared,
        journal: Journal,
        *,
        gene_key: str | None = None,
        basis: str | None = None,
    ) -> None:
        self.workspace, self.path, self.stage = workspace, places.reviewed, record.number
        self._places, self._record, self._prepared, self._journal = places, record, prepared, journal
        self._gene_key, self._basis = gene_key, basis
        self._names = prepared.annotation.cell_names
        self._state = ReviewState(prepared.groups, self._names, record.types)
        self._reader = EvidenceReader(workspace, record, prepared)
        self._teachings = Teachings(places.taught, str(journal.head().get("created", "")))
        self._maps: dict[str, MapPoints] = {}
        self._kept: dict[tuple[str, str], Any] = {}  # evidence of groups, by what and digest
        self._lock = threading.RLock()  # of the state
        self._map_lock = threading.Lock()
        self._evidence_lock = threading.Lock()
        self._waiting = Waiting()  # for the map
        self._teach_lock = threading.Lock()
        self.refresh()
        if basis is not None:
            self.map()  # a name that the file does not have is refused now

    def refresh(self) -> None:
        """Take in what other processes decided."""
        with self._lock:
            self._state.add(self._journal.read_new())

    @property
    def notes(self) -> tuple[str, ...]:
        """What to mind: of the file, the model, and decisions that count for nothing."""
        with self._lock:
            return (*self._prepared.notes, *self._journal.notes, *self._state.notes)

    # What is reviewed.

    @property
    def title(self) -> str:
        """Name of the file, for headings."""
        return self.path.name

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len(self._names)

    @property
    def types(self) -> tuple[str, ...]:
        """Types that the model knows."""
        return tuple(self._record.types)

    @property
    def decisions_path(self) -> Path:
        """The file of decisions."""
        return self._places.decisions

    def describe(self) -> dict[str, Any]:
        """Return title, path, stage (number and name), stage in use, cells, cells by status, types and notes."""
        annotation = self._prepared.annotation
        status = annotation.columns.get("status")
        by_status: dict[str, int] = {}
        if status is not None:
            for name in ("known", "uncertain", "novel"):
                by_status[name] = int((status == name).sum())
        return {
            "title": self.title,
            "path": str(self.path),
            "decisions": str(self.decisions_path),
            "stage": self.stage,
            "stage_name": self._record.name,
            "in_use": self.workspace.champion(),
            "cells": self.cells,
            "cells_by_status": by_status,
            "genes": len(self._prepared.expression.genes),
            "labels": self._prepared.labels,
            "types": list(self.types),
            "notes": list(self.notes),
        }

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
        with self._lock:
            self.refresh()
            live = self._state.live
        counts = {"open": 0, "decided": 0, "conflict": 0, "approved": 0}
        cells = decided = 0
        for state in live:
            counts[state.status] += 1
            cells += state.group.cells
            decided += state.group.cells if state.status in {"decided", "approved"} else 0
        words = search.casefold().split()
        shown = []
        for state in live:
            fits = (kind is None or state.group.kind == kind) and (status is None or state.status == status)
            text = _searched(state) if fits and words else ""
            if fits and all(word in text for word in words):
                shown.append(state)
        return Queue(groups=tuple(shown), counts=counts, cells=cells, cells_decided=decided)

    def group(self, group_id: str) -> GroupState:
        """Return one group; DataError where there is none of that id."""
        with self._lock:
            self.refresh()
            return self._state.group(group_id)

    def history(self, group_id: str | None = None) -> list[Decision]:
        """Return the decisions in order, of one group or all; what was undone is among them."""
        with self._lock:
            self.refresh()
            if group_id is None:
                return list(self._state.lines)
            self._state.group(group_id)  # says that there is none
            told = []
            for line in self._state.lines:
                taken = [*line.payload.get("from", ()), *line.payload.get("groups", ())]
                if line.group == group_id or group_id in taken or group_id in (line.id, f"{line.id}-a"):
                    told.append(line)
            return told

    def undone(self) -> frozenset[str]:
        """Return the ids of the decisions that were undone."""
        with self._lock:
            return frozenset(self._state.undone)

    # The map.

    def map(self, basis: str | None = None) -> MapPoints:
        """Return the coordinates of all cells, in a basis of `bases` or the one that was chosen at opening."""
        wanted = basis or self._basis
        with self._map_lock:
            bases = self.bases()
            if wanted is None and "X_umap" in bases:
                wanted = "X_umap"
            key = wanted or ""
            if key not in self._maps:
                if wanted is None or wanted in {"umap", "pca"}:
                    annotation = self._prepared.annotation
                    points = computed_points(
                        self._prepared.expression,
                        annotation.representation,
                        self._record.seed,
                        self._places.cache,
                        self._waiting,
                    )
                else:
                    obsm = self._prepared.source.handles[0].get("obsm", {})
                    points = stored_points(obsm, wanted, self.cells, str(self.path))
                self._maps[key] = points
            return self._maps[key]

    def map_progress(self) -> Wait | None:
        """Return how far the drawing of the map is, ``None`` where none is being drawn."""
        return self._waiting.told()

    def bases(self) -> list[str]:
        """Return the names in ``obsm`` that a map can be drawn by."""
        return stored_bases(self._prepared.source.handles[0].get("obsm", {}))

    def columns(self) -> list[Column]:
        """Return the columns of ``obs`` to colour by."""
        columns = []
        for name in map(str, self._prepared.source.obs.columns):
            shown = obs_kind(self._prepared.source, name)
            if shown is not None:
                kind: Literal["category", "number"] = "number" if shown[0] == "number" else "category"
                columns.append(Column(name=name, kind=kind, categories=shown[1]))
        return columns

    def find_genes(self, text: str, most: int = 20) -> list[str]:
        """Return gene names that begin with a text, then those that contain it; case does not count."""
        return self._prepared.expression.find(text, most)

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
        annotation = self._prepared.annotation
        if by == "obs":
            return self._column_colour(name)
        if by == "gene":
            return number_colour(self._prepared.expression.gene(name), name)
        if by == "confidence":
            return number_colour(annotation.confidence, "confidence")
        if by == "type":
            return category_colour(annotation.cell_type, "cell type", sorted(set(annotation.cell_type.tolist())))
        if by == "status":
            status = annotation.columns.get("status", np.full(self.cells, "", dtype=object))
            return category_colour(status, "status", ("known", "uncertain", "novel"))
        if by in {"group", "review"}:
            return self._state_colour(by)
        message = f"There is no colour {by!r}; expected obs, gene, type, status, confidence, group or review."
        raise DataError(message)

    def _column_colour(self, name: str) -> Colour:
        source = self._prepared.source
        if name not in source.obs:
            message = f"{self.path} has no column obs[{name!r}]. It has {', '.join(map(str, source.obs.columns))}."
            raise DataError(message)
        values = source.obs[name]
        shown = obs_kind(source, name)
        if shown is None:
            message = f"obs[{name!r}] holds neither numbers nor names: a map cannot be coloured by it. Choose another."
            raise DataError(message)
        if shown[0] == "number":
            return number_colour(np.asarray(values), name)
        order = None
        if values.dtype.name == "category":
            order = [str(category) for category in values.cat.categories]
        return category_colour(plain_values(values), name, order)

    def _state_colour(self, by: str) -> Colour:
        """Return the group of each cell, or what people say it is."""
        with self._lock:
            self.refresh()
            live = self._state.live
        if by == "group":
            values = np.full(self.cells, "", dtype=object)
            for state in live:
                values[state.group.rows] = state.group.id
            return category_colour(values, "group", [state.group.id for state in live])
        reviewed, _ = export.reviewed_columns(live, self._prepared.annotation, approved=False)
        return category_colour(reviewed, "reviewed")

    def warm_up(self) -> None:
        """Load what the first evidence needs, such as the model: some seconds, for a thread beside the page."""
        self.workspace.model(self.stage)
        live = self.queue().groups
        if live:
            self.evidence(live[0].group.id)
        self.suggest_names("cell")

    # Evidence; of a group, or of any cells by their positions.

    def evidence(self, cells: str | Sequence[int] | np.ndarray) -> Evidence:
        """Return what speaks for one type or another."""
        rows = self._rows_of(cells)
        with self._evidence_lock:  # who asks for the same cells meanwhile waits for it
            known: Evidence | None = self._kept.get(("evidence", self._digest(rows)))
            if known is None:
                known = self._reader.evidence(rows, ())
                self._keep("evidence", rows, known)
        # What may be chosen as a name follows from what was decided since.
        return replace(known, suggestions=tuple(self._suggested(known)))

    def _suggested(self, evidence: Evidence) -> list[NameSuggestion]:
        """Return names for cells: those of the types they come near to, and what their labels mean."""
        wanted = [nearest.name for nearest in evidence.near]
        suggestions = [NameSuggestion(name=name, source="known", note="nearest known type") for name in wanted]
        for label in list(evidence.given)[:3]:
            if label and label not in self.types:
                suggestions.append(NameSuggestion(name=label, source="label", note="label of the file"))
                suggestions += self.suggest_names(label, 4)
        once = {suggestion.name: suggestion for suggestion in reversed(suggestions)}
        return [once[name] for name in dict.fromkeys(suggestion.name for suggestion in suggestions)]

    def _digest(self, rows: np.ndarray) -> str:
        return f"{len(rows)}:{hash(rows.tobytes())}"

    def _keep(self, what: str, rows: np.ndarray, value: Any) -> None:
        """Keep what takes long to compute, of the last cells that were looked at."""
        with self._lock:
            self._kept[what, self._digest(rows)] = value
            while len(self._kept) > MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))

    def _rows_of(self, cells: "str | Sequence[int] | np.ndarray") -> np.ndarray:
        """Return the positions of the cells of a group, or those given, ascending and each once."""
        if isinstance(cells, str):
            return self.group(cells).group.rows
        try:
            rows = np.unique(np.asarray(cells, dtype=np.int64))
        except (TypeError, ValueError, OverflowError) as error:
            message = "The cells are no positions in the file; expected whole numbers. Select them anew."
            raise DataError(message) from error
        if not len(rows) or rows[0] < 0 or rows[-1] >= self.cells:
            message = f"Expected positions of cells from 0 to {self.cells - 1}, at least one. Select them anew."
            raise DataError(message)
        return rows

    def reasons(self, cells: str | Sequence[int] | np.ndarray, *, top: int = 10) -> list[Reason]:
        """Return the genes by which the model answers as it does, for the types it answers most."""
        rows = self._rows_of(cells)
        known: list[Reason] | None = self._kept.get((f"reasons:{top}", self._digest(rows)))
        if known is None:
            known = self._reader.reasons(rows, top)
            self._keep(f"reasons:{top}", rows, known)
        return known

    def reference_cells(self, cells: str | Sequence[int] | np.ndarray) -> list[ReferenceCells]:
        """Return the taught cells that lie nearest, by type."""
        return self._reader.reference_cells(self._rows_of(cells))

    def stage_answers(self, cells: str | Sequence[int] | np.ndarray) -> list[StageAnswer]:
        """Return what each taught stage says of the cells, the first stage first."""
        return self._reader.stage_answers(self._rows_of(cells))

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
        sets: list[tuple[str, str, np.ndarray]] = []
        if cells is not None:
            sets.append((SELECTION, SELECTION, self._rows_of(cells)))
        reader = self._reader
        for name in groups:
            if name in self.types:
                sets.append((name, name, np.flatnonzero(reader.known & (reader.predicted == name))))
            else:
                group = self.group(name).group
                sets.append((name, group.title, group.rows))
        return reader.dot_plot(sets, genes)

    def composition(self, cells: str | Sequence[int] | np.ndarray, column: str) -> dict[str, int]:
        """Return the cells by value of a column of ``obs``, most first."""
        if column not in self._prepared.source.obs:
            self._column_colour(column)  # says which columns there are
        return self._reader.composition(self._rows_of(cells), column)

    def suggest_names(self, text: str, most: int = 12) -> list[NameSuggestion]:
        """Return names that begin with or resemble a text: given here, known types, terms of the Cell Ontology."""
        with self._lock:
            given = self._state.names_given
        return suggested_names(self.workspace, text, given, self.types)[:most]

    # Decisions.

    def decide(self, user: str, request: DecisionRequest, *, key: str = "") -> Decision:
        """Write one decision down; when this returns it is on disk.

        Parameters
        ----------
        user
            Who decides.
        request
            What is to be written down.
        key
            Id for the decision; one that is there already is returned, and nothing is written.

        Raises
        ------
        DataError
            If it is not possible: unknown action or group, empty name, one's own decision to approve, a group that
            somebody split meanwhile. Nothing is written then.
        """
        if request.action in STAGES:
            message = f"{request.action!r} is no decision on cells: it is done where the stages are."
            raise DataError(message)
        if key and not KEY_FORM.fullmatch(key):
            message = f"{key!r} cannot be the id of a decision; expected up to 64 letters, digits, - and _."
            raise DataError(message)
        rows = self._rows_of(request.cells) if len(request.cells) else np.zeros(0, dtype=np.int64)
        plain = replace(
            request,
            groups=tuple(dict.fromkeys(request.groups)),
            cells=rows,
            name=request.name.strip(),
            text=request.text.strip(),
        )

        def make() -> Decision:
            return self._filled(plain, user.strip(), key or uuid.uuid4().hex[:16])

        return self._write(make, key)

    def _write(self, make: Callable[[], Decision], key: str = "") -> Decision:
        """Check a decision against all that was decided, and write it, alone."""
        repeated: list[Decision] = []

        def checked(new: list[Decision]) -> Decision | None:
            self._state.add(new)
            if key and (there := self._state.decision(key)) is not None:
                repeated.append(there)  # sent twice, such as after a lost answer
                return None
            made = make()
            self._state.check(made)
            return made

        with self._lock:
            written = self._journal.append(checked)
            if written is None:
                return repeated[0]
            self._state.add([written])
            return written

    def _filled(self, request: DecisionRequest, user: str, key: str) -> Decision:
        """Return a decision with digest and payload, as it is to be written down; the cells are an array."""
        action, group, rows = request.action, request.group, np.asarray(request.cells)
        payload: dict[str, Any] = {}
        digest = ""
        # 1. Which cells it is about.
        if action == "split":
            payload = {"cells": [str(cell) for cell in self._names[rows]], "from": self._sources(group, rows)}
            digest = digest_of(self._names[rows])
            self._state.know_cells(digest, rows)
        elif action == "merge":
            payload = {"groups": list(request.groups)}
            parts = [self._state.group(name).group.rows for name in request.groups]
            digest = digest_of(self._names[np.concatenate(parts)]) if parts else ""
        elif group:
            digest = self._state.group(group).group.digest
        # 2. What is said of them.
        if action in {"approve", "undo"}:
            payload = {"decision": request.decision or self._to_approve(group, user)}
        elif action == "comment":
            payload = {"text": request.text}
        if action == "name" or (action in CHANGES and request.name):
            payload["name"] = request.name
        elif action in VERDICTS and request.text:
            payload["text"] = request.text
        about = "" if action in CHANGES else group
        return Decision(id=key, user=user, time=_now(), action=action, group=about, digest=digest, payload=payload)

    def _sources(self, group: str, rows: np.ndarray) -> list[str]:
        """Return the groups that a split takes cells from: the one that was named, or all that the cells are in."""
        if group:
            outside = int((~np.isin(rows, self._state.group(group).group.rows)).sum())
            if outside:
                message = (
                    f"{outside} of the {len(rows)} selected cells are not in group {group!r}. Select cells of the "
                    "group, or make a group of them without naming one."
                )
                raise DataError(message)
            return [group]
        return [state.group.id for state in self._state.live if np.isin(state.group.rows, rows).any()]

    def _to_approve(self, group: str, user: str) -> str:
        """Return the decision that an approval without one means: the verdict that holds, by somebody else if any."""
        if not group:
            return ""
        state = self._state.group(group)
        if state.status == "conflict":
            return ""
        votes = sorted(state.votes.values(), key=lambda vote: vote.user == user)
        return votes[0].id if votes else ""

    def to_dict(self) -> dict[str, Any]:
        """Return all decisions and what holds, as plain values: the export of ``--json``."""
        with self._lock:
            self.refresh()
            live, lines = self._state.live, list(self._state.lines)
            undone = frozenset(self._state.undone)
        return export.export_of(self._journal.head(), live, lines, undone, self._names)

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
        target = check_target(Path(out), overwrite=overwrite)
        if target.suffix != ".h5ad":
            message = f"{target} does not end in .h5ad; the reviewed cells are written as such a file."
            raise DataError(message)
        document = None if cas is None else check_file(Path(cas), ".json", "--cas")
        if document is not None and document.exists() and not overwrite:
            message = f"{document} is there already. Name another file, or replace it with --overwrite."
            raise DataError(message)
        with self._lock:
            self.refresh()
            live = self._state.live
        annotation = self._prepared.annotation
        reviewed, reviewer = export.reviewed_columns(live, annotation, approved=approved)
        told = export.reviewed_annotation(annotation, reviewed, reviewer)
        write_annotation(self._places.cells, told, target)
        if document is not None:
            model = self.workspace.model(self.stage)
            machine = cell_annotations(
                annotation, key="canal", title=target.name, author=None, terms=terms_by_name(model)
            )
            full = export.reviewed_document(machine, live, self._names, approved=approved)
            write_cell_annotations(full, document)
        return export.counts_of(reviewed)

    # Teaching.

    def teach(
        self, user: str, *, approved: bool = False, name: str | None = None, overrides: Sequence[str] = ()
    ) -> Teaching:
        """Begin to teach the named groups in a process of its own; see `teaching`.

        Parameters
        ----------
        user
            Who asks for it.
        approved
            Only groups that a second person approved; else all that are named without a conflict.
        name
            Name of the stage.
        overrides
            Changes of the preset, as for `Workspace.add_stage`.

        Raises
        ------
        StageError
            If nothing is named, or a teaching is running or waits for promote or discard.
        """
        with self._settling(user):
            last = self.teaching()
            if last is not None and last.state in {"running", "done"}:
                what = "is still running" if last.state == "running" else "waits for promote or discard"
                message = f"Teaching {last.id}, begun by {last.user}, {what}. One stage at a time: settle it first."
                raise StageError(message)
            with self._lock:
                self.refresh()
                live = self._state.live
            lesson = lesson_of(
                live, self._prepared.annotation, self._record.seed, approved=approved, taught=self._taught_already()
            )
            number = self._teachings.next_number()
            title = (name or "").strip() or _stage_name(self.path, number)
            request = {
                "workspace": str(self.workspace.root.absolute()),
                "registry": self.workspace.layout.server,
                "reviewed": str(self._places.reviewed),
                "user": user.strip(),
                "name": title,
                "gene_key": self._gene_key,
                "overrides": list(overrides),
            }
            payload: dict[str, Any] = {"groups": list(lesson.groups), "types": lesson.types, "name": title}
            # Written down first: nothing is taught of which nobody knows who asked for it.
            self._note("teach", user, payload | {"teaching": number})
            self._teachings.begin(number, lesson, request)
        teaching = self.teaching()
        assert teaching is not None
        return teaching

    @contextmanager
    def _settling(self, user: str) -> Iterator[None]:
        """Be the only one, of all threads and processes, who begins or settles a teaching of this review."""
        check_person(user)
        with self._teach_lock, alone(self._places, "teaching.lock"):
            yield

    def _note(self, action: str, user: str, payload: dict[str, Any]) -> Decision:
        """Write down what somebody did with a stage."""

        def make() -> Decision:
            return Decision(id=uuid.uuid4().hex[:16], user=user.strip(), time=_now(), action=action, payload=payload)

        return self._write(make)

    def _taught_already(self) -> set[tuple[str, str]]:
        """Return digest and name of the groups that the stage in use was taught, or one that it was learned from."""
        in_use = self.workspace.champion()
        line = [] if in_use is None else lineage(self.workspace.stages(), in_use)
        taught = set()
        for number in self._teachings.numbers():
            result = self._teachings.teaching(number).result
            if result is not None and result.stage in line:
                for group in self._teachings.request(number)["groups"]:
                    taught.add((str(group["digest"]), str(group["name"])))
        return taught

    def _settled(self, teaching: Teaching) -> Teaching:
        """Return a teaching with what people did with it: the last of promote and discard counts."""
        with self._lock:
            lines = list(self._state.lines)
        state = teaching.state
        # Somebody may have brought it into use by a command.
        if teaching.result is not None and self.workspace.champion() == teaching.result.stage:
            state = "promoted"
        for line in lines:
            if line.action in {"promote", "discard"} and line.payload.get("teaching") == teaching.id:
                state = "promoted" if line.action == "promote" else "discarded"
        return replace(teaching, state=state)

    def teaching(self) -> Teaching | None:
        """Return how far the last teaching is, ``None`` before the first."""
        with self._lock:
            self.refresh()
        numbers = self._teachings.numbers()
        return self._settled(self._teachings.teaching(numbers[-1])) if numbers else None

    def promote(self, user: str) -> Teaching:
        """Bring the candidate of the last teaching into use."""
        with self._settling(user):
            teaching = self._last_done("promoted")
            assert teaching.result is not None
            outcome = self.workspace.promote(teaching.result.stage)
            payload = {"teaching": teaching.id, "stage": teaching.result.stage, "before": outcome.before}
            self._note("promote", user, payload)
            return replace(teaching, state="promoted")

    def _last_done(self, wanted: str) -> Teaching:
        """Return the last teaching, if its candidate can be promoted or discarded."""
        teaching = self.teaching()
        if teaching is None or teaching.result is None:
            state = "there is none" if teaching is None else f"the last one is {teaching.state}"
            message = f"No teaching is done, so that nothing can be {wanted}: {state}. Teach first."
            raise StageError(message)
        return teaching

    def discard(self, user: str) -> Teaching:
        """Do not use the candidate of the last teaching; a running teaching is stopped."""
        with self._settling(user):
            teaching = self.teaching()
            if teaching is not None and teaching.state == "running":
                self._teachings.stop(teaching.id)
                self._note("discard", user, {"teaching": teaching.id})
                return replace(teaching, state="discarded")
            teaching = self._last_done("discarded")
            assert teaching.result is not None
            stage, parent = teaching.result.stage, teaching.result.parent
            payload: dict[str, Any] = {"teaching": teaching.id, "stage": stage}
            # It annotates already: the stage that it was learned from does again.
            if self.workspace.champion() == stage and parent is not None:
                self.workspace.promote(parent)
                payload["back_to"] = parent
            self._note("discard", user, payload)
            return replace(teaching, state="discarded")

    # Stages.

    def stages(self) -> StagesView:
        """Return the stages of the workspace."""
        return stages_view(self.workspace)

    def registry_health(self) -> list[str]:
        """Compare every file of every stage with its hash; return a sentence for each problem."""
        return [str(problem) for problem in self.workspace.verify()]

    def promote_stage(self, number: int, user: str) -> dict[str, Any]:
        """Bring any stage into use; return what changed."""
        check_person(user)
        outcome = self.workspace.promote(number).to_dict()
        self._note("promote", user, {"stage": number, "before": outcome["before"]})
        return outcome

    def roll_back(self, user: str) -> dict[str, Any]:
        """Bring the parent of the stage in use into use; return what changed."""
        check_person(user)
        outcome = self.workspace.rollback().to_dict()
        self._note("promote", user, {"stage": outcome["champion"], "before": outcome["before"]})
        return outcome

    def stage_diff(self, a: int, b: int, *, file: bool = False) -> dict[str, Any]:
        """Return what is different in stage ``b``; with ``file``, also in the answers for this file."""
        data = self._places.cells if file else None
        return self.workspace.diff(a, b, data=data, gene_key=self._gene_key).to_dict()

    def close(self) -> None:
        """Close what is open."""
        self._prepared.close()


def _searched(state: GroupState) -> str:
    """Return all that is said of a group, in lower case."""
    group = state.group
    parts = [group.id, group.title, *map(str, group.facts.values())]
    for vote in state.votes.values():
        parts += [vote.user, *vote.verdict, str(vote.payload.get("text", ""))]
    parts += [str(comment.payload.get("text", "")) for comment in state.comments]
    return "\n".join(parts).casefold()


def _stage_name(path: Path, number: int) -> str:
    """Return a name for a stage that is taught of a file: its name, with a number from the second on."""
    plain = path.name.split(".")[0] or "review"
    return f"{plain}-review" if number == 1 else f"{plain}-review-{number}"
