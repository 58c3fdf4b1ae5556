"""Which terms of the Cell Ontology a name may mean, by its words: candidates with a score, a relation and the reason.

A word counts by how few terms have it. Words that another word of the name makes certain count little ("CD19" of a B
cell), and so do words of a term that follow from others ("alpha-beta" of a CD4-positive T cell). What is left over on
one side tells the relation: a term that says less than the name is broader, one that says more is narrower.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

from canal.ontology.names import Reading, plain_words, readings_of, words_of
from canal.ontology.tree import CellOntology, cell_ontology

# The numbers below were set on the tables of docs/labels.md. With thresholds and three weights changed one at a
# time the first guesses are the same, and between 377 and 394 of 428 names are accepted, .987 to .992 of them right.

# Rare words count 1 at most; the commonest ("epithelial") still this much, or "T" and "B" would say nothing.
LEAST_WEIGHT = 0.3
# Letters that stand for the lineage say most of a name ("B intermediate"), however many terms have them.
LINEAGE, LINEAGE_WEIGHT = frozenset({"t", "b"}), 0.5
# What is the same to the words, not to the letter; of a synonym, twice.
LOOSE = 0.995
# What a word counts that the others make certain, or likely.
CERTAIN_WEIGHT, LIKELY_WEIGHT = 0.04, 0.15
# A word like another: the same stem ("pancreas", "pancreatic"), a slip of the pen, or said by a parent or definition.
STEM, SLIP, BY_ANCESTOR, BY_DEFINITION = 0.9, 0.75, 0.8, 0.35
STEM_LETTERS, SLIP_LETTERS, SLIP_RATIO = 5, 6, 0.86
LEFT_OVER = 0.12  # share of the weight of a name or term that must be left over to make the relation no exact one
# Accepted without asking: this score, and this much before the next term.
ACCEPT_SCORE, ACCEPT_MARGIN = 0.93, 0.04
TO_THE_LETTER = 0.999  # score of a name that is a synonym to the letter; of a label, 1
FEWEST_ORGANS, MOST_KINDS = 3, 0.6  # a term varies by organ: so many kinds of it, and this share of all
MOST_LABELS = 0.8  # share of a file's names that are labels, from which the file is named by the ontology
TISSUE_BONUS = 0.08  # for a term that names the tissue, in its label, synonyms, ancestors or definition
LESS_LIKELY = 0.9  # factor of the scores of a reading that is not the one meant as a rule
SHOWN = 10  # candidates of a name

# Markers that a type has by its definition: by the words of the type, the words that are no news beside them.
LINEAGE_MARKERS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (frozenset({"t"}), frozenset({"cd3"})),
    (frozenset({"b"}), frozenset({"cd19", "cd20", "cd79"})),
    (frozenset({"killer"}), frozenset({"cd56", "cd3negative"})),
    (frozenset({"naive"}), frozenset({"cd45ra", "cd62l", "cd25negative", "cd45ronegative", "ccr7"})),
    (frozenset({"memory"}), frozenset({"cd45ro", "cd45ranegative"})),
    (frozenset({"regulatory"}), frozenset({"foxp3", "cd127negative", "cd127low"})),
    (frozenset({"hematopoietic"}), frozenset({"cd34"})),
    (frozenset({"plasma", "plasmablast"}), frozenset({"cd138", "cd38"})),
    (frozenset({"leukocyte"}), frozenset({"cd45"})),
    (frozenset({"endothelial"}), frozenset({"cd31"})),
    (frozenset({"epithelial"}), frozenset({"epcam"})),
    (frozenset({"cd8"}), frozenset({"cd4negative"})),
    (frozenset({"cd4"}), frozenset({"cd8negative"})),
)
# Words that follow from others, of the name or of the term: where they stand they may help, where not they lack little.
FOLLOWING: tuple[tuple[float, frozenset[str], frozenset[str]], ...] = (
    (CERTAIN_WEIGHT, frozenset({"cd4", "cd8", "double"}), frozenset({"alpha", "beta"})),
    (CERTAIN_WEIGHT, frozenset({"naive", "memory", "regulatory"}), frozenset({"thymic", "derived"})),
    (CERTAIN_WEIGHT, frozenset({"keratinocyte"}), frozenset({"epidermal"})),
    (CERTAIN_WEIGHT, frozenset({"cd56bright"}), frozenset({"cd16negative"})),
    (LIKELY_WEIGHT, frozenset({"cd8"}), frozenset({"cytotoxic"})),
    (LIKELY_WEIGHT, frozenset({"regulatory"}), frozenset({"cd25"})),
    (LIKELY_WEIGHT, frozenset({"plasmacytoid", "conventional"}), frozenset({"myeloid"})),
    (LIKELY_WEIGHT, frozenset({"cd16"}), frozenset({"cd14low", "cd56low"})),
    (LIKELY_WEIGHT, frozenset({"cd14"}), frozenset({"classical", "cd16negative"})),
)
SPECIES = frozenset({"human", "mouse", "mmus", "primate"})
T_MARKERS = frozenset({"cd4", "cd8"})  # with no word for a cell beside them, they are those of T cells
T_STATES = frozenset({"naive", "memory", "cytotoxic", "effector", "regulatory", "helper", "central", "activated"})


@dataclass(frozen=True)
class Context:
    """What is known beside a name.

    Attributes
    ----------
    tissue
        Where the cells come from, in words; ``""`` where it is not known.
    species
        ``"human"``, ``"mouse"`` or ``""``: terms of the other species count less.
    siblings
        The other names of the file.
    """

    tissue: str = ""
    species: str = ""
    siblings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A term that a name may mean.

    Attributes
    ----------
    id, label
        The term.
    relation
        "exact"; "broad" where the term says less than the name, "narrow" where it says more.
    score
        From 0 to 1.
    why
        The name of the term that the words were compared with, and what was left over.
    """

    id: str
    label: str
    relation: str
    score: float
    why: str


