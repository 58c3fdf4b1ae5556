"""Attention to genes against the explicit map of every query and key."""

from typing import Any

import pytest
import torch
from torch import Tensor

from canal.config import load_preset
from canal.explain.explainers import attention_to_genes, has_attention, token_attention
from canal.model.network import build_encoder
from tests.unit.encoders.test_performer import batch, make_encoder


def explicit_maps(encoder: Any, values: Tensor, measured: Tensor) -> list[Tensor]:
    """Return the whole map of each layer, (cells, heads, T, T): what the attention gives for values of the identity."""
    maps: list[Tensor] = []

    def keep(module: Any, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        q, k, _values = inputs
        eye = torch.eye(k.shape[2]).expand(*k.shape[:2], -1, -1)
        maps.append(module.forward(q, k, eye))

    handles = [a.fn.fast_attention.register_forward_pre_hook(keep) for a, _ in encoder.performer.net.layers]
    last = encoder.token_emb.weight[0].expand(len(values), 1, -1)
    embedded = encoder.token_emb(encoder.tokens(values, measured)) + encoder.gene_emb.weight
    with torch.no_grad():
        encoder.performer(torch.cat([embedded, last], dim=1))
    for handle in handles:
        handle.remove()
    return maps


@pytest.mark.parametrize("attention", ["performer", "exact"])
def test_linear_form_equals_the_explicit_map(attention: str) -> None:
    """The mean over queries and heads of the N x N map of each layer, whose rows sum to 1."""
    encoder = make_encoder(150, attention=attention)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "to_q" in name or "to_k" in name:
                parameter.mul_(5)  # sharp maps
    values, measured = batch(3, 150)

    found = token_attention(encoder, values * measured, measured)

    maps = explicit_maps(encoder, values * measured, measured)
    assert found.shape == (3, 2, 151)
    for layer, whole in enumerate(maps):
        torch.testing.assert_close(whole.sum(dim=-1), torch.ones_like(whole[..., 0]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[:, layer], whole.mean(dim=(1, 2)), rtol=1e-4, atol=1e-7)
    mean = torch.stack(maps).mean(dim=(0, 2, 3))[:, :-1] * measured
    torch.testing.assert_close(
        attention_to_genes(encoder, values * measured, measured), mean / mean.sum(dim=1, keepdim=True)
    )


def test_unmeasured_genes_get_nothing_and_the_rest_sums_to_one() -> None:
    """A share of attention is a share among the genes that were measured."""
    encoder = make_encoder()
    values, measured = batch()

    share = attention_to_genes(encoder, values * measured, measured)

    assert not share[~measured].any()
    torch.testing.assert_close(share.sum(dim=1), torch.ones(5))


def test_an_encoder_may_tell_its_own_attention() -> None:
    """One that has no Performer but a gate over genes is explained by that; one without either is not."""
    compact = build_encoder(load_preset("compact").encoder, 20)
    values, measured = batch()
    assert not has_attention(compact)

    compact.gene_attention = lambda v, _measured: v  # type: ignore[assignment, misc]

    assert has_attention(compact)
    expected = values * measured
    torch.testing.assert_close(
        attention_to_genes(compact, values, measured), expected / expected.sum(dim=1, keepdim=True)
    )
