"""`canal pretrain`: weights from unlabelled cells, by masked expression modelling."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from canal import __version__
from canal.data.gene_list import GeneVectors, read_gene_list, read_gene_vectors
from canal.data.genes import name_genes
from canal.data.panel import GenePanel
from canal.errors import ConfigError, DataError, WeightsError
from canal.model.network import seeded
from canal.pretrain.cells import CellFiles, FileSurvey, TokenBlock, TokenBlocks, panel_of
from canal.pretrain.config import PretrainPreset, load_pretrain_preset
from canal.pretrain.masked import Baselines, HeldOutTokens, MaskedModel, baselines, held_out_tokens
from canal.pretrain.training import PretrainCells, Pretraining
from canal.progress import Progress, Silent
from canal.registry.health import working_folder
from canal.seeds import numpy_generator, torch_generator
from canal.stages.layout import Layout
from canal.stages.starting import check_name
from canal.training.start import PretrainedWeights, checked_pretrained, save_pretrained

FEWEST_GENES = 20


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """One `canal pretrain`.

    Attributes
    ----------
    data
        Files of cells; labels are not looked at.
    name
        Name of the weights.
    preset, overrides
        Named configuration and ``key=value`` changes.
    seed
        The seed that is recorded.
    gene2vec, genes
        Vectors of genes, and the list of their names where the file has none.
    gene_key
        Column of ``var`` with the gene names.
    resume
        Go on from where a run was stopped.
    """

    data: Sequence[Path]
    name: str = "pretrained"
    preset: str = "small"
    overrides: Sequence[str] = ()
    seed: int = 0
    gene2vec: Path | None = None
    genes: Path | None = None
    gene_key: str | None = None
    resume: bool = False


def pretrain(layout: Layout, request: PretrainRequest, progress: Progress | None = None) -> PretrainedWeights:
    """Pre-train a Performer and keep it as weights that a stage can start from.

    Parameters
    ----------
    layout
        The workspace; it is made where there is none.
    request
        What to train on, and how.
    progress
        Told how far the work is.

    Raises
    ------
    ConfigError, DataError, WeightsError
        If preset, files or vectors cannot be used; nothing is written then.
    """
    begin, progress = time.monotonic(), progress or Silent()
    layout.require(or_vacant=True)
    name = check_name(layout, request.name)
    preset = load_pretrain_preset(request.preset, tuple(request.overrides))
    vectors = _vectors(request, preset)
    _refuse_twice(request.data)
    with CellFiles(request.data, request.gene_key) as files:
        progress.start(sum(len(s) for s in files.streams), "looking at the files")
        surveys = files.survey(progress.advance)
        progress.close()
        panel, table = _panel(surveys, preset, vectors)
        blocks = TokenBlocks(files, panel, preset.model.bins)
        taken, held_rows = _split([s.cells for s in surveys], preset, request.seed)
        with seeded(request.seed, "weights"):
            model = MaskedModel(preset.model.encoder(), len(panel), table)
        held = _held_out(blocks, held_rows, preset, model.mask_token, request.seed)
        plain = baselines(held, blocks.all(taken), preset.model.bins)
        key = _key(surveys, preset, request, table)
        weights = Layout.init(layout.root, layout.server).weights
        with working_folder(weights, key, resume=request.resume) as draft:
            cells = PretrainCells(blocks=blocks, taken=taken, held_out=held)
            training = Pretraining(model, cells, preset, request.seed, (draft / "checkpoint.safetensors", key))
            resumed = request.resume and training.resume()
            history = training.run(progress, lambda _epoch, _figures: None)
            facts = _facts(request, preset, surveys, history, plain, held, cells.count)
            facts |= {"seconds": round(time.monotonic() - begin, 1), "resumed": resumed}
            return save_pretrained(
                checked_pretrained(name, model.published(), panel.genes.names, facts), weights / name
            )


def _vectors(request: PretrainRequest, preset: PretrainPreset) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Return the genes that have a vector, and the vectors (genes, size)."""
    wanted = preset.genes.vectors == "gene2vec"
    if wanted != (request.gene2vec is not None):
        message = (
            f"Preset {preset.name!r} takes the vectors of genes from a file: name it with --gene2vec, or learn them "
            "with --set genes.vectors=learned."
            if wanted
            else f"--gene2vec was given, but preset {preset.name!r} learns the vectors. Add "
            "--set genes.vectors=gene2vec."
        )
        raise ConfigError(message)
    if request.gene2vec is None:
        return None
    found: GeneVectors = read_gene_vectors(request.gene2vec)
    listed = read_gene_list(request.genes) if request.genes is not None else found.genes
    if listed is None:
        message = f"{request.gene2vec} has no names of genes. Give the list of its rows with --genes."
        raise WeightsError(message)
    vectors = found.in_order(listed)
    if vectors.shape[1] != preset.model.dim:
        message = (
            f"{request.gene2vec} has vectors of {vectors.shape[1]} numbers, the model of {preset.model.dim}. "
            f"Add --set model.dim={vectors.shape[1]}, or take other vectors."
        )
        raise WeightsError(message)
    return listed, vectors


