"""Presets: the complete configuration of a stage, as frozen models that refuse unknown keys.

A preset is one TOML file in which every field of every table stands; the tables are the classes below. A run changes a
few of its values with ``--set table.key=value``. A table that does not fit is an error that names file and key.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from canal.errors import ConfigError

Share = Annotated[float, Field(ge=0.0, le=1.0)]  # a share of cells, genes or weight


class _Frozen(BaseModel):
    """Base of every table: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class SpecificGenesConfig(_Frozen):
    """Genes that mark one type of a stage, and the genes that go along with them."""

    markers: int = Field(ge=1, description="most markers of a type")
    fold_change: float = Field(ge=0, description="least log2 of a marker's mean in its type over that in the others")
    false_discovery: Annotated[float, Field(gt=0, lt=1)] = Field(description="rate of the corrected co-expression test")
    min_correlation: Share = Field(description="least absolute correlation with a marker; 0: the test alone decides")
    min_cells: int = Field(ge=2, description="cells that a type needs to choose genes, and that must express a gene")


class GenesConfig(_Frozen):
    """How the gene panel is chosen."""

    ranking: Literal["variance", "dispersion", "type-specific"] = Field(
        description="of unit profiles; scanpy's, as the paper; or, among the latter, genes that mark a type"
    )
    per_stage: int = Field(ge=10, description="highly variable genes of a stage that enter the panel, or may enter it")
    statistics: int = Field(ge=0, description="genes of a stage that enter the analytic memory")
    min_overlap: Share = Field(description="share of the panel a file must measure")
    specific: SpecificGenesConfig | None = Field(default=None, description="for the ranking type-specific alone")

    @model_validator(mode="after")
    def _has_specific(self) -> Self:
        """Refuse a ranking without its table, and a table without its ranking."""
        if (self.ranking == "type-specific") != (self.specific is not None):
            message = "the ranking type-specific and the table genes.specific go together; preset scannonet has both"
            raise ValueError(message)
        return self


class CompactConfig(_Frozen):
    """The default encoder on a CPU: a perceptron that is told which genes were measured."""

    kind: Literal["compact"]
    hidden: int = Field(ge=1)
    dim: int = Field(ge=1, description="size of the representation")
    dropout: Share


class PerformerConfig(_Frozen):
    """The paper's encoder: a Performer over gene tokens (CANAL section 2, scBERT)."""

    kind: Literal["performer"]
    dim: int = Field(ge=1)
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    dim_head: int = Field(ge=1)
    bins: int = Field(ge=2, description="number of log2 expression bins above zero")
    hidden: int = Field(ge=1, description="width between the convolution and the representation")
    representation: int = Field(ge=1)
    attention: Literal["performer", "exact"]
    trainable: Literal["all", "paper"]


class ScAnnoNetConfig(_Frozen):
    """A perceptron behind a gate that weighs each gene of each cell (scAnnoNet)."""

    kind: Literal["scannonet"]
    gate: int = Field(ge=1, description="width of the gate's hidden layer")
    hidden: int = Field(ge=1)
    dim: int = Field(ge=1, description="size of the representation")
    dropout: Annotated[float, Field(ge=0, lt=1)]
    gate_weight: float = Field(ge=0, description="weight of the gate's distance to the discriminative index")
    collinearity_weight: float = Field(ge=0, description="weight of the collinearity of the representation")
    gate_epochs: int = Field(ge=0, description="epochs that a new gate is trained alone")
    gate_learning_rate: float = Field(gt=0)


# The key `kind` says which encoder a table configures.
EncoderConfig = Annotated[CompactConfig | PerformerConfig | ScAnnoNetConfig, Field(discriminator="kind")]


