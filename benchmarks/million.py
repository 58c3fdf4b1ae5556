"""Annotate 20,000 and 1,000,000 generated cells from a backed h5ad: cells a second, and memory that does not grow.

python -m benchmarks.million
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.measure import canal, machine, write_cells

TYPES = tuple(range(20))


def main() -> None:
    """Learn one stage, annotate files of growing size, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000, 1_000_000])
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--csv", action="store_true", help="write a table instead of h5ad")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "canal-million")
    given = parser.parse_args()
    folder = given.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print(machine())
    train = folder / "train.h5ad"
    if not train.is_file():
        write_cells(train, cells=5_000, genes=given.genes, types=TYPES, seed=1)
        added = canal("stage", "add", "--data", train, "--labels", "cell_type", folder=folder / "workspace")
        print(f"stage of 5,000 cells: {added.seconds:.1f} s, {added.peak:.0f} MB")
    for cells in given.cells:
        query = folder / f"{cells}-{given.genes}.h5ad"
        if not query.is_file():
            write_cells(query, cells=cells, genes=given.genes, types=TYPES, batches=4, seed=2)
        out = folder / ("out.csv" if given.csv else "out.h5ad")
        done = canal("annotate", "--data", query, "--out", out, folder=folder / "workspace")
        megabytes = query.stat().st_size / 1e6
        print(
            f"{cells:9,d} cells, {megabytes:6.0f} MB: {done.seconds:7.1f} s ({done.cpu:.1f} s of computing), "
            f"{cells / done.seconds:8.0f} cells/s, peak {done.peak:.0f} MB",
            flush=True,
        )
        out.unlink()


if __name__ == "__main__":
    main()
