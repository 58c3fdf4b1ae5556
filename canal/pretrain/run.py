"""`canal pretrain`: weights from unlabelled cells, by masked expression modelling."""

import hashlib
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
from canal.files import short_digest
from canal.model.network import seeded
from canal.pretrain.cells import CellFiles, FileSurvey, TokenBlocks, join_blocks, variable_panel
from canal.pretrain.config import PretrainPreset, load_pretrain_preset
from canal.pretrain.masked import Baselines, HeldOutTokens, MaskedModel, majority_baselines, mask_held_out
from canal.pretrain.training import PretrainCells, Pretraining
from canal.progress import Progress, Silent
from canal.registry.health import working_folder
from canal.seeds import numpy_generator, torch_generator
from canal.stages.layout import Layout
from canal.stages.starting import check_weights_name
from canal.training.start import PretrainedWeights, checked_pretrained, save_pretrained

RECIPE = 2  # of the training: a run that another one left is not resumed
FEWEST_GENES = 20  # fewer are taken for a mistake in the request


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """What `canal pretrain` is asked for.

    Attributes
    ----------
    data
        Files of cells; labels are not used.
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
        Resume a run that was stopped.
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
    # What can be refused without reading any cells.
    layout.require(or_vacant=True)
    name = check_weights_name(layout, request.name)
    preset = load_pretrain_preset(request.preset, tuple(request.overrides))
    vectors = _read_vectors(request, preset)
    _check_files(request.data)
    with CellFiles(request.data, request.gene_key) as files:
        # One pass over all files for their most variable genes.
        progress.start(files.cells, "looking at the files")
        surveys = files.survey(progress.advance)
        progress.close()
        panel, table = _choose_panel(surveys, preset, vectors)
        # Cells to hold out, and how well their masked bins are predicted without a model.
        blocks = TokenBlocks(files, panel, preset.model.bins)
        trained_on, held_out_rows = _split(surveys, preset, request.seed)
        with seeded(request.seed, "weights"):
            model = MaskedModel(preset.model.encoder(), len(panel), table)
        held_out = _mask_held_out(blocks, held_out_rows, preset, model.mask_token, request.seed)
        baselines = majority_baselines(held_out, blocks.all(trained_on), preset.model.bins)
        # The training, in a working folder that a stopped run can be resumed from.
        key = _run_key(surveys, preset, request, table)
        weights = Layout.init(layout.root, layout.server).weights
        with working_folder(weights, key, resume=request.resume) as draft:
            cells = PretrainCells(blocks=blocks, trained_on=trained_on, held_out=held_out)
            training = Pretraining(model, cells, preset, request.seed, (draft / "checkpoint.safetensors", key))
            resumed = request.resume and training.resume()
            history = training.run(progress)
            facts = _facts(request, preset, surveys, history, baselines, cells)
            facts |= {"seconds": round(time.monotonic() - begin, 1), "resumed": resumed}
            tensors = model.published_tensors()
            return save_pretrained(checked_pretrained(name, tensors, panel.genes.names, facts), weights / name)


def _read_vectors(request: PretrainRequest, preset: PretrainPreset) -> tuple[tuple[str, ...], np.ndarray] | None:
    """Return the genes that have a vector, and the vectors (genes, size); ``None`` where they are learned."""
    # Preset and request have to agree on whether there is a file of vectors.
    if preset.genes.vectors == "gene2vec" and request.gene2vec is None:
        message = (
            f"Preset {preset.name!r} takes the vectors of genes from a file: name it with --gene2vec, or learn them "
            "with --set genes.vectors=learned."
        )
        raise ConfigError(message)
    if preset.genes.vectors != "gene2vec" and request.gene2vec is not None:
        message = (
            f"--gene2vec was given, but preset {preset.name!r} learns the vectors. Add --set genes.vectors=gene2vec."
        )
        raise ConfigError(message)
    if request.gene2vec is None:
        return None
    # The genes are named in a list of their own, or in the file.
    vectors: GeneVectors = read_gene_vectors(request.gene2vec)
    genes = read_gene_list(request.genes) if request.genes is not None else vectors.genes
    if genes is None:
        message = f"{request.gene2vec} has no names of genes. Give the list of its rows with --genes."
        raise WeightsError(message)
    table = vectors.in_order(genes)
    if table.shape[1] != preset.model.dim:
        message = (
            f"{request.gene2vec} has vectors of {table.shape[1]} numbers, the model of {preset.model.dim}. "
            f"Add --set model.dim={table.shape[1]}, or take other vectors."
        )
        raise WeightsError(message)
    return genes, table


def _check_files(paths: Sequence[Path]) -> None:
    """Refuse no file, and a file that is named twice."""
    if not paths:
        message = "No file of cells was named. Give one or more with --data."
        raise DataError(message)
    resolved = [path.resolve() for path in paths]
    repeated = sorted({str(path) for path in resolved if resolved.count(path) > 1})
    if repeated:
        message = f"{', '.join(repeated)} was named more than once. Name every file once."
        raise DataError(message)


def _choose_panel(
    surveys: Sequence[FileSurvey], preset: PretrainPreset, vectors: tuple[tuple[str, ...], np.ndarray] | None
) -> tuple[GenePanel, torch.Tensor | None]:
    """Return the gene panel and, where a file gives them, the genes' vectors; genes without one are left out."""
    panel = variable_panel(surveys, preset.genes.per_file)
    table = None
    if vectors is not None:
        names, numbers = vectors
        # The list of genes is matched as the genes of a file of cells are.
        named = name_genes(pd.DataFrame(index=list(names)), source="the list of genes with vectors")
        columns = panel.match(named.genes).columns
        with_vector = np.flatnonzero(columns >= 0)
        table = torch.from_numpy(numbers[named.columns[columns[with_vector]]]).float()
        panel = panel.subset(with_vector)
    if len(panel) < FEWEST_GENES:
        message = (
            f"{_paths(surveys)}: {len(panel)} genes can be used, expected {FEWEST_GENES} at least. "
            "Check genes.per_file, and that the vectors name genes as the files do."
        )
        raise DataError(message)
    return panel, table


