"""The model card of a stage: what MLflow's pages show of it."""

from collections.abc import Sequence

from canal.registry.record import StageRecord

LONGEST = 5000  # characters of a version's description; MLflow's limit
_FIGURES = (
    "average_accuracy", "forgetting", "backward_transfer", "validation_accuracy", "validation_macro_f1",
    "validation_cells",
)  # fmt: skip
_END = "\n\n*Cut: `canal stage show` has all of it.*"


def model_card(record: StageRecord) -> str:
    """Return the card as Markdown: what was learned from what, how well, what it is for and what it holds."""
    parts = [
        f"# Stage {record.number}: {record.name}",
        _summary(record),
        _use(record),
        "## Figures\n" + _table(("figure", "value"), [(k.replace("_", " "), f"{v:.4g}") for k, v in _figures(record)]),
        "## Data\n" + _data(record),
        "## Limits\nA cell of a type that nobody taught still gets its best known type: see the novelty of its answer. "
        f"The example bank holds {record.bank.get('size', 0)} real expression profiles: treat the model as the data.",
        "## Types\n" + ", ".join(_type(record, name) for name in record.types),
    ]
    text = "\n\n".join(part for part in parts if part)
    return text if len(text) <= LONGEST else text[: LONGEST - len(_END)] + _END


def _summary(record: StageRecord) -> str:
    origin = f"on top of stage {record.parent}" if record.parent else "as the first of its line"
    text = (
        f"Names the cell types of single-cell RNA-seq: {len(record.types)} types, {len(record.new_types)} of them new, "
        f"on {record.genes} genes. Learned from {record.cells} cells {origin}, with preset "
        f"{record.preset.get('name', '')} and seed {record.seed}, by canal {record.canal_version}, {record.created}."
    )
    removed = record.notes.get("removed")
    return text + (f" Without the cells of stage {removed[0]}." if removed else "")


def _use(record: StageRecord) -> str:
    why = record.notes.get("held_back")
    return f"**Candidate.** {why}" if why else ""


def _figures(record: StageRecord) -> list[tuple[str, float]]:
    """Return the figures over all cells, then those on the cells of each earlier stage."""
    first = [(name, record.metrics[name]) for name in _FIGURES if name in record.metrics]
    return first + [(k, v) for k, v in record.metrics.items() if k.startswith("test/") and k.endswith("/accuracy")]


def _data(record: StageRecord) -> str:
    rows = [(str(d.get("path", "")), str(d.get("cells", "")), str(d.get("digest", ""))) for d in record.data]
    return _table(("file", "cells", "digest"), rows) if rows else "No file."


def _type(record: StageRecord, name: str) -> str:
    return f"**{name}** (new)" if name in record.new_types else name


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
