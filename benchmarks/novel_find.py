"""From a type that nobody taught to one that the model knows: find, name, add.

    python benchmarks/novel_find.py STREAM_DIR --types "B,NK,CD14 Mono,CD8 T,HSC"

STREAM_DIR holds ``<number>_<name>.train.h5ad`` and ``.test.h5ad``. For each type a workspace learns the stages without
it. Then ``novel find`` looks at one file after the other: the known cells of its test file and those cells of the type
that its training file has. Printed is, for each file, the cluster that holds most of the type: which share of the type
it holds, and which share of it is of the type. Clusters of which most cells are of the type are named and added, one
stage a file; then the type's recall on the test files is printed, whose cells of the type nobody has looked at.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import anndata as ad
from novel_types import stream_files

import canal
from canal.errors import CanalError
from canal.novel.folder import name_novel
from canal.workspace import Workspace

GOAL = 0.8


def learn_without(folder: Path, train: list[Path], labels: str, left_out: str, preset: str) -> Workspace:
    """Return a workspace of all stages without the cells of one type."""
    workspace = canal.open_workspace(folder, create=True)
    for path in train:
        cells = ad.read_h5ad(path)
        kept = cells[(cells.obs[labels] != left_out).to_numpy()].copy()
        workspace.add_stage(kept, labels=labels, preset=preset, name=path.name.split(".")[0], drop_rare=True)
    return workspace


def query_of(train: Path, test: Path, labels: str, left_out: str) -> ad.AnnData:
    """Return known cells of the test file and all cells of the type that the training file has."""
    known, new = ad.read_h5ad(test), ad.read_h5ad(train)
    known = known[(known.obs[labels] != left_out).to_numpy()]
    new = new[(new.obs[labels] == left_out).to_numpy()]
    return ad.concat([known, new], index_unique="-")


def found_in(folder: Path, query: ad.AnnData, labels: str, left_out: str) -> tuple[dict[str, str], float, float]:
    """Return names for the clusters that are mostly of the type; share and purity of the one with most of it."""
    path = folder / "novel.h5ad"
    if not path.is_file():
        return {}, 0.0, 0.0
    cells = ad.read_h5ad(path)
    is_type, cluster = (cells.obs[labels] == left_out).to_numpy(), cells.obs["canal_cluster"].astype(str).to_numpy()
    total = int((query.obs[labels] == left_out).sum())
    sizes = {c: (int(is_type[cluster == c].sum()), int((cluster == c).sum())) for c in sorted(set(cluster) - {"-"})}
    if not sizes:
        return {}, 0.0, 0.0
    most, size = max(sizes.values())
    return {c: left_out for c, (own, n) in sizes.items() if own > n / 2}, most / total, most / size


def fill(folder: Path, names: dict[str, str]) -> Path:
    """Write the names as a biologist would; return what they give."""
    table = "".join(f"{cluster},{name}\n" for cluster, name in names.items())
    (folder / "names.csv").write_text(f"cluster,name\n{table}")
    return name_novel(folder, labels="named_type").out


def recalls(workspace: Workspace, test: list[Path], labels: str, left_out: str) -> list[float]:
    """Return the type's recall on each test file that has it, and over all of them in the end."""
    hits, totals = [], []
    for path in test:
        per_type = workspace.evaluate(path, labels=labels).per_type
        if left_out in per_type:
            totals.append(per_type[left_out]["support"])
            hits.append(per_type[left_out]["recall"] * totals[-1])
    return [h / n for h, n in zip(hits, totals, strict=True)] + [sum(hits) / sum(totals)]


def run(stream: Path, left_out: str, labels: str, preset: str, alpha: float) -> None:
    """Print what is found of a type, and what comes of it."""
    train, test = stream_files(stream, "train"), stream_files(stream, "test")
    with tempfile.TemporaryDirectory() as root:
        workspace = learn_without(Path(root) / "ws", train, labels, left_out, preset)
        named = []
        for number, paths in enumerate(zip(train, test, strict=True), 1):
            query = query_of(*paths, labels, left_out)
            n = int((query.obs[labels] == left_out).sum())
            if n < 10:
                continue
            folder = Path(root) / f"found-{number}"
            workspace.find_novel(query, folder, alpha=alpha)
            names, held, pure = found_in(folder, query, labels, left_out)
            reached = "yes" if min(held, pure) >= GOAL else "no"
            print(
                f"| {left_out} | {paths[0].name.split('.')[0]} | {n} | {held:.2f} | {pure:.2f} | {reached} |",
                flush=True,
            )
            if names:
                named.append(fill(folder, names))
        for k, path in enumerate(named, 1):
            workspace.add_stage(path, labels="named_type", preset=preset, name=f"named-{k}")
        found = recalls(workspace, test, labels, left_out)
        by_file = " ".join(f"{v:.2f}" for v in found[:-1])
        print(
            f"{left_out}: recall {found[-1]:.3f} on the test files ({by_file}), {len(named)} stages added\n", flush=True
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path, help="folder of the stream")
    parser.add_argument("--types", required=True, help="types to leave out, separated by commas")
    parser.add_argument("--labels", default="cell_type", help="column of obs with the types")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--alpha", type=float, default=0.05)
    options = parser.parse_args()
    # Avalanche says at every stage that nothing is logged.
    warnings.filterwarnings("ignore", message="No loggers specified")
    print("| type | file | its cells | in one cluster | purity | 0.8 at 0.8 |\n|---|---|---|---|---|---|")
    for name in options.types.split(","):
        try:
            run(options.stream, name, options.labels, options.preset, options.alpha)
        except CanalError as error:
            print(f"{name}: {error}")


if __name__ == "__main__":
    main()
