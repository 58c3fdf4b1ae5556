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

TABLE = "pos_emb.emb.weight"  # a row a gene, and one of zeros for the extra token
TOKENS = "token_emb.weight"
LAYER = "performer.net.layers"
PROJECTION = "fast_attention.projection_matrix"
SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a published Performer: of a token, layers, heads, of a head, bins above zero, genes of its table."""

    dim: int
    depth: int
    heads: int
    dim_head: int
    bins: int
    genes: int

    def encoder_keys(self) -> dict[str, int]:
        """Return what an encoder of a preset must have to take these weights, by key."""
        return {k: getattr(self, k) for k in ("dim", "depth", "heads", "dim_head", "bins")}

    def fits(self, config: PerformerConfig) -> bool:
        """Tell whether an encoder can take these weights."""
        return all(getattr(config, k) == v for k, v in self.encoder_keys().items())


def published_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the layout by its name."""
    d, inner = sizes.dim, sizes.heads * sizes.dim_head
    features = int(sizes.dim_head * math.log(sizes.dim_head))
    shapes: dict[str, tuple[int, ...]] = {
        TOKENS: (sizes.bins + 2, d),
        TABLE: (sizes.genes + 1, d),
        "performer.calls_since_last_redraw": (),
        "norm.weight": (d,),
        "norm.bias": (d,),
        "to_out.weight": (sizes.bins + 2, d),
        "to_out.bias": (sizes.bins + 2,),
    }
    for i in range(sizes.depth):
        attention, forward = f"{LAYER}.{i}.0", f"{LAYER}.{i}.1"
        for part in (attention, forward):
            shapes |= {f"{part}.norm.weight": (d,), f"{part}.norm.bias": (d,)}
        shapes[f"{attention}.fn.{PROJECTION}"] = (features, sizes.dim_head)
        shapes |= {f"{attention}.fn.to_{x}.weight": (inner, d) for x in "qkv"}
        shapes |= {f"{attention}.fn.to_out.weight": (d, inner), f"{attention}.fn.to_out.bias": (d,)}
        shapes |= {f"{forward}.fn.fn.w1.weight": (4 * d, d), f"{forward}.fn.fn.w1.bias": (4 * d,)}
        shapes |= {f"{forward}.fn.fn.w2.weight": (d, 4 * d), f"{forward}.fn.fn.w2.bias": (d,)}
    return shapes


def check_published(tensors: Mapping[str, Tensor], source: str) -> Sizes:
    """Check the name, the shape and the kind of every tensor.

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
        If a tensor is missing, is one too many, has another shape than the others ask for, or is no number.
    """
    sizes = _sizes(tensors, source)
    expected = published_shapes(sizes)
    _refuse(sorted(set(expected) - set(tensors)), "it lacks", source, tensors)
    _refuse(sorted(set(tensors) - set(expected)), "it has, against the layout,", source, tensors)
    wrong = [
        f"{name} has shape {_shape(tensors[name])}, expected {_text(shape)}"
        for name, shape in expected.items()
        if tuple(tensors[name].shape) != shape
    ]
    _refuse(wrong, "of its tensors", source, tensors)
    _refuse([n for n, t in tensors.items() if not torch.isfinite(t).all()], "NaN or infinite values are in", source, {})
    return sizes


def _sizes(tensors: Mapping[str, Tensor], source: str) -> Sizes:
    first = f"{LAYER}.0.0.fn"
    leading = (TOKENS, TABLE, f"{first}.to_q.weight", f"{first}.{PROJECTION}")
    _refuse([n for n in leading if n not in tensors], "it lacks", source, tensors)
    flat = [f"{n} has shape {_shape(tensors[n])}, expected two dimensions" for n in leading if tensors[n].ndim != 2]
    _refuse(flat, "of its tensors", source, tensors)
    inner, dim_head = tensors[leading[2]].shape[0], tensors[leading[3]].shape[1]
    layers = {n.removeprefix(f"{LAYER}.").split(".")[0] for n in tensors if n.startswith(f"{LAYER}.")}
    return Sizes(
        dim=int(tensors[TOKENS].shape[1]),
        depth=len(layers),
        heads=max(1, inner // max(1, dim_head)),
        dim_head=int(dim_head),
        bins=int(tensors[TOKENS].shape[0]) - 2,
        genes=int(tensors[TABLE].shape[0]) - 1,
    )


def _refuse(problems: list[str], verb: str, source: str, tensors: Mapping[str, Tensor]) -> None:
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
