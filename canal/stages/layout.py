"""A workspace on disk: which folders make it, how one is made and found, what its settings say.

::

    canal.toml   name of the model and defaults
    configs/     presets of one's own
    stages/      one readable file a stage
    registry/    what was kept: database, artifacts
    weights/     pre-trained weights, where there are any

From a workspace to its registry: the local one, or the server that the workspace names.
"""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.errors import ConfigError
from canal.registry.registry import Registry

VARIABLE = "CANAL_WORKSPACE"
SETTINGS = "canal.toml"
LOCAL = "local"

_TEXT = """\
# A canal workspace: presets of your own go to configs/, stages/ says what was added,
# registry/ keeps the models.
name = "{name}"  # of the registered model
registry = "{registry}"  # "local": MLflow on SQLite in registry/; or a server, "https://host:port"

# Taken where the command line says nothing:
labels = "cell_type"
preset = "compact"
seed = 0
"""


class Settings(BaseModel):
    """The content of ``canal.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the registered model")
    registry: str = Field(default=LOCAL, pattern=r"^(local|https?://[^@]+)$", description="or a server's address")
    labels: str = Field(default="cell_type", min_length=1, description="column with the cell types")
    preset: str = Field(default="compact", min_length=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a workspace stand.

    Attributes
    ----------
    root
        Folder of the workspace; it need not exist.
    server
        Address of the registry, or ``"local"``, in place of what ``canal.toml`` says.
    """

    root: Path
    server: str | None = None

    @property
    def configs(self) -> Path:
        """Folder of the workspace's own presets."""
        return self.root / "configs"

    @property
    def stages(self) -> Path:
        """Folder of the readable declarations, one a stage."""
        return self.root / "stages"

    @property
    def registry(self) -> Path:
        """Folder of the local registry: database and artifacts."""
        return self.root / "registry"

    @property
    def weights(self) -> Path:
        """Folder of the pre-trained weights, made with the first."""
        return self.root / "weights"

    @property
    def registry_uri(self) -> str | None:
        """Address of the server that keeps the stages, ``None`` where `registry` does."""
        chosen = self.server or self.settings.registry
        return None if chosen == LOCAL else chosen

    @property
    def settings(self) -> Settings:
        """Return what ``canal.toml`` says now; what `init` would write where there is none yet.

        Raises
        ------
        ConfigError
            If the file is no TOML or does not fit.
        """
        path = self.root / SETTINGS
        text = _text(self)
        try:
            text = path.read_text(encoding="utf-8") if self.exists else text
            return Settings.model_validate(tomllib.loads(text))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            message = f"{path} is not valid TOML: {error}. Mend it, or move it and run `canal init`."
            raise ConfigError(message) from error
        except ValidationError as error:
            raise ConfigError(_explain(error, path)) from error

    @property
    def exists(self) -> bool:
        """Tell whether the folder is a workspace."""
        return (self.root / SETTINGS).is_file()

    @property
    def vacant(self) -> bool:
        """Tell whether there is nothing yet, or only what a desktop hides in a folder."""
        if not self.root.exists():
            return True
        return self.root.is_dir() and all(e.name.startswith(".") for e in self.root.iterdir())

    def has_registry(self) -> bool:
        """Tell whether a stage was ever committed or begun here; a server may hold some."""
        return self.registry_uri is not None or (self.registry / "mlflow.db").is_file()

    @classmethod
    def init(cls, root: Path, server: str | None = None) -> Self:
        """Make a workspace; what exists is left as it is.

        Raises
        ------
        ConfigError
            If the folders cannot be made there.
        """
        layout = cls(Path(root), server)
        _ = layout.settings  # a bad address is refused before anything is made
        try:
            for folder in (layout.root, layout.configs, layout.stages, layout.registry):
                folder.mkdir(parents=True, exist_ok=True)
            if not layout.exists:
                text = _text(layout)
                (layout.root / SETTINGS).write_text(text, encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            message = f"No workspace can be made in {root}: {reason}. Choose a folder of your own."
            raise ConfigError(message) from error
        return layout

    @classmethod
    def find(cls, explicit: Path | None = None, server: str | None = None) -> Self:
        """Return the folder that is meant: explicit, else ``CANAL_WORKSPACE``, else the current."""
        if explicit is not None:
            return cls(Path(explicit), server)
        return cls(Path(os.environ.get(VARIABLE) or Path.cwd()), server)

    def require(self, *, or_vacant: bool = False) -> Self:
        """Return this layout if it is a workspace.

        Parameters
        ----------
        or_vacant
            Take a folder too that is empty or does not exist yet; nothing is made in it here.

        Raises
        ------
        ConfigError
            If it is no workspace.
        """
        if self.exists or (or_vacant and self.vacant):
            return self
        message = (
            f"{self.root} is not a canal workspace: it has no {SETTINGS}. "
            f"Make it one with `canal init {self.root}`, or name another with -C DIR or {VARIABLE}."
        )
        raise ConfigError(message)


def _text(layout: Layout) -> str:
    return _TEXT.format(name=model_name(layout.root), registry=layout.server or LOCAL)


def model_name(root: Path) -> str:
    """Return the folder's name as a name a registered model may have."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", root.resolve().name).strip("-._")
    return safe or "canal"


def _explain(error: ValidationError, path: Path) -> str:
    problems = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown key {key!r}")
        elif problem["type"] == "missing":
            problems.append(f"missing key {key!r}")
        else:
            problems.append(f"{key} = {problem['input']!r}: {problem['msg'].lower()}")
    known = ", ".join(Settings.model_fields)
    return f"{path} does not fit: {'; '.join(problems)}. Known keys: {known}."


def open_registry(layout: Layout, *, create: bool = False) -> Registry:
    """Open the registry of a workspace.

    Parameters
    ----------
    layout
        The workspace.
    create
        Make the registry where there is none.

    Raises
    ------
    ConfigError, RegistryError
        If the folder is no workspace, or there is no registry that can be read.
    """
    layout.require()
    return Registry.open(
        layout.registry,
        layout.settings.name,
        create=create,
        uri=layout.registry_uri,
        declarations=layout.stages,
    )


def has_registry(layout: Layout) -> bool:
    """Tell whether the workspace has a registry already; a folder that is none yet has not.

    Raises
    ------
    RegistryError
        If the server that the workspace names does not answer.
    """
    return Registry.exists(layout.registry, layout.settings.name, layout.registry_uri)
