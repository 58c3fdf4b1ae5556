"""Errors that a user can mend.

::

    CanalError
    ├── ConfigError     a preset, an override or a workspace file that does not fit
    ├── DataError       a file of cells that cannot be used as it is
    ├── StageError      a request that the stages so far do not allow
    ├── RegistryError   what was kept is missing, altered or in use
    └── WeightsError    pre-trained weights, or what belongs to them, that cannot be used as they are

Every message says what was found, what was expected and how to mend it. The command line prints it and exits with
code 2; any other exception is a bug of ours.
"""


class CanalError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(CanalError):
    """A preset, an override or a workspace file does not fit."""


class DataError(CanalError):
    """A file of cells cannot be used as it is."""


class StageError(CanalError):
    """The request is not possible with the stages so far."""


class RegistryError(CanalError):
    """What was kept is missing, altered or in use."""


class WeightsError(CanalError):
    """Pre-trained weights, or a file that belongs to them, cannot be used as they are."""