@dataclass(frozen=True)
class Suggestion:
    """What a name may mean.

    Attributes
    ----------
    name
        As the lab writes it.
    candidates
        The best first.
    accepted
        Id of the term that is as good as certain, else ``None``.
    """

    name: str
    candidates: tuple[Candidate, ...]
    accepted: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        candidates = []
        for candidate in self.candidates:
            shown = {"id": candidate.id, "label": candidate.label, "relation": candidate.relation}
            candidates.append({**shown, "score": round(candidate.score, 4), "why": candidate.why})
        return {"name": self.name, "candidates": candidates, "accepted": self.accepted}


@dataclass(frozen=True)
class _Entry:
    """One name of one term, with its words."""

    id: str
    text: str
    words: tuple[str, ...]
    is_label: bool


@dataclass
class _Index:
    """The names of all terms by their words."""

    entries: list[_Entry] = field(default_factory=list)
    by_word: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    weights: dict[str, float] = field(default_factory=dict)
    ancestor_words: dict[str, frozenset[str]] = field(default_factory=dict)
    label_words: dict[str, frozenset[str]] = field(default_factory=dict)
    places: set[str] = field(default_factory=set)  # words after "of" in a name: "colon", "thymus"
    literal: dict[str, dict[str, bool]] = field(default_factory=lambda: defaultdict(dict))  # id, and whether its label


