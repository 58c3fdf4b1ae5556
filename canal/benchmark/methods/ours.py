"""Our stages: the shipped presets, and what they are without one of their parts."""

from collections.abc import Generator, Iterator

from canal.benchmark.method import Context, Learn, Method, Predict
from canal.config import Preset, change_preset, load_preset
from canal.data.cells import Cells

WITHOUT_MEMORY = ("analytic.enabled=false",)
RECIPE = ("analytic.enabled=false", "bank.selection=prototype")
STATISTICS = ("bank.size=0",)
CANAL = "Wan et al. 2024, doi 10.1093/bib/bbae047"


def stages_of(preset: str | None = None, overrides: tuple[str, ...] = ()) -> Learn:
    """Return the method that learns stage after stage, as `canal stage add` does.

    Parameters
    ----------
    preset
        Name of a preset; that of the command line where ``None``.
    overrides
        ``key=value`` changes to it.
    """

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        from canal.training.run import Run
        from canal.training.stage import learn_stage

        config = _preset(context.preset, preset, overrides)
        model = None
        for number, cells in enumerate(stages, 1):
            model = learn_stage(model, cells, config, Run(number=number, seed=context.seed)).model
            yield model.types_of

    return learn


def _preset(given: Preset, name: str | None, overrides: tuple[str, ...]) -> Preset:
    return change_preset(given if name is None else load_preset(name), overrides)


def preset_method(name: str) -> Method:
    """Return the method of a shipped preset: ``preset:NAME``."""
    load_preset(name)  # refuses what is no preset
    keeps = "as its preset says"
    return Method(
        name=f"preset:{name}", title=f"canal, preset {name}", group="ours", keeps=keeps, reference="docs/method.md",
        learn=stages_of(name),
    )  # fmt: skip


METHODS = (
    Method(
        name="canal", title="canal", group="ours", keeps="bank and statistics",
        reference="docs/method.md", learn=stages_of(),
    ),
    Method(
        name="canal-statistics", title="canal, no cells kept", group="ours", keeps="statistics",
        reference="docs/method.md", learn=stages_of(overrides=STATISTICS),
    ),
    Method(
        name="canal-no-memory", title="canal without analytic memory", group="ours", keeps="bank",
        reference="bank drawn at random and distillation", learn=stages_of(overrides=WITHOUT_MEMORY),
    ),
    Method(
        name="canal-recipe", title="the CANAL paper's recipe on our encoder", group="ours", keeps="bank",
        reference=f"{CANAL}: bank by prototype and distillation", learn=stages_of(overrides=RECIPE),
    ),
)  # fmt: skip
