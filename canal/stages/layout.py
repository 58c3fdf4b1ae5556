"""A workspace on disk: its folders, its settings, how it is made and found, and which registry it uses.

::

    canal.toml   name of the registered model, and defaults of the command line
    configs/     presets of the workspace's own
    stages/      the declaration of each stage, one readable file a stage
    registry/    the local registry: database and artifacts; unused where canal.toml names a server
    weights/     pre-trained weights, where there are any
    labels.csv   terms of the Cell Ontology that names of types stand for, where some were accepted
    keys/        the key that signs exports, and the keys that are trusted, where there are any
"""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.config import explain_misfit
from canal.errors import ConfigError
from canal.files import write_whole
from canal.registry.registry import Registry

WORKSPACE_VARIABLE = "CANAL_WORKSPACE"  # of the environment: the workspace where no folder is named
SETTINGS_FILE = "canal.toml"
LOCAL_REGISTRY = "local"  # in place of a server's address: the registry in the workspace's own folder

# What `canal init` writes into canal.toml.
_INITIAL_SETTINGS = """\
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
    registry: str = Field(
        default=LOCAL_REGISTRY, pattern=r"^(local|https?://[^@]+)$", description="local, or a server's address"
    )
    labels: str = Field(default="cell_type", min_length=1, description="column with the cell types")
    preset: str = Field(default="compact", min_length=1)
    seed: int = Field(default=0, ge=0)
    catalogue: str = Field(default="", description="of ready-made models: a folder, file: or https: address")


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
    def labels(self) -> Path:
        """Table of the accepted terms of names of types, written with the first."""
        return self.root / "labels.csv"

    @property
    def keys(self) -> Path:
        """Folder of the key that signs exports, and of the list of trusted keys; made with the first."""
        return self.root / "keys"

    @property
    def registry_uri(self) -> str | None:
        """Address of the server that keeps the stages, ``None`` where `registry` does."""
        chosen = self.server or self.settings.registry
        return None if chosen == LOCAL_REGISTRY else chosen

    @property
    def settings(self) -> Settings:
        """The settings in ``canal.toml``; where there is no such file yet, those that `init` would write.

        Raises
        ------
        ConfigError
            If the file is no TOML or does not fit.
        """
        # What cannot be read as TOML is one error, what does not fit another.
        path = self.root / SETTINGS_FILE
        try:
            text = path.read_text(encoding="utf-8") if self.exists else _initial_settings(self)
            return Settings.model_validate(tomllib.loads(text))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            message = f"{path} is not valid TOML: {error}. Mend it, or move it and run `canal init`."
            raise ConfigError(message) from error
        except ValidationError as error:
            known = ", ".join(Settings.model_fields)
            raise ConfigError(explain_misfit(error, str(path), f"Known keys: {known}")) from error

    @property
    def exists(self) -> bool:
        """Whether the folder is a workspace."""
        return (self.root / SETTINGS_FILE).is_file()

    @property
    def vacant(self) -> bool:
        """Whether the folder is empty or does not exist; hidden files, such as a desktop makes, do not count."""
        if not self.root.exists():
            return True
        return self.root.is_dir() and all(entry.name.startswith(".") for entry in self.root.iterdir())

    def may_have_stages(self) -> bool:
        """Tell without asking a server whether there can be stages: a local database, or a server that is named."""
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
        # Settings that do not fit, such as a bad address, are refused before anything is made.
        _ = layout.settings
        try:
            # The settings come first, and whole: a command that is killed here leaves an empty folder or a workspace,
            # never a folder that the next command refuses as neither.
            layout.root.mkdir(parents=True, exist_ok=True)
            if not layout.exists:
                write_whole(layout.root / SETTINGS_FILE, _initial_settings(layout).encode())
            for folder in (layout.configs, layout.stages, layout.registry):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            message = f"No workspace can be made in {root}: {reason}. Choose a folder of your own."
            raise ConfigError(message) from error
        return layout

    @classmethod
    def find(cls, explicit: Path | None = None, server: str | None = None) -> Self:
        """Return the workspace in the explicit folder, else in ``CANAL_WORKSPACE``, else in the current folder."""
        if explicit is not None:
            return cls(Path(explicit), server)
        return cls(Path(os.environ.get(WORKSPACE_VARIABLE) or Path.cwd()), server)

    def require(self, *, or_vacant: bool = False) -> Self:
        """Return this layout if it is a workspace.

        Parameters
        ----------
        or_vacant
            Accept a folder, too, that is empty or does not exist yet; nothing is made in it here.

        Raises
        ------
        ConfigError
            If it is no workspace.
        """
        if self.exists or (or_vacant and self.vacant):
            return self
        message = (
            f"{self.root} is not a canal workspace: it has no {SETTINGS_FILE}. "
            f"Make it one with `canal init {self.root}`, or name another with -C DIR or {WORKSPACE_VARIABLE}."
        )
        raise ConfigError(message)


def _initial_settings(layout: Layout) -> str:
    """Return the text of a new ``canal.toml``."""
    return _INITIAL_SETTINGS.format(name=model_name(layout.root), registry=layout.server or LOCAL_REGISTRY)


def model_name(root: Path) -> str:
    """Return the folder's name as a name that a registered model may have."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", root.resolve().name).strip("-._")
    return safe or "canal"


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
    """Tell whether the workspace has a registry with this model already; a server is asked.

    Raises
    ------
    RegistryError
        If the server that the workspace names does not answer.
    """
    return Registry.exists(layout.registry, layout.settings.name, layout.registry_uri)
