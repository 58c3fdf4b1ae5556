"""How long the neighbours of many cells take, and whether they are the right ones.

    python benchmarks/neighbours.py

Queries are drawn around the references, float32 of 64 dimensions, on the CPU. Printed are the seconds for building the
index and for the search, and the share of the true ten neighbours that are found (by brute force for 200 queries).
"""

import argparse
import time

import numpy as np

from canal.model.novelty.neighbours import NeighbourIndex

QUERIES, CHECKED, K, DIM = 100_000, 200, 10, 64


def main() -> None:
    """Print one row for each number of references."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", default="1000,10000,100000", help="numbers of references")
    rng = np.random.default_rng(0)
    print(
        f"| references | seconds to build | seconds for {QUERIES} queries | of the true {K} found |\n|---|---|---|---|"
    )
    for n in map(int, parser.parse_args().references.split(",")):
        references = rng.normal(size=(n, DIM)).astype(np.float32)
        queries = references[rng.integers(n, size=QUERIES)] + rng.normal(scale=0.3, size=(QUERIES, DIM))
        begin = time.perf_counter()
        index = NeighbourIndex(references, gpu=False)
        built = time.perf_counter()
        found = index.search(queries.astype(np.float32), K).indices
        done = time.perf_counter()
        unit = references / np.linalg.norm(references, axis=1, keepdims=True)
        true = np.argsort(-(queries[:CHECKED] @ unit.T), axis=1)[:, :K]
        pairs = zip(found[:CHECKED].tolist(), true.tolist(), strict=True)
        right = np.mean([len(set(ours) & set(theirs)) / K for ours, theirs in pairs])
        print(f"| {n} | {built - begin:.2f} | {done - built:.2f} | {right:.3f} |", flush=True)


if __name__ == "__main__":
    main()
