"""The paper's encoder: canal's own path beside performer-pytorch's, forward and one epoch of training.

Run with ``python benchmarks/performer_speed.py FOLDER``, the folder of the labelled streams (immune/...). Weights are
the same on both sides, drawn from one seed and trained for two epochs as the paper trains (the last layer but one, the
norm and the head), so that the labels mean something. Printed are:

- the limit of the machine: matrix products of the model's shapes in float32 and bfloat16
- forward at 1001 tokens, cells a second: performer-pytorch in batches of 1 and 8, the own path in float32 and bfloat16
- agreement of the labels of real cells between the own path in bfloat16 and performer-pytorch in float32
- seconds of computing of a pre-training step, through performer-pytorch's modules and the own path, one thread
- seconds of an epoch of stage 2: the published loop (teacher and student through all six layers at every step,
  gradients into the last two) through performer-pytorch, and canal's (frozen layers' outputs kept for the stage)
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from canal.config import Preset, load_preset
from canal.data.cells import CellPool
from canal.data.panel import GenePanel
from canal.data.stream import read_cells
from canal.data.variable_genes import highly_variable
from canal.model.encoders.performer import PerformerEncoder
from canal.model.encoders.published import layer_operations
from canal.model.network import Network, PanelCells, new_network
from canal.pretrain.config import load_pretrain_preset
from canal.pretrain.masked import MaskedModel, mask_tokens
from canal.training.fitting import on_panel, type_index
from canal.training.frozen import FrozenOutputs
from canal.training.plugins import classification_loss, distillation_loss

GENES = 1000
BATCH = 14  # of the paper


def shortest(
    work: dict[str, Callable[[], Any]], runs: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return the shortest time of each work; they take turns, so that a busy machine is busy for all."""
    best = dict.fromkeys(work, np.inf)
    for _ in range(runs):
        for name, function in work.items():
            begin = clock()
            function()
            best[name] = min(best[name], clock() - begin)
    return best


def peak(dtype: torch.dtype) -> float:
    """Return operations a second of products of the model's shapes, all cores."""
    x, w = torch.randn(8 * 1001, 200).to(dtype), torch.randn(1920, 200).to(dtype)
    return 2.0 * x.shape[0] * x.shape[1] * w.shape[0] / shortest({"": lambda: F.linear(x, w)}, 9)[""]


def published_step(
    network: Network, teacher: Network, values: torch.Tensor, measured: torch.Tensor, types: torch.Tensor
) -> None:
    """Take a step as the published loop does, through performer-pytorch's modules."""
    with torch.no_grad():
        previous = plain(teacher, values, measured)[0]
    rep, logits = plain(network, values, measured)
    weights = torch.ones(len(types))
    loss = classification_loss(logits, types, weights, 0.1) + 0.1 * distillation_loss(rep, previous)
    network.zero_grad()
    loss.backward()


def kept_step(
    network: Network, kept: FrozenOutputs, previous: torch.Tensor, rows: torch.Tensor, measured: torch.Tensor,
    types: torch.Tensor,
) -> None:  # fmt: skip
    """Take the same step from kept outputs."""
    rep, logits = network.from_frozen(kept.rows(rows), measured)
    weights = torch.ones(len(types))
    loss = classification_loss(logits, types, weights, 0.1) + 0.1 * distillation_loss(rep, previous[rows])
    network.zero_grad()
    loss.backward()


