"""Avalanche, imported once and with care; no other module imports it.

Avalanche imports torchvision, which on import registers fake kernels for operators of its compiled library. With the
CPU build of torch and PyPI's torchvision that library does not load, the operators do not exist and the import fails.
We use nothing of torchvision, so the two operators it needs by name are declared first; they are never called.
"""

import contextlib
import io
import warnings

import torch
from torch import library as operators

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[operators.Library] = []  # a Library that is collected takes its operators along


def _declare_missing_operators() -> None:
    library = operators.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}{_SCHEMA}")  # type: ignore[no-untyped-call]
    _declared.append(library)


def _torchvision_works() -> bool:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        return False
    return True


with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    if not _torchvision_works():
        _declare_missing_operators()
    from avalanche.benchmarks import CLExperience
    from avalanche.benchmarks.utils import concat_datasets
    from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
    from avalanche.core import SupervisedPlugin
    from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, LwFPlugin, ReplayPlugin
    from avalanche.training.storage_policy import ClassBalancedBuffer
    from avalanche.training.supervised import DER, Cumulative, Naive, StreamingLDA
    from avalanche.training.templates import SupervisedTemplate

make_dataset = _make_taskaware_tensor_classification_dataset

__all__ = [
    "DER",
    "CLExperience",
    "ClassBalancedBuffer",
    "Cumulative",
    "EWCPlugin",
    "EvaluationPlugin",
    "LwFPlugin",
    "Naive",
    "ReplayPlugin",
    "StreamingLDA",
    "SupervisedPlugin",
    "SupervisedTemplate",
    "concat_datasets",
    "make_dataset",
]
