"""The groups that a review begins with."""

import hashlib

import numpy as np

from canal.report.annotation import Annotation
from canal.review.groups import digest_of, label_groups, novel_groups, uncertain_groups


def annotation(types: list[str], status: list[str] | None = None) -> Annotation:
    """Return an annotation of cells with these types and verdicts."""
    n = len(types)
    columns = {} if status is None else {"status": np.array(status, dtype=object)}
    return Annotation(
        cell_names=np.array([f"c{k}" for k in range(n)], dtype=object),
        cell_type=np.array(types, dtype=object),
        confidence=np.full(n, 0.5, dtype=np.float32),
        representation=np.zeros((n, 2), dtype=np.float32),
        facts={},
        columns=columns,
    )


def free(n: int) -> np.ndarray:
    return np.ones(n, dtype=bool)


def test_the_digest_is_of_the_cells_in_any_order() -> None:
    """It is the SHA-256 of the sorted names, each on a line: a reference by hand."""
    names = np.array(["b", "a"], dtype=object)
    assert digest_of(names) == digest_of(names[::-1])
    assert digest_of(names) == "sha256:" + hashlib.sha256(b"a\nb").hexdigest()


def test_uncertain_cells_are_grouped_by_the_type_they_would_get() -> None:
    """The largest group first; cells of novel groups are left out."""
    told = annotation(["B", "B", "NK", "B", "NK"], ["uncertain", "known", "uncertain", "uncertain", "uncertain"])
    groups = uncertain_groups(told, np.array([True, True, True, True, False]))
    assert [(g.id, g.facts["predicted"], g.rows.tolist()) for g in groups] == [
        ("uncertain-1", "B", [0, 3]),
        ("uncertain-2", "NK", [2]),
    ]
    assert uncertain_groups(annotation(["B"]), free(1)) == []


def test_labels_that_disagree_are_grouped_by_pair() -> None:
    """A label that is a type in another spelling is compared with it; novel and unlabelled cells do not count."""
    types = ["NK"] * 6 + ["B"] * 8 + ["NK"] * 5
    given = ["b-cells"] * 6 + ["B"] * 6 + ["unknown"] * 2 + ["B"] * 5
    status = ["known"] * 14 + ["novel"] * 5
    groups, left_out = label_groups(annotation(types, status), np.array(given, dtype=object), ("B", "NK"), free(19))
    assert [(g.facts["given"], g.facts["predicted"], g.cells) for g in groups] == [("b-cells", "NK", 6)]
    assert left_out == 0


def test_a_new_name_for_a_known_type_is_a_group() -> None:
    """A label that the model does not know, whose cells it takes for one type: a new name, or a new type?"""
    types = ["B"] * 9 + ["NK"]
    given = np.array(["plasma"] * 10, dtype=object)
    groups, _ = label_groups(annotation(types, ["known"] * 10), given, ("B", "NK"), free(10))
    assert [(g.facts["given"], g.facts["predicted"], g.cells) for g in groups] == [("plasma", "B", 9)]
    assert "The same type, or a new one?".lower() in groups[0].facts["reason"].lower()


def test_few_cells_that_disagree_are_counted() -> None:
    """Fewer than five of a pair are no group, and how many they are is returned."""
    types = ["NK"] * 4 + ["B"] * 6
    groups, left_out = label_groups(annotation(types), np.array(["B"] * 10, dtype=object), ("B", "NK"), free(10))
    assert (groups, left_out) == ([], 4)


def test_novel_clusters_keep_their_order() -> None:
    """The most telling first, whatever their numbers."""
    clusters = []
    for name in ("2", "1"):
        clusters.append(
            {"name": name, "suggested": f"near {name}", "apart": True, "silhouette": 0.5, "own_share": 0.9}
            | {"novelty": 1.0, "confidence": 0.5, "near": [{"name": "B", "share": 1.0, "distance": None}]}
        )
    of_cell = np.array(["1", "", "2", "1"], dtype=object)
    groups = novel_groups(clusters, of_cell, np.array(["a", "b", "c", "d"], dtype=object))
    assert [(g.id, g.rank, g.rows.tolist()) for g in groups] == [("novel-2", 0, [2]), ("novel-1", 1, [0, 3])]
