"""Our stages: the shipped presets, and what they are without one of their parts."""

from collections.abc import Generator, Iterator

from canal.benchmark.method import Context, Learn, Method, Predict
from canal.config import change_preset, load_preset
from canal.data.cells import Cells

# What each row leaves out, as changes to the preset.
NO_BANK = ("bank.size=0",)
NO_MEMORY = ("analytic.enabled=false",)
PAPER_RECIPE = ("analytic.enabled=false", "bank.selection=prototype")


def learn_stages(preset_name: str | None = None, overrides: tuple[str, ...] = ()) -> Learn:
    """Return the method that learns stage after stage, as `canal stage add` does.

    Parameters
    ----------
    preset_name
        Name of a preset; that of the command line where ``None``.
    overrides
        ``key=value`` changes to it.
    """

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        from canal.training.run import Run
        from canal.training.stage import learn_stage

        preset = context.preset if preset_name is None else load_preset(preset_name)
        preset = change_preset(preset, overrides)
        model = None
        for number, cells in enumerate(stages, 1):
            run = Run(number=number, seed=context.seed)
            model = learn_stage(model, cells, preset, run).model
            yield model.types_of

    return learn


def preset_method(name: str) -> Method:
    """Return the method of a shipped preset: ``preset:NAME``."""
    load_preset(name)  # refuses what is no preset
    return Method(
        name=f"preset:{name}",
        title=f"canal, preset {name}",
        group="ours",
        keeps="as its preset says",
        reference="docs/method.md",
        learn=learn_stages(name),
    )


METHODS = (
    Method(
        name="canal",
        title="canal",
        group="ours",
        keeps="bank and statistics",
        reference="docs/method.md",
        learn=learn_stages(),
    ),
    Method(
        name="canal-statistics",
        title="canal, no cells kept",
        group="ours",
        keeps="statistics",
        reference="docs/method.md",
        learn=learn_stages(overrides=NO_BANK),
    ),
    Method(
        name="canal-no-memory",
        title="canal without analytic memory",
        group="ours",
        keeps="bank",
        reference="bank drawn at random and distillation",
        learn=learn_stages(overrides=NO_MEMORY),
    ),
    Method(
        name="canal-recipe",
        title="the CANAL paper's recipe on our encoder",
        group="ours",
        keeps="bank",
        reference="Wan et al. 2024, doi 10.1093/bib/bbae047: bank by prototype and distillation",
        learn=learn_stages(overrides=PAPER_RECIPE),
    ),
)
