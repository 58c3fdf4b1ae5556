"""Which types of several sites are the same: by name, by the term of the Cell Ontology, or as a table says.

Nothing is guessed: where names and terms leave a doubt, it is named, and the merge refused until a table decides.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from canal.data.labels import similar_names
from canal.errors import StageError
from canal.ontology.placement import read_table

MOST_SHOWN = 8  # clashes in one message


@dataclass(frozen=True, kw_only=True)
class SiteTypes:
    """The types of one site.

    Attributes
    ----------
    site
        Name of the site.
    cells
        Number of cells by name of the type.
    ids
        Id in the Cell Ontology by name, ``""`` where the site gave none.
    """

    site: str
    cells: Mapping[str, int]
    ids: Mapping[str, str]


@dataclass(frozen=True)
class TypeMap:
    """What a table says: the common name, by site (``""`` for every site) and name there."""

    names: Mapping[tuple[str, str], str]

    def of(self, site: str, name: str) -> str | None:
        """Return the common name that the table gives to a type of a site, ``None`` where it says nothing."""
        return self.names.get((site, name), self.names.get(("", name)))


def read_type_map(path: Path | None, sites: Sequence[str]) -> TypeMap:
    """Read a table with the columns ``name`` and ``to``, and if wanted ``site``.

    Parameters
    ----------
    path
        CSV file; no table says nothing.
    sites
        Names of the sites that are merged.

    Raises
    ------
    DataError, StageError
        If it cannot be read, lacks a column, names an unknown site, or says two things of one type.
    """
    if path is None:
        return TypeMap({})
    names: dict[tuple[str, str], str] = {}
    for number, row in read_table(path):
        site, name, to = row.get("site", ""), row["name"], row.get("to", "")
        where = f"{path}, line {number}: "
        if not to or not name:
            message = f"{where}expected the columns name (there) and to (the common name), and if wanted site."
        elif site and site not in sites:
            message = f"{where}there is no site {site!r}; the exports are of {', '.join(sorted(sites))}."
        elif names.get((site, name), to) != to:
            message = f"{where}{name!r} becomes {to!r} here and {names[site, name]!r} further up. Keep one row."
        else:
            names[site, name] = to
            continue
        raise StageError(message)
    return TypeMap(names)


def common_names(sites: Sequence[SiteTypes], table: TypeMap) -> dict[str, dict[str, str]]:
    """Return the common name of each type of each site, by site and name there.

    Parameters
    ----------
    sites
        Types of each site; the outcome does not depend on their order.
    table
        What somebody decided.

    Raises
    ------
    StageError
        If one name stands for two terms, a site has two types of one term, or two names differ in spelling alone; all
        such clashes are named.
    """
    # 1. What the table says holds. The others keep their names for now.
    names: dict[str, dict[str, str]] = {}
    decided = set()
    for one in sites:
        names[one.site] = {}
        for name in one.cells:
            to = table.of(one.site, name)
            names[one.site][name] = name if to is None else to
            if to is not None:
                decided.add(to)
    # 2. The same term under two names is one type, unless that would join two types of one site.
    clashes = _join_terms(sites, names, table)
    # 3. What is still in doubt: one name of two terms, two names that differ in spelling alone.
    clashes += _one_name_two_terms(sites, names, table)
    everything = sorted({name for of_site in names.values() for name in of_site.values()})
    for place, name in enumerate(everything):
        for warning in similar_names([name], everything[:place]):
            if not {warning.new, warning.known} <= decided:
                clashes.append(f"{warning.new!r} and {warning.known!r} differ in spelling alone")
    if clashes:
        shown = "; ".join(clashes[:MOST_SHOWN]) + ("; ..." if len(clashes) > MOST_SHOWN else "")
        message = (
            f"Types of the sites cannot be told together or apart ({len(clashes)}): {shown}. Say what they are in a "
            "table with the columns site, name, to (the common name), and give it with --map: a name that maps to "
            "itself stays."
        )
        raise StageError(message)
    return names


def _join_terms(sites: Sequence[SiteTypes], names: dict[str, dict[str, str]], table: TypeMap) -> list[str]:
    """Give types of one term one name, in place; return where a site has two types of a term."""
    by_term: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for one in sorted(sites, key=lambda site: site.site):
        for name, cells in sorted(one.cells.items()):
            if one.ids.get(name) and table.of(one.site, name) is None:
                by_term[one.ids[name]].append((one.site, name, cells))
    clashes = []
    for term, uses in sorted(by_term.items()):
        if len({name for _, name, _ in uses}) == 1:
            continue
        of_sites = [site for site, _, _ in uses]
        twice = sorted({site for site in of_sites if of_sites.count(site) > 1})
        if twice:
            pair = ", ".join(repr(name) for site, name, _ in uses if site == twice[0])
            clashes.append(f"{twice[0]} has {pair}, all of them {term}")
            continue
        # The name that most cells have.
        total: dict[str, int] = defaultdict(int)
        for _, name, cells in uses:
            total[name] += cells
        common = min(total, key=lambda name: (-total[name], name))
        for site, name, _ in uses:
            names[site][name] = common
    return clashes


def _one_name_two_terms(
    sites: Sequence[SiteTypes], names: Mapping[str, Mapping[str, str]], table: TypeMap
) -> list[str]:
    """Return where two sites mean different terms by one name and no table says that this is meant."""
    terms: dict[str, dict[str, str]] = defaultdict(dict)
    for one in sorted(sites, key=lambda site: site.site):
        for name in sorted(one.cells):
            term = one.ids.get(name, "")
            if term and table.of(one.site, name) is None:
                terms[names[one.site][name]].setdefault(term, one.site)
    clashes = []
    for name, by_term in sorted(terms.items()):
        if len(by_term) > 1:
            meant = ", ".join(f"{term} at {site}" for term, site in sorted(by_term.items()))
            clashes.append(f"{name!r} is {meant}")
    return clashes
