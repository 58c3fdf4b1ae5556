"""Starting from published weights: the same numbers as the published architecture, genes by name."""

import numpy as np
import pytest
import torch
from torch import Tensor

from canal.config import Preset, load_preset
from canal.data.genes import Genes
from canal.data.panel import GenePanel
from canal.data.variable_genes import rank_by_variance
from canal.errors import StageError
from canal.model.encoders.performer import LN_2, PerformerEncoder
from canal.model.network import Network, new_network
from canal.training.run import Run
from canal.training.stage import learn_stage
from canal.training.start import (
    PretrainedGenes,
    PretrainedWeights,
    check_weights,
    checked_pretrained,
    start_from_pretrained,
)
from tests.learning import toy
from tests.published import gene_names, published_model, published_state

FULL = {"dim": 200, "heads": 10, "dim_head": 64}


def weights_of(model: object, genes: list[str]) -> PretrainedWeights:
    return checked_pretrained("toy", published_state(model), tuple(genes), {"source": "toy"})


def preset_for(weights: PretrainedWeights, *more: str) -> Preset:
    sizes = [f"encoder.{k}={v}" for k, v in weights.sizes.encoder_keys().items()]
    return load_preset("canal", (*sizes, *more))


def panel_of(genes: list[str]) -> GenePanel:
    return GenePanel.empty().extended(Genes.of(genes), 1)


def encodings(network: Network, values: Tensor, measured: Tensor) -> Tensor:
    """Return what comes out of the last LayerNorm, (cells, genes + 1, token size), of the encoder as it is run."""
    encoder = network.encoder
    assert isinstance(encoder, PerformerEncoder)
    kept: list[Tensor] = []
    handle = encoder.norm.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    with torch.no_grad():
        encoder.eval()(values, measured)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("sizes", [{"depth": 3}, FULL | {"depth": 2, "genes": 120}], ids=["small", "published widths"])
def test_encodings_are_those_of_the_published_architecture(sizes: dict[str, int]) -> None:
    """Same tokens, same weights: performer-pytorch's language model and our encoder agree to 1e-4."""
    model = published_model(**sizes)
    n = model.max_seq_len - 1
    weights = weights_of(model, gene_names(n))
    network = new_network(preset_for(weights), n, 3, seed=5)
    network.encoder.product_dtype = torch.float32
    taken = start_from_pretrained(network, weights, panel_of(gene_names(n)), known=0, seed=5)
    tokens = torch.randint(0, 7, (3, n), generator=torch.Generator().manual_seed(1))
    values, measured = tokens.clamp(max=5) * LN_2 + 1e-3, tokens != 6

    with torch.no_grad():
        expected = model(torch.cat([tokens, torch.zeros(3, 1, dtype=torch.long)], dim=1), return_encodings=True)
    found = encodings(network, values * measured, measured)

    assert (taken.genes, taken.without_row) == (n, 0)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_rows_go_by_gene_and_not_by_position() -> None:
    """A panel in another order, with a gene that the table lacks, gets each gene's own row."""
    model = published_model(genes=6)
    weights = weights_of(model, ["a1", "B2", "C3", "D4", "E5", "F6"])
    panel = ["F6", "new", "A1", "D4"]
    network = new_network(preset_for(weights), 4, 2, seed=0)
    fresh = {k: v.clone() for k, v in network.state_dict().items()}

    taken = start_from_pretrained(network, weights, panel_of([g.upper() for g in panel]), known=0, seed=0)

    table = model.pos_emb.emb.weight.detach()
    rows = network.encoder.gene_emb.weight.detach()
    assert torch.equal(rows[[0, 2, 3]], table[[5, 0, 3]])
    assert (taken.genes, taken.without_row) == (3, 1)
    assert not any(torch.equal(rows[1], row) for row in table)
    assert torch.equal(network.state_dict()["encoder.fc1.weight"], fresh["encoder.fc1.weight"])  # the head is new


def test_the_convolution_starts_from_the_pre_trained_output() -> None:
    """Its number for a gene rises with the bin that the pre-trained output tells; its weights stay as long."""
    model = published_model(genes=30)
    with torch.no_grad():
        model.to_out.bias.copy_(torch.linspace(-1, 2, 7))
    weights = weights_of(model, gene_names(30))
    network = new_network(preset_for(weights), 30, 2, seed=0)
    length = network.encoder.conv.weight.detach().norm()

    start_from_pretrained(network, weights, panel_of(gene_names(30)), known=0, seed=0)

    tokens_ = torch.randn(50, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, found = model.to_out(tokens_)[:, :-1], network.encoder.conv(tokens_)[:, 0]
    expected = sum((k - 2.5) * logits[:, k] for k in range(6))
    torch.testing.assert_close(network.encoder.conv.weight.norm(), length)
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), rtol=1e-4, atol=1e-5)


