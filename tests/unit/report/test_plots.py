"""Pictures are drawn from arrays and are whole."""

import numpy as np
from matplotlib.figure import Figure

from canal.report.plots import demo_picture, draw_accuracy, type_colours


def test_demo_picture(tmp_path):
    """A PNG of the right kind comes out, for one method as for two."""
    rng = np.random.default_rng(0)
    given = np.array(["B", "NK", "B"], dtype=object)
    for accuracy in ({"canal": [[1.0], [0.5, 0.25]]}, {"a": [[1.0]], "b": [[0.1]]}):
        demo_picture(
            tmp_path / "x.png",
            coordinates=rng.normal(size=(9, 2)),
            held_out=np.array([0, 3, 4]),
            given=given,
            annotated=given[::-1],
            stages=("one", "two"),
            accuracy=accuracy,
        )
        assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_accuracies_are_written_into_the_table():
    """Every figure stands in its field; what is not measured is left empty."""
    axes = Figure().subplots()
    draw_accuracy(axes, [[1.0], [0.5, 0.25]], ("one", "two"), "canal")
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.50", "0.25"]


def test_colours_do_not_depend_on_order():
    """A type has the same colour in both panels."""
    assert type_colours(["NK", "B"]) == type_colours(["B", "B", "NK"])
    assert len(set(type_colours([str(k) for k in range(20)]).values())) == 20
