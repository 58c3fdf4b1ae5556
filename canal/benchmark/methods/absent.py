"""Published baselines that cannot run here, each with the reason: a row is never dropped silently."""

from collections.abc import Generator, Iterator

from canal.benchmark.method import Context, Learn, Method, Predict, Unavailable
from canal.data.cells import Cells


def _cannot(reason: str) -> Learn:
    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        del stages, context
        yield from _raise(reason)

    return learn


def _raise(reason: str) -> Generator[Predict, None, None]:
    raise Unavailable(reason)


def _row(name: str, title: str, reference: str, reason: str) -> Method:
    return Method(
        name=name, title=title, group="peers", keeps="-", reference=reference, learn=_cannot(reason), seeded=False
    )  # fmt: skip


METHODS = (
    _row("scnym", "scNym", "Kimmel and Kelley 2021",
         "its newest release (0.3.2) pins numpy 1.18, scipy 1.4 and torch 1.4, which have no wheels for Python 3.11 or "
         "newer"),
    _row("garnett", "Garnett", "Pliner, Shendure and Trapnell 2019",
         "an R package on monocle3; there is no Python package"),
    _row("scsorter", "scSorter", "Guo and Li 2021",
         "an R package; there is no Python package"),
)  # fmt: skip
