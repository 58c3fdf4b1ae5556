"""A model prepared for the genes of one file: what annotates each block of its cells.

Memory and novelty detector take unit profiles over the same genes and are linear in them up to their first scores.
Their matrices stand side by side, so that a sparse block is multiplied once; it is made dense for the network's genes
only. No other genes of a file are read: `GeneSetReader.columns` lists those that are.

Shapes: n cells, K columns that are read, C types, D representation.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from canal.data.genes import Genes
from canal.data.panel import check_overlap
from canal.data.values import unit_rows
from canal.model.completion import CarriedTypes, carried_types
from canal.model.encoders.compact_arrays import CompactArrays
from canal.model.kinds import shared_among_kinds, without_types
from canal.model.memory import SolvedMemory
from canal.model.novelty.detector import NoveltyReader, NoveltyScores
from canal.model.novelty.neighbours import Neighbours
from canal.model.voter import VoterReader, Votes

if TYPE_CHECKING:
    from canal.model.adapting.adaptation import Adaptation
    from canal.model.adapting.novelty import FileNovelty
    from canal.model.model import Model

# Blocks are filled up with empty cells to a multiple of this: matrix libraries compute the rows at the edge of a matrix
# by other code with other rounding, and a cell must get the same bits whatever block it comes in. So it does where the
# processor has AVX-512; OpenBLAS's older kernels round by a row's place, and there the last bits may differ.
ROWS = 64
DENSE_ROWS = 1024  # cells that are made dense at a time
LEAST_PROBABILITY = 1e-30  # below this in all allowed types, they share the probability evenly


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The model's answer for some cells.

    Attributes
    ----------
    probabilities
        Calibrated probability of each type, float32 of shape (cells, types).
    representation
        Float32 of shape (cells, D).
    logits
        The network's, float32 of shape (cells, types).
    novelty, neighbours
        Novelty of each cell and its nearest cells of the bank, where they were asked for.
    votes
        Which cells the voter answers, where the model has one that can.
    """

    probabilities: np.ndarray
    representation: np.ndarray
    logits: np.ndarray
    novelty: NoveltyScores | None = None
    neighbours: Neighbours | None = None
    votes: Votes | None = None

    def restricted_to(self, allowed: np.ndarray) -> "Prediction":
        """Return the prediction with all probability shared among the allowed types, bool (types,).

        Only taught types can be named: with a choice of them a voter is silent.
        """
        if allowed.all():
            return self
        of_allowed = np.where(allowed, self.probabilities, 0.0)
        total = of_allowed.sum(axis=1, keepdims=True)
        even = np.where(allowed, 1.0 / allowed.sum(), 0.0)
        rescaled = of_allowed / np.maximum(total, LEAST_PROBABILITY)
        probabilities = np.where(total > LEAST_PROBABILITY, rescaled, even).astype(np.float32)
        return replace(self, probabilities=probabilities, votes=None)


