"""A checkpoint after every epoch, so that a killed stage goes on from there, bit for bit.

One safetensors file: weights, best weights, optimizer and generators as tensors, the rest as JSON in its header.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from canal.learn._avalanche import SupervisedPlugin
from canal.learn.checkpoint_parts import load_optimizer, optimizer_tensors, read_checkpoint, under
from canal.learn.plugins import TrainingState


class CheckpointPlugin(SupervisedPlugin):
    """Write the checkpoint after every epoch; read it before the first.

    Parameters
    ----------
    path
        File of the checkpoint; its folder exists.
    key
        What must be the same for the checkpoint to be of use: data, configuration, seed, parent.
    state
        Where the training stands; filled from the checkpoint.
    draw
        Generator of the batches.
    write
        Whether this process writes it, or only reads.
    """

    def __init__(
        self, path: Path, key: str, state: TrainingState, draw: torch.Generator, *, write: bool = True
    ) -> None:
        super().__init__()
        self.write = write
        self.path, self.key, self.state, self.draw = path, key, state, draw

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Go on from the checkpoint, if there is one."""
        found = read_checkpoint(self.path, self.key)
        if found is None:
            return
        tensors, facts = found
        strategy.model.load_state_dict(under(tensors, "model."))
        load_optimizer(strategy.optimizer, tensors)
        self.draw.set_state(tensors["draw"])
        torch.set_rng_state(tensors["torch"])
        self.state.epoch, self.state.best_epoch = facts["epoch"], facts["best_epoch"]
        self.state.best_score = (facts["best_score"][0], facts["best_score"][1])
        self.state.history[:] = facts["history"]
        self.state.best_weights = under(tensors, "best.")
        strategy.train_epochs -= self.state.epoch

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Write the checkpoint: whole or not at all."""
        if not self.write:
            return
        state = self.state
        tensors = {f"model.{k}": v for k, v in strategy.model.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in state.best_weights.items()}
        tensors |= optimizer_tensors(strategy.optimizer)
        tensors |= {"draw": self.draw.get_state(), "torch": torch.get_rng_state()}
        facts = {
            "key": self.key,
            "epoch": state.epoch,
            "best_epoch": state.best_epoch,
            "best_score": state.best_score,
            "history": state.history,
        }
        new = self.path.with_suffix(".new")
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
            new,
            metadata={"facts": json.dumps(facts)},
        )
        new.replace(self.path)