class Matcher:
    """Finds the terms that a name may mean.

    Parameters
    ----------
    ontology
        The terms.
    """

    def __init__(self, ontology: CellOntology) -> None:
        self.ontology = ontology
        self._index = _index_of(ontology)
        self._similar: dict[str, dict[str, float]] = {}
        self._varying: dict[str, bool] = {}
        self._defined: dict[str, frozenset[str]] = {}
        self._speaking: dict[tuple[str, ...], bool] = {}

    def suggest(self, name: str, context: Context | None = None) -> Suggestion:
        """Return the terms that a name may mean, and the one that is as good as certain.

        Parameters
        ----------
        name
            As a lab writes it.
        context
            What is known beside it.
        """
        context = context or Context()
        if not plain_words(name):
            return Suggestion(name, (), None)
        tissue = words_of(context.tissue) if context.tissue else ()
        readings = readings_of(name)
        best: dict[str, tuple[Candidate, bool]] = {}
        for reading in readings:
            words = self._telling(reading, name, context)
            factor = _trust(reading, readings, tissue)
            for candidate in self._candidates(words, tissue, context):
                scored = replace(candidate, score=factor * candidate.score)
                if scored.id not in best or scored.score > best[scored.id][0].score:
                    best[scored.id] = (scored, reading.certain)
        # A name that is a label or a synonym to the letter comes first.
        self._set_literal(name, readings, best)
        ranked = sorted(best.values(), key=lambda pair: (-pair[0].score, pair[0].id))[:SHOWN]
        return Suggestion(name, tuple(candidate for candidate, _certain in ranked), self._accepted(ranked, context))

    def _telling(self, reading: Reading, name: str, context: Context) -> tuple[str, ...]:
        """Return the words of a reading without the markers that the type has by its definition.

        They stay where another name of the file is the same but for its markers: "CD16 NK" and "CD56 NK" are two kinds.
        """
        words = _with_t(reading.words)
        without = _without_lineage(words)
        if without == words or self._is_label(name):
            return words
        for sibling in context.siblings:
            others = _with_t(readings_of(sibling)[-1].words)
            if sibling != name and set(_bare(others)) == set(_bare(words)) and set(others) != set(words):
                return words
        return without

    def _is_label(self, name: str) -> bool:
        """Tell whether a name is the label of a term to the letter."""
        return any(self._index.literal.get(_letters(name), {}).values())

    def _set_literal(self, name: str, readings: Sequence[Reading], best: dict[str, tuple[Candidate, bool]]) -> None:
        """Give the terms that are called so to the letter the highest score, unless it stands for another as a rule."""
        if any(reading.whole for reading in readings):
            return
        certain = all(reading.certain for reading in readings)
        needless = any(_without_lineage(reading.words) != reading.words for reading in readings)
        for term_id, is_label in self._index.literal.get(_letters(name), {}).items():
            if needless and not is_label:
                continue  # "CD19+ B cell" is a synonym of a term of its own, and what a lab calls its B cells
            label = self.ontology[term_id].label
            reason = f"{'label' if is_label else 'synonym'} {name!r}, to the letter"
            best[term_id] = (
                Candidate(term_id, label, "exact", 1.0 if is_label else TO_THE_LETTER, reason),
                is_label or certain,
            )

    def _candidates(self, words: tuple[str, ...], tissue: tuple[str, ...], context: Context) -> list[Candidate]:
        """Return a candidate for every term that shares a word with these."""
        # Words like these, of all that the terms have.
        similar = {word: self._similar_words(word) for word in words}
        reached: set[int] = set()
        for others in similar.values():
            for other in others:
                reached |= self._index.by_word[other]
        # The best name of every term.
        best: dict[str, Candidate] = {}
        for number in reached:
            entry = self._index.entries[number]
            candidate = self._in_context(self._compare(words, entry, similar), entry, tissue, context)
            if entry.id not in best or candidate.score > best[entry.id].score:
                best[entry.id] = candidate
        return list(best.values())

    def _weights_of(self, words: Sequence[str], others: Sequence[str]) -> dict[str, float]:
        """Return what each word of a name or of a term counts, beside the words of the other."""
        weights = {word: self._index.weights.get(word, 1.0) for word in words}
        there = {*words, *others}
        for weight, causes, consequences in FOLLOWING:
            if causes & there:
                for word in consequences & set(words):
                    weights[word] = weight
        for word in SPECIES & set(words):
            weights[word] = CERTAIN_WEIGHT
        return weights

    def _definition_words(self, term_id: str) -> frozenset[str]:
        """Return the words of a term's definition; taken apart when they are first asked for."""
        if term_id not in self._defined:
            text = re.sub(r"[^A-Za-z0-9+ -]", " ", self.ontology[term_id].definition)
            self._defined[term_id] = frozenset(words_of(text)) if text.strip() else frozenset()
        return self._defined[term_id]

    def _similar_words(self, word: str) -> dict[str, float]:
        """Return the words of terms that are like a word, and how much."""
        if word not in self._similar:
            similar = {}
            for other in self._index.by_word:
                alike = _likeness(word, other)
                if alike:
                    similar[other] = alike
            self._similar[word] = similar
        return self._similar[word]

    def _compare(self, words: tuple[str, ...], entry: _Entry, similar: dict[str, dict[str, float]]) -> Candidate:
        """Return how well one name of a term fits."""
        weights = self._weights_of(words, entry.words)
        entry_weights = self._weights_of(entry.words, words)
        # Each word of the name takes the word of the term that is most like it.
        shared_name = shared_entry = 0.0
        taken: set[str] = set()
        missed = []
        for word in words:
            fitting = [(similar[word].get(other, 0.0), other) for other in entry.words if other not in taken]
            alike, other = max(fitting, default=(0.0, ""))
            if alike:
                taken.add(other)
                shared_name += alike * weights[word]
                shared_entry += alike * entry_weights[other]
                continue
            # What the term does not say, its ancestors or its definition may.
            if word in self._index.ancestor_words[entry.id]:
                shared_name += BY_ANCESTOR * weights[word]
            else:
                missed.append(word)
                if word in self._definition_words(entry.id):
                    shared_name += BY_DEFINITION * weights[word]
        name_total, entry_total = sum(weights.values()), sum(entry_weights.values())
        score = (shared_name + shared_entry) / (name_total + entry_total)
        extra = [word for word in entry.words if word not in taken]
        return Candidate(
            entry.id,
            self.ontology[entry.id].label,
            _relation(
                sum(weights[word] for word in missed) / name_total,
                sum(entry_weights[word] for word in extra) / entry_total,
            ),
            LOOSE * score if entry.is_label else LOOSE * LOOSE * score,
            _reason(entry, missed, extra),
        )

    def _accepted(self, ranked: Sequence[tuple[Candidate, bool]], context: Context) -> str | None:
        """Return the id of the first candidate where it is as good as certain."""
        if not ranked:
            return None
        first, certain = ranked[0]
        if not certain or first.relation != "exact" or first.score < ACCEPT_SCORE:
            return None
        # The next that is not the same type of a species alone must be well behind, unless the name is a label.
        own = self._index.label_words[first.id]
        for other, _certain in ranked[1:]:
            if self._index.label_words[other.id] ^ own <= SPECIES:
                continue
            if first.score - other.score < ACCEPT_MARGIN and first.score < 1:
                return None
            break
        # "Goblet cell" may be that of the gut, unless the file names types as the ontology does or a tissue is given.
        if not context.tissue and self.varies_by_organ(first.id) and not self._speaks_ontology(context.siblings):
            return None
        return first.id

    def varies_by_organ(self, term_id: str) -> bool:
        """Tell whether most kinds of a term are the same cell of one organ each ("goblet cell of colon")."""
        if term_id not in self._varying:
            own = self._index.label_words[term_id]
            kinds = self.ontology.descendants(term_id)
            of_organs = 0
            for kind in kinds:
                more = self._index.label_words[kind] - own
                of_organs += bool(more) and own <= self._index.label_words[kind] and more <= self._index.places
            self._varying[term_id] = of_organs >= max(FEWEST_ORGANS, MOST_KINDS * len(kinds))
        return self._varying[term_id]

    def _speaks_ontology(self, names: tuple[str, ...]) -> bool:
        """Tell whether most names of a file are labels of the ontology to the letter, commas and all."""
        if names not in self._speaking:
            labels = {term.label.lower() for term in self.ontology.terms.values()}
            exact = sum(name.lower() in labels for name in names)
            self._speaking[names] = exact >= MOST_LABELS * len(names) > 0
        return self._speaking[names]

    def _in_context(self, candidate: Candidate, entry: _Entry, tissue: tuple[str, ...], context: Context) -> Candidate:
        """Return the candidate with a score that minds the tissue and the species."""
        score = candidate.score
        if tissue:
            known = self._index.ancestor_words[entry.id] | self._definition_words(entry.id) | set(entry.words)
            if any(_likeness(word, other) for word in tissue for other in known):
                score += TISSUE_BONUS * (1 - score) if score < 1 else 0.0
        other_species = {"human": "(mmus)", "mouse": "human"}.get(context.species)
        if other_species is not None and other_species in candidate.label.lower():
            score *= 0.9
        return Candidate(candidate.id, candidate.label, candidate.relation, score, candidate.why)


