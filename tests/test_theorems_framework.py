"""The theorems' framework: figures with errors, the verbs of a study, experiments' parameters."""

import math

import numpy as np
import pytest

from fpcontrol.theorems.framework.checks import Line, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.figures import Figure
from fpcontrol.theorems.framework.resolution import Grid, measure, measure_each

A, B = Figure(3.0, 0.01), Figure([2.0, 5.0], [0.02, 0.0])


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda x: 2.0 - x,
        lambda x: x * x + x / 7.0,
        lambda x: 1.0 / x - x,
        lambda x: 5.0 * x**1.5,
        lambda x: (x + 1.0).sqrt(),
        lambda x: (2.0 * x).log(),
        lambda x: -(x**-2.0),
        lambda x: np.array(4.0) * x,
        lambda x: np.array(4.0) / x - np.array(1.0),
    ],
)
def test_errors_propagate_as_the_derivative_says(f):
    # Off by second order in the error, and never less than what the value changes by.
    h, found = 1e-6, f(Figure(3.0, 1e-6))
    changes = [abs(float(f(Figure(3.0 + s * h, 0.0))) - float(found)) for s in (1.0, -1.0)]
    assert isinstance(found, Figure)
    assert max(changes) <= float(found.error) * (1.0 + 1e-5)


def test_errors_of_two_figures_add_up():
    for f in (lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / y):
        found = f(A, B)
        corners = [
            f(Figure(3.0 + s * 0.01, 0.0), Figure(B.value + t * B.error, 0.0)).value
            for s in (-1, 1)
            for t in (-1, 1)
        ]
        worst = np.abs(np.array(corners) - found.value).max(axis=0)
        assert (worst <= 1.02 * found.error).all()
        assert (worst >= 0.98 * found.error).all()
    assert float((A - A).error) == 0.02  # no cancellation: the errors need not be the same


def test_largest_of_figures_is_off_by_the_largest_error():
    found = Figure([1.0, 3.0, 2.9], [0.0, 0.0, 0.2]).max()
    assert (float(found), float(found.error)) == (3.0, 0.2)


def test_slopes_have_the_errors_of_both_ends():
    x, y = np.array([1.0, 2.0, 8.0]), Figure([4.0, 1.0, 0.5], [0.04, 0.02, 0.0])
    slopes = y.slopes(x)
    assert slopes.value == pytest.approx([-2.0, -0.5])
    assert slopes.error == pytest.approx([0.03 / math.log(2.0), 0.02 / math.log(4.0)])
    # The least-squares line through a power is that power; of two points it is their slope.
    assert float((x[None, :] ** -1.5 * Figure([1.0], [0.0]))[0].slope(x)) == pytest.approx(-1.5)
    assert float(y[:2].slope(x[:2])) == pytest.approx(-2.0)
    assert float(y[:2].slope(x[:2]).error) == pytest.approx(float(slopes.error[0]))


def test_refined_figure_is_the_finer_one():
    found = Figure.refined([1.0, 2.0], [1.1, 1.9], np.array([1.0, 0.5]))
    assert found.value.tolist() == [1.1, 1.9]
    assert found.error == pytest.approx([0.1, 0.1 / (math.sqrt(2.0) - 1.0)])


@pytest.mark.parametrize(
    ("order", "f"), [(1.0, lambda h: h), (0.5, lambda h: h**0.5), (1.0, lambda h: h * h)]
)
def test_measured_error_bounds_the_true_one(order, f):
    found = measure(lambda grid: 3.0 + f(1.0 / grid.cells), Grid(8, 1), order)
    assert float(found.error) >= abs(float(found) - 3.0) * (1.0 - 1e-12)


def test_order_that_is_not_known_to_be_low_enough_is_refused():
    with pytest.raises(ValueError, match="order"):
        measure(lambda grid: 1.0, Grid(8, 1), 2.0)


def test_family_is_counted_by_the_first_axis():
    found = measure_each(
        lambda m, grid: np.array([m, m / grid.cells]), (1, 3, 5), lambda m: Grid(m, 1)
    )
    first, second = found.T
    assert first.value.tolist() == [1.0, 3.0, 5.0]
    assert second.value.tolist() == [0.5, 0.5, 0.5]
    assert second.error.tolist() == [0.5, 0.5, 0.5]


# -- verbs -----------------------------------------------------------------------------------------


def verdicts(build):
    study = Study("a study", "a claim")
    build(study)
    return [row.passed for row in study.rows]


