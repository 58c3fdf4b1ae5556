"""All methods: the rows of the table, one family a file. A new one is a file here whose ``METHODS`` is added below."""

from canal.benchmark.method import Method, choose
from canal.benchmark.methods import external, ours, plain, published, strategies

METHODS: tuple[Method, ...] = (
    *ours.METHODS,
    *strategies.METHODS,
    *plain.METHODS,
    *published.METHODS,
    *external.METHODS,
    *published.UNAVAILABLE,
)
DEFAULT = "ours,strategies,lr,lr-joint"


def choose_methods(names: str) -> tuple[Method, ...]:
    """Return the methods of a list such as ``canal,strategies,preset:canal``.

    Raises
    ------
    ConfigError
        If one is not known.
    """
    return choose(names, METHODS, ours.preset_method)


def find_method(name: str) -> Method:
    """Return the method of one name."""
    return choose_methods(name)[0]
