"""Pre-trained weights from elsewhere into the workspace, and out of it again (`canal weights`).

Checkpoints are safetensors, or files of PyTorch that are read without running any code in them.
"""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from canal import __version__
from canal.data.gene_list import read_gene_list, read_gene_vectors
from canal.errors import WeightsError
from canal.files import digest_file, tensors_written
from canal.stages.layout import Layout
from canal.stages.starting import check_weights_name, find_weights
from canal.training.start import PretrainedWeights, checked_pretrained, save_pretrained

STATE = "model_state_dict"  # under which scBERT's checkpoints hold their tensors
SUFFIXES = (".safetensors", ".pth", ".pt")
LISTED_KEYS = 8  # of a file that holds something else, in the message


def import_weights(
    layout: Layout, file: Path, *, genes: Path, gene2vec: Path | None = None, name: str | None = None
) -> PretrainedWeights:
    """Check a published checkpoint and keep it, or change nothing.

    Parameters
    ----------
    layout
        The workspace; it is made where there is none.
    file
        Checkpoint in scBERT's published layout, ``.pth``, ``.pt`` or ``.safetensors``.
    genes
        List of the genes of its table; see `canal.data.gene_list.read_gene_list`.
    gene2vec
        Vectors of these genes, for a checkpoint that lacks them or to compare them.
    name
        Name of the weights; the file's by default.

    Raises
    ------
    WeightsError, ConfigError
        If anything does not fit; nothing is written then.
    """
    layout.require(or_vacant=True)
    name = check_weights_name(layout, name or file.name.split(".")[0])
    gene_list = read_gene_list(genes)
    vectors = None if gene2vec is None else read_gene_vectors(gene2vec)
    tensors = _read_tensors(file)
    # What is kept with the weights: where they come from, and when they came.
    facts = {
        "kind": "imported",
        "source": str(file.absolute()),
        "source_digest": digest_file(file),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "canal_version": __version__,
    }
    weights = checked_pretrained(name, tensors, gene_list, facts, vectors)
    return save_pretrained(weights, Layout.init(layout.root, layout.server).weights / name)


def export_weights(layout: Layout, name: str, out: Path) -> PretrainedWeights:
    """Write weights as a checkpoint in the published layout, bit for bit as they came; the genes go beside it.

    Parameters
    ----------
    layout
        The workspace.
    name
        Name or folder of the weights.
    out
        ``.pth`` or ``.pt`` for scBERT's own code, or ``.safetensors``; its genes go to ``<stem>.genes.txt``.

    Raises
    ------
    WeightsError
        If there are no such weights, or the file cannot be written.
    """
    weights = find_weights(layout, name)
    if out.suffix not in SUFFIXES or not out.parent.is_dir() or out.is_dir():
        message = f"{out} cannot be written; expected a file in an existing folder that ends in {', '.join(SUFFIXES)}."
        raise WeightsError(message)
    # The checkpoint appears whole, after its genes.
    new = out.with_name(f".{out.stem}.new{out.suffix}")
    try:
        _write_tensors(weights.tensors, new)
        genes_beside(out).write_text("\n".join(weights.genes) + "\n", encoding="utf-8")
        shutil.move(new, out)
    except OSError as error:
        new.unlink(missing_ok=True)
        message = f"{out} cannot be written: {error.strerror or error}. Check space and permissions."
        raise WeightsError(message) from error
    return weights


def genes_beside(out: Path) -> Path:
    """Return the file of the genes of an exported checkpoint."""
    return out.with_name(f"{out.stem}.genes.txt")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, by name.

    Parameters
    ----------
    path
        A ``.safetensors`` file, or a file of ``torch.save`` that holds tensors by name, alone or as
        ``model_state_dict``. It is read with ``weights_only``: a pickle that would run code is refused.

    Raises
    ------
    WeightsError
        If there is no such file, it cannot be read without running code, or it holds no tensors by name.
    """
    if not path.is_file():
        message = f"There is no file {path}. Expected a checkpoint, .pth, .pt or .safetensors; check the spelling."
        raise WeightsError(message)
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch and safetensors raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = (
            f"{path} cannot be read as tensors alone ({reason[:200]}). Expected a file of torch.save or safetensors "
            "that holds nothing but tensors and plain values. A file that holds other objects could run code and is "
            "never loaded: load it where you trust it, and save its model_state_dict alone."
        )
        raise WeightsError(message) from error
    return _tensors_by_name(content, path)


def _tensors_by_name(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors that a file holds, alone or under their key."""
    state = content.get(STATE, content) if isinstance(content, Mapping) else content
    if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
        return {str(name): tensor for name, tensor in state.items()}
    held = type(content).__name__
    if isinstance(content, Mapping):
        held = ", ".join(map(str, list(content)[:LISTED_KEYS]))
    message = (
        f"{path} holds {held or 'nothing'}; expected tensors by name, alone or under {STATE!r}. "
        "Save model.state_dict() and import that."
    )
    raise WeightsError(message)


def _write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name: safetensors, or ``{"model_state_dict": ...}`` in PyTorch's format for its own tools."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        with tensors_written(path):
            save_file(contiguous, path)
    else:
        torch.save({STATE: contiguous}, path)