def plain(network: Network, values: torch.Tensor, measured: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return representation and logits through performer-pytorch's own modules, float32."""
    encoder = encoder_of(network)
    x = encoder._embedded(F.pad(encoder.tokens(values, measured), (0, 1)))
    rep = encoder._head(encoder.performer(x), measured)
    return rep, network.classifier(rep)


def encoder_of(network: Network) -> PerformerEncoder:
    """Return the encoder."""
    assert isinstance(network.encoder, PerformerEncoder)
    return network.encoder


def real_cells(path: Path, genes: int) -> tuple[PanelCells, np.ndarray, tuple[str, ...]]:
    """Return the cells of a file on its most variable genes, their types and the types' names."""
    cells = read_cells(path, labels="cell_type")
    columns = highly_variable(cells, genes)
    panel = GenePanel.empty().extended(cells.genes.take(columns), 1)
    assert cells.labels is not None
    names = tuple(sorted(set(cells.labels.tolist())))
    return on_panel(CellPool.of(cells, 1), panel), type_index(cells.labels, names), names


def trained(preset: Preset, cells: PanelCells, types: np.ndarray, n_types: int, n: int) -> Network:
    """Return a network whose head, norm and fifth layer saw some cells twice."""
    network = new_network(preset, cells.values.shape[1], n_types, 0)
    kept = FrozenOutputs.of(network, cells.take(np.arange(n)), torch.device("cpu"))
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=5e-4, amsgrad=True)
    draw = torch.Generator().manual_seed(0)
    for _ in range(2):
        for rows in torch.randperm(n, generator=draw).split(BATCH):
            logits = network.from_frozen(kept.rows(rows), cells.dense(rows.numpy())[1])[1]
            optimizer.zero_grad()
            F.cross_entropy(logits, torch.from_numpy(types)[rows]).backward()
            optimizer.step()
    return network.eval()


def pretraining_steps(preset: str, n: int, genes: int) -> dict[str, Callable[[], Any]]:
    """Return a step of pre-training on some cells: through performer-pytorch's modules, and as canal does."""
    model = MaskedModel(load_pretrain_preset(preset).model.encoder(), genes)
    # Sparse tokens, as real cells have: a gene is expressed in 0 to 30 % of them.
    draw = torch.Generator().manual_seed(0)
    expressed = torch.rand(n, genes, generator=draw) < 0.3 * torch.rand(genes, generator=draw)
    tokens = torch.randint(1, 6, (n, genes), generator=draw) * expressed
    shown, masked = mask_tokens(tokens, share=0.15, replaced=0.9, mask_token=6, draw=draw)

    def step(logits: torch.Tensor) -> None:
        model.zero_grad()
        F.cross_entropy(logits, tokens[masked]).backward()

    def through_modules() -> None:
        x = model.token_emb(F.pad(shown, (0, 1))) + F.pad(model.gene_emb.weight, (0, 0, 0, 1))
        step(model.to_out(model.norm(model.performer(x)[F.pad(masked, (0, 1))])))

    def own() -> None:
        step(model(shown, torch.arange(genes), masked))

    return {"performer-pytorch": through_modules, "canal": own}


