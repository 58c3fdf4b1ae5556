"""The groups that a review begins with: novel clusters, uncertain cells by predicted type, labels that disagree.

A cell is in one group at most: novel clusters come first, then uncertain cells, then disagreements.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canal.data.labels import NO_LABEL, NOVEL, called_known, names_no_type, similar_names
from canal.report.annotation import Annotation
from canal.review.values import Group

# Cells from which a disagreement is a group of its own. Of a file with 30 types as many as 870 pairs could disagree by
# a cell or two, and nobody looks at them one by one; how many are left out is told.
LEAST_DISAGREEING = 5


def digest_of(names: np.ndarray) -> str:
    """Return ``"sha256:..."`` over the sorted names of some cells, each on a line."""
    lines = "\n".join(sorted(map(str, names.tolist())))
    return f"sha256:{hashlib.sha256(lines.encode('utf-8', 'surrogatepass')).hexdigest()}"


def novel_groups(clusters: Sequence[Mapping[str, Any]], of_cell: np.ndarray, names: np.ndarray) -> list[Group]:
    """Return the clusters of `canal novel find`, the most telling first.

    Parameters
    ----------
    clusters
        As ``novel.json`` lists them.
    of_cell
        Name of the cluster of each cell of the file, ``""`` where it is in none, (cells,).
    names
        Names of the cells, (cells,).
    """
    groups = []
    for rank, cluster in enumerate(clusters):
        rows = np.flatnonzero(of_cell == cluster["name"])
        if not len(rows):
            continue
        facts = {
            key: cluster[key] for key in ("suggested", "apart", "silhouette", "own_share", "novelty", "confidence")
        }
        facts["predicted"] = cluster["near"][0]["name"] if cluster["near"] else ""
        facts["reason"] = _why_novel(cluster)
        groups.append(
            Group(
                id=f"novel-{cluster['name']}",
                kind="novel",
                title=str(cluster["suggested"]),
                rows=rows,
                digest=digest_of(names[rows]),
                rank=rank,
                facts=facts,
            )
        )
    return groups


def _why_novel(cluster: Mapping[str, Any]) -> str:
    if cluster["apart"]:
        return "A cluster of novel cells that stands apart from every known type of the file."
    return "A cluster of novel cells that may be the edge of a known type."


def uncertain_groups(annotation: Annotation, free: np.ndarray) -> list[Group]:
    """Return the uncertain cells by the type that the model would give them, the largest group first.

    Parameters
    ----------
    annotation
        Of all cells of the file; without verdicts there are no groups.
    free
        Cells that are in no group yet, bool (cells,).
    """
    status = annotation.columns.get("status")
    if status is None:
        return []
    predicted = annotation.columns.get("best_known", annotation.cell_type)
    uncertain = free & (status == "uncertain")
    groups = []
    for number, (name, _) in enumerate(_by_size(predicted[uncertain]), start=1):
        rows = np.flatnonzero(uncertain & (predicted == name))
        facts = {"predicted": str(name), "reason": f"The model would say {name}, and is not sure that they are known."}
        groups.append(_group(f"uncertain-{number}", "uncertain", f"uncertain {name}", rows, annotation, facts))
    return groups


def label_groups(
    annotation: Annotation, given: np.ndarray, types: Sequence[str], free: np.ndarray
) -> tuple[list[Group], int]:
    """Return the cells whose given label disagrees with the model, and how many are in groups too small to list.

    A label that is a type of the model, in whatever spelling, disagrees where the model answers another type. A label
    that the model does not know does where nearly all of its cells look like those of one known type. Only cells that
    look known count: what is novel or uncertain is no disagreement about labels.

    Parameters
    ----------
    annotation
        Of all cells of the file.
    given
        Label of each cell, text (cells,).
    types
        Types that the model knows.
    free
        Cells that are in no group yet, bool (cells,).
    """
    status = annotation.columns.get("status")
    looks_known = np.ones(len(given), dtype=bool) if status is None else status == "known"
    answer = annotation.cell_type
    labels = [name for name in dict.fromkeys(given.tolist()) if not _no_label(name)]
    # 1. What each label means to the model: a type of the same spelling, or that which nearly all its cells look like.
    meant = {name: name for name in labels if name in set(types)}
    for warning in similar_names(labels, types):
        meant[warning.new] = warning.known
    new = np.isin(given, [name for name in labels if name not in meant])
    called = {}
    for warning in called_known(given[new], np.where(looks_known, answer, NOVEL)[new], types):
        called[warning.new] = warning.known
    # 2. The pairs that disagree, by size.
    pairs: dict[tuple[str, str], np.ndarray] = {}
    for name in labels:
        of_label = free & looks_known & (given == name)
        others = of_label & (answer != meant[name]) if name in meant else of_label & (answer == called.get(name))
        for type_, _ in _by_size(answer[others]):
            pairs[name, str(type_)] = np.flatnonzero(others & (answer == type_))
    groups: list[Group] = []
    left_out = 0
    for (name, type_), rows in sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(rows) < LEAST_DISAGREEING:
            left_out += len(rows)
            continue
        facts = {"given": name, "predicted": type_, "reason": _why_label(name, type_, known=name in meant)}
        title = f"labelled {name}, answered {type_}"
        groups.append(_group(f"label-{len(groups) + 1}", "label", title, rows, annotation, facts))
    return groups, left_out


def _why_label(name: str, type_: str, *, known: bool) -> str:
    if known:
        return f"The file calls these cells {name}; the model takes them for {type_}."
    return f"The model knows no {name}, and takes nearly all of its cells for {type_}: the same type, or a new one?"


def _no_label(name: str) -> bool:
    return name.strip().lower() in NO_LABEL or names_no_type(name)


def _by_size(values: np.ndarray) -> list[tuple[str, int]]:
    """Return the values and how often they occur, most first; equals in the order of the alphabet."""
    return sorted(Counter(values.tolist()).items(), key=lambda item: (-item[1], item[0]))


def _group(id_: str, kind: Any, title: str, rows: np.ndarray, annotation: Annotation, facts: dict[str, Any]) -> Group:
    facts = facts | {"confidence": float(annotation.confidence[rows].mean())}
    digest = digest_of(annotation.cell_names[rows])
    return Group(id=id_, kind=kind, title=title, rows=rows, digest=digest, facts=facts)
