"""The published Performer on a GPU, from accuracy to speed, in one command and one table.

    python benchmarks/gpu.py STREAMS --out gpu [--preset canal-paper] [--minutes 20]

STREAMS is a folder of streams, each a folder of ``N_name.train.h5ad`` and ``N_name.test.h5ad`` with the types in
``obs["cell_type"]``. Four parts, each written to ``gpu.md`` as soon as it is there, so that a run that is cut short
leaves what it measured:

1. *Speed*: cells a second of a training step and of annotation in float32 and bfloat16, and the share of what this
   device makes of large products.
2. *Labels*: how many cells get the same type in bfloat16 and in float32, with weights trained for a moment.
3. *Neighbours*: FAISS on the GPU beside the CPU: seconds, and the share of neighbours that are the same.
4. *Streams*: `canal benchmark` with the preset, naive fine-tuning of its network, and joint logistic regression.

Without a GPU everything runs on the CPU and the table says so; part 3 then has one column. ``--quick`` takes few cells,
genes and epochs: it shows that all parts run, and its figures mean nothing.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from torch.nn import functional as F

from benchmarks.performer_speed import real_cells, shortest
from canal.config import PerformerConfig, Preset, load_preset
from canal.model.encoders.published import layer_operations
from canal.model.network import Network, best_device, new_network
from canal.model.novelty.neighbours import NeighbourIndex

QUICK = (
    "encoder.dim=16", "encoder.depth=3", "encoder.heads=2", "encoder.dim_head=8", "encoder.hidden=8",
    "encoder.representation=8", "genes.per_stage=60", "training.epochs=1", "bank.size=100",
)  # fmt: skip
NEIGHBOURS, DIM = 10, 64
RUNS = 4  # of which the first warms the device up
DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    streams
        Folder of the streams.
    out
        Files are called so, with ``.md`` and ``.json``; the benchmarks' results are kept beside them.
    preset, overrides
        Of the network.
    methods
        Of `canal benchmark`.
    batch
        Cells of a step and of a block.
    cells
        Real cells that speed and agreement are measured on.
    references, queries
        Of the neighbours.
    minutes
        The streams are left out once so much time is over.
    """

    streams: Path
    out: Path
    preset: str
    overrides: tuple[str, ...]
    methods: str
    batch: int
    cells: int
    references: int
    queries: int
    minutes: float


def product_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Return operations a second of a large product."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(size, size, device=device).to(dtype), torch.randn(size, size, device=device).to(dtype)
    return 2.0 * size**3 / fastest(lambda: a @ b, device)


