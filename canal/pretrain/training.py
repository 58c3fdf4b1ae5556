"""Pre-training by masked expression modelling, group of blocks by group, so that a killed run goes on from the last.

Everything random is drawn from the seed and the numbers of epoch and group: a run that was stopped gives the same
weights as one that was not. Shapes: B cells, G genes of the panel, S genes of a batch.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from canal.model.network import best_device
from canal.pretrain.cells import TokenBlock, TokenBlocks
from canal.pretrain.config import PretrainPreset
from canal.pretrain.masked import HeldOutTokens, MaskedModel, mask_tokens, validate
from canal.progress import Progress
from canal.seeds import numpy_generator, torch_generator
from canal.training.train import load_optimizer, optimizer_tensors, read_checkpoint, tensors_under

SECONDS_BETWEEN_CHECKPOINTS = 20.0


@dataclass
class PretrainState:
    """Where a pre-training stands: epochs and groups of the next epoch done, its loss so far, figures of each epoch."""

    epoch: int = 0
    group: int = 0
    loss: float = 0.0
    masked: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PretrainCells:
    """The cells of a pre-training: blocks of tokens, the training cells of each file (bool), and those held out."""

    blocks: TokenBlocks
    taken: Sequence[np.ndarray]
    held_out: HeldOutTokens

    @property
    def count(self) -> int:
        """Number of training cells."""
        return int(sum(rows.sum() for rows in self.taken))


class Pretraining:
    """A run: model, optimizer and where it stands.

    Parameters
    ----------
    model
        Trained in place.
    cells
        Training and held-out cells.
    preset
        Configuration.
    seed
        The recorded seed.
    checkpoint
        File to go on from and to write, and the key that must be the same.
    """

    def __init__(
        self, model: MaskedModel, cells: PretrainCells, preset: PretrainPreset, seed: int, checkpoint: tuple[Path, str]
    ) -> None:
        self.device = best_device()
        self.model, self.cells, self.preset, self.seed = model.to(self.device), cells, preset, seed
        self._path, self._key = checkpoint
        config = preset.training
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.state = PretrainState()
        self._saved = time.monotonic()

    def resume(self) -> bool:
        """Go on from the checkpoint; tell whether there was one of this run."""
        found = read_checkpoint(self._path, self._key)
        if found is None:
            return False
        tensors, facts = found
        self.model.load_state_dict(tensors_under(tensors, "model."))
        load_optimizer(self.optimizer, tensors)
        self.state = PretrainState(**facts["state"])
        return True

    def run(self, progress: Progress, on_epoch: Callable[[int, dict[str, float]], None]) -> list[dict[str, float]]:
        """Train to the end and return the figures of every epoch."""
        epochs, state = self.preset.training.epochs, self.state
        progress.start(epochs * self.cells.count, "pre-training")
        progress.advance(int((state.epoch + state.group / self.cells.blocks.groups) * self.cells.count))
        while state.epoch < epochs:
            self._epoch(progress)
            figures = validate(self.model, self.cells.held_out, self.device)
            figures["loss"] = state.loss / max(state.masked, 1)
            state.history.append(figures)
            state.epoch, state.group, state.loss, state.masked = state.epoch + 1, 0, 0.0, 0
            self._save()
            on_epoch(state.epoch, figures)
            progress.advance(0, f"epoch {state.epoch}, held-out accuracy {figures['accuracy']:.3f}")
        progress.close()
        self.model.to("cpu").eval()
        return state.history

    def _epoch(self, progress: Progress) -> None:
        blocks, state = self.cells.blocks, self.state
        self.model.train()
        while state.group < blocks.groups:
            order = numpy_generator(self.seed, f"pretraining order {state.epoch}")
            group = blocks.group(state.group, order, self.cells.taken)
            self._group(group, progress)
            state.group += 1
            if time.monotonic() - self._saved > SECONDS_BETWEEN_CHECKPOINTS:
                self._save()

    def _group(self, group: TokenBlock, progress: Progress) -> None:
        config, state = self.preset.training, self.state
        draw = torch_generator(self.seed, f"pretraining {state.epoch} {state.group}")
        batches = list(batch_rows(len(group.tokens), config.batch_size, draw))
        for number, rows in enumerate(batches, 1):
            done = (state.epoch + (state.group + number / len(batches)) / self.cells.blocks.groups) / config.epochs
            loss, n = self._loss(group, rows, draw)
            if n:
                (loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
                state.loss += float(loss.detach()) * n
                state.masked += n
            if number % config.accumulate == 0 or number == len(batches):
                self._step(done)
            progress.advance(len(rows))

    def _loss(self, group: TokenBlock, rows: np.ndarray, draw: torch.Generator) -> tuple[Tensor, int]:
        tokens, genes = shown_tokens(group, rows, self.preset.training.genes_per_batch, self.model.mask_token, draw)
        masking = self.preset.masking
        inputs, masked = mask_tokens(
            tokens, share=masking.share, replaced=masking.replaced, mask_token=self.model.mask_token, draw=draw
        )
        targets = tokens[masked].to(self.device)
        logits = self.model(inputs.to(self.device), genes.to(self.device), masked.to(self.device))
        return F.cross_entropy(logits, targets), len(targets)

    def _step(self, done: float) -> None:
        config = self.preset.training
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * rate_share(done, config.warm_up)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()} | optimizer_tensors(self.optimizer)
        facts = {"key": self._key, "state": vars(self.state)}
        new = self._path.with_suffix(".new")
        whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(whole, new, metadata={"facts": json.dumps(facts)})
        new.replace(self._path)
        self._saved = time.monotonic()


def batch_rows(n: int, size: int, draw: torch.Generator) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, every row once, in an order drawn anew."""
    order = torch.randperm(n, generator=draw).numpy()
    for start in range(0, n, size):
        yield order[start : start + size]


def shown_tokens(
    group: TokenBlock, rows: np.ndarray, genes: int, mask_token: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the tokens of some cells and the genes they are of; what was not measured is the mask token.

    Returns
    -------
    int64 (B, S) and int64 (S,): ``genes`` of the panel drawn at random, all for 0.
    """
    n = group.tokens.shape[1]
    chosen = torch.randperm(n, generator=draw)[:genes].sort().values if 0 < genes < n else torch.arange(n)
    columns = chosen.numpy()
    tokens = torch.from_numpy(group.tokens[rows][:, columns]).long()
    measured = torch.from_numpy(group.measured[rows][:, columns])
    return torch.where(measured, tokens, mask_token), chosen


def rate_share(done: float, warm_up: float) -> float:
    """Return the share of the learning rate when a share of all steps is done: a linear rise, then a cosine to 1 %."""
    if done < warm_up:
        return max(done / warm_up, 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / max(1 - warm_up, 1e-9)))
