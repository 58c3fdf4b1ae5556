"""Who gets how many places in the example bank: a decision apart from who is chosen."""

from collections.abc import Mapping

from canal.errors import StageError


def balanced_quotas(available: Mapping[str, int], size: int) -> dict[str, int]:
    """Share ``size`` places equally among types, to the cell.

    Every type gets the same number of places; a place that a rare type cannot fill goes to the others, and what does
    not divide evenly goes to the types with the most cells left over, ties by name. All ``size`` places are filled
    wherever there are that many cells.

    Parameters
    ----------
    available
        Number of cells of each type that can be kept.
    size
        L, the number of places in all.

    Raises
    ------
    StageError
        If there are fewer places than types, so that a type would have no example.
    """
    types = sorted(available)
    if 0 < size < len(types):
        message = (
            f"The example bank has {size} places for {len(types)} cell types, so some types would keep no example. "
            f"Set bank.size to at least {len(types)} (1000 by default), or to 0 to keep no cell of anybody."
        )
        raise StageError(message)
    quotas = dict.fromkeys(types, 0)
    left, open_types = min(size, sum(available.values())), types
    while left > 0 and open_types:
        share = left // len(open_types)
        if share == 0:
            by_rest = sorted(open_types, key=lambda t: (quotas[t] - available[t], t))
            for name in by_rest[:left]:
                quotas[name] += 1
            break
        for name in open_types:
            taken = min(share, available[name] - quotas[name])
            quotas[name] += taken
            left -= taken
        open_types = [t for t in open_types if quotas[t] < available[t]]
    return quotas


def floor_quotas(available: Mapping[str, int], size: int) -> dict[str, int]:
    """Give every type ``size // types`` places, and leave empty what a type cannot fill (CANAL, example bank).

    Parameters
    ----------
    available, size
        As for `balanced_quotas`.

    Raises
    ------
    StageError
        As `balanced_quotas`.
    """
    balanced_quotas(dict.fromkeys(available, 1), size)
    return {name: min(size // len(available), n) for name, n in sorted(available.items())}


QUOTAS = {"balanced": balanced_quotas, "floor": floor_quotas}
