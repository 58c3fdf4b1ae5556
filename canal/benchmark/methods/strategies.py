"""Avalanche's continual-learning strategies on our encoder, cells, genes and training."""

from collections.abc import Generator, Iterator

from canal.benchmark.method import Context, Learn, Method, Predict
from canal.data.cells import Cells


def strategy(name: str) -> Learn:
    """Return the method of a strategy, a key of `canal.learn.comparison.STRATEGIES`."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        from canal.learn.comparison import ComparedStrategy

        compared = ComparedStrategy(name, context.preset, n_types=context.n_types, seed=context.seed)
        for cells in stages:
            compared.learn(cells)
            yield compared.predict

    return learn


def _row(name: str, title: str, keeps: str, reference: str, *, sees_all: bool = False) -> Method:
    return Method(
        name=name, title=title, group="strategies", keeps=keeps, reference=f"{reference}; Avalanche 0.6",
        learn=strategy(name), sees_all=sees_all,
    )  # fmt: skip


METHODS = (
    _row("naive", "naive fine-tuning", "nothing", "the network is trained on"),
    _row("cumulative", "joint training (cumulative)", "all cells", "upper reference", sees_all=True),
    _row("replay", "replay", "bank", "class-balanced reservoir"),
    _row("ewc", "EWC", "weights and importances", "Kirkpatrick et al. 2017"),
    _row("lwf", "LwF", "the last network", "Li and Hoiem 2017"),
    _row("der++", "DER++", "bank with logits", "Buzzega et al. 2020"),
    _row("slda", "SLDA on the first stage's encoder", "means and one covariance", "Hayes and Kanan 2020"),
)
