"""FAVOR+ in few passes, where features are too large for the plain sums."""

import pytest
import torch
from performer_pytorch import FastAttention

from canal.model.encoders.attention import favor


@pytest.mark.parametrize("length", [5.0, 18.0, 22.0, 26.0])
def test_long_queries_are_those_of_performer_pytorch(length: float) -> None:
    """A query along a feature, as training makes them: its features are finite, eps in their units may not be.

    At a length of 22 the largest feature is about e^62 and eps stands beside it as e^82, times a context of hundreds.
    """
    torch.manual_seed(0)
    attention = FastAttention(64, nb_features=266)
    projection = attention.projection_matrix
    q, k, v = torch.randn(3, 2, 200, 64, dtype=torch.float32).unbind()
    long = projection[projection.norm(dim=1).argmax()]
    q[1, 7] = long / long.norm() * length
    q.requires_grad_(True)

    found = favor(q, k, v, (projection.t() * 64**-0.25).contiguous())

    expected = attention(q[None], k[None], v[None])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(found)
    (own,), (theirs,) = (torch.autograd.grad((x * weights).sum(), q) for x in (found, expected))
    assert torch.isfinite(own).all()
    torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-5)