def test_verbs_judge_by_the_figure_and_its_error():
    good, vague = Figure(1.01, 0.001), Figure(1.01, 0.5)
    assert verdicts(lambda s: s.equals("x", good, 1.0, 0.02)) == [True]
    assert verdicts(lambda s: s.equals("x", good, 1.0, 0.005)) == [False]
    assert verdicts(lambda s: s.equals("x", vague, 1.0, 0.02)) == [False]
    assert verdicts(lambda s: s.equals("x", good, Figure(1.0, 0.1), 0.02)) == [False]
    assert verdicts(lambda s: s.below("x", good, 1.1)) == [True]
    assert verdicts(lambda s: s.below("x", vague, 1.1)) == [False]
    assert verdicts(lambda s: s.above("x", good, 1.1)) == [False]
    assert verdicts(lambda s: s.above("x", good, 1.0)) == [True]
    assert verdicts(lambda s: s.between("x", good, 1.0, 1.005)) == [False]
    assert verdicts(lambda s: s.exactly("x", 1e-14, below=1e-13)) == [True]
    assert verdicts(lambda s: s.exactly("x", math.nan, above=1.0)) == [False]
    assert verdicts(lambda s: s.report("x", math.nan)) == [True]


def test_check_without_a_discretization_error_is_refused():
    for verb in ("below", "above"):
        with pytest.raises(TypeError, match="needs a Figure"):
            getattr(Study("s", "c"), verb)("x", 1.0, 2.0)
    with pytest.raises(TypeError, match="needs a Figure"):
        Study("s", "c").equals("x", 1.0, A, 0.1)
    with pytest.raises(TypeError, match="discretization error"):
        Study("s", "c").exactly("x", A, below=1.0)


@pytest.mark.parametrize(
    "statement", [{}, {"discretization_error": 1e-3, "exact": True}], ids=["neither", "both"]
)
def test_row_states_either_its_discretization_error_or_that_it_has_none(statement):
    with pytest.raises(ValueError, match="either its discretization error or exact=True"):
        Row(quantity="figure", measured=1.0, predicted=1.0, tolerance=0.1, **statement)


def test_family_makes_a_row_for_each_value():
    study = Study("a study", "a claim")
    study.equals("error, m={}", B, [2.0, 4.0], 0.1, over=(1, 8))
    study.below("error, {}", B, 3.0, over=["a", "b"])
    assert [r.quantity for r in study.rows] == ["error, m=1", "error, m=8", "error, a", "error, b"]
    assert [r.predicted for r in study.rows] == [2.0, 4.0, None, None]
    assert [r.bound for r in study.rows] == [None, None, 3.0, 3.0]
    assert [r.discretization_error for r in study.rows] == [0.02, 0.0, 0.02, 0.0]
    assert [r.passed for r in study.rows] == [True, False, True, False]


def test_line_takes_figures_and_levels():
    assert Line((1, 2), B, "b").y == [2.0, 5.0]
    assert Line((1, 2), 7, "level").y == [7.0, 7.0]


# -- parameters ------------------------------------------------------------------------------------


def example(
    comm,
    *,
    a: float = 2.0,
    frequencies: tuple[int, ...] = (1, 4),
    grid: Grid | None = None,
    start: str = "bump",
    twice: bool = False,
    table: dict[int, float] | None = None,
):
    """A study of nothing.

    Args:
        a: The strength of
            it all.
        start: Where it begins.
        twice: Whether to do it again.
        table: Not for the command line.
    """
    return (a, frequencies, grid, start, twice)


def test_parameters_are_those_of_the_function():
    experiment = Experiment("t.example", example, a=3.0)
    found = {p.name: p for p in experiment.parameters}
    assert list(found) == ["a", "frequencies", "grid", "start", "twice", "table"]
    assert (found["a"].text, found["a"].shown) == ("The strength of it all.", "3")
    assert found["frequencies"].shown == "1,4"
    assert "ascending" in found["frequencies"].text  # said once for all
    assert found["table"].reader is None
    assert experiment.title == "A study of nothing."


def test_parameters_are_read_from_text():
    texts = {"a": "-1e-3", "frequencies": "2,8,32", "grid": "8,4", "start": "box", "twice": "true"}
    run = Experiment("t.example", example).with_values(texts).run(None)
    assert run == (-1e-3, (2, 8, 32), Grid(8, 4), "box", True)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"b": "1"}, "t.example has no parameter --b; it has --a, --frequencies"),
        ({"table": "1"}, "no parameter --table"),
        ({"a": "x"}, "--a 'x' is no value of this parameter; give it as in --a 2"),
        ({"frequencies": "1,x"}, "--frequencies 1,4"),
        ({"grid": "x"}, "--grid CELLS,STEPS"),
        ({"twice": "perhaps"}, "--twice"),
    ],
)
def test_bad_parameters_are_refused(texts, words):
    with pytest.raises(ValueError) as caught:
        Experiment("t.example", example).with_values(texts)
    assert words in str(caught.value)


def test_curves_are_points_where_computed_and_lines_where_known():
    study, computed = Study("a study", ""), Figure([1.0, 0.5], 1e-3)
    study.curves("both", "m", "error", (1, 2), {"measured": computed, "limit": 2.0}, "x")
    study.curves("measured alone", "m", "error", (1, 2), {"measured": computed})
    both, alone = study.panels
    assert [line.style for line in both.lines] == ["o", "-"]
    assert [line.y for line in both.lines] == [[1.0, 0.5], [2.0, 2.0]]
    assert (both.xscale, both.yscale, alone.lines[0].style) == ("log", "linear", "o-")