def pretraining(runs: int) -> None:
    """Print milliseconds of computing a cell of a pre-training step, by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for preset, n, genes in (("small", 32, 512), ("scbert", 4, GENES)):
        spent = shortest(pretraining_steps(preset, n, genes), runs, time.process_time)
        for side, seconds in spent.items():
            ratio = spent["performer-pytorch"] / seconds
            print(f"pre-training, {preset}, {side:17s} {seconds / n * 1000:7.1f} ms a cell  x{ratio:5.2f}")
    torch.set_num_threads(threads)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--agree", type=int, default=400, help="cells whose labels are compared")
    parser.add_argument("--train", type=int, default=280, help="cells trained on before that")
    options = parser.parse_args()
    preset = load_preset("canal", ("encoder.trainable=paper", "training.precision=auto"))
    cells, types, names = real_cells(options.streams / "immune/1_zheng_facs.train.h5ad", GENES)
    order = np.random.default_rng(0).permutation(len(cells))
    cells, types = cells.take(order), types[order]
    network = trained(preset, cells, types, len(names), options.train)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, products in {network.encoder.product_dtype}")
    pretraining(options.runs)
    forward(network, cells, options.runs)
    agreement(network, cells, options.train, options.agree)
    epoch(network, cells, types, options.runs)


def forward(network: Network, cells: PanelCells, runs: int) -> None:
    """Print cells a second and the share of the machine's limit."""
    encoder, numbers = encoder_of(network), network.encoder.product_dtype
    work_of = encoder.config.depth * layer_operations(encoder.config, GENES + 1)
    limit = {dtype: peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    n = 16
    values, measured = cells.dense(np.arange(n))

    def own(dtype: torch.dtype) -> None:
        encoder.product_dtype = dtype
        network(values, measured)

    work: dict[str, Callable[[], Any]] = {
        "performer-pytorch, batches of 8": lambda: [
            plain(network, values[i : i + 8], measured[i : i + 8]) for i in (0, 8)
        ],
        "performer-pytorch, one by one": lambda: [
            plain(network, values[i : i + 1], measured[i : i + 1]) for i in range(n)
        ],
        "canal, float32": lambda: own(torch.float32),
        "canal, bfloat16": lambda: own(torch.bfloat16),
    }
    with torch.no_grad():
        spent = shortest(work, runs)
    encoder.product_dtype = numbers
    print(f"a cell: {work_of / 1e9:.1f} GFLOP at {GENES + 1} tokens")
    for dtype, rate in limit.items():
        print(f"products of these shapes, {dtype}: {rate / 1e9:.0f} GFLOP/s, or {rate / work_of:.1f} cells/s")
    first = spent["performer-pytorch, batches of 8"]
    for name, seconds in spent.items():
        dtype = torch.bfloat16 if "bfloat16" in name else torch.float32
        share = n / seconds * work_of / limit[dtype]
        print(f"forward, {name:32s} {n / seconds:6.2f} cells/s  x{first / seconds:5.2f}  {share:4.0%} of the limit")


def agreement(network: Network, cells: PanelCells, first: int, n: int) -> None:
    """Print how often the own path in bfloat16 gives performer-pytorch's label."""
    same = 0
    encoder, numbers = encoder_of(network), network.encoder.product_dtype
    encoder.product_dtype = torch.bfloat16
    n = min(n, len(cells) - first)
    with torch.no_grad():
        for start in range(first, first + n, 16):
            values, measured = cells.dense(np.arange(start, min(start + 16, first + n)))
            own = network(values, measured)[1].argmax(dim=1)
            expected = torch.cat(
                [plain(network, values[[i]], measured[[i]])[1].argmax(dim=1) for i in range(len(values))]
            )
            same += int((own == expected).sum())
    encoder.product_dtype = numbers
    print(f"labels of {n} cells that agree: {same / n:.2%}")


def epoch(network: Network, cells: PanelCells, types: np.ndarray, runs: int) -> None:
    """Print seconds a cell of a training step, and of what is computed once a stage."""
    n = BATCH * 2
    part, targets = cells.take(np.arange(n)), torch.from_numpy(types[:n])
    begin = time.perf_counter()
    kept = FrozenOutputs.of(network, part, torch.device("cpu"))
    previous = torch.from_numpy(kept.representations(network))
    once = time.perf_counter() - begin
    teacher, rows = copy.deepcopy(network), torch.arange(n)
    network.train()
    values, measured = part.dense(np.arange(n))
    batches = rows.split(BATCH)
    spent = shortest(
        {
            "published": lambda: [
                published_step(network, teacher, values[r], measured[r], targets[r]) for r in batches
            ],
            "own": lambda: [kept_step(network, kept, previous, r, measured[r], targets[r]) for r in batches],
        },
        runs,
    )
    for name, seconds in spent.items():
        print(
            f"training, {name:10s} {seconds / n * 1000:7.0f} ms a cell and epoch  x{spent['published'] / seconds:5.2f}"
        )
    print(f"once a stage: {once / n * 1000:.0f} ms a cell")
    for epochs in (1, 20):
        ratio = epochs * spent["published"] / (epochs * spent["own"] + once)
        print(f"{epochs} epochs with what is computed once: x{ratio:.2f}")


if __name__ == "__main__":
    main()
