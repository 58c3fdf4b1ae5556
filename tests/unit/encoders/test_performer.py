"""The paper's encoder: tokens, attention and invariances."""

import weakref

import pytest
import torch

from canal.config import PerformerConfig
from canal.data.stream import read_cells
from canal.model.encoders import layers, performer
from canal.model.encoders.performer import ExactAttention, PerformerEncoder
from canal.model.network import build_encoder
from canal.pretrain.cells import log2_tokens
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
    cells = read_cells(make_adata(30, 20), labels=None)
    values = torch.from_numpy(cells.expression.toarray())
    measured = torch.ones_like(values, dtype=torch.bool)
    measured[:, 3] = False

    tokens = make_encoder().tokens(values, measured)

    expected = torch.from_numpy(log2_tokens(cells.expression, 5).astype("int64"))
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


LARGE = {"dim": 40, "depth": 3, "heads": 4, "dim_head": 32}


@pytest.mark.parametrize("attention", ["performer", "exact"])
@pytest.mark.parametrize("cells", [2, 9], ids=["alone", "sharing the first layer"])
def test_the_own_path_is_performer_pytorch(cells: int, attention: str) -> None:
    """Tokens after all layers against performer-pytorch's own modules: float32 to rounding, bfloat16 to its own."""
    encoder = make_encoder(60, **LARGE, attention=attention)
    values, measured = batch(cells, 60)
    values = values * (torch.arange(60) % 4 == 0)  # most tokens in common
    measured[:] = torch.arange(60) % 7 != 0

    with torch.no_grad():
        tokens = torch.nn.functional.pad(encoder.tokens(values, measured), (0, 1))
        expected = encoder.performer(encoder._embedded(tokens))
        exact = encoder._from_tables(values, measured, 3)
        encoder.product_dtype = torch.bfloat16
        rough = encoder._from_tables(values, measured, 3)

    assert exact.shape == (cells, 61, 40)
    torch.testing.assert_close(exact, expected, rtol=1e-4, atol=1e-5)
    error = (rough - expected).norm() / expected.norm()
    assert 0 < error < 0.02


def test_gradients_are_performer_pytorchs() -> None:
    """The loss's gradient of every weight against autograd through performer-pytorch's modules."""
    own, reference = make_encoder(30, **LARGE), make_encoder(30, **LARGE)
    values, measured = batch(3, 30)
    tokens = torch.nn.functional.pad(reference.tokens(values, measured), (0, 1))

    own(values, measured).square().sum().backward()
    reference._head(reference.performer(reference._embedded(tokens)), measured).square().sum().backward()

    for (name, got), expected in zip(own.named_parameters(), reference.parameters(), strict=True):
        scale = float(expected.grad.abs().max())
        torch.testing.assert_close(got.grad, expected.grad, rtol=2e-3, atol=1e-4 * scale + 1e-9, msg=name)


@pytest.mark.parametrize("cells", [2, 9], ids=["alone", "sharing the first layer"])
def test_heads_whose_features_overflow_are_performer_pytorchs(cells: int) -> None:
    """One head of each layer has some queries, one some keys too long for exp: outputs and gradients."""
    own, reference = (overflowing(make_encoder(30, **LARGE)) for _ in range(2))
    values, measured = batch(cells, 30)
    values = values * (torch.arange(30) % 4 == 0)  # most tokens in common
    tokens = torch.nn.functional.pad(reference.tokens(values, measured), (0, 1))
    expected = reference.performer(reference._embedded(tokens))

    with torch.no_grad():
        shared = own._from_tables(values, measured, 3)
        own.product_dtype = torch.bfloat16
        rough = own._from_tables(values, measured, 3)
        own.product_dtype = torch.float32
    trained = own._from_tables(values, measured, 3)

    assert torch.isfinite(expected).all()
    torch.testing.assert_close(shared, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-4)
    assert (rough - expected).norm() / expected.norm() < 0.02
    own._head(trained, measured).square().sum().backward()
    reference._head(expected, measured).square().sum().backward()
    for (name, got), theirs in zip(own.named_parameters(), reference.parameters(), strict=True):
        scale = float(theirs.grad.abs().max())
        torch.testing.assert_close(got.grad, theirs.grad, rtol=1e-2, atol=1e-3 * scale + 1e-9, msg=name)


