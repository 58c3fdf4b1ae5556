"""How well `canal labels suggest` reads the names of cell types: tables of names with the term that people chose.

    python benchmarks/labels.py LABELS [LABELS ...]

Each table is a CSV file with the columns ``cl_id`` and ``name`` (or ``author_cell_type``), and if wanted ``stage``:
names of one stage are each other's siblings. Printed: the share of names whose first candidate is the chosen term, the
share that has it among the first five, how many are accepted without asking, and how many of these are right; with
``--wrong`` every name whose first candidate is another.
"""

import argparse
import csv
from pathlib import Path

from canal.labels.suggest import suggest_labels
from canal.ontology.matching import Suggestion


def main() -> int:
    """Print a row a table, and one of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", help="CSV files")
    parser.add_argument("--wrong", action="store_true", help="print the names whose first candidate is another term")
    arguments = parser.parse_args()

    print(f"{'table':28s} {'names':>5s} {'first':>6s} {'five':>6s} {'accepted':>8s} {'right':>6s}")
    everything: list[tuple[Suggestion, str]] = []
    for table in arguments.tables:
        answers = suggestions_of(table)
        print_row(table.stem, answers)
        everything += answers
        if arguments.wrong:
            print_wrong(answers)
    print_row("all", everything)
    return 0


def suggestions_of(table: Path) -> list[tuple[Suggestion, str]]:
    """Return the suggestion for every name of a table, with the id that people chose."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    # Names of one file are read beside each other.
    by_stage: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        name = row.get("name") or row["author_cell_type"]
        by_stage.setdefault(row.get("stage", ""), []).append((name, row["cl_id"]))
    answers = []
    for pairs in by_stage.values():
        report = suggest_labels([name for name, _chosen in pairs])
        by_name = {suggestion.name: suggestion for suggestion in report.suggestions}
        answers += [(by_name[name.strip()], chosen) for name, chosen in pairs]
    return answers


def print_row(name: str, answers: list[tuple[Suggestion, str]]) -> None:
    """Print the shares of one table."""
    first = five = accepted = right = 0
    for suggestion, chosen in answers:
        ids = [candidate.id for candidate in suggestion.candidates]
        first += ids[:1] == [chosen]
        five += chosen in ids[:5]
        accepted += suggestion.accepted is not None
        right += suggestion.accepted == chosen
    n = len(answers)
    print(f"{name:28s} {n:5d} {first / n:6.3f} {five / n:6.3f} {accepted:8d} {right / max(accepted, 1):6.3f}")


def print_wrong(answers: list[tuple[Suggestion, str]]) -> None:
    """Print what was suggested first where people chose another term."""
    for suggestion, chosen in answers:
        best = suggestion.candidates[0] if suggestion.candidates else None
        if best is None or best.id != chosen:
            mark = "accepted" if suggestion.accepted else ""
            told = "nothing" if best is None else f"{best.id} {best.label} ({best.score:.2f})"
            print(f"    {suggestion.name!r}: {told}; people chose {chosen} {mark}")


if __name__ == "__main__":
    raise SystemExit(main())