class GeneSetReader:
    """A model for files with one set of genes.

    Attributes
    ----------
    match
        The network's genes in the file.
    solved
        The memory solved for these genes, ``None`` where the model has none.
    carried
        Types that were never seen together with these genes, carried to them; ``None`` where there are none.
    solved_kinds
        The memory solved without the coarse types, where the model has such; see `canal.model.kinds`.
    voter
        The voter for these genes, ``None`` where the model has none or it cannot answer.
    columns
        Columns of the file that network, memory or voter read, ascending, (K,).
    neighbors
        Nearest cells of the bank that predictions hold, beside their novelty.

    Parameters
    ----------
    model
        The model.
    genes
        Genes of the file, in the order of its columns.
    """

    def __init__(self, model: "Model", genes: Genes) -> None:
        self.model = model
        self._genes = genes
        # Which columns the network reads, and which the memory.
        self.match = model.panel.match(genes)
        self.solved: SolvedMemory | None = None
        self.solved_kinds: SolvedMemory | None = None
        self.carried: CarriedTypes | None = None
        # Positions of the kinds of each coarse type.
        place = {name: position for position, name in enumerate(model.types)}
        self._kinds = {place[name]: np.array([place[kind] for kind in kinds]) for name, kinds in model.kinds.items()}
        columns = [self.match.columns[self.match.measured]]
        if model.memory is not None:
            self.solved = model.memory.solved_for(genes, model.types)
            # A model from before there were rules answers as it did then.
            if model.fusion.rule == "discriminants":
                self.carried = carried_types(model.memory, self.solved.match.measured, model.types)
            if self._kinds:
                finer = without_types(model.memory, model.kinds)
                self.solved_kinds = finer.solved_for(genes, model.types) if finer.statistics else None
            columns.append(self.solved.columns)
        self.voter: VoterReader | None = None
        if model.voter is not None and (voter := VoterReader(model.voter, model.types, genes)).speaks:
            self.voter = voter
            columns.append(voter.columns)
        self.columns = np.unique(np.concatenate(columns))
        # Both prepared for these columns.
        self._network = _network(self)
        self._matrix: np.ndarray | None = None
        self._novelty: NoveltyReader | None = None
        self.neighbors = 0
        self._adaptations: tuple[Adaptation | None, ...] = ()
        self._file_novelty: tuple[FileNovelty | None, ...] = ()
        self._fill_matrix()

    def check_overlap(self, source: str) -> None:
        """Refuse a file, named for the message, that measures too few genes of the model.

        Raises
        ------
        DataError
            If so; see `canal.data.panel.check_overlap`.
        """
        in_memory = 0 if self.solved is None else len(self.solved.columns)
        check_overlap(self.match, self.model.preset.genes.min_overlap, source, in_memory)

    def novelty(self) -> NoveltyReader | None:
        """Return the novelty detector for these genes, or ``None`` where the model has no analytic memory."""
        return self._made_novelty

    @cached_property
    def _made_novelty(self) -> NoveltyReader | None:
        """The detector, made once: copies of this reader that were taken afterwards have it, too."""
        if self.model.memory is None or not self.model.memory.statistics:
            return None
        return NoveltyReader(self.model.memory, self.model.novelty, self.model.bank, self._genes, self.carried)

    @property
    def scores_novelty(self) -> bool:
        """Whether predictions hold the novelty of each cell."""
        return self._novelty is not None

    def workers(self, cores: int) -> int:
        """Return how many threads may predict at a time: a torch network uses all cores for one block itself."""
        return cores if isinstance(self._network, _CompactNetwork) else 1

    def with_novelty(self, novelty: NoveltyReader, neighbors: int = 0) -> "GeneSetReader":
        """Return a reader whose predictions hold novelty, too, and so many nearest cells of the bank."""
        reader = copy(self)
        reader._novelty, reader.neighbors = novelty, neighbors
        reader._fill_matrix()
        return reader

    def with_adaptations(
        self, adaptations: "Sequence[Adaptation | None]", file_novelty: "Sequence[FileNovelty | None]"
    ) -> "GeneSetReader":
        """Return a reader that is adapted to the groups of a file's cells.

        Parameters
        ----------
        adaptations
            Of each group; ``None`` for the plain answer.
        file_novelty
            What judges the novelty of each group's cells; ``None`` where each cell is judged by itself.
        """
        reader = copy(self)
        reader._adaptations = tuple(adaptations) if any(adaptations) else ()
        reader._file_novelty = tuple(file_novelty) if any(file_novelty) else ()
        return reader

    @property
    def detector(self) -> NoveltyReader | None:
        """What judges novelty, where predictions hold it."""
        return self._novelty

    @property
    def judges_by_file(self) -> bool:
        """Whether the file's own cells have a say in the novelty of some of them."""
        return bool(self._file_novelty)

    def ridge_scores(self, values: sp.csr_matrix) -> np.ndarray:
        """Return the memory's ridge scores (cells, types) of a block (cells, K)."""
        scores = self._products(_padded(values))[0]
        assert scores is not None
        return scores[: values.shape[0]]

    def memory_profiles(self, values: sp.csr_matrix) -> sp.csr_matrix:
        """Return the unit profiles (cells, S) of a block (cells, K) over the memory's genes, in its order."""
        assert self.solved is not None
        return unit_rows(values[:, np.searchsorted(self.columns, self.solved.columns)])

    def predict(self, expression: sp.csr_matrix) -> Prediction:
        """Annotate cells of shape (cells, genes of the file), natural ``log1p`` of values per 10,000."""
        return self.predict_columns(expression[:, self.columns])

    def predict_columns(self, values: sp.csr_matrix, groups: np.ndarray | None = None) -> Prediction:
        """Annotate a block of cells of shape (cells, K).

        Parameters
        ----------
        values
            The ``columns`` of the file, natural ``log1p`` of values per 10,000 over all its genes.
        groups
            Which of the adaptations each cell gets, (cells,); the first by default.

        Returns
        -------
        The prediction, the same bits for a cell whatever block it comes in.
        """
        n = values.shape[0]
        if groups is None:
            groups = np.zeros(n, dtype=np.int64)
        padded = _padded(values)
        # What the file's own cells say is looked up by these.
        profiles = self.memory_profiles(padded) if self._adaptations or self._file_novelty else None
        # Network and memory, and their calibrated sum.
        logits, rep = self._network(padded, n)
        scores, projected, functions, kinds_scores = self._products(padded)
        memory = None if scores is None else self.memory_answer(scores)[:n]
        if self._adaptations and profiles is not None and scores is not None and memory is not None:
            memory = self._adapted(profiles, scores, logits, memory, groups)
        probabilities = self.model.fusion.join(logits, memory)
        # Types that were never seen with these genes take the cells that all others leave.
        if self.carried is not None and functions is not None:
            probabilities = self.carried.take(
                probabilities, functions[:n], lambda rows: self.memory_profiles(padded[rows])
            )
        # Coarse types answer as one of their kinds.
        if self._kinds:
            probabilities = self._shared(probabilities, logits, kinds_scores)
        votes = self._votes(padded, probabilities)
        prediction = Prediction(probabilities=probabilities, representation=rep, logits=logits, votes=votes)
        if self._novelty is None or projected is None:
            return prediction
        # Novelty and neighbours, without those of the empty cells.
        scored = self._novelty.score_projected(projected)
        novelty = NoveltyScores(novelty=scored.novelty[:n], p_value=scored.p_value[:n], alone=scored.alone[:n])
        if self._file_novelty and profiles is not None:
            novelty = self._judged_by_file(profiles, novelty, groups)
        if not self.neighbors:
            return replace(prediction, novelty=novelty)
        nearest = self._novelty.neighbours_projected(projected, self.neighbors)
        neighbours = Neighbours(indices=nearest.indices[:n], distances=nearest.distances[:n])
        return replace(prediction, novelty=novelty, neighbours=neighbours)

    def best_types(self, expression: sp.csr_matrix) -> np.ndarray:
        """Return the name of the most probable type of each cell, (cells,)."""
        names = np.array(self.model.types, dtype=object)
        return np.asarray(names[self.predict(expression).probabilities.argmax(axis=1)])

    def answered(self, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
        """Return type and confidence of each cell, (cells,) each: the voter's where it answers, else the taught one."""
        names = np.asarray(np.array(self.model.types, dtype=object)[prediction.probabilities.argmax(axis=1)])
        confidence = np.asarray(prediction.probabilities.max(axis=1))
        if self.voter is None or prediction.votes is None:
            return names, confidence
        return prediction.votes.over(self.voter.voter, names, confidence)

    def voter_values(self, values: sp.csr_matrix) -> sp.csr_matrix:
        """Return what the voter reads of a block (cells, K): its genes, in its order."""
        assert self.voter is not None
        return values[:, np.searchsorted(self.columns, self.voter.columns)]

    def _votes(self, padded: sp.csr_matrix, probabilities: np.ndarray) -> Votes | None:
        """Return what the voter answers of the first n cells of a padded block; probabilities are (n, types)."""
        if self.voter is None:
            return None
        n, types = probabilities.shape
        # As many rows as the block has: what comes behind the cells is cut off again.
        behind = np.ones((padded.shape[0] - n, types), dtype=probabilities.dtype)
        votes = self.voter.votes(self.voter_values(padded), np.concatenate([probabilities, behind]))
        return Votes(types=votes.types[:n], confidence=votes.confidence[:n])

    def memory_answer(self, scores: np.ndarray) -> np.ndarray:
        """Return what the model's rule makes of ridge scores (cells, types): themselves, or discriminants."""
        assert self.solved is not None
        return self.solved.moments.discriminants.of(scores) if self.model.fusion.rule == "discriminants" else scores

    def among_kinds(self, probabilities: np.ndarray, expression: sp.csr_matrix) -> np.ndarray:
        """Return probabilities (cells, types) with those of coarse types shared among their kinds.

        Parameters
        ----------
        probabilities
            Of the cells, as network and memory together have them.
        expression
            The cells, (cells, genes of the file).
        """
        if not self._kinds:
            return probabilities
        padded = _padded(expression[:, self.columns])
        logits, _ = self._network(padded, len(probabilities))
        return self._shared(probabilities, logits, self._products(padded)[3])

    def _shared(self, probabilities: np.ndarray, logits: np.ndarray, kinds_scores: np.ndarray | None) -> np.ndarray:
        """Return probabilities (n, types) with those of coarse types shared among their kinds.

        Parameters
        ----------
        probabilities, logits
            Of the cells, (n, types).
        kinds_scores
            Ridge scores without the coarse types, of the cells and what pads their block; ``None`` without a memory.
        """
        of_kinds = probabilities
        if kinds_scores is not None and self.solved_kinds is not None:
            # What the model's rule makes of these scores, as of all types'.
            if self.model.fusion.rule == "discriminants":
                kinds_scores = self.solved_kinds.moments.discriminants.of(kinds_scores)
            of_kinds = self.model.fusion.join(logits, kinds_scores[: len(logits)])
        return shared_among_kinds(probabilities, of_kinds, self._kinds)

    def _adapted(
        self, profiles: sp.csr_matrix, scores: np.ndarray, logits: np.ndarray, plain: np.ndarray, groups: np.ndarray
    ) -> np.ndarray:
        """Return what the memory says of the first n cells of a padded block, adapted to their groups, (n, types)."""
        n, answer = len(logits), plain.astype(np.float64)
        padded_logits = np.zeros((len(scores), logits.shape[1]), dtype=logits.dtype)
        padded_logits[:n] = logits
        for group in np.unique(groups).tolist():
            adaptation = self._adaptations[group]
            if adaptation is None:
                continue
            # Every group is computed for the whole block: a cell gets the same bits whatever comes along.
            coordinates = adaptation.components.of(profiles)
            of_group = adaptation.memory_answer(padded_logits, scores, coordinates)[:n]
            answer[groups == group] = of_group[groups == group]
        return answer

    def _judged_by_file(self, profiles: sp.csr_matrix, scored: NoveltyScores, groups: np.ndarray) -> NoveltyScores:
        """Return the novelty of the first n cells of a padded block, judged among the cells of their groups."""
        assert self._novelty is not None
        n, judged = len(scored.novelty), scored.novelty.copy()
        for group in np.unique(groups).tolist():
            file_novelty = self._file_novelty[group]
            if file_novelty is not None:
                of_group = file_novelty.of(profiles)[:n].astype(np.float32)
                judged[groups == group] = of_group[groups == group]
        p_value = self._novelty.for_genes.p_values(judged).astype(np.float32)
        return NoveltyScores(novelty=judged, p_value=p_value, alone=scored.alone)

    def network_outputs(self, expression: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Return the network's logits (cells, types) and representations (cells, D)."""
        n = expression.shape[0]
        return self._network(_padded(expression[:, self.columns]), n)

    def _fill_matrix(self) -> None:
        """Put the memory's weights and the detector's side by side, zero for genes that the memory does not know."""
        if self.solved is None:
            return
        weights = [self.solved.weights]
        if self.carried is not None:
            weights.append(self.carried.weights)
        if self.solved_kinds is not None:
            weights.append(self.solved_kinds.weights)
        if self._novelty is not None:
            weights.append(self._novelty.weights)
        stacked = np.hstack(weights).astype(np.float32)
        # The memory's genes among the columns; those alone count for the length of a profile.
        self._matrix = np.zeros((len(self.columns), stacked.shape[1]), dtype=np.float32)
        self._counts = np.zeros(len(self.columns))
        place = np.searchsorted(self.columns, self.solved.columns)
        self._matrix[place], self._counts[place] = stacked, 1.0

    def _products(
        self, values: sp.csr_matrix
    ) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Return four products: scores, what the detector starts from, carried types, scores without coarse types.

        All are products with unit profiles; ``None`` for what the model does not have.
        """
        if self._matrix is None:
            return None, None, None, None
        # Multiplied as they are, and then divided by the length of each profile.
        squares = sp.csr_matrix((values.data * values.data, values.indices, values.indptr), shape=values.shape)
        length = np.sqrt(squares @ self._counts)
        product = values @ self._matrix
        product *= np.divide(1.0, length, out=np.zeros_like(length), where=length > 0).astype(np.float32)[:, None]
        # In the order in which the matrices stand side by side.
        n_types = len(self.model.types)
        end = n_types if self.carried is None else n_types + self.carried.weights.shape[1]
        functions = product[:, n_types:end] if self.carried is not None else None
        kinds_scores = None
        if self.solved_kinds is not None:
            kinds_scores, end = product[:, end : end + n_types], end + n_types
        return product[:, :n_types], product[:, end:] if self._novelty is not None else None, functions, kinds_scores


class _CompactNetwork:
    """The compact network on the columns that are read, without torch."""

    def __init__(self, reader: GeneSetReader) -> None:
        columns = reader.match.columns[reader.match.measured]
        order = np.argsort(columns)
        self._arrays = CompactArrays.of(reader.model.weights, np.flatnonzero(reader.match.measured)[order])
        self._place = np.searchsorted(reader.columns, columns[order])

    def __call__(self, values: sp.csr_matrix, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and representations of the first n cells."""
        logits, representations = [], []
        for start in range(0, max(values.shape[0], 1), DENSE_ROWS):
            dense = values[start : start + DENSE_ROWS][:, self._place].toarray()
            block_logits, block_representations = self._arrays.outputs(dense)
            logits.append(block_logits)
            representations.append(block_representations)
        return np.concatenate(logits)[:n], np.concatenate(representations)[:n]


class _TorchNetwork:
    """Any other network on the columns that are read."""

    def __init__(self, reader: GeneSetReader) -> None:
        match = reader.match
        columns = np.where(match.measured, np.searchsorted(reader.columns, match.columns), -1)
        names = tuple(match.file_genes[c] for c in reader.columns.tolist())
        self._match = replace(match, columns=columns, file_genes=names)
        self._model = reader.model

    def __call__(self, values: sp.csr_matrix, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and representations of the first n cells."""
        from canal.model.network import PanelCells, run_network

        on_panel = self._match.project(values[:n])
        source = np.zeros(on_panel.shape[0], dtype=np.int64)
        cells = PanelCells(values=on_panel, measured=self._match.measured[None], source=source)
        return run_network(self._model.network, cells)


def _network(reader: GeneSetReader) -> _CompactNetwork | _TorchNetwork:
    compact = reader.model.preset.encoder.kind == "compact"
    return _CompactNetwork(reader) if compact else _TorchNetwork(reader)


def _padded(values: sp.csr_matrix) -> sp.csr_matrix:
    """Return the cells with empty ones behind them, up to a multiple of `ROWS`."""
    n, genes = values.shape
    more = -n % ROWS
    indptr = np.append(values.indptr, np.full(more, values.indptr[-1], dtype=values.indptr.dtype))
    return sp.csr_matrix((values.data, values.indices, indptr), shape=(n + more, genes))