def test_heads_that_all_overflow_are_performer_pytorchs() -> None:
    """Queries and keys so long that exp overflows everywhere give what performer-pytorch gives, not NaN."""
    encoder = make_encoder(30, **LARGE)
    values, measured = batch(5, 30)
    with torch.no_grad():
        for layer in encoder.performer.net.layers:
            layer[0].fn.to_q.weight.mul_(300)
            layer[0].fn.to_k.weight.mul_(300)
        tokens = torch.nn.functional.pad(encoder.tokens(values, measured), (0, 1))
        expected = encoder.performer(encoder._embedded(tokens))
        got = encoder._from_tables(values, measured, 3)

    assert torch.isfinite(expected).all()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def overflowing(encoder: PerformerEncoder) -> PerformerEncoder:
    """Turn the queries of head 1 and the keys of head 2 along one feature, some so long that it is e^100."""
    with torch.no_grad():
        for attention, _ in encoder.performer.net.layers:
            projection = attention.fn.fast_attention.projection_matrix * 32**-0.25
            long = projection[projection.norm(dim=1).argmax()]
            along = torch.randn(40) / 40**0.5
            # Tokens are normalised: their sums with `along` are of unit spread.
            turned = torch.outer(long / long.square().sum(), along) * 60
            attention.fn.to_q.weight[32:64] = turned
            attention.fn.to_k.weight[64:96] = turned
    return encoder


def test_two_halves_are_the_whole() -> None:
    """Frozen layers and the rest, one after the other, are the encoder."""
    encoder = make_encoder(20, depth=4, trainable="paper")
    values, measured = batch()

    with torch.no_grad():
        whole = encoder(values, measured)
        halves = encoder.from_frozen(encoder.frozen_outputs(values, measured), measured)

    assert encoder.frozen_layers == 2
    torch.testing.assert_close(halves, whole, rtol=1e-5, atol=1e-6)


def test_cells_that_are_alike_are_encoded_alike() -> None:
    """A block of one and the same cell, where no token differs from the common one, gives what the cell alone gives."""
    encoder = make_encoder()
    values, measured = batch(1)
    with torch.no_grad():
        alone, together = encoder(values, measured), encoder(values.repeat(6, 1), measured.repeat(6, 1))

    torch.testing.assert_close(together, alone.repeat(6, 1), rtol=1e-5, atol=1e-6)


def test_threads_change_no_bit() -> None:
    """One thread or two: the same tokens and gradients, and torch may use as many threads as before."""
    encoder = make_encoder()
    values, measured = batch(11)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                shown = encoder(values, measured)
            tokens = encoder._from_tables(values, measured, 3)
            found.append([shown, tokens, *torch.autograd.grad(tokens.square().sum(), trained_weights(encoder))])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def trained_weights(encoder: PerformerEncoder) -> list[torch.Tensor]:
    """Return the weights of the layers and of what goes into them."""
    return [*encoder.performer.parameters(), encoder.token_emb.weight, encoder.gene_emb.weight]


def test_cells_that_are_trained_are_not_kept_after_their_turn() -> None:
    """What the layers keep of a cell for its gradients is gone when these are there."""
    encoder = make_encoder()
    values, measured = batch(6)
    tokens = encoder._from_tables(values, measured, 3)
    assert tokens.grad_fn is not None
    kept = [weakref.ref(output) for _, output in tokens.grad_fn.passed]
    assert all(reference() is not None for reference in kept)

    torch.autograd.grad(tokens.sum(), trained_weights(encoder), retain_graph=True)

    assert [reference() for reference in kept] == [None] * 6


def test_long_cells_keep_little_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer's inner arrays are made again: a fraction of the memory, the same gradients bit for bit."""
    encoder = make_encoder(400)
    tokens_TE = torch.randn(401, encoder.config.dim)
    weights = list(encoder.performer.parameters())

    def gradients() -> tuple[list[torch.Tensor], int]:
        kept = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        modules = encoder.performer.net.layers
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            total = performer._alone(modules, torch.float32, tokens_TE).sum()
        return list(torch.autograd.grad(total, weights)), kept

    short, kept_all = gradients()
    monkeypatch.setattr(layers, "MOST_TOKENS_KEPT", 300)
    long, kept_little = gradients()

    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=True))
    assert kept_little < 0.3 * kept_all