class TrainingConfig(_Frozen):
    """How a stage is trained."""

    epochs: int = Field(ge=1)
    min_steps: int = Field(ge=0, description="more epochs where a stage has so few cells that this takes them")
    patience: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "one-cycle", "restarts", "decay"] = Field(description="restarts is the paper's")
    weight_decay: float = Field(ge=0)
    amsgrad: bool = Field(description="Adam with the maximum of its second moments, as the paper")
    balance: Share = Field(description="a type of n cells weighs n^(1 - balance) in its stage; 0: all alike")
    start: Literal["previous", "fresh"] = Field(description="weights to start a later stage from")
    new_rows: Literal["zero", "random"] = Field(default="zero", description="classifier rows of new types")
    best: Literal["accuracy-loss", "accuracy"] = Field(
        default="accuracy-loss", description="which epoch is the best: of the highest accuracy, ties by loss or none"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    distillation: float = Field(ge=0, description="lambda of the paper; scaled by |old types| / |all types|")
    gene_dropout: tuple[Share, Share] = Field(description="least and most share of a cell's genes that are hidden")
    gene_set_masking: Share = Field(description="share of training cells shown through another file's genes")
    precision: Literal["float32", "bfloat16", "auto"]
    sampling: Literal["each", "oversample", "weighted"] = Field(
        default="each", description="how often a cell comes up in an epoch, see canal.training.batches"
    )


class BankConfig(_Frozen):
    """The example bank."""

    size: int = Field(ge=0, description="L: cells kept in all")
    selection: Literal["herding", "coverage", "prototype", "random"]
    quotas: Literal["balanced", "floor"] = Field(
        default="balanced", description="places a rare type cannot fill go to others; or are left empty, as the paper"
    )


class AnalyticConfig(_Frozen):
    """The analytic memory: statistics of every type in gene space."""

    enabled: bool
    ridge: float = Field(gt=0, description="strength of the ridge, for profiles of length 1")
    rank: int = Field(ge=0, description="directions of spread kept of each type of a stage")
    weight: float = Field(ge=0, description="weight of what it says beside the network")
    # None, the sum, is not written: stages that were kept before there were rules are built again with their old files.
    rule: Literal["sum", "discriminants"] | None = Field(
        default=None,
        description="its ridge scores are added to the network's probabilities, or discriminants to their log",
    )
    pseudo_cells: int = Field(ge=0, description="cells drawn from the statistics that the network rehearses")
    pseudo_share: Share = Field(description="share of an earlier stage's weight that pseudo-cells have beside the bank")


class PromotionConfig(_Frozen):
    """When a new stage comes into use by itself."""

    max_fall: Share = Field(description="most that accuracy on an earlier stage's held-out cells may fall")
    max_alarms: Share = Field(
        default=0.05, description="most that the share of them called novel at alpha .05 may grow"
    )


class NoveltyConfig(_Frozen):
    """Which detector says that a cell is of no known type, where an annotation asks for none."""

    detector: Literal["memory", "probability"] = Field(description="the analytic memory's, or scBERT's threshold")
    min_probability: Annotated[float, Field(gt=0, le=1)] = Field(description="below it a cell is novel")


class Preset(_Frozen):
    """One complete configuration of a stage."""

    name: str
    description: str
    genes: GenesConfig
    encoder: EncoderConfig
    training: TrainingConfig
    bank: BankConfig
    analytic: AnalyticConfig
    # These tables have defaults because stages that were kept before the tables existed must stay readable.
    promotion: PromotionConfig = PromotionConfig(max_fall=0.02, max_alarms=0.05)
    novelty: NoveltyConfig = NoveltyConfig(detector="memory", min_probability=0.5)


def shipped_presets() -> dict[str, str]:
    """Return the text of every preset that comes with the package, by name."""
    # In an installed package the presets lie inside it; in a checkout beside it.
    inside = files("canal") / "configs"
    folder = inside if inside.is_dir() else Path(__file__).parents[1] / "configs"
    texts = {}
    for file in folder.iterdir():
        if file.name.endswith(".toml"):
            texts[file.name.removesuffix(".toml")] = file.read_text(encoding="utf-8")
    return dict(sorted(texts.items()))


# Presets under the names they had before: "canal" is the paper's network, not what canal uses by default.
OLD_NAMES = {"canal": "performer"}


def load_preset(name: str, overrides: tuple[str, ...] = (), folder: Path | None = None) -> Preset:
    """Read a named preset and apply ``key=value`` overrides.

    Parameters
    ----------
    name
        Name of a preset in the workspace's ``configs/`` or shipped with the package, or a path to a TOML file.
    overrides
        ``"table.key=value"``, the value as in TOML; a bare word is a string.
    folder
        The workspace's ``configs/``; its presets come before the shipped ones.

    Raises
    ------
    ConfigError
        If there is no such preset, a key is unknown, or a value does not fit.
    """
    source, text = _preset_text(name, folder)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{source} is not valid TOML: {error}. Mend the file or choose another preset."
        raise ConfigError(message) from error
    for override in overrides:
        apply_override(table, override)
    return parse_preset(table, source)


def _preset_text(name: str, folder: Path | None) -> tuple[str, str]:
    """Return where a preset was found, for messages, and the text of its file."""
    # 1. A path to a file.
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return str(path), path.read_text(encoding="utf-8")
    # 2. A preset of the workspace comes before a shipped one of the same name.
    if folder is not None and (own := folder / f"{name}.toml").is_file():
        return str(own), own.read_text(encoding="utf-8")
    # 3. A shipped preset; one that is asked for by its old name keeps that: old stages are made again as they were.
    shipped = shipped_presets()
    if name in shipped:
        return f"preset {name}", shipped[name]
    if name in OLD_NAMES:
        today = OLD_NAMES[name]
        return f"preset {name}", shipped[today].replace(f'name = "{today}"', f'name = "{name}"', 1)
    names = set(shipped)
    if folder is not None and folder.is_dir():
        names |= {path.stem for path in folder.glob("*.toml")}
    known = ", ".join(sorted(names))
    message = f"There is no preset {name!r}. Known presets: {known}; a path to a .toml file works too."
    raise ConfigError(message)


def change_preset(preset: Preset, overrides: tuple[str, ...]) -> Preset:
    """Return a preset with ``key=value`` overrides applied, as `load_preset` does."""
    table = dump_preset(preset)
    for override in overrides:
        apply_override(table, override)
    return parse_preset(table, f"preset {preset.name}")


def apply_override(table: dict[str, Any], override: str) -> None:
    """Change one key of a preset's table by ``"table.key=value"``; refuse what is not of that form."""
    key, sign, value = override.partition("=")
    if not sign or not key.strip():
        message = f"--set {override!r} is not of the form key=value, e.g. --set training.epochs=20."
        raise ConfigError(message)
    # Walk down to the table that holds the key; whether the key is known is checked with the whole preset.
    *parents, last = key.strip().split(".")
    inner = table
    for parent in parents:
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            message = f"--set {override!r}: {parent!r} is a value, not a table of values."
            raise ConfigError(message)
    # The value is read as TOML; what is none, such as a bare word, is a string.
    try:
        inner[last] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        inner[last] = value.strip()


def parse_preset(table: dict[str, Any], source: str) -> Preset:
    """Check a preset's table; ``source`` names it in the error."""
    try:
        return Preset.model_validate(table)
    except ValidationError as error:
        raise ConfigError(explain_misfit(error, source)) from error


def dump_preset(preset: Preset) -> dict[str, Any]:
    """Return the preset as plain values, as it is written to TOML and JSON."""
    return preset.model_dump(mode="json", exclude_none=True)


# What pydantic puts between the key `encoder` and the keys of an encoder's table: which kind of encoder it took it for.
_ENCODER_KINDS = frozenset({"compact", "performer", "scannonet"})


def explain_misfit(
    error: ValidationError, source: str, where_to_look: str = "`canal config show` prints every key"
) -> str:
    """Return the message for a table that does not fit.

    Parameters
    ----------
    error
        What pydantic found.
    source
        The file, or what the table came from.
    where_to_look
        Tells which keys there are.
    """
    problems = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path[:1] + [part for part in path[1:] if part not in _ENCODER_KINDS])
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown key {key!r}")
        elif problem["type"] == "missing":
            problems.append(f"missing key {key!r}")
        else:
            problems.append(f"{key} = {problem['input']!r}: {problem['msg'].lower()}")
    return f"{source} does not fit: " + "; ".join(problems) + f". {where_to_look}."
