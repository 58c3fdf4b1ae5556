"""The paper's encoder: tokens, attention and invariances."""

import pytest
import torch

from canal.config import PerformerConfig
from canal.data.check import check_adata
from canal.data.tokens import log2_tokens
from canal.encoders.factory import build_encoder
from canal.encoders.performer import ExactAttention, PerformerEncoder
from tests.make import make_adata


def make_encoder(n_genes: int = 20, **changes: object) -> PerformerEncoder:
    """Return a small encoder with fixed weights, in evaluation mode."""
    sizes: dict[str, object] = {
        "kind": "performer", "dim": 20, "depth": 2, "heads": 2, "dim_head": 16, "bins": 5, "hidden": 12,
        "representation": 8, "attention": "performer", "trainable": "all",
    }  # fmt: skip
    torch.manual_seed(0)
    encoder = build_encoder(PerformerConfig(**(sizes | changes)), n_genes)
    assert isinstance(encoder, PerformerEncoder)
    return encoder.eval()


def batch(n: int = 5, genes: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values and measured of random cells."""
    draw = torch.Generator().manual_seed(1)
    return torch.rand(n, genes, generator=draw) * 4, torch.rand(n, genes, generator=draw) > 0.2


def test_tokens_are_log2_bins_and_unknown_is_a_token_of_its_own() -> None:
    """The same bins as from the expression itself; a gene that was not measured is the mask token, not zero."""
    cells = check_adata(make_adata(30, 20), labels=None)
    values = torch.from_numpy(cells.expression.toarray())
    measured = torch.ones_like(values, dtype=torch.bool)
    measured[:, 3] = False

    tokens = make_encoder().tokens(values, measured)

    expected = torch.from_numpy(log2_tokens(cells.expression).astype("int64"))
    expected[:, 3] = 6
    assert torch.equal(tokens, expected)


@pytest.mark.parametrize("attention", ["performer", "exact"])
def test_a_cell_does_not_depend_on_its_batch(attention: str) -> None:
    """Alone or with others, in training mode or not: the same representation."""
    encoder = make_encoder(attention=attention)
    values, measured = batch()

    together = encoder(values, measured)
    alone = torch.cat([encoder(values[i : i + 1], measured[i : i + 1]) for i in range(5)])

    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(encoder.train()(values, measured), together, rtol=1e-4, atol=1e-6)


def test_exact_attention_is_softmax_attention() -> None:
    """Against the formula."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 4, generator=draw) for _ in range(3))

    expected = torch.softmax(q @ k.transpose(-1, -2) / 2.0, dim=-1) @ v

    torch.testing.assert_close(ExactAttention()(q, k, v), expected, rtol=1e-5, atol=1e-6)


def test_published_sizes() -> None:
    """dim 200, depth 6, 10 heads x 64: as many trainable weights in the layers as the published backbone."""
    encoder = make_encoder(1000, dim=200, depth=6, heads=10, dim_head=64, hidden=128, representation=64)

    layers = sum(p.numel() for p in encoder.performer.parameters())
    norm = sum(p.numel() for p in encoder.norm.parameters())
    tokens = encoder.token_emb.weight.numel()
    published_without_positions = 5_007_207

    assert layers + norm + tokens + (200 * 7 + 7) == published_without_positions


def test_the_paper_trains_norm_last_layer_but_one_and_head() -> None:
    """834,000 weights of one layer, 400 of the norm, and the head."""
    sizes = {"dim": 200, "depth": 6, "heads": 10, "dim_head": 64, "hidden": 128, "representation": 64}
    encoder = make_encoder(1000, **sizes, trainable="paper")

    encoder.grow(1010)

    trained = {n for n, p in encoder.named_parameters() if p.requires_grad}
    in_layers = sum(p.numel() for n, p in encoder.named_parameters() if n in trained and n.startswith("performer"))
    assert in_layers == 834_000
    assert all("layers.4." in n or not n.startswith("performer") for n in trained)
    assert "gene_emb.weight" not in trained


def test_projections_stay_and_weights_save_without_sharing(tmp_path) -> None:
    """Two thousand forward passes in training mode draw no new features; every tensor is saved once."""
    from safetensors.torch import save_file

    encoder = make_encoder().train()
    values, measured = batch(1)
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "projection" in k}
    for _ in range(1100):
        encoder.performer.proj_updater.redraw_projections()
    encoder(values, measured)

    assert before
    assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in before.items())
    save_file(encoder.state_dict(), tmp_path / "weights.safetensors")


def test_growth_keeps_old_embeddings_and_head() -> None:
    """New genes come behind; the extra token stays last."""
    encoder = make_encoder()
    genes, head = encoder.gene_emb.weight.clone(), encoder.fc1.weight.clone()

    encoder.grow(25)

    assert torch.equal(encoder.gene_emb.weight[:20], genes)
    assert torch.equal(encoder.fc1.weight[:, :20], head[:, :20])
    assert torch.equal(encoder.fc1.weight[:, -1], head[:, -1])
    assert encoder.fc1.weight[:, 20:25].abs().sum() == 0
