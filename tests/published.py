"""Checkpoints in scBERT's published layout, from performer-pytorch's own modules with random weights."""

import warnings
from typing import Any

import torch
from torch import Tensor


def published_model(
    *, genes: int = 40, dim: int = 20, depth: int = 2, heads: int = 2, dim_head: int = 16, bins: int = 5, seed: int = 0
) -> Any:
    """Return the library's language model with the sizes of a checkpoint; the extra token's position is zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from performer_pytorch import PerformerLM
    torch.manual_seed(seed)
    model = PerformerLM(
        num_tokens=bins + 2, max_seq_len=genes + 1, dim=dim, depth=depth, heads=heads, dim_head=dim_head,
        rotary_position_emb=False, qkv_bias=False, attn_out_bias=True,
    )  # fmt: skip
    with torch.no_grad():
        model.pos_emb.emb.weight.normal_()
        model.pos_emb.emb.weight[-1] = 0
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def published_state(model: Any) -> dict[str, Tensor]:
    """Return its tensors as scBERT publishes them: positions in double precision, the counter under its old name."""
    state = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("performer.proj_updater")}
    state["pos_emb.emb.weight"] = state["pos_emb.emb.weight"].double()
    state["performer.calls_since_last_redraw"] = torch.tensor(7)
    return state


def gene_names(n: int) -> list[str]:
    """Return the names that toy cells have."""
    return [f"GENE{i}" for i in range(n)]
