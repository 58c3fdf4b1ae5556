"""Avalanche's continual-learning strategies, imported once; `canal.learn._avalanche` makes the import possible."""

import contextlib
import io
import warnings

from canal.learn import _avalanche

with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    from avalanche.benchmarks.utils import concat_datasets
    from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
    from avalanche.training.plugins import EWCPlugin, LwFPlugin, ReplayPlugin
    from avalanche.training.storage_policy import ClassBalancedBuffer
    from avalanche.training.supervised import DER, Cumulative, Naive, StreamingLDA

CLExperience = _avalanche.CLExperience
SupervisedPlugin = _avalanche.SupervisedPlugin
make_dataset = _make_taskaware_tensor_classification_dataset

__all__ = [
    "DER",
    "CLExperience",
    "ClassBalancedBuffer",
    "Cumulative",
    "EWCPlugin",
    "LwFPlugin",
    "Naive",
    "ReplayPlugin",
    "StreamingLDA",
    "SupervisedPlugin",
    "concat_datasets",
    "make_dataset",
]
