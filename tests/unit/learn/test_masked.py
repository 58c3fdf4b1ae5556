"""Masking, its baselines, and the model's published form."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from canal.config import PerformerConfig
from canal.model.encoders.published import check_published
from canal.pretrain import masked as masked_module
from canal.pretrain.cells import TokenBlock
from canal.pretrain.masked import (
    HeldOutTokens,
    MaskedModel,
    majority_baselines,
    mask_held_out,
    mask_tokens,
    validate,
)
from canal.pretrain.training import rate_share
from tests.published import published_model

CONFIG = PerformerConfig(
    kind="performer", dim=20, depth=2, heads=2, dim_head=16, bins=5, hidden=1, representation=1,
    attention="performer", trainable="all",
)  # fmt: skip


def tokens(n: int = 50, genes: int = 80) -> torch.Tensor:
    return torch.randint(0, 7, (n, genes), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_masking_follows_scbert(share: float) -> None:
    """ceil(share x expressed) a cell; never zero, never the mask token; 90 % replaced, the others left as they are."""
    given = tokens(400)
    shown, masked = mask_tokens(given, share=share, replaced=0.9, mask_token=6, draw=torch.Generator().manual_seed(0))

    expressed = ((given > 0) & (given < 6)).sum(dim=1).numpy()
    np.testing.assert_array_equal(masked.sum(dim=1), np.ceil(np.round(share * expressed, 6)))
    assert given[masked].min() >= 1
    assert given[masked].max() <= 5
    assert torch.equal(shown[~masked], given[~masked])
    replaced = shown[masked] == 6
    assert torch.equal(shown[masked][~replaced], given[masked][~replaced])
    assert float(replaced.float().mean()) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("zeros", [0.5, 1.0])
def test_genes_that_are_not_expressed_are_asked_for_too(zeros: float) -> None:
    """So many for each expressed one, at random, beside the same expressed ones; hidden as often as these."""
    given = tokens(400)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    _, expressed = mask_tokens(given, share=0.15, replaced=0.9, mask_token=6, draw=draws[0])
    shown, masked = mask_tokens(given, share=0.15, replaced=0.9, zeros=zeros, mask_token=6, draw=draws[1])

    asked_for = masked & (given == 0)
    assert torch.equal(masked & (given > 0), expressed)
    wanted, there = np.ceil(zeros * expressed.sum(dim=1).numpy()), (given == 0).sum(dim=1).numpy()
    np.testing.assert_array_equal(asked_for.sum(dim=1), np.minimum(wanted, there))
    assert float((shown[asked_for] == 6).float().mean()) == pytest.approx(0.9, abs=0.02)
    # Each gene in turn, not the first of a cell.
    assert len(np.unique(asked_for.sum(dim=0))) > 1
    assert int(asked_for.sum(dim=0).min()) > 0


def test_a_cell_without_expression_has_nothing_to_mask() -> None:
    """And one with a single expressed gene has that."""
    given = torch.tensor([[0, 0, 6, 0], [0, 3, 6, 0]])
    shown, masked = mask_tokens(given, share=0.15, replaced=1.0, mask_token=6, draw=torch.Generator().manual_seed(0))
    assert masked.tolist() == [[False] * 4, [False, True, False, False]]
    assert shown.tolist() == [[0, 0, 6, 0], [0, 6, 6, 0]]


def test_baselines_against_counting() -> None:
    """Both majorities by plain loops over the masked genes."""
    rng = np.random.default_rng(0)
    train = rng.choice(6, p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02], size=(60, 12)).astype(np.uint8)
    held = TokenBlock(tokens=train[:20], measured=np.ones((20, 12), dtype=bool))
    cells = mask_held_out(held, share=0.3, replaced=0.9, mask_token=6, draw=torch.Generator().manual_seed(0))

    found = majority_baselines(cells, [TokenBlock(tokens=train, measured=held.measured)], bins=5)

    def most(values: list[int]) -> int:
        return max(range(1, 6), key=values.count)

    major = [most([v for v in row if v]) for row in train.tolist()]
    right_cell = right_gene = total = 0
    for cell, gene in np.argwhere(cells.masked.numpy()).tolist():
        truth = int(train[cell, gene])
        alike = [int(train[i, gene]) for i in range(60) if major[i] == major[cell] and train[i, gene]]
        right_cell += truth == major[cell]
        right_gene += truth == most(alike)
        total += 1
    assert found.cell_majority == pytest.approx(right_cell / total)
    assert found.gene_majority == pytest.approx(right_gene / total)


def test_published_form_of_the_model() -> None:
    """Its tensors are in the published layout; a fixed table stays as it was given."""
    table = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    model = MaskedModel(CONFIG, 30, table)
    sizes = check_published(model.published_tensors(), "toy")
    assert sizes.encoder_keys() == {"dim": 20, "depth": 2, "heads": 2, "dim_head": 16, "bins": 5}
    assert torch.equal(model.published_tensors()["pos_emb.emb.weight"][:-1].float(), table)
    assert not model.gene_emb.weight.requires_grad


@pytest.mark.usefixtures("cell_by_cell")
def test_the_published_architecture_gives_the_same_logits() -> None:
    """The result, loaded into performer-pytorch's language model, tells masked genes as our model does."""
    model = MaskedModel(CONFIG, 30).eval()
    model.product_dtype = torch.float32  # bfloat16, where the CPU has it, differs in the third digit
    other = published_model(genes=30, seed=9)
    left = other.load_state_dict(model.published_tensors(), strict=False)
    assert all("proj_updater" in name for name in left.missing_keys)
    assert left.unexpected_keys == ["performer.calls_since_last_redraw"]
    given = tokens(4, 30)
    masked = given == 6

    found = model(given, torch.arange(30), masked)

    expected = other(torch.cat([given, torch.zeros(4, 1, dtype=torch.long)], dim=1))[:, :-1][masked]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def sparse_tokens(n: int, genes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return shown tokens of which most are 0, as of real cells, and some of them masked."""
    draw = torch.Generator().manual_seed(4)
    given = torch.randint(1, 6, (n, genes), generator=draw) * (torch.rand(n, genes, generator=draw) < 0.2)
    return mask_tokens(given, share=0.3, replaced=0.9, mask_token=6, draw=draw)


@pytest.fixture
def cell_by_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small cells go through the layers one by one, too."""
    monkeypatch.setattr(masked_module, "FEWEST_VALUES", 0)


@pytest.mark.usefixtures("cell_by_cell")
@pytest.mark.parametrize("cells", [2, 6])
def test_gradients_are_those_of_the_published_modules(cells: int) -> None:
    """One by one, with the first layer shared among six cells and not among two: every weight learns the same."""
    torch.manual_seed(0)
    model = MaskedModel(CONFIG, 60)
    model.product_dtype = torch.float32
    shown, masked = sparse_tokens(cells, 60)
    weights = dict(model.named_parameters())

    own = torch.autograd.grad(model(shown, torch.arange(60), masked).square().sum(), list(weights.values()))

    x = model.token_emb(F.pad(shown, (0, 1))) + F.pad(model.gene_emb.weight, (0, 0, 0, 1))
    logits = model.to_out(model.norm(model.performer(x)[:, :-1][masked]))
    expected = torch.autograd.grad(logits.square().sum(), list(weights.values()))
    for name, ours, theirs in zip(weights, own, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()), msg=name)


