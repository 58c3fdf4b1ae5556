"""Pre-trained weights: how a workspace keeps them, and how a stage's network starts from them.

A folder holds ``weights.safetensors`` (the tensors in the published layout, bit for bit), ``genes.json`` and
``weights.json`` with the hashes of both and where the weights come from.

Shapes: G genes of the panel, E token size.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from canal.config import PerformerConfig, Preset
from canal.data.gene_list import GeneVectors
from canal.data.genes import GeneNames, Genes, name_genes
from canal.data.panel import GenePanel
from canal.errors import DataError, StageError, WeightsError
from canal.files import digest_file, refuse_newer, tensors_written
from canal.model.encoders.published import PROJECTION, TABLE, Sizes, check_published, layer_operations
from canal.model.network import Network
from canal.seeds import torch_generator

if TYPE_CHECKING:
    from canal.model.encoders.performer import PerformerEncoder

FORMAT = 1  # of weights.json
TENSORS, GENES, FACTS = "weights.safetensors", "genes.json", "weights.json"
SAME_VECTOR = 1e-5  # largest difference of two vectors that are the same but for rounding to single precision


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """Weights of a Performer that a stage may start from.

    Attributes
    ----------
    name
        Name in the workspace.
    sizes
        Sizes of the Performer.
    genes
        Genes of its table in the order of the rows, under the names they came with.
    tensors
        The tensors of the published layout by name.
    facts
        Where they come from; plain values.
    digest
        ``"sha256:..."`` over tensors and genes, ``""`` before they are saved.
    """

    name: str
    sizes: Sizes
    genes: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    digest: str = ""

    @cached_property
    def gene_names(self) -> GeneNames:
        """The genes under the names that a gene panel uses."""
        return name_genes(pd.DataFrame(index=list(self.genes)), source=f"the gene list of {self.name}")

    def table_rows(self, panel: GenePanel) -> np.ndarray:
        """Return the row of the table of each panel gene, -1 where it has none, (G,)."""
        position = panel.match(self.gene_names.genes).columns
        rows = self.gene_names.columns
        return np.asarray(np.where(position >= 0, rows[np.maximum(position, 0)], -1))

    def columns_of(self, genes: Genes) -> np.ndarray:
        """Return the columns of a file, ascending, whose genes have a row of the table."""
        rows = GenePanel.empty().extended(self.gene_names.genes, 1).match(genes)
        return np.unique(rows.columns[rows.measured])

    def expected(self, genes: int) -> dict[str, float]:
        """Return what a stage of so many genes costs: operations of a cell's forward pass, and what is kept of it.

        Returns
        -------
        ``genes``, ``gflop`` (all layers, products alone) and ``kept_mb``: the outputs of the frozen layers in float32,
        half of it in bfloat16, where the stage trains as the paper does.
        """
        operations = self.sizes.depth * layer_operations(self.sizes, genes + 1)
        kept = 4 * (genes + 1) * self.sizes.dim
        return {"genes": genes, "gflop": round(operations / 1e9, 2), "kept_mb": round(kept / 1e6, 2)}

    def described(self) -> dict[str, Any]:
        """Return name, digest, sizes and origin as plain values."""
        sizes = asdict(self.sizes)
        return {"name": self.name, "digest": self.digest, "sizes": sizes, "tensors": len(self.tensors), **self.facts}


def checked_pretrained(
    name: str,
    tensors: Mapping[str, Tensor],
    genes: tuple[str, ...],
    facts: Mapping[str, Any],
    vectors: GeneVectors | None = None,
) -> PretrainedWeights:
    """Return the weights of a published checkpoint, after checking its tensors and its genes.

    Parameters
    ----------
    name
        Name that the weights get.
    tensors
        By name.
    genes
        Gene of each row of the table but the last.
    facts
        Where they come from; ``source`` names it in messages.
    vectors
        gene2vec: stands in for a table that the checkpoint lacks, and must equal one that it has.

    Raises
    ------
    WeightsError
        If a tensor or the number of genes does not fit, or the vectors are not those of the table.
    """
    source = str(facts["source"])
    # gene2vec in place of a table that is lacking; the extra token has a row of zeros.
    rows = None if vectors is None else vectors.in_order(genes)
    if rows is not None and TABLE not in tensors:
        table = torch.from_numpy(np.vstack([rows, np.zeros((1, rows.shape[1]))]))
        tensors = {**tensors, TABLE: table}
    # The layout, the number of genes, and the table against gene2vec.
    sizes = check_published(tensors, source)
    if sizes.genes != len(genes):
        message = (
            f"{source} has a table of {sizes.genes} genes (and one row of zeros); the gene list names {len(genes)}. "
            "Give the list that the weights were trained with, every gene in the order of the rows, with --genes."
        )
        raise WeightsError(message)
    if rows is not None and vectors is not None:
        _check_same(tensors[TABLE], rows, source, vectors.source)
    # The names of the genes.
    weights = PretrainedWeights(name=name, sizes=sizes, genes=genes, tensors=tensors, facts=facts)
    try:
        warnings = list(weights.gene_names.warnings)
    except DataError as error:
        raise WeightsError(str(error)) from error
    if tensors[TABLE][-1].any():
        warnings.append(
            "The row of the extra token is not zero, as it is in scBERT's; it is kept for export, but not used."
        )
    return replace(weights, facts={**facts, "warnings": warnings})


def save_pretrained(weights: PretrainedWeights, folder: Path) -> PretrainedWeights:
    """Write weights into a folder that is not there yet, whole or not at all; return them with their digest.

    Raises
    ------
    WeightsError
        If there are weights of this name, or they cannot be written there.
    """
    if folder.exists():
        message = f"There are weights named {weights.name} already, in {folder}. Choose another name with --name."
        raise WeightsError(message)
    # Into a folder of another name, which is renamed when it is complete.
    new = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.tensors.items()}
        with tensors_written(new / TENSORS):
            save_file(tensors, new / TENSORS)
        (new / GENES).write_text(json.dumps(list(weights.genes)), encoding="utf-8")
        files = {name: digest_file(new / name) for name in (TENSORS, GENES)}
        table = {"format": FORMAT, "files": files, "sizes": asdict(weights.sizes), **weights.facts}
        (new / FACTS).write_text(json.dumps(table, indent=2), encoding="utf-8")
        new.rename(folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        message = f"The weights cannot be written to {folder}: {error.strerror or error}. Check space and permissions."
        raise WeightsError(message) from error
    return load_pretrained(folder)


def load_pretrained(folder: Path) -> PretrainedWeights:
    """Read weights from a folder of `save_pretrained`.

    Raises
    ------
    WeightsError
        If the folder holds no weights, a newer canal wrote them, or a file was changed.
    """
    table = read_facts(folder)
    for name, expected in table["files"].items():
        content = digest_file(folder / name) if (folder / name).is_file() else "nothing"
        if content != expected:
            message = f"{folder / name} was changed: expected {expected}, found {content}. Import the weights again."
            raise WeightsError(message)
    tensors = load_file(folder / TENSORS)
    genes = tuple(map(str, json.loads((folder / GENES).read_text(encoding="utf-8"))))
    facts = {k: v for k, v in table.items() if k not in {"format", "files", "sizes"}}
    sizes = check_published(tensors, str(folder))
    return PretrainedWeights(
        name=folder.name, sizes=sizes, genes=genes, tensors=tensors, facts=facts, digest=digest_of(table)
    )


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's ``weights.json``, without reading the tensors.

    Raises
    ------
    WeightsError
        If the folder holds no weights, or a newer canal wrote them.
    """
    try:
        table: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        written, files = table["format"], dict(table["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} holds no pre-trained weights ({error}). Import them with `canal weights import`."
        raise WeightsError(message) from error
    # Other files than these are of a format to come.
    refuse_newer(folder, written if set(files) == {TENSORS, GENES} else sorted(files), FORMAT, WeightsError)
    return table


def digest_of(table: Mapping[str, Any]) -> str:
    """Return the digest of weights from their facts: it is over the hashes of tensors and genes."""
    files = json.dumps(table["files"], sort_keys=True)
    return f"sha256:{hashlib.sha256(files.encode()).hexdigest()}"


def _check_same(table: Tensor, rows: np.ndarray, source: str, vectors: str) -> None:
    """Refuse gene vectors that are not those of the table."""
    own = table[:-1].double().numpy()
    if own.shape != rows.shape:
        message = f"{vectors} has vectors of {rows.shape[1]} numbers, the table of {source} of {own.shape[1]}."
        raise WeightsError(message)
    different = int((np.abs(own - rows).max(axis=1) > SAME_VECTOR).sum())
    if different:
        message = (
            f"{vectors} differs from the table of {source} in the vectors of {different} of {len(rows)} genes. Either "
            "the gene list is in another order or the weights were trained with other vectors. Leave --gene2vec out to "
            "take the table of the weights."
        )
        raise WeightsError(message)


@dataclass(frozen=True, kw_only=True)
class PretrainedGenes:
    """How many of the genes new to a network have a row in the pre-trained table, and how many have none."""

    genes: int
    without_row: int


def check_weights(weights: PretrainedWeights, preset: Preset) -> None:
    """Refuse a preset whose encoder cannot take the weights.

    Raises
    ------
    StageError
        If so.
    """
    encoder = preset.encoder
    if not isinstance(encoder, PerformerConfig):
        message = (
            f"Pre-trained weights are a Performer's; preset {preset.name!r} has the encoder {encoder.kind!r}. "
            "Use --preset performer."
        )
        raise StageError(message)
    if not weights.sizes.fits(encoder):
        different = []
        for key, size in weights.sizes.encoder_keys().items():
            if getattr(encoder, key) != size:
                different.append(f"encoder.{key} = {getattr(encoder, key)}, the weights have {size}")
        message = f"The weights {weights.name} do not fit the preset: {'; '.join(different)}. Leave these keys out."
        raise StageError(message)


def start_from_pretrained(
    network: Network, weights: PretrainedWeights, panel: GenePanel, known: int, seed: int
) -> PretrainedGenes:
    """Load pre-trained weights into a network, in place; every gene gets its row of the table.

    A gene without a row gets a vector drawn from a normal distribution with the mean and spread that each number has
    over the rows: the network then sees an unknown gene whose vector is like those of the genes it knows.

    Parameters
    ----------
    network
        On the genes of ``panel``.
    weights
        Weights that fit its encoder; see `check_weights`.
    panel
        Gene panel of the stage.
    known
        Number of its genes that the network was trained on at an earlier stage. They keep their vectors, and where
        there are any the network keeps all its other weights, too.
    seed
        The stage's seed.
    """
    from canal.model.encoders.performer import PerformerEncoder

    encoder = network.encoder
    assert isinstance(encoder, PerformerEncoder), type(encoder)
    vectors, has_row = gene_vectors(weights, panel, seed)
    with torch.no_grad():
        encoder.gene_emb.weight[known:] = vectors[known:]
    # A fresh network takes all other tensors of the encoder, too.
    if known == 0:
        state = encoder.state_dict()
        trunk = {name: tensor for name, tensor in weights.tensors.items() if name in state and name != TABLE}
        assert len(trunk) + 4 + _unused(encoder, weights) == len(weights.tensors), "a tensor has no place"
        encoder.load_state_dict(state | trunk)
        _start_convolution(encoder, weights)
    fresh = has_row[known:]
    return PretrainedGenes(genes=int(fresh.sum()), without_row=int((~fresh).sum()))


def _start_convolution(encoder: "PerformerEncoder", weights: PretrainedWeights) -> None:
    """Let the head's convolution start from the pre-trained output over bins, in place.

    Its number for a gene is then at first the logits of the gene's bins, each times how far the bin is above the middle
    one: what the pre-trained network expects of the gene's expression. Its weights are as long as the random ones were.
    """
    rows, bias = weights.tensors["to_out.weight"].float(), weights.tensors["to_out.bias"].float()
    bins = torch.arange(encoder.config.bins + 1, dtype=torch.float32)
    above = bins - bins.mean()  # the mask token is no bin
    direction, offset = above @ rows[:-1], above @ bias[:-1]
    length = direction.norm()
    if length == 0:  # an output that was never trained tells nothing
        return
    with torch.no_grad():
        scale = encoder.conv.weight.norm() / length
        encoder.conv.weight.copy_((direction * scale)[None])
        encoder.conv.bias.copy_((offset * scale)[None])


def gene_vectors(weights: PretrainedWeights, panel: GenePanel, seed: int) -> tuple[Tensor, Tensor]:
    """Return the vector of each panel gene, (G, E), and whether it is a row of the table, bool (G,)."""
    table = weights.tensors[TABLE][:-1].float()
    rows = torch.from_numpy(weights.table_rows(panel))
    has_row = rows >= 0
    # Drawn for all genes, so that a gene's vector does not depend on which others have a row.
    draw = torch_generator(seed, "genes without pre-trained vector")
    noise = torch.randn(len(panel), table.shape[1], generator=draw)
    drawn = table.mean(dim=0) + noise * table.std(dim=0, correction=0)
    return torch.where(has_row[:, None], table[rows.clamp(min=0)], drawn), has_row


def _unused(encoder: "PerformerEncoder", weights: PretrainedWeights) -> int:
    """Count the projections, which exact attention does not use; gene table, head of 2 and a counter are 4 more."""
    if encoder.config.attention == "performer":
        return 0
    return sum(name.endswith(PROJECTION) for name in weights.tensors)
