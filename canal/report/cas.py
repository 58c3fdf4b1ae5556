"""An annotation as the Cell Annotation Schema has it: which cells have which label, with its term and the reason.

One JSON document beside the file of cells (https://github.com/cellannotation/cell-annotation-schema, general schema),
with a set of labels for the best types and, where the types stand in the Cell Ontology, one for the sure answers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from canal.files import write_text_whole
from canal.report.annotation import Annotation

SCHEMA_VERSION = "0.1.0"  # of the Cell Annotation Schema
NO_AUTHOR = "not given"
UNKNOWN = "unknown"  # the label that the schema keeps for cells nobody could name


def cell_annotations(
    annotation: Annotation, *, key: str, title: str, author: str | None, terms: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """Return the document of an annotation.

    Parameters
    ----------
    annotation
        The answer for the cells.
    key
        Begins the names of its columns in the file of cells.
    title, author
        Of the data set; first and last name of the person.
    terms
        Id and label of the term that a type or a node is, by its name; others get none.
    """
    facts = annotation.facts
    made_by = f"canal {facts['canal_version']}, model {facts['model']}, stage {facts['stage']} ({facts['stage_name']})"
    novel = np.zeros(len(annotation), dtype=bool)
    if "status" in annotation.columns:
        novel = annotation.columns["status"] == "novel"
    sets = {"cell_type": (annotation.cell_type, f"The most probable type of each cell, by {made_by}")}
    if "cell_type_sure" in annotation.columns:
        rate = f"at most {facts['alpha_label']:g} of the answers are wrong for cells like those that were taught"
        description = f"The most specific node of the Cell Ontology that is sure ({rate}), by {made_by}"
        sets["cell_type_sure"] = (annotation.columns["cell_type_sure"], description)
    labelsets, annotations = [], []
    for name, (labels, description) in sets.items():
        labelset = f"{key}_{name}"
        labelsets.append({"name": labelset, "description": description, "annotation_method": "algorithmic"})
        # What is novel has none of the labels; which type it is most like stands in the file of cells.
        given = np.where(novel, UNKNOWN, labels.astype(object))
        for label in sorted(set(given.tolist())):
            cells = np.flatnonzero(given == label)
            annotations.append(_annotation(labelset, label, annotation, cells, terms))
    return {
        "title": title,
        "author_name": author or NO_AUTHOR,
        "description": f"Cell types by {made_by}.",
        "cellannotation_schema_version": SCHEMA_VERSION,
        "labelsets": labelsets,
        "annotations": annotations,
    }


def _annotation(
    labelset: str, label: str, annotation: Annotation, cells: np.ndarray, terms: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """Return what the document says of the cells (positions) of one label."""
    entry: dict[str, Any] = {"labelset": labelset, "cell_label": label}
    if label == UNKNOWN:
        entry["rationale"] = "Novel: unlike every type that the model was taught."
    else:
        id_, name = terms.get(label, ("", label))
        entry["cell_fullname"] = name
        if id_:
            entry |= {"cell_ontology_term_id": id_, "cell_ontology_term": name}
        mean = float(annotation.confidence[cells].mean())
        entry["rationale"] = f"Mean probability of the best types of these cells: {mean:.3f}."
    entry["author_annotation_fields"] = {"cells": str(len(cells))}
    entry["cell_ids"] = [str(name) for name in annotation.cell_names[cells]]
    return entry


def write_cell_annotations(document: Mapping[str, Any], out: Path) -> None:
    """Write the document, whole or not at all."""
    text = json.dumps(document, ensure_ascii=False, indent=1)
    write_text_whole(out, text + "\n")
