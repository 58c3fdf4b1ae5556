"""Counts of cells with types, batches, library sizes and dropout, written to an h5ad block by block.

A gene has a base level (gamma of shape 0.5), the same in every file. A type raises ``markers`` genes of its own 4 to 12
times and every other gene by a log-normal factor of spread 0.25. A batch changes each gene by a log-normal factor of
spread 0.15. A cell's library size is log-normal around ``depth`` with spread 0.35. Its counts are drawn as that many
molecules from its type's and batch's profile: Poisson, by its sum (the number of molecules) and where they fall, which
costs time by the molecules and not by the genes. Dropout loses each molecule with a chance that is higher for low
genes, ``exp(-level / dropout)`` with the level's mean at 1, as detection falls with expression (Kharchenko 2014).

python benchmarks/generate.py cells.h5ad --cells 1000000 --genes 2000 --types 20
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

BLOCK = 20_000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is generated; equal recipes give equal files.

    Attributes
    ----------
    cells, genes
        Size of the matrix.
    types
        Positions of the types among all types there could be; files that name the same position share the type.
    batches
        Number of batches in the file.
    depth
        Median molecules of a cell before dropout.
    dropout
        Level, in mean levels, at which a share of 1/e of the molecules is lost; 0 for none.
    seed
        Of cells and batches. Genes and types have one seed of their own.
    """

    cells: int
    genes: int
    types: tuple[int, ...]
    batches: int = 2
    depth: float = 900.0
    markers: int = 25
    dropout: float = 0.3
    seed: int = 0


def profiles(recipe: Recipe) -> np.ndarray:
    """Return the share of each gene in each type and batch, (types, batches, genes), and dropout applied."""
    level = np.random.default_rng(1).gamma(0.5, 1.0, recipe.genes) + 1e-3
    rates = []
    for kind in recipe.types:
        rng = np.random.default_rng((2, kind))
        rate = level * rng.lognormal(0.0, 0.25, recipe.genes)
        own = rng.choice(recipe.genes, min(recipe.markers, recipe.genes), replace=False)
        rate[own] = np.maximum(rate[own], 0.5) * rng.uniform(4, 12, len(own))
        rates.append(rate)
    shift = np.random.default_rng((3, recipe.seed)).lognormal(0.0, 0.15, (recipe.batches, recipe.genes))
    made = np.array(rates)[:, None, :] * shift[None]
    if recipe.dropout > 0:
        made = made * (1.0 - np.exp(-made / made.mean() / recipe.dropout))
    return made / np.array(rates).sum(axis=1)[:, None, None]


def block(recipe: Recipe, shares: np.ndarray, number: int) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Return counts (CSR float32), type and batch of the cells of one block."""
    rng = np.random.default_rng((4, recipe.seed, number))
    n = min(BLOCK, recipe.cells - number * BLOCK)
    kind = rng.integers(len(recipe.types), size=n)
    batch = rng.integers(recipe.batches, size=n)
    library = recipe.depth * rng.lognormal(0.0, 0.35, n)
    rows, columns = [], []
    for k in range(len(recipe.types)):
        for b in range(recipe.batches):
            cells = np.flatnonzero((kind == k) & (batch == b))
            molecules = rng.poisson(library[cells] * shares[k, b].sum())
            cumulative = np.cumsum(shares[k, b])
            drawn = rng.random(int(molecules.sum())) * cumulative[-1]
            rows.append(np.repeat(cells, molecules))
            columns.append(np.searchsorted(cumulative, drawn).clip(max=recipe.genes - 1))
    row, column = np.concatenate(rows).astype(np.int32), np.concatenate(columns).astype(np.int32)
    counts = sp.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=(n, recipe.genes))
    counts.sum_duplicates()
    return counts, kind, batch


def write(recipe: Recipe, path: Path, compression: str | None = None) -> None:
    """Write the cells as h5ad (CSR), a block in memory at a time."""
    import h5py
    import pandas as pd
    from anndata.io import write_elem

    shares = profiles(recipe)
    kinds, batches, lengths = [], [], [np.zeros(1, np.int64)]
    with h5py.File(path, "w") as file:
        write_elem(file, "/", {})
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
        x = file.create_group("X")
        x.attrs["encoding-type"], x.attrs["encoding-version"] = "csr_matrix", "0.1.0"
        x.attrs["shape"] = (recipe.cells, recipe.genes)
        stored = {
            name: x.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(1 << 18,), compression=compression)
            for name, kind in (("data", np.float32), ("indices", np.int32))
        }
        for number in range(-(-recipe.cells // BLOCK)):
            counts, kind, batch = block(recipe, shares, number)
            end = stored["data"].shape[0]
            for name, values in (("data", counts.data), ("indices", counts.indices)):
                stored[name].resize((end + len(values),))
                stored[name][end:] = values
            lengths.append(np.diff(counts.indptr).astype(np.int64))
            kinds.append(kind)
            batches.append(batch)
        x.create_dataset("indptr", data=np.cumsum(np.concatenate(lengths)))
        names = np.array([f"type {k}" for k in recipe.types])
        obs = pd.DataFrame(
            {
                "cell_type": pd.Categorical.from_codes(np.concatenate(kinds), names),
                "batch": pd.Categorical(np.concatenate(batches).astype(str)),
            },
            index=[f"s{recipe.seed}c{i}" for i in range(recipe.cells)],
        )
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"GENE{g}" for g in range(recipe.genes)]))
        for name in ("uns", "obsm", "varm", "obsp", "varp", "layers"):
            write_elem(file, name, {})


def main() -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--types", type=int, default=20)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--depth", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compression", choices=("gzip", "lzf"))
    given = parser.parse_args()
    recipe = Recipe(
        cells=given.cells, genes=given.genes, types=tuple(range(given.types)), batches=given.batches,
        depth=given.depth, seed=given.seed,
    )  # fmt: skip
    write(recipe, given.path, given.compression)
    print(f"{given.path}: {given.cells} cells x {given.genes} genes, {given.types} types")


if __name__ == "__main__":
    main()
