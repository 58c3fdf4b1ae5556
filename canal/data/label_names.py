"""New type names that may be known types under another name."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "μ": "mu"}  # noqa: RUF001
CELL = re.compile(r"cells?$")


@dataclass(frozen=True, kw_only=True)
class LabelWarning:
    """A new type that may be a known one.

    Attributes
    ----------
    new, known
        The two names.
    reason
        ``"name"``: they are spelt alike; ``"cells"``: the model calls the new type's cells so.
    share
        Share of the new type's cells that are called ``known``; ``None`` for names.
    message
        A sentence for the person who adds the file.
    """

    new: str
    known: str
    reason: Literal["name", "cells"]
    share: float | None
    message: str


def similar_names(new: Sequence[str], known: Sequence[str]) -> list[LabelWarning]:
    """Return the new names that differ from a known one only in spelling.

    Case, plural, punctuation, spaces, word order and "cell" do not count, so that "B cells",
    "b-cell" and "B" are alike; digits and every other letter do, so that "CD4 T" and "CD8 T" are
    not.
    """
    by_spelling = {spelling: name for name in sorted(known, reverse=True) if (spelling := _spelling(name))}
    found = []
    for name in sorted(set(new) - set(known)):
        match = by_spelling.get(_spelling(name))
        if match is not None:
            message = (
                f"The new type {name!r} is spelt like the known type {match!r}. If they are the "
                f"same, map it with --label-map (a row: {name},{match}); otherwise they stay two "
                "types."
            )
            found.append(LabelWarning(new=name, known=match, reason="name", share=None, message=message))
    return found


def called_known(
    labels: np.ndarray, predictions: np.ndarray, known: Sequence[str], floor: float = 0.8
) -> list[LabelWarning]:
    """Return the new types most of whose cells the current model calls one known type.

    Parameters
    ----------
    labels, predictions
        Given and predicted type of each cell, both of shape (cells,).
    known
        Types of the model; predictions that are none of them ("novel") speak for no type.
    floor
        Share of the new type's cells above which it is named.
    """
    assert labels.shape == predictions.shape, (labels.shape, predictions.shape)
    names = set(known)
    found = []
    for name in sorted(set(labels.tolist()) - names):
        called = predictions[labels == name].tolist()
        votes = Counter(p for p in called if p in names).most_common(1)
        if not votes or votes[0][1] <= floor * len(called):
            continue
        match, share = votes[0][0], votes[0][1] / len(called)
        message = (
            f"{share:.0%} of the {len(called)} cells of the new type {name!r} are called {match!r} "
            "by the current model. If they are the same, map it with --label-map (a row: "
            f"{name},{match}); otherwise ignore this."
        )
        found.append(LabelWarning(new=name, known=match, reason="cells", share=share, message=message))
    return found


def _spelling(name: str) -> str:
    """Return what is left of a name without case, plural, punctuation, word order and "cell"."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(GREEK.get(letter, letter) for letter in text)
    words = [CELL.sub("", _singular(word).lower()) for word in re.findall(r"[^\W_]+", text)]
    return "".join(sorted(word for word in words if word))


def _singular(word: str) -> str:
    acronym = re.fullmatch(r"[A-Z0-9]{2,}s", word)  # DCs, HSCs
    plural = len(word) > 4 and word.lower().endswith("s") and not word.lower().endswith(("ss", "us", "is"))
    return word[:-1] if acronym or plural else word
