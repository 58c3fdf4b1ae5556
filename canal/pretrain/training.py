"""Pre-training by masked expression modelling, group of blocks by group, so that a killed run goes on from the last.

Everything random is drawn from the seed and the numbers of epoch and group: a run that was stopped gives the same
weights as one that was not. Shapes: B cells, G genes of the panel, S genes of a batch.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from canal.model.encoders.layers import SLICES, in_threads, one_thread
from canal.model.network import best_device
from canal.pretrain.cells import TokenBlock, TokenBlocks
from canal.pretrain.config import PretrainPreset
from canal.pretrain.masked import HeldOutTokens, MaskedModel, mask_tokens, validate
from canal.progress import Progress
from canal.seeds import numpy_generator, torch_generator
from canal.training.train import load_optimizer, optimizer_tensors, read_checkpoint, tensors_under

SECONDS_BETWEEN_CHECKPOINTS = 20.0  # what a killed run loses at most, beside the group it was in
# Times the learning rate, for the vectors of genes and bins: they start with unit spread, and at the rate of the others
# a short training leaves them as they were drawn. pbmc3k, preset small, 6 epochs: held-out loss .746, .762 at 1.
VECTORS_RATE = 10.0
LEAST_RATE = 0.01  # share of the learning rate at the end of the cosine


@dataclass
class PretrainState:
    """How far a pre-training is.

    Attributes
    ----------
    epoch, group
        Epochs that are done, and groups of the next epoch that are done.
    loss, masked
        Sum of the loss over the masked tokens of this epoch so far, and their number.
    history
        Figures of each epoch.
    """

    epoch: int = 0
    group: int = 0
    loss: float = 0.0
    masked: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PretrainCells:
    """The cells of a pre-training.

    Attributes
    ----------
    blocks
        All cells as blocks of tokens.
    trained_on
        Which cells of each file are trained on, bool (cells,).
    held_out
        The held-out cells.
    """

    blocks: TokenBlocks
    trained_on: Sequence[np.ndarray]
    held_out: HeldOutTokens

    @property
    def count(self) -> int:
        """Number of training cells."""
        return int(sum(rows.sum() for rows in self.trained_on))


class Pretraining:
    """One pre-training: model, optimizer and how far it is.

    Parameters
    ----------
    model
        Trained in place.
    cells
        Training and held-out cells.
    preset
        Complete configuration.
    seed
        The recorded seed.
    checkpoint
        File to resume from and to write, and the key of the run it must belong to.
    """

    def __init__(
        self, model: MaskedModel, cells: PretrainCells, preset: PretrainPreset, seed: int, checkpoint: tuple[Path, str]
    ) -> None:
        self.device = best_device()
        self.model, self.cells, self.preset, self.seed = model.to(self.device), cells, preset, seed
        self._path, self._key = checkpoint
        config = preset.training
        # Vectors of genes and bins first, at a rate of their own.
        vectors = [weight for weight in (model.gene_emb.weight, model.token_emb.weight) if weight.requires_grad]
        others = [weight for name, weight in model.named_parameters() if "_emb." not in name and weight.requires_grad]
        groups = [{"params": vectors, "factor": VECTORS_RATE}, {"params": others, "factor": 1.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.state = PretrainState()
        self._saved = time.monotonic()

    def resume(self) -> bool:
        """Resume from the checkpoint; tell whether there was one of this run."""
        checkpoint = read_checkpoint(self._path, self._key)
        if checkpoint is None:
            return False
        tensors, facts = checkpoint
        self.model.load_state_dict(tensors_under(tensors, "model."))
        load_optimizer(self.optimizer, tensors)
        self.state = PretrainState(**facts["state"])
        return True

    def run(self, progress: Progress) -> list[dict[str, float]]:
        """Train to the end and return the figures of every epoch."""
        epochs, state = self.preset.training.epochs, self.state
        # A run that goes on shows the rest alone: what was done before took none of its time.
        total = epochs * self.cells.count
        before = int((state.epoch + state.group / self.cells.blocks.groups) * self.cells.count)
        progress.start(total - before, f"pre-training, {before / total:.0%} done before" if before else "pre-training")
        while state.epoch < epochs:
            self._train_epoch(progress)
            figures = validate(self.model, self.cells.held_out, self.device)
            figures["loss"] = state.loss / max(state.masked, 1)
            state.history.append(figures)
            state.epoch, state.group, state.loss, state.masked = state.epoch + 1, 0, 0.0, 0
            self._save()
            progress.advance(0, f"epoch {state.epoch}, held-out accuracy {figures['accuracy']:.3f}")
        progress.close()
        self.model.to("cpu").eval()
        return state.history

    def _train_epoch(self, progress: Progress) -> None:
        """Train on the groups of this epoch that are not done yet."""
        blocks, state = self.cells.blocks, self.state
        self.model.train()
        while state.group < blocks.groups:
            order = numpy_generator(self.seed, f"pretraining order {state.epoch}")
            group = blocks.group(state.group, order, self.cells.trained_on)
            self._train_group(group, progress)
            state.group += 1
            if time.monotonic() - self._saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()

    def _train_group(self, group: TokenBlock, progress: Progress) -> None:
        """Train on the cells of one group, in an order drawn anew, with gradients summed over several batches."""
        config, state = self.preset.training, self.state
        draw = torch_generator(self.seed, f"pretraining {state.epoch} {state.group}")
        batches = list(_batch_rows(len(group.tokens), config.batch_size, draw))
        for number, rows in enumerate(batches, 1):
            loss, n_masked = self._add_gradients(group, rows, draw)
            state.loss += loss * n_masked
            state.masked += n_masked
            if number % config.accumulate == 0 or number == len(batches):
                groups_done = state.group + number / len(batches)
                self._step((state.epoch + groups_done / self.cells.blocks.groups) / config.epochs)
            progress.advance(len(rows))

    def _add_gradients(self, group: TokenBlock, rows: np.ndarray, draw: torch.Generator) -> tuple[float, int]:
        """Add the gradients of a batch; return its mean cross-entropy on the masked tokens, and their number."""
        config, masking = self.preset.training, self.preset.masking
        mask_token = self.model.mask_token
        tokens, genes = _draw_genes(group, rows, config.genes_per_batch, mask_token, draw)
        shown, masked = mask_tokens(
            tokens,
            share=masking.share,
            replaced=masking.replaced,
            zeros=masking.zeros,
            mask_token=mask_token,
            draw=draw,
        )
        n_masked = int(masked.sum())
        if not n_masked:  # cells that express nothing have nothing to mask
            return 0.0, 0
        # On a CPU slice by slice, each by one core: their gradients are added in the order of the slices, so that the
        # weights do not depend on the number of cores. Elsewhere, and of small cells, the batch as a whole.
        cells = len(rows)
        size = -(-cells // SLICES) if self.model.takes_cells_alone(len(genes) + 1) else cells
        slices = [slice(start, start + size) for start in range(0, cells, size)]
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]

        def of_slice(part: slice) -> tuple[float, Sequence[Tensor | None]]:
            targets = tokens[part][masked[part]].to(self.device)
            if not len(targets):
                return 0.0, [None] * len(trained)
            logits = self.model(shown[part].to(self.device), genes.to(self.device), masked[part].to(self.device))
            loss = F.cross_entropy(logits, targets, reduction="sum") / n_masked
            return float(loss.detach()), torch.autograd.grad(loss / config.accumulate, trained, allow_unused=True)

        total = 0.0
        with one_thread() if len(slices) == 1 else nullcontext():
            done = in_threads(of_slice, slices)
        for loss, gradients in done:
            total += loss
            for weight, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        return total, n_masked

    def _step(self, done: float) -> None:
        """Take one step of the optimizer, at the learning rate for this share of all steps."""
        config = self.preset.training
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_share(done, config.warm_up) * group["factor"]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors = dict(optimizer_tensors(self.optimizer))
        for name, tensor in self.model.state_dict().items():
            tensors[f"model.{name}"] = tensor
        for name, tensor in tensors.items():
            tensors[name] = tensor.detach().cpu().contiguous().clone()
        facts = {"key": self._key, "state": vars(self.state)}
        new = self._path.with_suffix(".new")
        save_file(tensors, new, metadata={"facts": json.dumps(facts)})
        new.replace(self._path)
        self._saved = time.monotonic()


def _batch_rows(n: int, size: int, draw: torch.Generator) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, every row once, in an order drawn anew."""
    order = torch.randperm(n, generator=draw).numpy()
    for start in range(0, n, size):
        yield order[start : start + size]


