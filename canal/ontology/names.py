"""The words of a cell type's name, however a lab writes it: "CD14+ Mono", "Mono_CD14", "CD14 monocytes" are the same.

Names and terms go through the same steps, so that what is left differs only where the meaning may.
"""

import csv
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ABBREVIATIONS = Path(__file__).with_name("abbreviations.csv")

GREEK = {
    "\N{GREEK SMALL LETTER ALPHA}": " alpha ",
    "\N{GREEK SMALL LETTER BETA}": " beta ",
    "\N{GREEK SMALL LETTER GAMMA}": " gamma ",
    "\N{GREEK SMALL LETTER DELTA}": " delta ",
    "\N{GREEK SMALL LETTER EPSILON}": " epsilon ",
}
ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4"}
# What tells how much of a marker a cell has, and the word it becomes.
LEVELS = {
    **dict.fromkeys(("positive", "pos", "hi", "high", "plus"), ""),
    **dict.fromkeys(("negative", "neg", "minus", "lacking"), "negative"),
    **dict.fromkeys(("low", "lo", "dim"), "low"),
    "bright": "bright",
}
COUNTS = frozenset({"single", "double", "triple"})  # "double negative" is no level of a marker
MARKER = re.compile(r"cd\d+[a-z]{0,2}")
# A marker with its level written onto it ("CD56bright"), and a cell written onto a marker ("CD4T", "CD19B").
GLUED_LEVEL = re.compile(r"(?i)\b(CD\d+[a-z]{0,2}?)(bright|dim|low|lo|high|hi|pos|neg|int)\b")
GLUED_CELL = re.compile(r"\b([Cc][Dd](?:3|4|8|19|20))(?=[TB](?:\b|_|cm|em|rm|reg|mem|naive))")
# Words that say nothing of the type: every type is one of cells, nor do these.
EMPTY = frozenset({"cell", "the", "of", "and", "in", "from", "metazoa"})
SHORTEST_PLURAL = 4  # letters: "cells", "DCs" and "Tregs" are more than one, "gas" is not


@dataclass(frozen=True)
class Rewriting:
    """Words that stand for others.

    Attributes
    ----------
    written, meaning
        Words, as `words_of` has them.
    whole
        Whether they stand for the others only where nothing else is in the name ("alpha" alone is a cell of the
        pancreas).
    certain
        Whether labs mean this alone by them: "HSC" of the liver is a stellate cell.
    """

    written: tuple[str, ...]
    meaning: tuple[str, ...]
    whole: bool
    certain: bool


@dataclass(frozen=True)
class Reading:
    """What the words of a name may stand for.

    Attributes
    ----------
    words
        In the order of the name, each once.
    certain
        Whether every abbreviation that was expanded is certain.
    whole
        Whether what stands for whole names was used: "alpha" is then a pancreatic alpha cell.
    """

    words: tuple[str, ...]
    certain: bool
    whole: bool


def plain_words(text: str) -> list[str]:
    """Return the words of a name in lower case, without plurals; nothing is expanded.

    Markers carry their level: ``"CD4+"`` and ``"CD4-positive"`` are ``cd4``, ``"CD16-"`` is ``cd16negative``.
    """
    # Accents go, Greek letters are spelt out.
    for letter, name in GREEK.items():
        text = text.replace(letter, name)
    text = unicodedata.normalize("NFKD", text)
    text = "".join(letter for letter in text if not unicodedata.combining(letter))

    # Levels of markers: what is glued on is parted, signs become words.
    text = GLUED_CELL.sub(r"\1 ", text)
    text = GLUED_LEVEL.sub(r"\1 \2 ", text)
    text = re.sub(r"(?i)\b(CD\d+[a-z]{0,2})-(?=$|[\s/,;)_]|CD\d)", r"\1 negative ", text)
    text = re.sub(r"\b(ab|gd|AB|GD|Ab|Gd)[ _-]?T(?=$|[^A-Za-z])", lambda m: _chains(m.group(1)) + " T", text)

    words = []
    for chunk in re.findall(r"[A-Za-z0-9]+", text):
        words += _parted(chunk)
    return _with_levels([_singular(word) for word in words])


def _chains(written: str) -> str:
    """Return the chains of a T cell's receptor in words."""
    return "alpha beta" if written.lower() == "ab" else "gamma delta"


def _parted(chunk: str) -> list[str]:
    """Return the words of letters and digits that stand together: ``"ProB"`` is two, ``"cDC1"`` and ``"CD8A"`` one."""
    if tuple(_singular_chunk(chunk)) in _known_written():
        return [chunk.lower()]
    # A capital after three small letters or more begins a word; so does a digit after a word of four or more.
    parts = re.split(r"(?<=[a-z]{3})(?=[A-Z])|(?<=Pro|Pre)(?=[A-Z])", chunk)
    words = []
    for part in parts:
        matched = re.fullmatch(r"([A-Za-z]{4,}|[Tt][Hh])(\d+)", part)
        words += list(matched.groups()) if matched else [part]
    return [word.lower() for word in words if word]