def _index_of(ontology: CellOntology) -> _Index:
    """Return the names of all terms by their words, and what each word counts."""
    index = _Index()
    frequency: Counter[str] = Counter()
    own: dict[str, set[str]] = {}
    names: list[tuple[str, str, bool]] = []
    for term in ontology.terms.values():
        names += [(term.id, term.label, True), *((term.id, synonym, False) for synonym in term.synonyms)]
    # The name of an obsolete term means its replacement.
    for old in ontology.obsolete.values():
        if len(old.replacements) == 1 and old.replacements[0] in ontology:
            names.append((old.replacements[0], old.label.removeprefix("obsolete "), False))
    for term_id, text, is_label in names:
        words = words_of(text)
        if not words:
            continue  # the ontology has an empty synonym
        index.literal[_letters(text)].setdefault(term_id, is_label)
        if is_label:
            index.label_words[term_id] = frozenset(words)
        if " of " in text:
            index.places.update(words_of(text.split(" of ", 1)[1]))
        for word in words:
            index.by_word[word].add(len(index.entries))
        index.entries.append(_Entry(term_id, text, words, is_label))
        own.setdefault(term_id, set()).update(words)
    for words_there in own.values():
        frequency.update(words_there)
    total = math.log(1 + len(own))
    for word, terms in frequency.items():
        least = LINEAGE_WEIGHT if word in LINEAGE else LEAST_WEIGHT
        index.weights[word] = max(least, math.log(1 + len(own) / terms) / total)
    for term in ontology.terms.values():
        above: set[str] = set()
        for ancestor in ontology.ancestors(term.id):
            above |= index.label_words[ancestor]
        index.ancestor_words[term.id] = frozenset(above)
    return index