def _draw_genes(
    group: TokenBlock, rows: np.ndarray, genes: int, mask_token: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the tokens of some cells on genes that are drawn at random, and these genes.

    Parameters
    ----------
    group
        Cells on the whole panel.
    rows
        Which cells.
    genes
        Number of genes to draw; 0 for all.
    mask_token
        Stands where a gene was not measured.
    draw
        Draws the genes.

    Returns
    -------
    Tokens, int64 (B, S), and columns of the genes, int64 (S,).
    """
    n = group.tokens.shape[1]
    drawn = torch.arange(n)
    if 0 < genes < n:
        drawn = torch.randperm(n, generator=draw)[:genes].sort().values
    columns = drawn.numpy()
    tokens = torch.from_numpy(group.tokens[rows][:, columns]).long()
    measured = torch.from_numpy(group.measured[rows][:, columns])
    return torch.where(measured, tokens, mask_token), drawn


def rate_share(done: float, warm_up: float) -> float:
    """Return the share of the learning rate after a share of all steps: a linear rise, then a cosine to 1 %."""
    if done < warm_up:
        return max(done / warm_up, 1e-3)
    cosine = 0.5 * (1 + math.cos(math.pi * (done - warm_up) / max(1 - warm_up, 1e-9)))
    return LEAST_RATE + (1 - LEAST_RATE) * cosine
