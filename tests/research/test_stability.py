"""The stability surface: neighbourhoods counted by hand, plateaus and lone peaks."""

import numpy as np
import pandas as pd
import pytest

from tradelib.errors import InvalidInput
from tradelib.research.stability import parameter_stability


def rows(values, xs=None, ys=None):
    """Rows (window, full, sharpe) of a table, last row first so that order must not matter."""
    xs = range(10, 10 + len(values[0])) if xs is None else xs
    ys = range(len(values)) if ys is None else ys
    found = [
        (x, y, value)
        for y, line in zip(ys, values, strict=True)
        for x, value in zip(xs, line, strict=True)
    ]
    return pd.DataFrame(found[::-1], columns=["window", "full", "sharpe"])


def surface(values, **options):
    return parameter_stability(rows(values), "window", "full", "sharpe", **options)


TABLE = [[1.0, 2.0, 3.0], [4.0, 9.0, 6.0], [7.0, 8.0, 5.0]]


def test_a_cells_neighbours_are_those_around_it_without_itself():
    found = surface(TABLE, threshold=4.0)
    around = np.array([1, 2, 3, 4, 6, 7, 8, 5])
    assert found.surface.to_numpy().tolist() == TABLE
    assert found.mean.loc[1, 11] == pytest.approx(around.mean())
    assert found.std.loc[1, 11] == pytest.approx(around.std())
    assert found.share.loc[1, 11] == pytest.approx(5 / 8)


def test_a_corner_has_three_neighbours():
    found = surface(TABLE, threshold=4.0)
    assert found.mean.loc[0, 10] == pytest.approx((2 + 4 + 9) / 3)
    assert found.share.loc[0, 10] == pytest.approx(2 / 3)


def test_a_wider_radius_takes_more_neighbours():
    assert surface(TABLE, radius=2).mean.loc[0, 10] == pytest.approx((45 - 1) / 8)


def test_what_was_not_tried_counts_for_nothing():
    holed = [[1.0, np.nan, 3.0], [4.0, 9.0, 6.0]]
    found = surface(holed)
    assert found.mean.loc[1, 11] == pytest.approx((1 + 3 + 4 + 6) / 4)
    lone = surface([[1.0, np.nan, 3.0]])
    assert np.isnan(lone.mean.loc[0, 10])
    assert lone.plateau_score() == 0


def test_the_plateau_score_is_the_share_of_the_lead_that_neighbours_keep():
    found = surface([[0.0, 3.0, 3.0, 2.0, 1.0, 0.0, 1.0]])
    # The median is 1: the chosen 3 leads by 2, its neighbours by 2 and by -1.
    assert found.plateau_score({"window": 11, "full": 0}) == pytest.approx((1 + 0) / 2)
    assert found.plateau_score({"window": 12, "full": 0}) == pytest.approx((1 + 1 / 2) / 2)
    assert found.plateau_score({"window": 15, "full": 0}) == 0


def test_a_plateau_scores_one_and_a_lone_peak_zero():
    plateau, peak = np.zeros((7, 7)), np.zeros((7, 7))
    plateau[1:4, 1:4], peak[2, 2] = 1.0, 1.0
    assert surface(plateau.tolist()).plateau_score({"window": 12, "full": 2}) == 1
    assert surface(peak.tolist()).best == {"window": 12, "full": 2}
    assert surface(peak.tolist()).plateau_score() == 0


def test_the_score_does_not_depend_on_the_metrics_unit():
    random = np.random.default_rng(3).normal(size=(5, 6))
    assert surface((7 * random - 40).tolist()).plateau_score() == pytest.approx(
        surface(random.tolist()).plateau_score()
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": "windw"}, "did you mean 'window'"),
        ({"radius": 0}, "radius of 1"),
        ({"y": "window"}, "two parameters"),
    ],
)
def test_what_makes_no_surface_is_refused(change, words):
    arguments = {"x": "window", "y": "full", "metric": "sharpe", **change}
    with pytest.raises(InvalidInput, match=words):
        parameter_stability(rows(TABLE), **arguments)


def test_a_set_tried_twice_is_refused_and_named():
    twice = pd.concat([rows(TABLE), rows(TABLE).tail(1)])
    with pytest.raises(InvalidInput, match=r"window = 10.*full = 0.* more than once"):
        parameter_stability(twice, "window", "full", "sharpe")


def test_a_cell_that_was_not_tried_is_refused():
    with pytest.raises(InvalidInput, match="window = 99 was not tried"):
        surface(TABLE).plateau_score({"window": 99, "full": 0})
    with pytest.raises(InvalidInput, match="by window and full"):
        surface(TABLE).plateau_score({"window": 10})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_surface_without_numbers_is_refused(value):
    with pytest.raises(InvalidInput, match="needs a number"):
        surface([[value, value]])
