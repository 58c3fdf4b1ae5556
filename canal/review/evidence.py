"""What speaks for one type or another: nearest types, confidence, markers, reasons, composition, other stages.

Some of the cells stand for all where genes are read: which ones is drawn from the seed of the stage.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.errors import CanalError
from canal.model.record import StageRecord
from canal.report.annotation import Annotation
from canal.report.groups import MarkerGene, NearestType
from canal.review.opening import Prepared, obs_kind
from canal.review.values import (
    DotPlot,
    Evidence,
    NameSuggestion,
    Reason,
    ReferenceCells,
    StageAnswer,
)
from canal.seeds import numpy_generator
from canal.stages.adapting import BATCH_COLUMNS
from canal.workspace import Workspace

if TYPE_CHECKING:
    import anndata as ad

FEWEST_MEASURED = 10  # held-out cells of a confidence, below which their share of right answers says nothing
# Cells that stand for more: their genes are read one cell at a time, about a millisecond each from a compressed file.
MOST_LOOKED_AT = 300  # of the cells in question
MOST_KNOWN = 600  # known cells of the file, to compare with
MOST_OTHERS = 300  # further cells
MOST_MARKERS = 10
MOST_NEAR = 5
REFERENCE_CELLS = 5  # nearest taught cells of each cell
EXPLAINED_TYPES = 2  # types whose genes are shown
MOST_STAGES = 12  # the latest, whose models are asked
MOST_VALUES = 60  # values of a column that names batches or the like
# Words in the name of a column that parts cells by where they come from.
ORIGINS = (*BATCH_COLUMNS, "patient", "subject", "individual", "dataset", "tissue", "assay", "condition", "disease")
SELECTION = "selection"


class EvidenceReader:
    """Evidence for cells of one file.

    Parameters
    ----------
    workspace
        Whose stages are asked.
    record
        Of the stage whose answers are reviewed.
    prepared
        Cells, answers and expression.
    """

    def __init__(self, workspace: Workspace, record: StageRecord, prepared: Prepared) -> None:
        self._workspace, self._record, self._prepared = workspace, record, prepared
        self._annotation: Annotation = prepared.annotation
        self._known_rows: np.ndarray | None = None

    # What is known of all cells.

    @cached_property
    def predicted(self) -> np.ndarray:
        """The best known type of each cell, (cells,)."""
        return np.asarray(self._annotation.columns.get("best_known", self._annotation.cell_type))

    @cached_property
    def known(self) -> np.ndarray:
        """Which cells look known to the model, bool (cells,); all of them where it does not tell."""
        status = self._annotation.columns.get("status")
        return np.ones(len(self._annotation), dtype=bool) if status is None else np.asarray(status == "known")

    @cached_property
    def centres(self) -> dict[str, np.ndarray]:
        """The centre of the known cells of each type in the model's representation, (D,)."""
        centres = {}
        for name in sorted(set(self.predicted[self.known].tolist())):
            cells = self._annotation.representation[self.known & (self.predicted == name)]
            centres[str(name)] = cells.mean(axis=0, dtype=np.float64)
        return centres

    @cached_property
    def origins(self) -> tuple[str, ...]:
        """Columns of ``obs`` that name batches, donors or the like."""
        source, names = self._prepared.source, []
        for name in map(str, source.obs.columns):
            kind = obs_kind(source, name)
            if kind is not None and kind[0] == "category" and any(word in name.lower() for word in ORIGINS):
                names.append(name)
        return tuple(names)

    def known_sample(self) -> np.ndarray:
        """Return positions of known cells that stand for all of them, ascending; the types take turns."""
        if self._known_rows is None:
            chosen: list[np.ndarray] = []
            types = list(self.centres)
            for name in types:
                rows = np.flatnonzero(self.known & (self.predicted == name))
                chosen.append(self._drawn(rows, max(2, MOST_KNOWN // max(len(types), 1)), f"known:{name}"))
            self._known_rows = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
        return self._known_rows

    def _drawn(self, rows: np.ndarray, most: int, use: str) -> np.ndarray:
        """Return up to so many of some positions, ascending; the same ones each time."""
        if len(rows) <= most:
            return rows
        rng = numpy_generator(self._record.seed, f"review:{use}")
        return np.sort(rng.choice(rows, most, replace=False))

    # Evidence for some cells.

    def evidence(self, rows: np.ndarray, suggestions: Sequence[NameSuggestion]) -> Evidence:
        """Return what speaks for one type or another; ``rows`` are ascending positions, ``suggestions`` go along."""
        looked_at = self._drawn(rows, MOST_LOOKED_AT, "cells")
        against_known, against_others, notes = self._markers(rows, looked_at)
        status = self._annotation.columns.get("status")
        given = self._prepared.given
        return Evidence(
            cells=len(rows),
            looked_at=len(looked_at),
            near=self.nearest_types(rows),
            confidence=self._confidence(rows),
            status={} if status is None else _counts(status[rows]),
            markers=against_known,
            markers_others=against_others,
            composition={name: self.composition(rows, name) for name in self.origins},
            given={} if given is None else _counts(given[rows]),
            suggestions=tuple(suggestions),
            notes=tuple(notes),
        )

    def nearest_types(self, rows: np.ndarray) -> tuple[NearestType, ...]:
        """Return the known types that most of the cells come nearest to, the commonest first."""
        centre = self._annotation.representation[rows].mean(axis=0, dtype=np.float64)
        nearest = []
        for name, count in list(_counts(self.predicted[rows]).items())[:MOST_NEAR]:
            of_type = self.centres.get(name)
            distance = None if of_type is None else float(np.linalg.norm(of_type - centre))
            nearest.append(NearestType(name=name, share=count / len(rows), distance=distance))
        return tuple(nearest)

    def _confidence(self, rows: np.ndarray) -> dict[str, float | None]:
        """Return mean and median confidence, and the accuracy of held-out cells of as much confidence."""
        confidence = self._annotation.confidence[rows]
        mean = float(confidence.mean())
        reliability = self._workspace.reliability(self._record.number)
        measured = None
        if reliability is not None:
            bins = reliability.bins
            place = min(int(mean * len(bins.cells)), len(bins.cells) - 1)
            measured = bins.accuracy[place] if bins.cells[place] >= FEWEST_MEASURED else None
        return {"mean": mean, "median": float(np.median(confidence)), "measured": measured}

    def _markers(
        self, rows: np.ndarray, looked_at: np.ndarray
    ) -> tuple[tuple[MarkerGene, ...], tuple[MarkerGene, ...], list[str]]:
        """Return marker genes against known cells, and against other cells of the file, and what to mind."""
        from canal.novel.groups import find_markers

        known = np.setdiff1d(self.known_sample(), rows)
        others = np.setdiff1d(np.arange(len(self._annotation)), rows, assume_unique=True)
        others = self._drawn(others, MOST_OTHERS, "others")
        notes = []
        if len(rows) < 2:
            notes.append("A single cell has no markers: there is nothing to test.")
        elif len(known) < 2:
            notes.append("The file has no other cells that look known: there are none to compare with.")
        genes = self._prepared.expression.genes
        result = []
        for reference in (known, others):
            expression = sp.vstack(
                [self._prepared.expression.rows(looked_at), self._prepared.expression.rows(reference)], format="csr"
            )
            groups = np.array(["cells"] * len(looked_at) + ["reference"] * len(reference), dtype=object)
            markers = find_markers(expression, groups, genes, reference="reference", top=MOST_MARKERS)
            result.append(markers.get("cells", ()))
        return result[0], result[1], notes

    def composition(self, rows: np.ndarray, column: str) -> dict[str, int]:
        """Return the cells by value of a column of ``obs``, most first."""
        values = self._prepared.source.obs[column].iloc[rows].astype(str).to_numpy()
        return dict(list(_counts(values).items())[:MOST_VALUES])

    # What models say of the cells.

    def cells_as_adata(self, rows: np.ndarray, types: Sequence[str] | None = None) -> "ad.AnnData":
        """Return some cells, log-normalised; with ``types``, (cells,), in their ``obs["type"]``."""
        import anndata as ad
        import pandas as pd

        names = self._annotation.cell_names[rows].astype(object)
        return ad.AnnData(
            X=self._prepared.expression.rows(rows),
            obs=pd.DataFrame({} if types is None else {"type": list(types)}, index=names),
            var=pd.DataFrame(index=list(self._prepared.expression.genes)),
            uns={"log1p": {"base": None}},
        )

    def reasons(self, rows: np.ndarray, top: int) -> list[Reason]:
        """Return the genes by which the model takes the cells for the types that it answers most."""
        looked_at = self._drawn(rows, MOST_LOOKED_AT, "cells")
        wanted = list(_counts(self.predicted[looked_at]))[:EXPLAINED_TYPES]
        # Beside them stand known cells of other types: the genes are those that part the cells from these.
        known = np.setdiff1d(self.known_sample(), rows)
        known = known[~np.isin(self.predicted[known], wanted)]
        both = np.union1d(looked_at, known)
        cells = self.cells_as_adata(both, self.predicted[both].tolist())
        told = self._workspace.explain(
            cells, stage=self._record.number, labels="type", types=wanted, most_cells=MOST_LOOKED_AT
        )
        reasons = []
        for name, values in told.to_dict(top)["types"].items():
            reasons.append(
                Reason(
                    type=name,
                    cells=int(values["cells"]),
                    genes_for=_scores(values.get("genes_for", values["genes"])),
                    genes_against=_scores(values.get("genes_against", [])),
                )
            )
        return reasons

    def reference_cells(self, rows: np.ndarray) -> list[ReferenceCells]:
        """Return the taught cells that lie nearest, by type, the commonest first; none where a stage keeps no cells."""
        looked_at = self._drawn(rows, MOST_LOOKED_AT, "cells")
        try:
            answer = self._asked(self._record.number, looked_at, neighbors=REFERENCE_CELLS)
        except CanalError:  # the stage keeps fewer cells, or none
            return []
        distances: dict[str, list[float]] = {}
        for k in range(1, REFERENCE_CELLS + 1):
            types, lengths = answer.columns.get(f"neighbor_{k}_type"), answer.columns.get(f"neighbor_{k}_distance")
            if types is not None and lengths is not None:
                for name, length in zip(types.tolist(), lengths.tolist(), strict=True):
                    distances.setdefault(str(name), []).append(float(length))
        by_size = sorted(distances.items(), key=lambda item: (-len(item[1]), item[0]))
        return [ReferenceCells(type=name, cells=len(far), distance=sum(far) / len(far)) for name, far in by_size]

    def stage_answers(self, rows: np.ndarray) -> list[StageAnswer]:
        """Return what each of the latest stages says of the cells, the first stage first."""
        looked_at = self._drawn(rows, MOST_LOOKED_AT, "cells")
        in_use = self._workspace.champion()
        answers = []
        for record in self._workspace.stages()[-MOST_STAGES:]:
            told: dict[str, Any] = {"stage": record.number, "name": record.name, "in_use": record.number == in_use}
            try:
                answer = self._asked(record.number, looked_at)
            except CanalError as error:  # such as a stage that knows too few of the genes: the others still answer
                answers.append(StageAnswer(**told, types={}, confidence=0.0, novel=None, error=str(error)))
                continue
            status = answer.columns.get("status")
            answers.append(
                StageAnswer(
                    **told,
                    types=_counts(answer.cell_type),
                    confidence=float(answer.confidence.mean()),
                    novel=None if status is None else float((status == "novel").mean()),
                )
            )
        return answers

    def _asked(self, stage: int, rows: np.ndarray, neighbors: int = 0) -> Annotation:
        """Return what a stage says of some cells, each judged for itself: they are no whole file."""
        from canal.stages.annotate import AnnotateOptions, annotate
        from canal.stages.novelty_rules import NoveltyOptions

        options = AnnotateOptions(rows=(0, len(rows)), novelty=NoveltyOptions(neighbors=neighbors))
        return annotate(self._workspace.model(stage), self.cells_as_adata(rows), options)

    # Figures of genes in groups.

    def dot_plot(self, sets: Sequence[tuple[str, str, np.ndarray]], genes: Sequence[str]) -> DotPlot:
        """Return mean and share of genes.

        Parameters
        ----------
        sets
            Id, title and positions of each row.
        genes
            The columns.
        """
        mean = np.zeros((len(sets), len(genes)), dtype=np.float32)
        share = np.zeros((len(sets), len(genes)), dtype=np.float32)
        for column, gene in enumerate(genes):
            values = self._prepared.expression.gene(gene)
            for row, (_, _, cells) in enumerate(sets):
                of_set = values[cells]
                mean[row, column] = of_set.mean() if len(cells) else 0.0
                share[row, column] = (of_set > 0).mean() if len(cells) else 0.0
        return DotPlot(
            groups=tuple(id_ for id_, _, _ in sets),
            titles=tuple(title for _, title, _ in sets),
            cells=tuple(len(cells) for _, _, cells in sets),
            genes=tuple(genes),
            mean=mean,
            share=share,
        )


def _counts(values: np.ndarray) -> dict[str, int]:
    """Return the values and how often they occur, most first; equals in the order of the alphabet."""
    counted = Counter(map(str, values.tolist()))
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _scores(entries: Sequence[dict[str, Any]]) -> tuple[tuple[str, float], ...]:
    return tuple((str(entry["gene"]), float(entry["score"])) for entry in entries)
