"""A Performer as it is first drawn tells cells apart, so that it can learn."""

import pytest
import torch

from canal.config import PerformerConfig
from canal.model.encoders.performer import PerformerEncoder


@pytest.mark.parametrize("seed", range(6))
def test_a_new_encoder_hears_its_genes(seed: int) -> None:
    """Whatever the seed, genes pass the first ReLU unlike each other, and cells differ by more than rounding."""
    config = PerformerConfig(
        kind="performer", dim=16, depth=2, heads=2, dim_head=8, bins=5, hidden=32, representation=16,
        attention="performer", trainable="all",
    )  # fmt: skip
    torch.manual_seed(seed)
    encoder = PerformerEncoder(config, 100).eval()
    draw = torch.Generator().manual_seed(0)
    values = torch.relu(torch.randn(20, 100, generator=draw) * 2 - 2)  # most genes are not expressed
    kept: list[torch.Tensor] = []
    encoder.fc1.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0]))

    rep = encoder(values, values > -1).detach()

    heard = kept[0].detach()
    assert heard.std(dim=1).mean() > 0.5 * heard.mean() > 0
    assert rep.std(dim=0).mean() > 0.04 * rep.abs().mean() > 0
