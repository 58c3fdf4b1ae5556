"""A stage on Avalanche's training template.

The template gives the loop and its hooks; what makes a stage a stage hangs on the hooks as plugins. Comparison
strategies use the same class with other plugins. Nothing durable lives in Avalanche's objects: weights, bank and
statistics are kept in our own format.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from canal.config import TrainingConfig
from canal.model.network import Network
from canal.training.avalanche import CLExperience, EvaluationPlugin, SupervisedPlugin, SupervisedTemplate
from canal.training.batches import Batches
from canal.training.frozen import FrozenOutputs
from canal.training.plugins import classification_loss
from canal.training.processes import ProcessGroup, batch_slice


class StageExperience(CLExperience):
    """The cells of one stage, as Avalanche hands them around.

    Parameters
    ----------
    number
        Number of the stage.
    batches
        Its mini-batches.
    """

    def __init__(self, number: int, batches: Batches) -> None:
        super().__init__(number, None)
        self.dataset = batches


class StageStrategy(SupervisedTemplate):
    """Cross-entropy with label smoothing on the batches of a stage; plugins add the rest.

    Attributes
    ----------
    mb_representation
        Representation of the current batch, (B, D); plugins read it.
    mb_slice
        (start, stop, total): the rows of the batch that this process computes, and how many the batch has.
    cell_share, weight_share
        Share that these rows have in the batch's cells and in their weight; 1 where the process is alone.
    meant
        Which types each label may mean, bool (C, C); set where some label means several.

    Parameters
    ----------
    network
        The network, trained in place.
    config
        Optimizer, label smoothing and precision.
    epochs
        Most epochs.
    plugins
        Distillation, validation, progress, ...
    device
        Where to compute.
    frozen_outputs
        Of the training cells, where the encoder has frozen layers and their outputs are kept.
    processes
        The group that shares the training, if there is one; each process computes a slice of every batch.
    """

    def __init__(
        self,
        *,
        network: Network,
        config: TrainingConfig,
        epochs: int,
        plugins: list[SupervisedPlugin],
        device: torch.device,
        frozen_outputs: FrozenOutputs | None = None,
        processes: ProcessGroup | None = None,
    ) -> None:
        # Else Avalanche warns of them in a group of processes.
        for plugin in plugins:
            plugin.supports_distributed = True
        super().__init__(
            model=network,
            optimizer=_optimizer(network, config),
            train_epochs=epochs,
            device=device,
            plugins=plugins,
            evaluator=silent_evaluator(),
        )
        self.label_smoothing = config.label_smoothing
        self.precision = _precision(config, device)
        self.frozen_outputs = frozen_outputs
        self.processes = processes
        self.meant: Tensor | None = None
        # Of the current batch; plugins read them.
        self.mbatch: Any
        self.mb_slice, self.cell_share, self.weight_share = (0, 0, 0), 1.0, 1.0
        self.mb_representation: Tensor | None = None

    @property
    def mb_y(self) -> Tensor:
        """Types of the current batch, int64 (B,)."""
        types: Tensor = self.mbatch[2]
        return types

    @property
    def mb_rows(self) -> Tensor:
        """Rows of the current batch among the stage's training cells, int64 (B,)."""
        rows: Tensor = self.mbatch[4]
        return rows

    def train_dataset_adaptation(self, **_: Any) -> None:
        """Take the batches as they are: they already hold bank and stage."""
        self.adapted_dataset = self.experience.dataset

    def make_train_dataloader(self, **_: Any) -> None:
        """Use the batches as the loader."""
        self.dataloader = self.adapted_dataset

    def forward(self) -> Tensor:
        """Return the logits (B, C) and keep the representation for the plugins."""
        rep, logits = self.outputs(self.mbatch[0], self.mbatch[1], self.mb_rows, self.frozen_outputs)
        self.mb_representation = rep.float()
        result: Tensor = logits.float()
        return result

    def outputs(
        self, values: Tensor, measured: Tensor, rows: Tensor, frozen_outputs: FrozenOutputs | None
    ) -> tuple[Tensor, Tensor]:
        """Return representation and logits of cells, from their rows of ``frozen_outputs`` where those are kept."""
        with self._autocast():
            if frozen_outputs is None:
                rep, logits = self.model(values, measured)
            else:
                outputs = frozen_outputs.rows(rows.cpu()).to(self.device)
                rep, logits = self.model.from_frozen(outputs, measured)
        return rep, logits

    def criterion(self) -> Tensor:
        """Return the classification loss of the batch."""
        loss = classification_loss(self.mb_output, self.mb_y, self.mbatch[3], self.label_smoothing, self.meant)
        return loss * self.weight_share

    def _unpack_minibatch(self) -> None:
        """Cut this process's rows out of the batch, and note their share: it scales the losses of the slice."""
        super()._unpack_minibatch()
        if self.processes is None:
            return
        whole: list[Tensor] = self.mbatch
        self.mb_slice, counts = batch_slice(len(whole[0]), self.processes)
        start, stop, total = self.mb_slice
        self.mbatch = [part[start:stop] for part in whole]
        self.cell_share = (stop - start) / total * counts
        self.weight_share = float(whole[3][start:stop].sum() / whole[3].sum()) * counts

    def _autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which products are computed in the precision of the preset."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def fit(self, number: int, batches: Batches) -> None:
        """Train on one stage."""
        self.train(StageExperience(number, batches), eval_streams=[])


def silent_evaluator() -> EvaluationPlugin:
    """Return an evaluator that logs nothing, without Avalanche's warning that it does so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return EvaluationPlugin(loggers=[])


def _optimizer(network: Network, config: TrainingConfig) -> torch.optim.Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
        fused=True,
    )


def _precision(config: TrainingConfig, device: torch.device) -> torch.dtype:
    if config.precision == "bfloat16":
        return torch.bfloat16
    if config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32
