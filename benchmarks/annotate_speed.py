"""`canal annotate` beside CellTypist, file to file, in turns, in the same run; both trained on the same cells.

Each turn is a whole process, as a user starts it: from the start of Python to the file that is written. CellTypist's
turn reads the file, normalises it as its authors prescribe, annotates it and writes the h5ad; how long its imports
took is printed too, for whoever keeps a session open.

python -m venv celltypist-venv && celltypist-venv/bin/pip install celltypist==1.7.1 'scikit-learn<1.8'
python -m benchmarks.annotate_speed --train train.h5ad --query test.h5ad --repeat 26 \
    --celltypist celltypist-venv/bin/python
"""

import argparse
import re
import statistics
import tempfile
from pathlib import Path

from benchmarks.measure import CANAL, Run, canal, fresh, machine, run

PEER_TRAIN = """
import sys, scanpy as sc, celltypist
cells = sc.read_h5ad(sys.argv[1]); cells.var_names_make_unique()
sc.pp.normalize_total(cells, target_sum=1e4); sc.pp.log1p(cells)
celltypist.train(cells, labels=sys.argv[2], check_expression=False, n_jobs=2).write(sys.argv[3])
"""
PEER_ANNOTATE = """
import time; begin = time.perf_counter()
import sys, scanpy as sc, celltypist
ready = time.perf_counter()
cells = sc.read_h5ad(sys.argv[1])
sc.pp.normalize_total(cells, target_sum=1e4); sc.pp.log1p(cells)
celltypist.annotate(cells, model=sys.argv[2]).to_adata().write_h5ad(sys.argv[3])
print("imports", ready - begin)
"""
OURS_WARM = """
import sys, time, pathlib, canal, canal.stages.annotate, anndata.io, faiss
workspace = canal.open_workspace(sys.argv[1])
begin = time.perf_counter()
workspace.annotate(sys.argv[2], out=pathlib.Path(sys.argv[3]))
print("imports", 0.0, "seconds", time.perf_counter() - begin)
"""


def repeated(query: Path, times: int, out: Path) -> int:
    """Write the cells of a file several times over; return how many there are."""
    import anndata as ad

    one = ad.read_h5ad(query)
    one.var_names_make_unique()
    many = ad.concat([one] * times, axis=0, merge="same")
    many.obs_names = [f"cell{i}" for i in range(many.n_obs)]
    many.write_h5ad(out)
    return int(many.n_obs)


def show(name: str, cells: int, runs: list[Run], inside: list[float]) -> tuple[float, float]:
    """Print the median of one tool's runs; return its cells a second, whole processes and without imports."""
    seconds = statistics.median(r.seconds for r in runs)
    within = statistics.median(inside)
    print(
        f"{name:22s} {seconds:7.2f} s  {cells / seconds:8.0f} cells/s   without imports {within:6.2f} s "
        f"{cells / within:8.0f} cells/s   {statistics.median(r.cpu for r in runs):6.1f} s of computing "
        f"  peak {max(r.peak for r in runs):6.0f} MB   (turns: {', '.join(f'{r.seconds:.2f}' for r in runs)})"
    )
    return cells / seconds, cells / within


def main() -> None:
    """Train both, annotate in turns, print figures and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--query", type=Path, required=True)
    parser.add_argument("--labels", default="cell_type")
    parser.add_argument("--repeat", type=int, default=26)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--celltypist", type=Path, required=True, help="Python of an environment with CellTypist 1.7.1")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "canal-annotate-speed")
    given = parser.parse_args()
    train, folder, peer = given.train.absolute(), fresh(given.out.absolute()), given.celltypist.absolute()
    cells = repeated(given.query, given.repeat, folder / "query.h5ad")
    print(machine())
    canal("stage", "add", "--data", train, "--labels", given.labels, folder=folder / "workspace")
    run([peer, "-c", PEER_TRAIN, train, given.labels, folder / "model.pkl"])
    ours, theirs, warm, within = [], [], [], []
    for _ in range(given.turns):
        query = folder / "query.h5ad"
        ours.append(canal("annotate", "--data", query, "--out", folder / "ours.h5ad", folder=folder / "workspace"))
        again = run([CANAL[0], "-c", OURS_WARM, folder / "workspace", query, folder / "ours.h5ad"])
        warm.append(float(re.search(r"seconds (\S+)", again.output)[1]))  # type: ignore[index]
        theirs.append(run([peer, "-c", PEER_ANNOTATE, query, folder / "model.pkl", folder / "theirs.h5ad"]))
        imports = float(re.search(r"imports (\S+)", theirs[-1].output)[1])  # type: ignore[index]
        within.append(theirs[-1].seconds - imports)
        print(f"turn: canal {ours[-1].seconds:.2f} s, CellTypist {theirs[-1].seconds:.2f} s", flush=True)
    a = show("canal annotate", cells, ours, warm)
    b = show("CellTypist 1.7.1", cells, theirs, within)
    print(f"ratio of cells/s: whole processes {a[0] / b[0]:.1f}, without imports {a[1] / b[1]:.1f}")


if __name__ == "__main__":
    main()
