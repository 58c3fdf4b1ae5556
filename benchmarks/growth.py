"""Does stage 50 cost what stage 2 costs? Time and memory of stage, annotate and `stage list`, and size of the registry.

Every stage brings cells of fifteen types out of thirty, in batches of its own, so that from the second stage on no type
is new: the number of types is what a tissue has, the number of stages is what must not matter.

python -m benchmarks.growth --stages 50
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.measure import Run, canal, fresh, machine, write_cells

TYPES, EACH = 30, 15


def of_stage(number: int) -> tuple[int, ...]:
    """Return the types of a stage."""
    return tuple(sorted((number * EACH + k + number // 2) % TYPES for k in range(EACH)))


def stages_of(workspace: Path) -> int:
    """Return how many stages are there: one more than lines were written, where a run was stopped in between."""
    return len(json.loads(canal("stage", "list", "--json", folder=workspace).output)["stages"])


def of_stages(rows: list[dict[str, float]], name: str, first: int, last: int) -> float:
    """Return the median of a figure over some stages."""
    return statistics.median(row[name] for row in rows if first <= row["stage"] <= last)


def size(folder: Path) -> float:
    """Return what the files of a folder take, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def line(number: int, runs: tuple[Run, Run, Run], megabytes: float, before: float) -> dict[str, float]:
    """Print and return the figures of one stage."""
    add, answer, listing = runs
    row = {
        "stage": number, "add s": add.seconds, "add cpu s": add.cpu, "add MB": add.peak,
        "annotate s": answer.seconds, "annotate cpu s": answer.cpu, "annotate MB": answer.peak,
        "list s": listing.seconds, "list MB": listing.peak, "registry MB": megabytes, "grown by MB": megabytes - before,
    }  # fmt: skip
    print(
        "".join(f"{value:14.2f}" if isinstance(value, float) else f"{value:6d}" for value in row.values()), flush=True
    )
    return row


def main() -> None:
    """Add the stages one by one and print a line for each; then stage 50 against stage 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=50)
    parser.add_argument("--cells", type=int, default=2_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "canal-growth")
    parser.add_argument("--resume", action="store_true", help="go on behind the last stage of an earlier run")
    given = parser.parse_args()
    folder = given.out.absolute() if given.resume else fresh(given.out.absolute())
    query, kept = folder / "query.h5ad", folder / "growth.json"
    rows = json.loads(kept.read_text()) if kept.is_file() else []
    if not query.is_file():
        write_cells(query, cells=10_000, genes=given.genes, types=tuple(range(TYPES)), seed=10_000)
    print(machine())
    workspace = folder / "workspace"
    before = rows[-1]["registry MB"] if rows else 0.0
    for number in range(1 + (stages_of(workspace) if rows else 0), given.stages + 1):
        data = folder / f"stage{number}.h5ad"
        write_cells(data, cells=given.cells, genes=given.genes, types=of_stage(number), seed=number)
        runs = (
            canal("stage", "add", "--data", data, "--labels", "cell_type", folder=workspace),
            canal("annotate", "--data", query, "--out", folder / "out.h5ad", folder=workspace),
            canal("stage", "list", folder=workspace),
        )
        if not rows:
            print("heads:", "stage, add s, cpu s, MB; annotate s, cpu s, MB; list s, MB; registry MB, grown by MB")
        megabytes = size(workspace / "registry")
        rows.append(line(number, runs, megabytes, before))
        before = megabytes
        kept.write_text(json.dumps(rows, indent=1))
    print("last five stages against stages 2 to 6 (medians):")
    for name in rows[0]:
        first, last = of_stages(rows, name, 2, 6), of_stages(rows, name, given.stages - 4, given.stages)
        print(f"  {name:15s} {first:9.2f} -> {last:9.2f}   x {last / max(first, 1e-9):.2f}")


if __name__ == "__main__":
    main()
