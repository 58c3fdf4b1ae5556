"""Which runs the table has, what they depend on, and the commands that make them again."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from canal.benchmark.methods import METHODS, choose_methods
from canal.benchmark.plan import BenchmarkOptions, benchmark_command, parse_orders, plan_runs, run_key
from canal.cli.features.benchmark import DEFAULT_METHODS
from canal.cli.main import app
from canal.config import load_preset
from canal.errors import ConfigError


def options(**changes):
    """Return options with defaults."""
    given = {"stream": "s.toml", "out": Path("out"), "preset_name": "compact", "overrides": (), "markers": None}
    given |= {"peers": None} | changes
    preset = load_preset(given["preset_name"], given["overrides"])
    return BenchmarkOptions(preset=preset, **given)


def test_a_number_of_orders_is_declared_swapped_reversed_then_drawn():
    """The first orders are always these; others are drawn, each once, the same each time."""
    assert parse_orders("3", 4) == ((0, 1, 2, 3), (1, 0, 3, 2), (3, 2, 1, 0))
    assert parse_orders("3", 3) == ((0, 1, 2), (1, 0, 2), (2, 1, 0))
    drawn = parse_orders("6", 4)
    assert len(set(drawn)) == 6
    assert drawn == parse_orders("6", 4)
    assert len(parse_orders("9", 2)) == 2


@pytest.mark.parametrize("text", ["0", "1-2", "1-2-2", "1-2-4", "a", "3-2-1,1-2", ""])
def test_an_order_has_every_stage_once(text):
    """Anything else is refused with an example."""
    with pytest.raises(ConfigError, match=r"is no order of 3 stages.*such as 1-2-3"):
        parse_orders(text, 3)


def test_a_method_without_chance_runs_once_an_order():
    """Repeating what cannot differ would feign certainty."""
    naive, lr = choose_methods("naive,lr")
    found = plan_runs([naive, lr], [(0, 1), (1, 0)], [0, 1, 2])
    assert [(p.method.name, p.seed) for p in found if p.order == (0, 1)] == [
        ("naive", 0), ("naive", 1), ("naive", 2), ("lr", 0),
    ]  # fmt: skip
    assert len({p.file for p in found}) == len(found)


def test_a_run_is_known_by_all_that_decides_it(tmp_path):
    """Another method, order, seed, stream, preset or marker table is another run; another folder is not."""
    naive, lr = choose_methods("naive,lr")
    first, *others = plan_runs([naive], [(0, 1), (1, 0)], [0, 1])
    key = run_key(first, options(), "sha256:a")
    markers = tmp_path / "m.csv"
    markers.write_text("B,CD79A\n")
    changed = [run_key(p, options(), "sha256:a") for p in others]
    changed += [
        run_key(plan_runs([lr], [(0, 1)], [0])[0], options(), "sha256:a"),
        run_key(first, options(), "sha256:b"),
    ]
    changed += [run_key(first, options(overrides=("training.epochs=2",)), "sha256:a")]
    changed += [run_key(first, options(markers=markers), "sha256:a")]
    assert len({key, *changed}) == len(changed) + 1
    assert run_key(first, options(out=Path("elsewhere"), stream="copy.toml"), "sha256:a") == key


def test_the_command_of_a_row_is_understood(monkeypatch):
    """Every option that a row depends on is in its command, and the command line knows them all."""
    asked = {}

    def run_benchmark(found, methods, orders, seeds, progress, only_kept):
        asked.update(options=found, methods=methods, orders=orders, seeds=tuple(seeds))
        raise ConfigError("enough")

    monkeypatch.setattr("canal.benchmark.table.run_benchmark", run_benchmark)
    given = options(stream="demo", overrides=("training.epochs=2",), preset_name="canal", peers=Path("peers"))
    line = benchmark_command(choose_methods("naive")[0], [(2, 1, 0)], [4], given)
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 2, result.output
    assert asked["options"] == given
    assert (asked["orders"], asked["seeds"]) == (((2, 1, 0),), (4,))
    assert [m.name for m in asked["methods"]] == ["naive"]


def test_methods_are_chosen_by_name_group_and_preset():
    """Each once, in the order they were named; a name that is none is refused with all that are."""
    assert [m.name for m in choose_methods("lr, naive,lr")] == ["lr", "naive"]
    assert {m.group for m in choose_methods("all")} == {"ours", "strategies", "peers"}
    assert choose_methods("preset:canal")[0].title == "canal, preset canal"
    for bad in ("nothing", "", "preset:nothing"):
        with pytest.raises(ConfigError):
            choose_methods(bad)
    assert choose_methods(DEFAULT_METHODS)


def test_every_method_says_what_it_keeps_and_where_it_comes_from():
    """A row that sees all cells says so twice: by its mark and by what it keeps."""
    assert len({m.name for m in METHODS}) == len(METHODS)
    assert all(m.keeps and m.reference and m.title for m in METHODS)
    assert all(m.sees_all == (m.keeps == "all cells") for m in METHODS)
