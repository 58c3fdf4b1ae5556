"""FAVOR+ in few passes, where features are large, and where they are too large for the plain sums."""

import pytest
import torch
from performer_pytorch import FastAttention

from canal.model.encoders.attention import favor


@pytest.mark.parametrize("length", [5.0, 16.0, 18.0, 22.0, 26.0])
def test_long_queries_are_those_of_performer_pytorch(length: float) -> None:
    """A query along a feature, as training makes them: its features are finite, eps in their units may not be.

    At a length of 18 the largest feature is about e^66 and eps stands beside it as e^77, times a context of hundreds.
    From 22 on the head is computed with the maxima taken away.
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


@pytest.mark.parametrize("which", ["queries", "keys", "both"])
@pytest.mark.parametrize("size", [64, 256])
def test_a_head_whose_features_overflow_is_that_of_performer_pytorch(which: str, size: int) -> None:
    """One query or key with a feature of e^100: its head is right, and the others are as they would be alone.

    Of size 64 such a key leaves nothing but eps; of size 256 what the keys themselves add is still seen beside it.
    """
    torch.manual_seed(0)
    attention = FastAttention(size, nb_features=266)
    scaled = (attention.projection_matrix.t() * size**-0.25).contiguous()
    long = scaled.t()[scaled.norm(dim=0).argmax()]
    q, k, v = torch.randn(3, 3, 200, size).unbind()
    if which != "keys":
        q[1, 7] = long / long.square().sum() * 100
    if which != "queries":
        k[1, 11] = long / long.square().sum() * 100
    inputs = [x.requires_grad_(True) for x in (q, k, v)]

    found = favor(q, k, v, scaled)

    expected = attention(q[None], k[None], v[None])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[[0, 2]], favor(q[[0, 2]], k[[0, 2]], v[[0, 2]], scaled))
    weights = torch.randn_like(found)
    own, theirs = (torch.autograd.grad((x * weights).sum(), inputs) for x in (found, expected))
    for ours, reference in zip(own, theirs, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-5 * float(reference.abs().max()))


@pytest.mark.parametrize("which", ["queries", "keys"])
def test_a_head_whose_only_feature_vanishes_is_that_of_performer_pytorch(which: str) -> None:
    """Tokens that point away from the one feature that there is: exp gives 0, and 0 / 0 is no answer."""
    torch.manual_seed(0)
    attention = FastAttention(4, nb_features=1)
    scaled = (attention.projection_matrix.t() * 4**-0.25).contiguous()
    q, k, v = torch.randn(3, 2, 50, 4).unbind()
    away = -scaled[:, 0] / scaled.square().sum() * 200
    if which == "queries":
        q[1, 7] = away
    else:
        k[1] = away

    found = favor(q, k, v, scaled)

    torch.testing.assert_close(found, attention(q[None], k[None], v[None])[0], rtol=1e-4, atol=1e-5)
