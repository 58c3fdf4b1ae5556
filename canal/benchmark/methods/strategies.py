"""Continual-learning strategies of Avalanche on our encoder, to be compared with a stage of ours."""

from collections.abc import Generator, Iterator

from canal.benchmark.method import Context, Learn, Method, Predict
from canal.data.cells import Cells


def learn_by_strategy(name: str) -> Learn:
    """Return the method of a strategy, a key of `canal.benchmark.methods.recipes.STRATEGIES`."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        # Avalanche and torch are loaded for the methods that need them: others start faster, in less memory.
        from canal.benchmark.methods.compared import ComparedStrategy

        strategy = ComparedStrategy(name, context.preset, n_types=context.n_types, seed=context.seed)
        for cells in stages:
            strategy.learn(cells)
            yield strategy.predict

    return learn


def _method(name: str, title: str, keeps: str, reference: str, *, sees_all: bool = False) -> Method:
    return Method(
        name=name,
        title=title,
        group="strategies",
        keeps=keeps,
        reference=f"{reference}; Avalanche 0.6",
        learn=learn_by_strategy(name),
        sees_all=sees_all,
    )


METHODS = (
    _method("naive", "naive fine-tuning", "nothing", "the network is trained on"),
    _method("cumulative", "joint training (cumulative)", "all cells", "upper reference", sees_all=True),
    _method("replay", "replay", "bank", "class-balanced reservoir"),
    _method("ewc", "EWC", "weights and importances", "Kirkpatrick et al. 2017"),
    _method("lwf", "LwF", "the last network", "Li and Hoiem 2017"),
    _method("der++", "DER++", "bank with logits", "Buzzega et al. 2020"),
    _method("slda", "SLDA on the first stage's encoder", "means and one covariance", "Hayes and Kanan 2020"),
)
