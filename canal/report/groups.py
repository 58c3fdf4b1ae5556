"""What tells a group of cells from others, as plain values: marker genes and nearest known types."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MarkerGene:
    """A gene that a cluster has more of than others.

    Attributes
    ----------
    gene
        Its name.
    fold
        Logarithm to base 2 of the ratio of means.
    share, share_others
        Of the cells that have any of it, in the cluster and in those it is compared with.
    p_value
        Adjusted for the number of genes.
    """

    gene: str
    fold: float
    share: float
    share_others: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class NearestType:
    """One of the known types that the cells of a cluster come nearest to.

    Attributes
    ----------
    name
        Of the type.
    share
        Of the cluster's cells whose best known type it is.
    distance
        From the cluster's centre to that of the file's known cells of the type, in the model's representation;
        ``None`` where the file has none.
    """

    name: str
    share: float
    distance: float | None
