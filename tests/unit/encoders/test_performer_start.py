"""A Performer as it is first drawn tells cells apart, so that it can learn."""

import pytest
import torch

from canal.config import PerformerConfig
from canal.model.encoders.performer import PerformerEncoder
from canal.model.encoders.published import Sizes, layer_operations


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


def test_a_layers_operations_are_those_of_its_products() -> None:
    """Counted by hand for the published sizes at 1,001 tokens: 3 GFLOP a layer."""
    sizes = Sizes(dim=200, depth=6, heads=10, dim_head=64, bins=5, genes=1000)
    by_hand = 2 * 1001 * (4 * 200 * 640 + 2 * 200 * 800 + 2 * 640 * 266 + 2 * 640 * 266)
    assert layer_operations(sizes, 1001) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(3.03e9, rel=0.01)
