"""A model adapted to a file, and the guard that keeps it from it.

A cell's answer changes only where both halves of the cells that the mixture was estimated from would change it alike.
"""

from dataclasses import dataclass, replace

import numpy as np

from canal.model.adapting.components import Components
from canal.model.adapting.mixture import Known, Mixture, Sample, fit_mixture

# All chosen on left-out data sets, known technologies and hard files made from the streams; see docs/unseen.md.
LEAST_CELLS = 250  # fewer say less of a file's groups than the memory does
LEAST_GENES = 50  # in common with the memory
UNLIKE_P = 0.05  # a cell with a p-value up to this is unlike what was taught ...
LEAST_UNLIKE = 0.1  # ... and of a file that is worth adapting to there are twice as many as of what was taught
LEAST_AGREEMENT = 0.5  # of the cells that would change, on how many both halves must agree


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """A model adapted to the cells of a file.

    Attributes
    ----------
    known
        What the model knew of the types.
    components
        The file's principal components.
    whole, halves
        The mixture of the whole sample, and those of its halves.
    """

    known: Known
    components: Components
    whole: Mixture
    halves: tuple[Mixture, Mixture]

    def memory_answer(self, logits: np.ndarray, scores: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
        """Return what stands in the place of the memory's discriminants, float64 (n, C).

        It is the plain discriminants for cells on whose type whole and halves do not agree.
        """
        fusion = self.known.fusion
        answer = self.whole.memory_answer(self.known, scores, coordinates)
        best = fusion.evidence(logits, answer).argmax(axis=1)
        agreed = np.ones(len(scores), dtype=bool)
        for half in self.halves:
            of_half = fusion.evidence(logits, half.memory_answer(self.known, scores, coordinates))
            agreed &= of_half.argmax(axis=1) == best
        plain = self.known.moments.discriminants.of(scores)
        return np.where(agreed[:, None], answer, plain)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the guard says of some cells of a file.

    Attributes
    ----------
    held_back
        Why the plain answer is given; empty where the model is adapted.
    cells
        Cells that were looked at.
    unlike
        Share of them that are unlike what was taught.
    moved
        Share of them whose type changes, of those on which both halves agree.
    agreement
        Share of the cells that the whole sample would change, on which both halves agree; 1 where there are none.
    novelty_shift
        What is taken off novelty among the file's cells before it is compared with that of known cells of the stages.
        0 for few cells, and for cells like those taught.
    """

    held_back: str
    cells: int
    unlike: float
    moved: float = 0.0
    agreement: float = 1.0
    novelty_shift: float = 0.0


def judged_before(p_values: np.ndarray) -> Verdict:
    """Return what the guard says of cells before anything but their novelty is known.

    Parameters
    ----------
    p_values
        Of the novelty of the cells, each by itself, (n,).
    """
    n = len(p_values)
    unlike = float((p_values <= UNLIKE_P).mean()) if n else 0.0
    if n < LEAST_CELLS:
        held_back = f"{n} cells; {LEAST_CELLS} are needed to say where the types of a file lie"
        return Verdict(held_back=held_back, cells=n, unlike=unlike)
    if unlike < LEAST_UNLIKE:
        held_back = f"the cells are like those taught: {unlike:.0%} are not, and adapting begins at {LEAST_UNLIKE:.0%}"
        return Verdict(held_back=held_back, cells=n, unlike=unlike)
    return Verdict(held_back="", cells=n, unlike=unlike)


def adapt(
    sample: Sample, known: Known, components: Components, halves: np.ndarray, before: Verdict
) -> tuple[Adaptation | None, Verdict]:
    """Adapt a model to some cells of a file, if two halves of them say the same.

    Parameters
    ----------
    sample
        The cells.
    known
        What the model knows of the types, among ``components``.
    components
        Principal components of these cells.
    halves
        Which half each cell is in, bool (n,).
    before
        Of `judged_before`.
    """
    # Estimated from all cells, and from each half.
    adaptation = Adaptation(
        known=known,
        components=components,
        whole=fit_mixture(sample, known),
        halves=(fit_mixture(sample.take(halves), known), fit_mixture(sample.take(~halves), known)),
    )
    # Which cells would change, and which do because both halves agree.
    fusion, moments = known.fusion, known.moments
    plain = fusion.evidence(sample.logits, moments.discriminants.of(sample.scores)).argmax(axis=1)
    alone = adaptation.whole.memory_answer(known, sample.scores, sample.coordinates)
    agreed = adaptation.memory_answer(sample.logits, sample.scores, sample.coordinates)
    wanted = fusion.evidence(sample.logits, alone).argmax(axis=1) != plain
    moved = fusion.evidence(sample.logits, agreed).argmax(axis=1) != plain
    agreement = float(moved[wanted].mean()) if wanted.any() else 1.0
    if agreement < LEAST_AGREEMENT:
        reason = f"two halves agree on {agreement:.0%} of what would change; {LEAST_AGREEMENT:.0%} are needed"
        return None, replace(before, held_back=reason, agreement=agreement)
    return adaptation, replace(before, moved=float(moved.mean()), agreement=agreement)
