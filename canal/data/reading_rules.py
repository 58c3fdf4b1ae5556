"""How files are read has changed over time; what was recorded by older rules is read by them again."""

from enum import IntEnum


class ReadingRules(IntEnum):
    """The rules by which cells, labels and genes of a file are read; each keeps what those before it do.

    Attributes
    ----------
    FIRST
        Every label is a type, every row of ``var`` a gene, its name as it is spelt.
    SPELLING
        Labels that name no type are left out; names that hold more than a symbol are brought to it, and Ensembl ids are
        read as symbols where a file has no symbols.
    ORTHOLOGUES
        Mouse genes are named as their human orthologues; a gene is known by its former symbol, too.
    """

    FIRST = 1
    SPELLING = 2
    ORTHOLOGUES = 3


NEWEST = max(ReadingRules)