def fastest(work: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest of some runs in seconds, each to the end of what the device was given."""

    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return shortest({"": whole}, RUNS)[""]


class Measured:
    """A network on the device with the cells it is measured on.

    Parameters
    ----------
    plan, preset
        What is measured.
    """

    def __init__(self, plan: Plan, preset: Preset) -> None:
        self.plan, self.preset, self.device = plan, preset, best_device()
        # Some cells of the first stage of the first stream.
        cells, types, names = real_cells(min(plan.streams.glob("*/1_*.train.h5ad")), preset.genes.per_stage)
        rows = np.random.default_rng(0).permutation(len(cells))[: plan.cells]
        self.cells, self.types = cells.take(rows), torch.from_numpy(types[rows]).to(self.device)
        self.network: Network = new_network(preset, cells.values.shape[1], len(names), 0).to(self.device)
        trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=preset.training.learning_rate)

    def outputs(self, rows: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        """Return the logits of some cells with products in these numbers."""
        self.network.encoder.product_dtype = dtype  # on a CPU; on a GPU it is autocast's
        values, measured = self.cells.dense(rows)
        on_gpu = self.device.type == "cuda"
        with torch.autocast("cuda", dtype=dtype, enabled=on_gpu and dtype != torch.float32):
            logits: torch.Tensor = self.network(values.to(self.device), measured.to(self.device))[1]
        return logits.float()

    def step(self, rows: np.ndarray, dtype: torch.dtype) -> None:
        """Take one step of training."""
        loss = F.cross_entropy(self.outputs(rows, dtype), self.types[rows])
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def labels(self, dtype: torch.dtype) -> np.ndarray:
        """Return the type of every cell."""
        self.network.eval()
        with torch.no_grad():
            answers = [self.outputs(rows, dtype).argmax(dim=1).cpu() for rows in self.cells.blocks(self.plan.batch)]
        return torch.cat(answers).numpy()


def speed(measured: Measured) -> list[list[str]]:
    """Return a row for annotation and for training in each kind of numbers."""
    plan, device, config = measured.plan, measured.device, measured.preset.encoder
    assert isinstance(config, PerformerConfig)
    rows = np.arange(min(plan.batch, len(measured.cells)))
    forward = config.depth * layer_operations(config, measured.cells.values.shape[1] + 1)
    # Backward through the layers that are trained or lie behind one: twice their forward pass.
    behind = config.depth - measured.network.encoder.frozen_layers
    training = forward + 2.0 * behind / config.depth * forward
    table = []
    for dtype in DTYPES:
        peak = product_peak(dtype, device)

        def annotate(dtype: torch.dtype = dtype) -> None:
            with torch.no_grad():
                measured.outputs(rows, dtype)

        for name, flop, work in (
            ("annotation", forward, annotate),
            ("training step", training, lambda dtype=dtype: measured.step(rows, dtype)),
        ):
            rate = len(rows) / fastest(work, device)
            share = rate * flop / peak
            numbers = str(dtype).removeprefix("torch.")
            table.append([name, numbers, f"{rate:.1f}", f"{flop / 1e9:.1f}", f"{peak / 1e12:.2f}", f"{share:.1%}"])
    return table


def agreement(measured: Measured) -> list[list[str]]:
    """Train for one pass over the cells, and compare the labels of both kinds of numbers."""
    measured.network.train()
    for rows in measured.cells.blocks(measured.plan.batch):
        measured.step(rows, torch.bfloat16)
    exact, short = measured.labels(torch.float32), measured.labels(torch.bfloat16)
    right = float((exact == measured.types.cpu().numpy()).mean())
    return [[str(len(exact)), f"{(exact == short).mean():.2%}", str(len(set(exact.tolist()))), f"{right:.3f}"]]


def neighbours(plan: Plan) -> list[list[str]]:
    """Return a row for each number of references: the CPU, and the GPU where FAISS has one."""
    import faiss

    has_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    rng = np.random.default_rng(0)
    table = []
    for n in (max(plan.references // 100, 100), plan.references):
        references = rng.normal(size=(n, DIM)).astype(np.float32)
        queries = references[rng.integers(n, size=plan.queries)]
        queries = queries + rng.normal(scale=0.3, size=queries.shape).astype(np.float32)
        seconds, answers = {}, {}
        for gpu in (False, True)[: 1 + has_gpu]:
            begin = time.perf_counter()
            answers[gpu] = NeighbourIndex(references, gpu=gpu).search(queries, NEIGHBOURS).indices
            seconds[gpu] = time.perf_counter() - begin
        row = [str(n), str(plan.queries), f"{seconds[False]:.2f}"]
        if has_gpu:
            same = float((answers[False] == answers[True]).mean())
            row += [f"{seconds[True]:.2f}", f"x{seconds[False] / seconds[True]:.1f}", f"{same:.4f}"]
        else:
            row += ["no GPU, or faiss-cpu", "", ""]
        table.append(row)
    return table


def stream_file(folder: Path, out: Path) -> Path:
    """Write the declaration of a stream for `canal benchmark`, and return it."""
    stages = []
    for train in sorted(folder.glob("*.train.h5ad"), key=lambda path: int(path.name.split("_")[0])):
        stages.append(
            {
                "name": train.name.removesuffix(".train.h5ad").split("_", 1)[1],
                "data": str(train.resolve()),
                "test": str(train.resolve().with_name(train.name.replace(".train.", ".test."))),
                "labels": "cell_type",
            }
        )
    path = out.with_name(f"{out.name}-{folder.name}.toml")
    path.write_text(tomli_w.dumps({"schema": 1, "name": folder.name, "stage": stages}))
    return path


def streams(plan: Plan, begin: float) -> list[list[str]]:
    """Return a row for each method on each stream; what there was no time for says so."""
    table = []
    for folder in sorted({path.parent for path in plan.streams.glob("*/1_*.train.h5ad")}):
        if time.monotonic() - begin > plan.minutes * 60:
            table.append([folder.name, "not run: no time left", "", "", "", ""])
            continue
        results = plan.out.with_name(f"{plan.out.name}-{folder.name}")
        line = [sys.executable, "-m", "canal.cli.main", "benchmark", "--stream", str(stream_file(folder, plan.out))]
        line += ["--methods", plan.methods, "--preset", plan.preset, "--out", str(results)]
        for override in plan.overrides:
            line += ["--set", override]
        done = subprocess.run([*line, "--json"], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(line)} failed ({done.returncode})")
        for row in json.loads(done.stdout)["rows"]:
            if row["runs"]:
                figures = [f"{row['mean'][name]:.4f}" for name in ("accuracy", "macro_f1", "forgetting")]
                table.append([folder.name, row["title"], *figures, f"{row['mean']['learn_seconds']:.0f}"])
            else:
                table.append([folder.name, row["title"], f"not run: {row['reason']}", "", "", ""])
    return table


def as_markdown(title: str, columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return one table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([f"## {title}", "", *lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def measure(plan: Plan) -> str:
    """Measure all parts, writing each to the file as it comes; return the page."""
    begin = time.monotonic()
    preset = load_preset(plan.preset, plan.overrides)
    measured = Measured(plan, preset)
    device = torch.cuda.get_device_name() if measured.device.type == "cuda" else "CPU"
    parts = [f"# Preset {plan.preset} on: {device}; torch {torch.__version__}\n"]
    columns = ("", "numbers", "cells/s", "GFLOP a cell", "peak, TFLOP/s", "share of it")
    jobs: tuple[tuple[str, tuple[str, ...], Callable[[], list[list[str]]]], ...] = (
        ("Speed", columns, lambda: speed(measured)),
        ("Labels", ("cells", "same label", "types answered", "right"), lambda: agreement(measured)),
        (
            "Neighbours",
            ("references", "queries", "CPU, s", "GPU, s", "ratio", "same neighbours"),
            lambda: neighbours(plan),
        ),
        (
            "Streams",
            ("stream", "method", "accuracy", "macro-F1", "forgetting", "seconds to learn"),
            lambda: streams(plan, begin),
        ),
    )
    for title, names, work in jobs:
        parts.append(as_markdown(title, names, work()))
        plan.out.with_suffix(".md").write_text("\n".join(parts))
        print(parts[-1], flush=True)
    return "\n".join(parts)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", type=Path)
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--preset", default="canal-paper")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--methods", default="canal,naive,lr-joint", help="canal is the preset's network")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if not any(options.streams.glob("*/1_*.train.h5ad")):
        parser.error(f"{options.streams} has no folder with files called 1_NAME.train.h5ad")
    quick = options.quick
    measure(
        Plan(
            streams=options.streams,
            out=options.out,
            preset=options.preset,
            overrides=(*(QUICK if quick else ()), *options.overrides),
            methods=options.methods,
            batch=14 if quick else options.batch,
            cells=60 if quick else options.cells,
            references=500 if quick else 100_000,
            queries=200 if quick else 100_000,
            minutes=options.minutes,
        )
    )


if __name__ == "__main__":
    main()
