"""Pre-trained weights as a workspace keeps them: the published tensors, their genes, and where they come from.

A folder holds ``weights.safetensors`` (the published layout, bit for bit), ``genes.json`` and ``weights.json`` with the
hash of both and the digest of the whole.

Where a stage's network starts: afresh, from the stage before, or from pre-trained weights.

Shapes: G genes of the panel, E token size.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
from canal.data.genes import GeneNames, name_genes
from canal.data.panel import GenePanel
from canal.errors import DataError, StageError, WeightsError
from canal.model.encoders.published import PROJECTION, TABLE, Sizes, check_published
from canal.model.network import Network
from canal.seeds import torch_generator

FORMAT = 1
if TYPE_CHECKING:
    from canal.model.encoders.performer import PerformerEncoder

TENSORS, GENES, FACTS = "weights.safetensors", "genes.json", "weights.json"


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """Weights of a Performer that some stage may start from.

    Attributes
    ----------
    name
        Name in the workspace.
    sizes
        Sizes of the Performer.
    genes
        Genes of its table in the order of the rows, as they were named.
    tensors
        The tensors of the published layout by name.
    facts
        Where they come from; plain values.
    digest
        ``"sha256:..."`` over tensors and genes, ``""`` until they are kept.
    """

    name: str
    sizes: Sizes
    genes: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    digest: str = ""

    @cached_property
    def named(self) -> GeneNames:
        """The genes under the names that a gene panel uses."""
        return name_genes(pd.DataFrame(index=list(self.genes)), source=f"the gene list of {self.name}")

    def rows(self, panel_match: np.ndarray) -> np.ndarray:
        """Return the row of the table of each panel gene, -1 where it has none, from columns of `named`."""
        columns = self.named.columns
        return np.asarray(np.where(panel_match >= 0, columns[np.maximum(panel_match, 0)], -1))

    def described(self) -> dict[str, Any]:
        """Return what they are as plain values."""
        sizes = asdict(self.sizes)
        return {"name": self.name, "digest": self.digest, "sizes": sizes, "tensors": len(self.tensors), **self.facts}


def checked_pretrained(
    name: str,
    tensors: Mapping[str, Tensor],
    genes: tuple[str, ...],
    facts: Mapping[str, Any],
    vectors: GeneVectors | None = None,
) -> PretrainedWeights:
    """Check a published checkpoint and its genes.

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
        gene2vec: takes the place of a table that the checkpoint lacks, and must equal one that it has.

    Raises
    ------
    WeightsError
        If a tensor or the number of genes does not fit, or the vectors are not those of the table.
    """
    source = str(facts["source"])
    rows = None if vectors is None else vectors.in_order(genes)
    if rows is not None and TABLE not in tensors:
        import torch

        table = torch.from_numpy(np.vstack([rows, np.zeros((1, rows.shape[1]))]))
        tensors = {**tensors, TABLE: table}
    sizes = check_published(tensors, source)
    if sizes.genes != len(genes):
        message = (
            f"{source} has a table of {sizes.genes} genes (and one row of zeros); the gene list names {len(genes)}. "
            "Give the list that the weights were trained with, every gene in the order of the rows, with --genes."
        )
        raise WeightsError(message)
    if rows is not None and vectors is not None:
        _check_same(tensors[TABLE], rows, source, vectors.source)
    weights = PretrainedWeights(name=name, sizes=sizes, genes=genes, tensors=tensors, facts=facts)
    try:
        found = weights.named
    except DataError as error:
        raise WeightsError(str(error)) from error
    warnings = [*found.warnings, *_last_row(tensors[TABLE])]
    return PretrainedWeights(
        name=name, sizes=sizes, genes=genes, tensors=tensors, facts={**facts, "warnings": warnings}
    )


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
    new = folder.with_name(f".{folder.name}.new")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in weights.tensors.items()}, new / TENSORS)
        (new / GENES).write_text(json.dumps(list(weights.genes)), encoding="utf-8")
        files = {name: _hash(new / name) for name in (TENSORS, GENES)}
        table = {"format": FORMAT, "files": files, "sizes": asdict(weights.sizes), **weights.facts}
        (new / FACTS).write_text(json.dumps(table, indent=2), encoding="utf-8")
        new.rename(folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        message = f"The weights cannot be written to {folder}: {error.strerror or error}. Check space and permissions."
        raise WeightsError(message) from error
    return load_pretrained(folder)


def load_pretrained(folder: Path) -> PretrainedWeights:
    """Read weights whose files are as they were written.

    Raises
    ------
    WeightsError
        If the folder holds no weights, a newer canal wrote them, or a file was changed.
    """
    table = read_facts(folder)
    for name, expected in table["files"].items():
        found = _hash(folder / name) if (folder / name).is_file() else "nothing"
        if found != expected:
            message = f"{folder / name} was changed: expected {expected}, found {found}. Import the weights again."
            raise WeightsError(message)
    tensors = load_file(folder / TENSORS)
    genes = tuple(map(str, json.loads((folder / GENES).read_text(encoding="utf-8"))))
    facts = {k: v for k, v in table.items() if k not in {"format", "files", "sizes"}}
    sizes = check_published(tensors, str(folder))
    return PretrainedWeights(
        name=folder.name, sizes=sizes, genes=genes, tensors=tensors, facts=facts, digest=digest_of(table)
    )


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what ``weights.json`` of a folder says, without reading the tensors.

    Raises
    ------
    WeightsError
        If the folder holds no weights, or a newer canal wrote them.
    """
    try:
        table: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        newer, files = table["format"] > FORMAT, dict(table["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} holds no pre-trained weights ({error}). Import them with `canal weights import`."
        raise WeightsError(message) from error
    if newer or set(files) != {TENSORS, GENES}:
        message = f"{folder} was written by a newer canal (format {table['format']}); update canal to read it."
        raise WeightsError(message)
    return table


def digest_of(table: Mapping[str, Any]) -> str:
    """Return the digest of the weights whose facts these are."""
    files = json.dumps(table["files"], sort_keys=True)
    return f"sha256:{hashlib.sha256(files.encode()).hexdigest()}"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _check_same(table: Tensor, rows: np.ndarray, source: str, vectors: str) -> None:
    kept = table[:-1].double().numpy()
    if kept.shape != rows.shape:
        message = f"{vectors} has vectors of {rows.shape[1]} numbers, the table of {source} of {kept.shape[1]}."
        raise WeightsError(message)
    other = int((np.abs(kept - rows).max(axis=1) > 1e-5).sum())
    if other:
        message = (
            f"{vectors} differs from the table of {source} in the vectors of {other} of {len(rows)} genes. Either the "
            "gene list is in another order or the weights were trained with other vectors. Leave --gene2vec out to "
            "take the table of the weights."
        )
        raise WeightsError(message)


def _last_row(table: Tensor) -> list[str]:
    if not table[-1].any():
        return []
    return ["The row of the extra token is not zero, as it is in scBERT's; it is kept for export, but not used."]


@dataclass(frozen=True, kw_only=True)
class PretrainedGenes:
    """What a network took of pre-trained weights: genes with a row of the table, and those without one."""

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
            "Use --preset canal."
        )
        raise StageError(message)
    if not weights.sizes.fits(encoder):
        wanted = weights.sizes.encoder_keys()
        different = [f"encoder.{k} = {getattr(encoder, k)}, the weights have {v}" for k, v in wanted.items()
                     if getattr(encoder, k) != v]  # fmt: skip
        message = f"The weights {weights.name} do not fit the preset: {'; '.join(different)}. Leave these keys out."
        raise StageError(message)


def start_from_pretrained(
    network: Network, weights: PretrainedWeights, panel: GenePanel, known: int, seed: int
) -> PretrainedGenes:
    """Put pre-trained weights into a network, in place; the rows of the table by gene.

    A gene without a row gets a vector drawn from the normal distribution that the rows of the table have, each number
    with its own mean and spread: the network then sees a gene that it does not know, of a kind that it does.

    Parameters
    ----------
    network
        On the genes of ``panel``.
    weights
        They fit its encoder: see `check_weights`.
    panel
        Gene panel of the stage.
    known
        Number of its genes that the network was trained on at an earlier stage. They keep their vectors, and with one
        or more such genes all other weights are kept, too.
    seed
        The stage's seed.
    """
    from canal.model.encoders.performer import PerformerEncoder

    encoder = network.encoder
    assert isinstance(encoder, PerformerEncoder), type(encoder)
    vectors, has_row = gene_vectors(weights, panel, seed)
    with torch.no_grad():
        encoder.gene_emb.weight[known:] = vectors[known:]
    if known == 0:
        state = encoder.state_dict()
        trunk = {k: v for k, v in weights.tensors.items() if k in state and k != TABLE}
        assert len(trunk) + 4 + _unused(encoder, weights) == len(weights.tensors), "a tensor has no place"
        encoder.load_state_dict(state | trunk)
    fresh = has_row[known:]
    return PretrainedGenes(genes=int(fresh.sum()), without_row=int((~fresh).sum()))


def gene_vectors(weights: PretrainedWeights, panel: GenePanel, seed: int) -> tuple[Tensor, Tensor]:
    """Return the vector of each panel gene, (G, E), and whether it is a row of the table, bool (G,)."""
    table = weights.tensors[TABLE][:-1].float()
    rows = torch.from_numpy(weights.rows(panel.match(weights.named.genes).columns))
    has_row = rows >= 0
    draw = torch_generator(seed, "genes without pre-trained vector")
    noise = torch.randn(len(panel), table.shape[1], generator=draw)
    drawn = table.mean(dim=0) + noise * table.std(dim=0, correction=0)
    return torch.where(has_row[:, None], table[rows.clamp(min=0)], drawn), has_row


def _unused(encoder: "PerformerEncoder", weights: PretrainedWeights) -> int:
    """Count the projections that exact attention has no use for; gene table, head of 2 and a counter are 4 more."""
    if encoder.config.attention == "performer":
        return 0
    return sum(name.endswith(PROJECTION) for name in weights.tensors)
