"""`canal models`: ready-made models that annotate without a workspace."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command, short_path

if TYPE_CHECKING:
    from rich.table import Table

noun = typer.Typer(no_args_is_help=True, help="Ready-made models: see, fetch and share them.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(noun, "show", example="canal models show blood")(show)
    app.add_typer(noun, name="models")


def show(
    session: Session,  # noqa: ARG001 - every command is told
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Model that comes with canal, or a .canal file.")],
) -> Answer:
    """Show the card of a model: types with their ids, cells, sources, figures, and what it cannot tell."""
    from canal.workspace import describe_model

    facts = describe_model(model)
    card = facts["card"]
    # 1. What it is; a model that nobody wrote a card for has its types and sizes alone.
    lines: list[str | Table] = [f"{facts['name']}: {card.get('title', 'no card; an export of somebody')}"]
    about = [str(card[key]) for key in ("species", "tissue", "licence") if card.get(key)]
    lines += [", ".join(about)] if about else []
    kept = f"{facts['examples']} cells kept as examples" if facts["examples"] else "statistics only, no cell kept"
    lines.append(f"{facts['cells']} cells taught it; {facts['genes']} genes; {kept}; {facts['bytes'] / 1e6:.1f} MB")
    # 2. Types and sources.
    lines.append(_types_table(facts))
    if card.get("sources"):
        lines.append(_sources_table(card["sources"]))
    # 3. What was measured, and what it cannot tell.
    if card.get("left_out"):
        lines.append("Each data set left out in turn, and annotated by a model of the others:")
        lines.append(_left_out_table([*card["left_out"], {"name": "mean", **card["mean"]}]))
    lines += [f"- {text}" for text in card.get("limits", ())]
    lines.append(f"{facts['digest']}, {short_path(Path(facts['file']))}")
    return Answer(facts, lines)


def _types_table(facts: dict[str, Any]) -> "Table":
    """Return the types with their ids and numbers of cells, where the card has them."""
    card_types = facts["card"].get("types", {})
    rows = []
    for name in facts["types"]:
        entry = card_types.get(name, {})
        rows.append((name, entry.get("id", ""), entry.get("label", ""), str(entry.get("cells", ""))))
    return _table(("type", "id", "name in the Cell Ontology", "cells"), rows)


def _sources_table(sources: list[dict[str, Any]]) -> "Table":
    rows = []
    for source in sources:
        rows.append((source["name"], source["accession"], str(source["cells"]), str(source["genes"]), source["source"]))
    return _table(("data set", "accession", "cells", "genes", "source"), rows)


def _left_out_table(left_out: list[dict[str, Any]]) -> "Table":
    rows = []
    for row in left_out:
        plain, adapted = row["plain"], row["adapt"]
        figures = [f"{f[name]:.3f}" for f in (plain, adapted) for name in ("accuracy", "macro_f1")]
        rows.append((row["name"], *figures))
    return _table(("left out", "accuracy", "macro-F1", "accuracy --adapt", "macro-F1 --adapt"), rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title)
    for row in rows:
        table.add_row(*row)
    return table
