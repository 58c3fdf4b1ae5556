"""`canal stage add` with the default preset on 100,000 x 5,000 generated cells of 50 types: minutes and memory.

python -m benchmarks.stage_scale
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.measure import canal, fresh, machine, write_cells


def main() -> None:
    """Write the cells, learn them, print what it took; with --second, learn as many again on top."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=5_000)
    parser.add_argument("--types", type=int, default=50)
    parser.add_argument("--depth", type=float, default=2_000.0)
    parser.add_argument("--second", action="store_true", help="a second stage, with bank, distillation and old types")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "canal-stage-scale")
    given = parser.parse_args()
    folder = given.out.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    print(machine())
    workspace = fresh(folder / "workspace")
    for seed in (1, 2) if given.second else (1,):
        data = folder / f"{given.cells}-{given.genes}-{given.types}-{seed}.h5ad"
        if not data.is_file():
            types = tuple(range(given.types))
            write_cells(data, cells=given.cells, genes=given.genes, types=types, depth=given.depth, seed=seed)
        done = canal("stage", "add", "--data", data, "--labels", "cell_type", "--json", folder=workspace)
        answer = json.loads(done.output[done.output.index("{") :])
        print(
            f"stage {seed}: {given.cells:,d} cells x {given.genes:,d} genes, {given.types} types: {done.seconds:.0f} s "
            f"({done.cpu:.0f} s of computing), peak {done.peak / 1000:.2f} GB, "
            f"accuracy on held-out cells {answer['metrics']['validation_accuracy']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
