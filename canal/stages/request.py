"""`canal stage add`: what is asked for, reading the labelled cells it names, and what came of it.

`recorded_source` and `recorded_options` say what of a request the registry keeps; `canal.stages.declarations` makes a
request of it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.data.cells import Cells
from canal.data.labels import LabelOptions, checked_map
from canal.data.reading_rules import NEWEST, ReadingRules
from canal.data.stream import read_cells

if TYPE_CHECKING:
    import anndata as ad


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """What one `canal stage add` asks for.

    Attributes
    ----------
    data
        File of labelled cells, or an AnnData.
    labels
        Column of ``obs`` with the cell types.
    name
        Name of the stage; the file's name by default.
    preset, overrides
        Named configuration and ``key=value`` changes.
    seed
        The recorded seed, from which all randomness comes.
    resume
        Go on from the last epoch of a run that was killed.
    again
        Accept cells that were added before.
    drop_rare
        Leave out types with fewer than two cells.
    strict_labels
        Refuse names that look like known types.
    label_map, gene_key
        CSV with the file's names of types and ours, or a mapping of them; column of ``var`` with the gene names.
    drop_labels, keep_labels
        Labels whose cells are left out; types although their name says that they are none, such as "other".
    test
        File of labelled cells that this and every later stage is tested on; a held-out share of ``data`` by default.
    weights
        Name or folder of pre-trained weights to start from.
    ontology
        ``"auto"`` or a table: the types are placed in the Cell Ontology, and answers are as specific as they are sure.
        ``None``: they are not.
    split
        A type of the model in use that all cells are of, labelled by finer names: `canal labels split`.
    devices, nodes
        Processes on each node, one for each GPU or core, and nodes that train together.
    promote
        Bring the stage into use where the rule of promotion allows it; else it stays a candidate to look at.
    rules
        By which the file is read: older ones for a stage of then that is learned again.
    """

    data: "str | Path | ad.AnnData"
    labels: str
    name: str | None = None
    preset: str = "compact"
    overrides: Sequence[str] = ()
    seed: int = 0
    resume: bool = False
    again: bool = False
    drop_rare: bool = False
    strict_labels: bool = False
    label_map: Path | Mapping[str, str] | None = None
    gene_key: str | None = None
    drop_labels: Sequence[str] = ()
    keep_labels: Sequence[str] = ()
    test: "str | Path | None" = None
    weights: str | None = None
    ontology: str | Path | None = None
    split: str | None = None
    devices: int = 1
    nodes: int = 1
    promote: bool = True
    rules: ReadingRules = NEWEST


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The outcome of a stage that was committed; the JSON of `canal stage add`."""

    # The field names are the keys of that JSON and stay as they are.

    stage: int
    name: str
    version: int
    parent: int | None
    champion: bool
    types: tuple[str, ...]
    new_types: tuple[str, ...]
    cells: int
    genes: int
    gene_report: dict[str, Any]
    bank: dict[str, Any]
    metrics: dict[str, float]
    warnings: tuple[str, ...] = ()
    label_warnings: tuple[dict[str, Any], ...] = ()
    tested: tuple[dict[str, Any], ...] = ()
    incoming: dict[str, Any] | None = None
    seconds: float = 0.0
    left_out: dict[str, int] = field(default_factory=dict)
    voter: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def read_stage_cells(request: StageRequest, *, require_two: bool = False, keep_stored: bool = False) -> Cells:
    """Read the labelled cells of a request.

    Parameters
    ----------
    request
        Names file, labels, genes and what to leave out.
    require_two
        Refuse a file with one cell type only.
    keep_stored
        Keep the values as the file holds them, too; see `Cells`.

    Raises
    ------
    DataError
        If they cannot be used.
    """
    # How labels are read follows from the request, but for what the caller demands of the types.
    labels = LabelOptions(
        column=request.labels,
        label_map=request.label_map,
        drop=request.drop_labels,
        keep=request.keep_labels,
        drop_must_occur=True,
        drop_rare=request.drop_rare,
        require_two=require_two,
    )
    return read_cells(
        request.data,
        labels=labels,
        gene_key=request.gene_key,
        keep_stored=keep_stored,
        rules=request.rules,
    )


def recorded_source(request: StageRequest) -> dict[str, Any]:
    """Return where the cells of a request are and how they are read, for the record's ``data``."""
    # An AnnData in memory has no file: such a stage cannot be learned again.
    file = _absolute(request.data) if isinstance(request.data, str | Path) else None
    return {"file": file, "labels": request.labels, "gene_key_given": request.gene_key}


def recorded_options(request: StageRequest) -> dict[str, Any]:
    """Return the other options of a request, for the record's ``notes``."""
    # Only where it was asked for, so that the notes of stages without are those of older versions.
    ontology = {} if request.ontology is None else {"ontology_from": recorded_ontology(request.ontology)}
    split = {} if request.split is None else {"split": request.split}
    return {
        **ontology,
        **split,
        "overrides": list(request.overrides),
        "label_map": recorded_map(request.label_map),
        **recorded_label_rules(request),
        **recorded_reading(request.rules),
        "drop_rare": request.drop_rare,
        "test": _absolute(request.test) if request.test else None,
    }


def recorded_ontology(ontology: str | Path) -> str:
    """Return where places of types came from, as records keep it: ``"auto"``, or the path of a table."""
    return "auto" if ontology == "auto" else _absolute(ontology)


def recorded_label_rules(request: StageRequest) -> dict[str, list[str]]:
    """Return which labels are types, as records keep it.

    The first version wrote nothing of it; a record without is read by the rules of then.
    """
    if request.rules == ReadingRules.FIRST:
        return {}
    return {"drop_labels": list(request.drop_labels), "keep_labels": list(request.keep_labels)}


def recorded_reading(rules: ReadingRules) -> dict[str, int]:
    """Return by which rules a file was read, as records keep it; those before orthologues wrote nothing of it."""
    return {"reading": int(rules)} if rules >= ReadingRules.ORTHOLOGUES else {}


def recorded_map(label_map: Path | Mapping[str, str] | None) -> str | dict[str, str] | None:
    """Return a label map as records keep it: the path of a file, or the names that were given in memory."""
    if label_map is None:
        return None
    return checked_map(label_map) if isinstance(label_map, Mapping) else _absolute(label_map)


def _absolute(path: str | Path) -> str:
    """Return a path that is the same file from any working folder."""
    return str(Path(path).absolute())