def test_an_output_that_tells_nothing_leaves_the_convolution_as_drawn() -> None:
    """Weights of an output that was never trained may be zeros."""
    model = published_model(genes=30)
    with torch.no_grad():
        model.to_out.weight.zero_()
    weights = weights_of(model, gene_names(30))
    network = new_network(preset_for(weights), 30, 2, seed=0)
    drawn = network.encoder.conv.weight.detach().clone()

    start_from_pretrained(network, weights, panel_of(gene_names(30)), known=0, seed=0)

    assert torch.equal(network.encoder.conv.weight.detach(), drawn)


def test_genes_without_a_row_are_drawn_like_the_rows() -> None:
    """Mean and spread of each number are those of the table, and the seed decides."""
    model = published_model(genes=300)
    with torch.no_grad():
        model.pos_emb.emb.weight[:-1] *= torch.linspace(0.1, 3, 20)
        model.pos_emb.emb.weight[:-1] += torch.linspace(-2, 2, 20)
    weights = weights_of(model, gene_names(300))
    strange = panel_of([f"OTHER{i}" for i in range(2000)])

    def drawn(seed: int) -> np.ndarray:
        network = new_network(preset_for(weights), 2000, 2, seed)
        start_from_pretrained(network, weights, strange, known=0, seed=seed)
        return network.encoder.gene_emb.weight.detach().numpy()

    table = model.pos_emb.emb.weight[:-1].detach().numpy()
    np.testing.assert_allclose(drawn(1).mean(axis=0), table.mean(axis=0), atol=0.25)
    np.testing.assert_allclose(drawn(1).std(axis=0), table.std(axis=0), rtol=0.1)
    assert np.array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))


def test_a_grown_network_takes_new_genes_only() -> None:
    """At a later stage known genes and layers stay as they were trained; new genes take their rows."""
    weights = weights_of(published_model(genes=6), gene_names(6))
    network = new_network(preset_for(weights), 2, 2, seed=0)
    network.grow(4, 3)
    before = {k: v.clone() for k, v in network.state_dict().items()}

    taken = start_from_pretrained(network, weights, panel_of(gene_names(4)), known=2, seed=0)

    after = network.state_dict()
    changed = [k for k in after if not torch.equal(after[k], before[k])]
    assert changed == ["encoder.gene_emb.weight"]
    assert torch.equal(after[changed[0]][:2], before[changed[0]][:2])
    assert torch.equal(after[changed[0]][2:], weights.tensors["pos_emb.emb.weight"][2:4].float())
    assert taken.genes == 2


def test_exact_attention_takes_them_too() -> None:
    """It has no random features; all other tensors find their place."""
    weights = weights_of(published_model(), gene_names(40))
    network = new_network(preset_for(weights, "encoder.attention=exact"), 40, 2, seed=0)

    start_from_pretrained(network, weights, panel_of(gene_names(40)), known=0, seed=0)

    name = "performer.net.layers.1.0.fn.to_q.weight"
    assert torch.equal(network.encoder.state_dict()[name], weights.tensors[name])


@pytest.mark.parametrize(
    ("preset", "more", "says"),
    [
        ("compact", (), "Use --preset performer"),
        ("canal", ("encoder.depth=3",), "encoder.depth = 3, the weights have 2"),
    ],
)
def test_a_preset_that_cannot_take_them_is_refused(preset: str, more: tuple[str, ...], says: str) -> None:
    """The message names what differs."""
    weights = weights_of(published_model(), gene_names(40))
    with pytest.raises(StageError, match=says):
        check_weights(weights, load_preset(preset, more))


@pytest.mark.parametrize("ranking", ["dispersion", "variance"])
def test_genes_with_a_vector_come_into_the_panel_first(ranking: str) -> None:
    """Of few genes all have a vector; where more are wanted than have one, the others fill up."""
    cells = toy(n=20)
    # The genes that vary least have vectors, under the names of the file.
    least = [cells.genes.names[column] for column in rank_by_variance(cells)[-12:]]
    weights = weights_of(published_model(genes=12), least)
    for per_stage, known in ((10, 10), (20, 12)):
        preset = preset_for(weights, f"genes.per_stage={per_stage}", f"genes.ranking={ranking}", "training.epochs=1")
        stage = learn_stage(None, cells, preset, Run(number=1, seed=0), weights)
        assert len(stage.model.panel) == per_stage
        assert len(set(stage.model.panel.genes.names) & set(least)) == known
        assert stage.pretrained_genes == PretrainedGenes(genes=known, without_row=per_stage - known)