def _with_t(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words with "t" where a marker and a state of T cells stand without it ("CD4+/CD45RO+ Memory")."""
    others = set(words) - T_MARKERS - T_STATES
    only_markers = all(re.fullmatch(r"cd\d+[a-z]*", word) for word in others)
    return (*words, "t") if T_MARKERS & set(words) and only_markers else words


def _letters(text: str) -> str:
    """Return what two names share that are the same but for case, hyphens and plurals."""
    return " ".join(word for word in plain_words(text) if word != "cell") or "cell"


def _without_lineage(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words without markers that another of them makes certain."""
    needless: set[str] = set()
    for causes, consequences in LINEAGE_MARKERS:
        if causes & set(words):
            needless |= consequences
    return tuple(word for word in words if word not in needless)


def _bare(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words that are no markers."""
    return tuple(word for word in words if re.fullmatch(r"cd\d+[a-z]*", word) is None)


def _trust(reading: Reading, readings: Sequence[Reading], tissue: tuple[str, ...]) -> float:
    """Return by what the scores of a reading are multiplied.

    What a whole name stands for ("acinar" is of the pancreas) goes before its words, unless a tissue is named that
    it does not speak of.
    """
    if not any(other.whole for other in readings):
        return 1.0
    whole = next(other for other in readings if other.whole)
    fits = not tissue or any(_likeness(word, other) for word in tissue for other in whole.words)
    return 1.0 if reading.whole == fits else LESS_LIKELY


@lru_cache(maxsize=200_000)
def _likeness(word: str, other: str) -> float:
    """Return how much two words are alike, 1 where they are the same; 0 where they are not at all."""
    if word == other:
        return 1.0
    shorter = min(len(word), len(other))
    if shorter < STEM_LETTERS:
        return 0.0
    # A part of a longer word ("neuron", "interneuron"); the same stem, all but the ending of both.
    if word.endswith(other) or other.endswith(word):
        return STEM
    same = 0
    while same < shorter and word[same] == other[same]:
        same += 1
    if same >= STEM_LETTERS and same >= shorter - 2 and abs(len(word) - len(other)) <= 3:
        return STEM
    if shorter >= SLIP_LETTERS and word[0] == other[0] and abs(len(word) - len(other)) <= 1:
        ratio = SequenceMatcher(None, word, other).ratio()
        return SLIP if ratio >= SLIP_RATIO else 0.0
    return 0.0


def _relation(missed: float, extra: float) -> str:
    """Return the relation of a term to a name, from the shares of their weights that are left over."""
    if max(missed, extra) < LEFT_OVER:
        return "exact"
    return "broad" if missed >= extra else "narrow"


def _reason(entry: _Entry, missed: Sequence[str], extra: Sequence[str]) -> str:
    """Return in words why a term is a candidate."""
    reason = f"{'label' if entry.is_label else 'synonym'} {entry.text!r}"
    if missed:
        reason += f"; it does not say {', '.join(missed)}"
    if extra:
        reason += f"; the name does not say {', '.join(extra)}"
    return reason


@lru_cache(maxsize=1)
def matcher() -> Matcher:
    """Return the matcher of the bundled ontology; it is made once."""
    return Matcher(cell_ontology())