def _singular_chunk(chunk: str) -> list[str]:
    return [_singular(chunk.lower())]


def _singular(word: str) -> str:
    """Return a word without the ending of a plural."""
    if len(word) >= SHORTEST_PLURAL and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) >= SHORTEST_PLURAL and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word[:-1] if re.fullmatch(r"(dc|nk|t|b|ec)s", word) else word


def _with_levels(words: Sequence[str]) -> list[str]:
    """Return the words with the level of each marker joined to it, and Roman numbers after "type" as digits."""
    joined: list[str] = []
    for word in words:
        after_marker = bool(joined) and MARKER.fullmatch(joined[-1]) is not None
        if after_marker and word in LEVELS:
            joined[-1] += LEVELS[word]
        elif joined and joined[-1] in {"type", "class"} and word in ROMAN:
            joined.append(ROMAN[word])
        elif word not in {"positive", "negative"} or not joined or joined[-1] in COUNTS:
            joined.append(word)
        elif word == "negative":
            joined[-1] += "negative"  # of what is no CD marker: "IgD-negative"
    return joined


@lru_cache(maxsize=1)
def _rows() -> tuple[dict[str, str], ...]:
    with ABBREVIATIONS.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@lru_cache(maxsize=1)
def _known_written() -> frozenset[tuple[str, ...]]:
    """Return the abbreviations of one word: they are not to be taken apart."""
    known = set()
    for row in _rows():
        if re.fullmatch(r"[A-Za-z0-9]+", row["written"]):
            known.add((_singular(row["written"].lower()),))
    return frozenset(known)


@lru_cache(maxsize=2)
def rewritings(*, abbreviations: bool) -> dict[str, list[Rewriting]]:
    """Return what stands for what, by the first word of what is written, the longest first.

    Parameters
    ----------
    abbreviations
        With the abbreviations, which labs use and the ontology does not; else words that mean the same alone.
    """
    table: dict[str, list[Rewriting]] = {}
    for row in _rows():
        if row["where"] != "word" and not abbreviations:
            continue
        written = tuple(plain_words(row["written"]))
        meaning = tuple(plain_words(row["meaning"]))
        table.setdefault(written[0], []).append(
            Rewriting(written, meaning, row["where"] == "whole", row["certain"] == "yes")
        )
    for rows in table.values():
        rows.sort(key=lambda row: (not row.whole, -len(row.written)))
    return table


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a label or synonym of the ontology, those that mean the same as one; without "cell"."""
    words, _certain = _read(text, rewritings(abbreviations=False), whole=False)
    return words


def readings_of(name: str) -> tuple[Reading, ...]:
    """Return what the words of a lab's name may stand for: as they are, with abbreviations, and as a whole name."""
    plain = Reading(words_of(name), whole=False, certain=True)
    table = rewritings(abbreviations=True)
    expanded = Reading(*_read(name, table, whole=False), whole=False)
    as_whole = Reading(*_read(name, table, whole=True), whole=True)
    readings = [plain]
    for reading in (expanded, as_whole):
        if reading.words not in {other.words for other in readings}:
            readings.append(reading)
    return tuple(readings)


def _read(text: str, table: dict[str, list[Rewriting]], *, whole: bool) -> tuple[tuple[str, ...], bool]:
    """Return the words with their meanings, and whether every abbreviation among them is certain."""
    words = plain_words(text)
    useful = [word for word in words if word not in EMPTY]
    if not useful:
        return tuple(words), True
    # A meaning may hold what stands for something again ("Cycling AT2"), but nothing that a meaning of it does.
    first, certain = _rewritten(useful, table, whole=whole)
    second, still_certain = _rewritten(first, table, whole=False)
    if {"t", "b", "killer"} & set(second):
        second = [word for word in second if word != "lymphocyte"]  # a T lymphocyte is a T cell
    return tuple(dict.fromkeys(word for word in second if word not in EMPTY)), certain and still_certain


def _rewritten(words: Sequence[str], table: dict[str, list[Rewriting]], *, whole: bool) -> tuple[list[str], bool]:
    """Return the words with the meaning where words stand for others, and whether all of them are certain."""
    rewritten: list[str] = []
    certain = True
    position = 0
    while position < len(words):
        # The first row that fits is the longest; without one, the word stays.
        meaning: tuple[str, ...] = (words[position],)
        stop = position + 1
        for row in table.get(words[position], ()):
            if tuple(words[position : position + len(row.written)]) != row.written:
                continue
            if row.whole and not (whole and len(row.written) == len(words)):
                continue
            meaning, stop = row.meaning, position + len(row.written)
            certain = certain and row.certain
            break
        rewritten += meaning
        position = stop
    return rewritten, certain
