"""scAnnoNet's encoder: the gate, and growth that changes nothing by itself."""

import numpy as np
import torch

from canal.config import ScAnnoNetConfig
from canal.model.encoders.scannonet import ScAnnoNetEncoder
from canal.model.network import build_encoder


def make_encoder(n_genes: int = 12) -> ScAnnoNetEncoder:
    """Return a small encoder with fixed weights, in evaluation mode."""
    torch.manual_seed(0)
    encoder = build_encoder(
        ScAnnoNetConfig(
            kind="scannonet", gate=5, hidden=9, dim=7, dropout=0.5, gate_weight=1000.0, collinearity_weight=1.0,
            gate_epochs=2, gate_learning_rate=0.1,
        ),
        n_genes,
    )  # fmt: skip
    assert isinstance(encoder, ScAnnoNetEncoder)
    return encoder.eval()


def test_the_encoder_is_the_formula() -> None:
    """A = sigmoid(W2 tanh(W1 x + b1) + b2); relu(W4 relu(W3 (x A) + b3) + b4), in numpy."""
    encoder = make_encoder()
    x = torch.rand(6, 12, generator=torch.Generator().manual_seed(1))
    w = {k: v.numpy().astype(np.float64) for k, v in encoder.state_dict().items()}

    def layer(name: str, v: np.ndarray) -> np.ndarray:
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    gate = 1 / (1 + np.exp(-layer("gate_out", np.tanh(layer("gate_in", x.numpy())))))
    expected = np.maximum(layer("fc2", np.maximum(layer("fc1", x.numpy() * gate), 0)), 0)

    got = encoder(x, x > -1).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert encoder.gate_BG is None  # outside of training nothing is kept


def test_growth_changes_no_representation() -> None:
    """New genes have zero weights: cells without them, and cells with them, are seen as before."""
    encoder = make_encoder()
    x = torch.rand(6, 12, generator=torch.Generator().manual_seed(1))
    before = encoder(x, x > -1).detach()

    encoder.grow(15)

    wide = torch.cat([x, torch.rand(6, 3)], dim=1)
    torch.testing.assert_close(encoder(wide, wide > -1).detach(), before, rtol=0, atol=1e-6)
    assert torch.equal(encoder.gate(wide)[:, 12:], torch.full((6, 3), 0.5))
