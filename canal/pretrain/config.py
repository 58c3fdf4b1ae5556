"""Presets of `canal pretrain`, as frozen models; a preset is complete, as those in `canal.config` are."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.config import PerformerConfig, Share, apply_override, explain_misfit
from canal.errors import ConfigError


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PretrainGenes(_Frozen):
    """Which genes have a row in the embedding table, and what the row holds."""

    per_file: int = Field(ge=0, description="most variable genes of each file; 0 for all")
    vectors: Literal["learned", "gene2vec"] = Field(description="learned, or a file's and frozen, as scBERT's")


class PretrainModel(_Frozen):
    """Sizes of the Performer."""

    dim: int = Field(ge=1)
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    dim_head: int = Field(ge=2)
    bins: int = Field(ge=2, le=250)

    def encoder(self) -> PerformerConfig:
        """Return the configuration of an encoder of these sizes; its head is not used in pre-training."""
        return PerformerConfig(
            kind="performer", hidden=1, representation=1, attention="performer", trainable="all", **self.model_dump()
        )


class Masking(_Frozen):
    """Which genes are hidden, and how."""

    share: Annotated[float, Field(gt=0, lt=1)] = Field(description="of a cell's tokens above bin 0")
    replaced: Share = Field(description="of these by the mask token; the others are left as they are")
    zeros: float = Field(ge=0, description="genes of bin 0 that are hidden, too, for each of these; 0 in scBERT")


class PretrainTraining(_Frozen):
    """How the model is trained."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulate: int = Field(ge=1, description="batches a step")
    genes_per_batch: int = Field(ge=0, description="genes drawn anew for each batch; 0 for all")
    learning_rate: float = Field(gt=0)
    warm_up: Share = Field(description="share of the steps in which the rate rises; then it falls along a cosine")
    weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0, description="largest norm of a gradient")
    held_out_share: Annotated[float, Field(gt=0, lt=1)]
    held_out_most: int = Field(ge=1, description="most cells that are held out in all")


class PretrainPreset(_Frozen):
    """One complete configuration of a pre-training."""

    name: str
    description: str
    genes: PretrainGenes
    model: PretrainModel
    masking: Masking
    training: PretrainTraining


def _shipped_presets() -> dict[str, str]:
    """Return the text of every preset that comes with the package, by name."""
    # Inside the package in a wheel, beside it in the repository.
    installed = files("canal") / "configs" / "pretrain"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "configs" / "pretrain"
    texts = {}
    for file in folder.iterdir():
        if file.name.endswith(".toml"):
            texts[file.name.removesuffix(".toml")] = file.read_text(encoding="utf-8")
    return dict(sorted(texts.items()))


def load_pretrain_preset(name: str, overrides: tuple[str, ...] = ()) -> PretrainPreset:
    """Read a preset and apply ``key=value`` overrides.

    Parameters
    ----------
    name
        Name of a shipped preset, or a path to a TOML file.
    overrides
        As for `canal.config.load_preset`.

    Raises
    ------
    ConfigError
        If there is no such preset, a key is unknown, or a value does not fit.
    """
    # A file of one's own, or the name of a preset.
    shipped, path = _shipped_presets(), Path(name)
    if path.suffix == ".toml" and path.is_file():
        source, text = str(path), path.read_text(encoding="utf-8")
    elif name in shipped:
        source, text = f"preset {name}", shipped[name]
    else:
        message = (
            f"There is no preset {name!r} of `canal pretrain`. Known: {', '.join(shipped)}; a .toml file works too."
        )
        raise ConfigError(message)
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{source} is not valid TOML: {error}. Mend the file or choose another preset."
        raise ConfigError(message) from error
    # Overrides are applied before the preset is checked as a whole.
    for override in overrides:
        apply_override(table, override)
    try:
        return PretrainPreset.model_validate(table)
    except ValidationError as error:
        raise ConfigError(explain_misfit(error, source, "docs/scbert.md has every key")) from error
