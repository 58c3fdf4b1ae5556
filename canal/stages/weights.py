"""`canal weights`: pre-trained weights into the workspace, out of it, and looked at."""

import hashlib
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from canal import __version__
from canal.data.gene_list import read_gene_list, read_gene_vectors
from canal.encoders.checkpoint_file import SUFFIXES, read_tensors, write_tensors
from canal.errors import WeightsError
from canal.learn.pretrained import (
    FACTS,
    PretrainedWeights,
    digest_of,
    load_pretrained,
    pretrained_of,
    read_facts,
    save_pretrained,
)
from canal.stages.layout import Layout

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    chosen = check_name(layout, name or file.name.split(".")[0])
    listed = read_gene_list(genes)
    vectors = None if gene2vec is None else read_gene_vectors(gene2vec)
    tensors = read_tensors(file)
    with file.open("rb") as opened:
        file_hash = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
    facts = {"kind": "imported", "source": str(file.absolute()), "source_digest": file_hash, **_written()}
    weights = pretrained_of(chosen, tensors, listed, facts, vectors)
    return save_pretrained(weights, Layout.init(layout.root, layout.server).weights / chosen)


def check_name(layout: Layout, name: str) -> str:
    """Return the name if new weights may have it.

    Raises
    ------
    WeightsError
        If it is no name of a folder, or is taken.
    """
    if not NAME.fullmatch(name):
        message = (
            f"{name!r} is no name for weights; expected letters, digits, '.', '_' and '-'. Choose one with --name."
        )
        raise WeightsError(message)
    if (layout.weights / name).exists():
        message = f"There are weights named {name} already. Choose another name with --name, or remove their folder."
        raise WeightsError(message)
    return name


def list_weights(layout: Layout) -> list[dict[str, Any]]:
    """Return what the workspace's weights are, by name."""
    folders = sorted(path.parent for path in layout.weights.glob(f"*/{FACTS}") if not path.parent.name.startswith("."))
    found = []
    for folder in folders:
        table = read_facts(folder)
        rest = {k: v for k, v in table.items() if k not in {"format", "files"}}
        found.append({"name": folder.name, "digest": digest_of(table), **rest})
    return found


def find_weights(layout: Layout, name: str) -> PretrainedWeights:
    """Read weights by their name in the workspace, or by the path of their folder; hashes are checked.

    Raises
    ------
    WeightsError
        If there are none, or a file was changed.
    """
    return load_pretrained(weights_folder(layout, name))


def weights_folder(layout: Layout, name: str) -> Path:
    """Return the folder of weights by their name in the workspace, or by its path.

    Raises
    ------
    WeightsError
        If there are none.
    """
    inside, elsewhere = layout.weights / name, Path(name)
    if NAME.fullmatch(name) and (inside / FACTS).is_file():
        return inside
    if (elsewhere / FACTS).is_file():
        return elsewhere
    known = ", ".join(found["name"] for found in list_weights(layout)) or "none"
    message = (
        f"There are no weights {name!r}. The workspace has: {known}. Import some with `canal weights import`, make "
        "some with `canal pretrain`, or give the path of a folder of weights."
    )
    raise WeightsError(message)


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
    new = out.with_name(f".{out.stem}.new{out.suffix}")
    try:
        write_tensors(weights.tensors, new)
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


def _written() -> dict[str, str]:
    return {"created": datetime.now(UTC).isoformat(timespec="seconds"), "canal_version": __version__}
