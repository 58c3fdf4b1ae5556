"""From a workspace to its registry: the local one, or the server that the workspace names."""

from canal.registry.registry import Registry
from canal.stages.layout import Layout


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