def _split(
    surveys: Sequence[FileSurvey], preset: PretrainPreset, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return which cells of each file are trained on and which are held out, bool (cells,)."""
    total, config = sum(survey.cells for survey in surveys), preset.training
    # The same share of every file, less where the preset bounds the number of cells.
    share = min(config.held_out_share, config.held_out_most / max(total, 1))
    trained_on, held_out = [], []
    n_held_out = 0
    for number, survey in enumerate(surveys):
        rows = np.zeros(survey.cells, dtype=bool)
        order = numpy_generator(seed, f"held out {number}").permutation(survey.cells)
        rows[order[: round(share * survey.cells)]] = True
        held_out.append(rows)
        trained_on.append(~rows)
        n_held_out += int(rows.sum())
    if not 0 < n_held_out < total:
        message = f"{total} cells are too few to hold {share:.1%} of them out. Give more cells, or a larger share."
        raise DataError(message)
    return trained_on, held_out


def _mask_held_out(
    blocks: TokenBlocks, rows: Sequence[np.ndarray], preset: PretrainPreset, mask_token: int, seed: int
) -> HeldOutTokens:
    """Read the held-out cells and mask them once."""
    return mask_held_out(
        join_blocks(list(blocks.all(rows))),
        share=preset.masking.share,
        replaced=preset.masking.replaced,
        mask_token=mask_token,
        draw=torch_generator(seed, "held-out masks"),
    )


def _run_key(
    surveys: Sequence[FileSurvey], preset: PretrainPreset, request: PretrainRequest, table: torch.Tensor | None
) -> str:
    """Return the digest of all that decides the outcome of a run, so that only the same run is resumed."""
    vectors = "" if table is None else hashlib.sha256(table.numpy().tobytes()).hexdigest()
    digests = [survey.digest for survey in surveys]
    decisive = [RECIPE, digests, preset.model_dump(mode="json"), request.seed, vectors]
    return short_digest(decisive)


def _facts(
    request: PretrainRequest,
    preset: PretrainPreset,
    surveys: Sequence[FileSurvey],
    history: list[dict[str, float]],
    baselines: Baselines,
    cells: PretrainCells,
) -> dict[str, Any]:
    """Return what is kept with the weights."""
    files = [{"path": survey.path, "digest": survey.digest, "cells": survey.cells} for survey in surveys]
    return {
        "kind": "pretrained",
        "source": _paths(surveys),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "canal_version": __version__,
        "cells": cells.count,
        "held_out_cells": len(cells.held_out.tokens),
        "held_out_masked": int(cells.held_out.masked.sum()),
        "accuracy": history[-1]["accuracy"],
        **asdict(baselines),
        "history": history,
        "seed": request.seed,
        "preset": preset.model_dump(mode="json"),
        "data": files,
    }


def _paths(surveys: Sequence[FileSurvey]) -> str:
    return ", ".join(survey.path for survey in surveys)