@pytest.mark.usefixtures("cell_by_cell")
@pytest.mark.parametrize("cells", [2, 9], ids=["alone", "sharing the first layer"])
def test_heads_whose_features_overflow_are_performer_pytorchs(cells: int) -> None:
    """Some queries of a head and some keys too long for exp: logits and gradients."""
    torch.manual_seed(0)
    model = MaskedModel(CONFIG, 60)
    model.product_dtype = torch.float32
    with torch.no_grad():
        for attention, _ in model.performer.net.layers:  # type: ignore[union-attr, misc]
            projection = attention.fn.fast_attention.projection_matrix * 16**-0.25
            long = projection[projection.norm(dim=1).argmax()]
            turned = torch.outer(long / long.square().sum(), torch.randn(20) / 20**0.5) * 60
            attention.fn.to_q.weight[:16] = turned
            attention.fn.to_k.weight[16:] = turned
    shown, masked = sparse_tokens(cells, 60)

    found = model(shown, torch.arange(60), masked)

    x = model.token_emb(F.pad(shown, (0, 1))) + F.pad(model.gene_emb.weight, (0, 0, 0, 1))
    expected = model.to_out(model.norm(model.performer(x)[:, :-1][masked]))
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    weights = dict(model.named_parameters())
    own, theirs = (torch.autograd.grad(x.square().sum(), list(weights.values())) for x in (found, expected))
    for name, ours, reference in zip(weights, own, theirs, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-2, atol=1e-3 * float(reference.abs().max()), msg=name)


