"""The published layout of scBERT's weights: which tensors there are, and of which shape.

The layout is that of `PerformerLM` as published with scBERT (Yang et al., Nature Machine Intelligence 2022): 91 tensors
for 6 layers. Sizes are read from the tensors; then every name and every shape must be what these sizes ask for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from canal.config import PerformerConfig
from canal.errors import WeightsError

TABLE = "pos_emb.emb.weight"  # a row for each gene, and one of zeros for the extra token
TOKENS = "token_emb.weight"
LAYER = "performer.net.layers"
PROJECTION = "fast_attention.projection_matrix"
SHOWN = 6  # problems that an error message lists


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a published Performer.

    Attributes
    ----------
    dim, depth, heads, dim_head
        Size of a token, number of layers, heads of a layer and size of a head.
    bins
        Bins of expression above zero.
    genes
        Genes of its table.
    """

    dim: int
    depth: int
    heads: int
    dim_head: int
    bins: int
    genes: int

    def encoder_keys(self) -> dict[str, int]:
        """Return the keys of a preset's encoder that must equal these sizes, for it to take the weights."""
        return {
            "dim": self.dim,
            "depth": self.depth,
            "heads": self.heads,
            "dim_head": self.dim_head,
            "bins": self.bins,
        }

    def fits(self, config: PerformerConfig) -> bool:
        """Tell whether an encoder can take these weights."""
        return all(getattr(config, key) == size for key, size in self.encoder_keys().items())


def layer_operations(config: PerformerConfig | Sizes, tokens: int) -> float:
    """Return the floating-point operations of one layer for a cell, forward: its products alone, two a multiplication.

    Parameters
    ----------
    config
        Sizes.
    tokens
        Genes and the extra token.
    """
    inner, features = config.heads * config.dim_head, int(config.dim_head * math.log(config.dim_head))
    weights = 4 * config.dim * inner + 8 * config.dim**2  # into and out of attention, and the perceptron
    attention = 4 * inner * features  # features of queries and keys, the context, and reading it
    return 2.0 * tokens * (weights + attention)


def published_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the layout by its name."""
    d, inner = sizes.dim, sizes.heads * sizes.dim_head
    features = int(sizes.dim_head * math.log(sizes.dim_head))  # of performer-pytorch by default
    # Embeddings, and what follows the layers.
    shapes: dict[str, tuple[int, ...]] = {
        TOKENS: (sizes.bins + 2, d),
        TABLE: (sizes.genes + 1, d),
        "performer.calls_since_last_redraw": (),
        "norm.weight": (d,),
        "norm.bias": (d,),
        "to_out.weight": (sizes.bins + 2, d),
        "to_out.bias": (sizes.bins + 2,),
    }
    # Each layer: attention, then a perceptron.
    for i in range(sizes.depth):
        attention, forward = f"{LAYER}.{i}.0", f"{LAYER}.{i}.1"
        for part in (attention, forward):
            shapes |= {f"{part}.norm.weight": (d,), f"{part}.norm.bias": (d,)}
        shapes[f"{attention}.fn.{PROJECTION}"] = (features, sizes.dim_head)
        for letter in "qkv":
            shapes[f"{attention}.fn.to_{letter}.weight"] = (inner, d)
        shapes |= {f"{attention}.fn.to_out.weight": (d, inner), f"{attention}.fn.to_out.bias": (d,)}
        shapes |= {f"{forward}.fn.fn.w1.weight": (4 * d, d), f"{forward}.fn.fn.w1.bias": (4 * d,)}
        shapes |= {f"{forward}.fn.fn.w2.weight": (d, 4 * d), f"{forward}.fn.fn.w2.bias": (d,)}
    return shapes


def check_published(tensors: Mapping[str, Tensor], source: str) -> Sizes:
    """Check the name, the shape and the values of every tensor.

    Parameters
    ----------
    tensors
        By name.
    source
        Names where they come from in the error.

    Returns
    -------
    The sizes that the tensors have.

    Raises
    ------
    WeightsError
        If a tensor is missing, is one too many, has another shape than the others ask for, or holds values that are
        not finite.
    """
    # The sizes are read from some of the tensors; then all names must be what these sizes ask for,
    sizes = _sizes(tensors, source)
    expected = published_shapes(sizes)
    _refuse(sorted(set(expected) - set(tensors)), "it lacks", source, tensors)
    _refuse(sorted(set(tensors) - set(expected)), "it has, against the layout,", source, tensors)
    # and all shapes.
    wrong = []
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            wrong.append(f"{name} has shape {_shape(tensors[name])}, expected {_text(shape)}")
    _refuse(wrong, "of its tensors", source, tensors)
    not_finite = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    _refuse(not_finite, "NaN or infinite values are in", source, {})
    return sizes


def _sizes(tensors: Mapping[str, Tensor], source: str) -> Sizes:
    """Return the sizes that follow from the shapes of four tensors, which must be there and have two dimensions."""
    first = f"{LAYER}.0.0.fn"
    query, projection = f"{first}.to_q.weight", f"{first}.{PROJECTION}"
    needed = (TOKENS, TABLE, query, projection)
    _refuse([name for name in needed if name not in tensors], "it lacks", source, tensors)
    wrong = []
    for name in needed:
        if tensors[name].ndim != 2:
            wrong.append(f"{name} has shape {_shape(tensors[name])}, expected two dimensions")
    _refuse(wrong, "of its tensors", source, tensors)
    # Layers are counted by their names.
    inner, dim_head = tensors[query].shape[0], tensors[projection].shape[1]
    layers = {name.removeprefix(f"{LAYER}.").split(".")[0] for name in tensors if name.startswith(f"{LAYER}.")}
    return Sizes(
        dim=int(tensors[TOKENS].shape[1]),
        depth=len(layers),
        heads=max(1, inner // max(1, dim_head)),
        dim_head=int(dim_head),
        bins=int(tensors[TOKENS].shape[0]) - 2,
        genes=int(tensors[TABLE].shape[0]) - 1,
    )


def _refuse(problems: list[str], verb: str, source: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse the tensors where there are problems; ``verb`` introduces them in the message."""
    if not problems:
        return
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    message = (
        f"{source} is not in scBERT's published layout: {verb} {'; '.join(problems[:SHOWN])}{more}. "
        "Expected the 3 + 14 x layers + 4 tensors of docs/scbert.md."
    )
    if any(name.startswith(("to_out.conv1", "to_out.fc1")) for name in tensors):
        message += " This one was fine-tuned: its head names cell types. Take the pre-trained file instead."
    raise WeightsError(message)


def _shape(tensor: Tensor) -> str:
    return _text(tuple(tensor.shape))


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of a single number"
