"""`canal weights`: import, list, show, export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canal.cli.answer import Answer, Session, command, short_path

if TYPE_CHECKING:
    from rich.table import Table


USUAL_GENES = 1000  # of a stage of the presets with a Performer
MOST_VALUES = 12  # of a list that is printed; --json has all


def register(app: typer.Typer) -> None:
    """Add the commands."""
    noun = typer.Typer(no_args_is_help=True, help="Pre-trained weights that a stage may start from.")
    example = "canal weights import panglao_pretrain.pth --genes genes.txt --name panglao"
    command(noun, "import", example=example)(import_weights)
    command(noun, "list", example="canal weights list")(list_weights)
    command(noun, "show", example="canal weights show panglao")(show)
    command(noun, "export", example="canal weights export panglao panglao.pth")(export)
    app.add_typer(noun, name="weights")


def import_weights(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="scBERT checkpoint: .pth, .pt or .safetensors.")],
    genes: Annotated[Path, typer.Option(help="Genes of its table in order: text, .json or .h5ad.")],
    gene2vec: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Vectors of these genes, .npy or text: compared, or taken.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the weights; else the file's.")] = None,
) -> Answer:
    """Check a checkpoint in scBERT's published layout and keep it as safetensors.

    Every name and shape is checked; a pickle that would run code is refused.
    An empty or new folder becomes a workspace.
    """
    weights = session.workspace(anywhere=True).import_weights(file, genes=genes, gene2vec=gene2vec, name=name)
    facts = weights.described()
    lines = [f"{weights.name}: {facts['tensors']} tensors, {_sizes(facts)}", f"  {weights.digest}"]
    # What a stage from them takes: of a panel of the presets' size, and of all genes of the table.
    expected = [weights.expected(min(USUAL_GENES, facts["sizes"]["genes"])), weights.expected(facts["sizes"]["genes"])]
    facts["expected"] = expected
    for costs in expected:
        lines.append(
            f"  a stage of {costs['genes']} genes: {costs['gflop']:.1f} GFLOP a cell and forward pass; frozen layers' "
            f"outputs {costs['kept_mb']:.1f} MB a cell on disk"
        )
    return Answer(facts, [*lines, *(f"warning: {text}" for text in facts.get("warnings", ()))])


def list_weights(session: Session) -> Answer:
    """List the workspace's weights."""
    weights = session.workspace().weights()
    if not weights:
        return Answer({"weights": []}, ["No weights yet. Import some, or make some: canal pretrain --data cells.h5ad"])
    return Answer({"weights": weights}, [_weights_table(weights)])


def show(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or folder of the weights.")],
) -> Answer:
    """Show what was kept about weights; their files are compared with their hashes first."""
    facts = session.workspace(anywhere=True).find_weights(name).described()
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), _sizes(facts) if key == "sizes" else _short(value))
    return Answer(facts, [table])


def export(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or folder of the weights.")],
    out: Annotated[Path, typer.Argument(metavar="FILE", help="File to write: .pth, .pt or .safetensors.")],
) -> Answer:
    """Write weights in scBERT's published layout, bit for bit as they came, and their genes beside it."""
    weights, genes = session.workspace(anywhere=True).export_weights(name, out)
    data = {"out": str(out), "genes": str(genes), "name": weights.name, "digest": weights.digest}
    return Answer(data, [f"{weights.name} in {short_path(out)}, its genes in {short_path(genes)}"])


def _weights_table(weights: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("weights", "kind", "sizes", "created", "digest"):
        table.add_column(title)
    for facts in weights:
        row = (facts["name"], facts["kind"], _sizes(facts), facts["created"][:19], facts["digest"][7:19])
        table.add_row(*map(str, row))
    return table


def _sizes(facts: dict[str, Any]) -> str:
    """Return the sizes of the network in words."""
    sizes = facts["sizes"]
    layers = f"{sizes['depth']} layers of {sizes['dim']}, {sizes['heads']} heads of {sizes['dim_head']}"
    return f"{layers}, {sizes['bins']} bins, {sizes['genes']} genes"


def _short(value: Any) -> str:
    """Return a value as it is printed; what is nested deeper is left to the JSON."""
    if isinstance(value, dict):
        pairs = []
        for key, part in value.items():
            if not isinstance(part, dict | list):
                pairs.append(f"{key.replace('_', ' ')} {_short(part)}")
        return ", ".join(pairs)
    if isinstance(value, list):
        return "; ".join(map(_short, value[:MOST_VALUES])) or "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