@pytest.mark.usefixtures("cell_by_cell")
def test_heads_that_all_overflow_are_performer_pytorchs() -> None:
    """Queries far longer than training makes them: the answer is performer-pytorch's, and finite."""
    torch.manual_seed(0)
    model = MaskedModel(CONFIG, 60).eval()
    model.product_dtype = torch.float32
    with torch.no_grad():
        for attention, _ in model.performer.net.layers:  # type: ignore[union-attr, misc]
            attention.fn.to_q.weight.mul_(300)
            attention.fn.to_k.weight.mul_(300)
        shown, masked = sparse_tokens(2, 60)
        x = model.token_emb(F.pad(shown, (0, 1))) + F.pad(model.gene_emb.weight, (0, 0, 0, 1))
        expected = model.to_out(model.norm(model.performer(x)[:, :-1][masked]))
        found = model(shown, torch.arange(60), masked)
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(found, expected)


def test_tokens_and_genes_start_with_unit_spread() -> None:
    """Smaller vectors drown in what the layers add to every token alike."""
    torch.manual_seed(0)
    model = MaskedModel(CONFIG, 500)
    assert float(model.gene_emb.weight.detach().std()) == pytest.approx(1, abs=0.05)
    assert float(model.token_emb.weight.detach().std()) == pytest.approx(1, abs=0.3)


def test_small_cells_go_through_as_a_batch() -> None:
    """Large ones alone."""
    model = MaskedModel(CONFIG, 60)
    assert not model.takes_cells_alone(61)
    assert model.takes_cells_alone(masked_module.FEWEST_VALUES // CONFIG.dim + 1)


def test_only_the_shown_genes_count() -> None:
    """Logits of a subset of genes are those of a model whose table holds these genes alone."""
    model = MaskedModel(CONFIG, 30).eval()
    genes = torch.tensor([3, 7, 20, 29])
    given = torch.tensor([[1, 2, 6, 0], [6, 1, 4, 5]])
    masked = given == 6
    small = MaskedModel(CONFIG, 4).eval()
    small.load_state_dict(model.state_dict() | {"gene_emb.weight": model.gene_emb.weight[genes]})
    torch.testing.assert_close(model(given, genes, masked), small(given, torch.arange(4), masked))


def test_the_rate_rises_and_falls() -> None:
    """Linear to the top, then a cosine to a hundredth."""
    rates = [rate_share(d, 0.1) for d in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([1e-3, 0.5, 1.0, 0.505, 0.01], rel=1e-6)


@pytest.mark.usefixtures("cell_by_cell")
def test_held_out_cells_are_scored_side_by_side_as_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches in threads of their own give the figures of all cells at once, and no gradients are kept."""
    torch.manual_seed(0)
    model = MaskedModel(CONFIG, 60)
    model.product_dtype = torch.float32
    shown, masked = sparse_tokens(40, 60)
    truth = torch.where(masked, torch.randint(1, 6, shown.shape, generator=torch.Generator().manual_seed(1)), shown)
    cells = HeldOutTokens(tokens=truth, shown=shown, masked=masked)
    graded: list[bool] = []
    forward = MaskedModel.forward

    def watched(self: MaskedModel, *args: torch.Tensor) -> torch.Tensor:
        graded.append(torch.is_grad_enabled())
        return forward(self, *args)

    monkeypatch.setattr(MaskedModel, "forward", watched)

    found = validate(model, cells, torch.device("cpu"))

    assert graded == [False] * 3
    with torch.no_grad():
        logits = forward(model, shown, torch.arange(60), masked)
    logits, bins = logits[:, 1:-1], truth[masked] - 1  # bin 0 and the mask token are no answers
    assert found["accuracy"] == pytest.approx(float((logits.argmax(dim=1) == bins).float().mean()))
    assert found["held_out_loss"] == pytest.approx(float(F.cross_entropy(logits, bins)), rel=1e-4)
