"""How often an answer that is as specific as it is sure of is wrong, and how specific it is.

    python benchmarks/sure_answers.py STREAM [--alpha .05] [--table map.csv] [--labels cell_type]

Teaches the training files of a stream (``*.train.h5ad``) in order with ``--ontology auto`` (or a table), and annotates
all test files. Printed for every file: accuracy of the best type, share of sure answers that are wrong (the cell's
type is not below the node), the share that are types, and the mean number of ancestors of the terms that were answered.
"""

import argparse
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np

import canal
from canal.ontology.tree import cell_ontology
from canal.workspace import Workspace


def main() -> int:
    """Teach the stream and print a row a test file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", type=Path)
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.05])
    parser.add_argument("--table", type=Path, help="places of the types, in place of auto")
    parser.add_argument("--labels", default="cell_type")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        workspace = canal.open_workspace(folder, create=True)
        for path in sorted(arguments.stream.glob("*.train.h5ad")):
            result = workspace.add_stage(
                path, labels=arguments.labels, name=path.stem, ontology=arguments.table or "auto"
            )
            print(f"taught {path.name}: {len(result.types)} types", *result.warnings, sep="\n  ", flush=True)
        nodes = workspace.model().nodes
        assert nodes is not None
        groups = [f"{n} ({covers.sum()})" for n, covers in zip(nodes.names, nodes.covers.T, strict=True)]
        print("nodes:", ", ".join(groups[len(workspace.model().types) :]))
        for alpha in arguments.alpha:
            print_files(workspace, sorted(arguments.stream.glob("*.test.h5ad")), alpha, arguments.labels)
    return 0


def print_files(workspace: Workspace, paths: list[Path], alpha: float, labels: str) -> None:
    """Print the figures of each file, and of all cells."""
    ontology = cell_ontology()
    nodes = workspace.model().nodes
    assert nodes is not None
    index = {name: i for i, name in enumerate(workspace.model().types)}
    print(f"{'file':28s} {'alpha':>5s} {'cells':>6s} {'accuracy':>8s} {'wrong':>6s} {'types':>6s} {'depth':>6s}")
    rows: list[np.ndarray] = []
    for path in paths:
        cells = ad.read_h5ad(path)
        annotation = workspace.annotate(cells, alpha_label=alpha)
        truth = cells.obs[labels].astype(str).to_numpy()
        # A sure answer is right where the cell's type is below its node.
        answered = {name: i for i, name in enumerate(nodes.names.tolist())}
        node = np.array([answered[name] for name in annotation.columns["cell_type_sure"]])
        known = np.array([index.get(name, -1) for name in truth])
        right = nodes.right[known, node] & (known >= 0)
        depth = [ontology.depth(term) if term else 0 for term in annotation.columns["cell_type_sure_id"]]
        of_type = nodes.sizes[node] == 1
        figures = np.stack([annotation.cell_type == truth, ~right, of_type, np.array(depth)], axis=1).astype(float)
        rows.append(figures)
        print_row(path.name, alpha, figures)
    print_row("all cells", alpha, np.concatenate(rows))


def print_row(name: str, alpha: float, figures: np.ndarray) -> None:
    """Print the means of the figures of some cells, (cells, 4)."""
    accuracy, wrong, of_type, depth = figures.mean(axis=0)
    print(f"{name:28s} {alpha:5.2f} {len(figures):6d} {accuracy:8.4f} {wrong:6.4f} {of_type:6.3f} {depth:6.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
