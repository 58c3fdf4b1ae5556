"""Human names of mouse genes, by the table of orthologues that comes with canal, and the species of a file.

The table has only genes whose names differ between the species; all others are compared in upper case.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from canal.data.symbols.translation import HUMAN, MOUSE

# Names that only one species has must be at least so many before they say which it is. Of the 980 genes of the smallest
# whole file at hand 21 are human alone and none is the mouse's.
LEAST_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class Orthologues:
    """Pairs of a mouse and a human gene, all in upper case.

    Attributes
    ----------
    human
        Human symbol of each mouse symbol; of several mouse genes of one human gene the surest stands first.
    former
        The human symbols among them that have one mouse symbol which most sources predict: it is often their own former
        symbol (AARS, now AARS1).
    """

    human: dict[str, str]
    former: dict[str, str]


@cache
def orthologues() -> Orthologues:
    """Return the table; it is read once."""
    file = resources.files("canal.data.symbols") / "orthologues.tsv.gz"
    human: dict[str, str] = {}
    former: dict[str, str] = {}
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        if line.startswith("#"):
            continue
        mouse, symbol, kind = line.split("\t")
        human.setdefault(mouse.upper(), symbol)
        if kind == "1":
            former.setdefault(symbol, mouse.upper())
    return Orthologues(human=human, former=former)


def species_by_names(names: Sequence[str]) -> str:
    """Return ``"human"`` or ``"mouse"`` by the names that only one of them has; ``""`` where too few are there.

    Parameters
    ----------
    names
        Symbols in upper case.
    """
    table = orthologues()
    mouse = sum(name in table.human for name in names)
    human = sum(name in table.former and name not in table.human for name in names)
    if mouse + human < LEAST_NAMES or mouse == human:
        return ""
    return MOUSE if mouse > human else HUMAN


def human_names(names: Sequence[str]) -> list[str]:
    """Return the symbols of the human orthologues of a file's mouse genes.

    No two genes come to one name: a human name that the file has is left to it, of several orthologues of one gene the
    first of the table has its name, and the others keep their own.

    Parameters
    ----------
    names
        Symbols in upper case.
    """
    table = orthologues()
    own = set(names)
    # The first of each group that the file has, in the order of the table.
    claimed: dict[str, str] = {}
    for mouse, symbol in table.human.items():
        if mouse in own and symbol not in own:
            claimed.setdefault(symbol, mouse)
    return [symbol if claimed.get(symbol := table.human.get(name, "")) == name else name for name in names]


def other_names(names: Sequence[str]) -> list[str]:
    """Return the other symbol that each human gene goes by, its former or its present one; ``""`` where none is known.

    Parameters
    ----------
    names
        Symbols in upper case.
    """
    table = orthologues()
    own = set(names)
    found = []
    for name in names:
        symbol = table.human.get(name, "")
        other = symbol if symbol and table.former.get(symbol) == name else table.former.get(name, "")
        found.append("" if other in own else other)
    return found