def _refuse_twice(paths: Sequence[Path]) -> None:
    if not paths:
        message = "No file of cells was named. Give one or more with --data."
        raise DataError(message)
    seen = [path.resolve() for path in paths]
    twice = sorted({str(path) for path in seen if seen.count(path) > 1})
    if twice:
        message = f"{', '.join(twice)} was named more than once. Name every file once."
        raise DataError(message)


def _panel(
    surveys: Sequence[FileSurvey], preset: PretrainPreset, vectors: tuple[tuple[str, ...], np.ndarray] | None
) -> tuple[GenePanel, torch.Tensor | None]:
    """Return the genes of the table and, where a file gives them, their vectors; genes without one are left out."""
    panel = panel_of(surveys, preset.genes.per_file)
    table = None
    if vectors is not None:
        names, numbers = vectors
        named = name_genes(pd.DataFrame(index=list(names)), source="the list of genes with vectors")
        columns = panel.match(named.genes).columns
        have = np.flatnonzero(columns >= 0)
        table = torch.from_numpy(numbers[named.columns[columns[have]]]).float()
        panel = panel.subset(have)
    if len(panel) < FEWEST_GENES:
        message = (
            f"{', '.join(s.path for s in surveys)}: {len(panel)} genes can be used, expected {FEWEST_GENES} at least. "
            "Check genes.per_file, and that the vectors name genes as the files do."
        )
        raise DataError(message)
    return panel, table


def _split(counts: Sequence[int], preset: PretrainPreset, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return which cells of each file are trained on and which are held out, bool (cells,)."""
    total, config = sum(counts), preset.training
    share = min(config.held_out_share, config.held_out_most / max(total, 1))
    held = []
    for number, n in enumerate(counts):
        rows = np.zeros(n, dtype=bool)
        rows[numpy_generator(seed, f"held out {number}").permutation(n)[: round(share * n)]] = True
        held.append(rows)
    if not any(rows.any() for rows in held) or all(rows.all() for rows in held):
        message = f"{total} cells are too few to hold {share:.1%} of them out. Give more cells, or a larger share."
        raise DataError(message)
    return [~rows for rows in held], held


def _held_out(
    blocks: TokenBlocks, rows: Sequence[np.ndarray], preset: PretrainPreset, mask_token: int, seed: int
) -> HeldOutTokens:
    found = list(blocks.all(rows))
    whole = TokenBlock(
        tokens=np.concatenate([b.tokens for b in found]),
        measured=np.concatenate([np.broadcast_to(b.measured, b.tokens.shape) for b in found]),
    )
    draw = torch_generator(seed, "held-out masks")
    masking = preset.masking
    return held_out_tokens(whole, share=masking.share, replaced=masking.replaced, mask_token=mask_token, draw=draw)


def _key(
    surveys: Sequence[FileSurvey], preset: PretrainPreset, request: PretrainRequest, table: torch.Tensor | None
) -> str:
    """Name a run by all that decides its outcome, so that only the same one is resumed."""
    vectors = "" if table is None else hashlib.sha256(table.numpy().tobytes()).hexdigest()
    what = [[s.digest for s in surveys], preset.model_dump(mode="json"), request.seed, vectors]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _facts(
    request: PretrainRequest,
    preset: PretrainPreset,
    surveys: Sequence[FileSurvey],
    history: list[dict[str, float]],
    plain: Baselines,
    held: HeldOutTokens,
    cells: int,
) -> dict[str, Any]:
    return {
        "kind": "pretrained",
        "source": ", ".join(s.path for s in surveys),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "canal_version": __version__,
        "cells": cells,
        "held_out_cells": len(held.tokens),
        "held_out_masked": int(held.masked.sum()),
        "accuracy": history[-1]["accuracy"],
        **asdict(plain),
        "history": history,
        "seed": request.seed,
        "preset": preset.model_dump(mode="json"),
        "data": [{"path": s.path, "digest": s.digest, "cells": s.cells} for s in surveys],
    }
