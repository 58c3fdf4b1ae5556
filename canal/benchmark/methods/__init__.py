"""All methods: the rows of the table, one family a file. A new one is a file here whose ``METHODS`` is added below."""

from canal.benchmark.method import Method
from canal.benchmark.methods import external, ours, plain, published, simple, strategies
from canal.errors import ConfigError

METHODS: tuple[Method, ...] = (
    *ours.METHODS,
    *strategies.METHODS,
    *simple.METHODS,
    *plain.METHODS,
    *published.METHODS,
    *external.METHODS,
    *published.UNAVAILABLE,
)


def choose_methods(names: str) -> tuple[Method, ...]:
    """Return the methods of a list of names and groups, each once, in the order they were named.

    Parameters
    ----------
    names
        Separated by commas: names of methods, groups, ``all``, or ``preset:NAME``.

    Raises
    ------
    ConfigError
        If there is no such method, or none is named.
    """
    chosen: dict[str, Method] = {}
    for part in names.split(","):
        name = part.strip()
        if name:
            for method in _named_methods(name):
                chosen[method.name] = method
    if not chosen:
        message = "No method is named. Name some with --methods, for instance --methods ours,strategies."
        raise ConfigError(message)
    return tuple(chosen.values())


def _named_methods(name: str) -> list[Method]:
    """Return the methods of a group, or the one method of this name."""
    if name.startswith("preset:"):
        return [ours.preset_method(name.removeprefix("preset:"))]
    in_group = [method for method in METHODS if name in {method.group, "all"}]
    if in_group:
        return in_group
    by_name = {method.name: method for method in METHODS}
    if name not in by_name:
        groups = ", ".join(sorted({method.group for method in METHODS}))
        message = (
            f"There is no method {name!r}. Known: {', '.join(by_name)}; groups: {groups}, all; or preset:NAME for "
            "a preset of ours."
        )
        raise ConfigError(message)
    return [by_name[name]]


def find_method(name: str) -> Method:
    """Return the method of one name."""
    return choose_methods(name)[0]
