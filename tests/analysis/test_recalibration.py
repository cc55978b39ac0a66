"""Recalibrations: their equations, their choice, their file; calibration error and raw probabilities."""

import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression

from analysis.recalibration import (
    CANDIDATES,
    Recalibration,
    calibration_error,
    candidates_for,
    choose_recalibration,
    equal_mass_bins,
    fit_recalibration,
    predict,
    raw_probability,
)
from pyro_cvae.errors import InputError

N_USERS, TOP = 200, 20


def listed(probability, seed=0):
    """Lists of users whose items are relevant with a probability that depends on the inputs."""
    rng = np.random.default_rng(seed)
    shape = (N_USERS, TOP)
    columns = {
        "score": -np.sort(-rng.gamma(4.0, 0.1, shape)),
        "rank": np.tile(np.arange(1, TOP + 1), (N_USERS, 1)),
        "popularity": rng.geometric(0.1, shape) - 1,
        "sd": rng.gamma(9.0, 0.02, shape),
    }
    columns = {name: values.ravel() for name, values in columns.items()}
    y = rng.random(N_USERS * TOP) < probability(columns)
    return columns | {"y": y.astype(float), "user": np.repeat(np.arange(N_USERS), TOP)}


LOGISTIC = listed(lambda x: expit(4 * x["score"] - 3))


def test_the_logistic_recalibration_is_the_maximum_of_the_likelihood():
    """The gradient of the log likelihood in every coefficient vanishes there, and the formula is that of the class."""
    inputs = ("log score", "rank", "popularity", "sd")
    found = fit_recalibration("logistic", inputs, LOGISTIC)
    p = predict(found, LOGISTIC)
    x = np.stack(
        [
            np.log(np.maximum(LOGISTIC["score"], 1e-3)),
            np.log(LOGISTIC["rank"]),
            np.log1p(LOGISTIC["popularity"]),
            np.log(LOGISTIC["sd"]),
            np.ones(len(p)),
        ]
    )
    assert np.abs(x @ (LOGISTIC["y"] - p)).max() < 1e-3
    slopes = np.array(found.coefficients) / found.scale
    np.testing.assert_allclose(p, expit(slopes @ x[:4] + found.intercept - (slopes * found.centre).sum()), rtol=1e-12)


def test_the_isotonic_recalibration_is_that_of_scikit_learn_and_monotone():
    found = fit_recalibration("isotonic", ("score",), LOGISTIC)
    p = predict(found, LOGISTIC)
    theirs = IsotonicRegression().fit(LOGISTIC["score"], LOGISTIC["y"]).predict(LOGISTIC["score"])
    np.testing.assert_allclose(p, theirs, atol=1e-12)
    grid = found(np.linspace(-1, 3, 200))
    assert (np.diff(grid) >= 0).all() and grid.min() >= 0 and grid.max() <= 1
    assert p.mean() == pytest.approx(LOGISTIC["y"].mean(), rel=1e-12)


@pytest.mark.parametrize(("method", "inputs"), [*CANDIDATES, ("logistic", ("score", "sd"))])
def test_a_recalibration_comes_back_from_json_exactly(method, inputs):
    found = fit_recalibration(method, inputs, LOGISTIC)
    back = Recalibration.from_json(json.loads(json.dumps(found.to_json())))
    assert back == found and back.method == method
    assert np.array_equal(predict(back, LOGISTIC), predict(found, LOGISTIC))


def test_what_is_no_recalibration_is_refused():
    stored = fit_recalibration("isotonic", ("score", "rank"), LOGISTIC).to_json()
    wrong = [
        None,
        [],
        {},
        stored | {"inputs": ["score"]},
        stored | {"inputs": ["score", "__class__"]},
        stored | {"scale": [1.0, 0.0]},
        stored | {"intercept": "x"},
        stored | {"intercept": float("nan")},
        stored | {"knots": [[1.0]]},
        {name: value for name, value in stored.items() if name != "centre"},
    ]
    for one in wrong:
        with pytest.raises(InputError, match="no recalibration"):
            Recalibration.from_json(one)
    with pytest.raises(InputError, match="needs the rank"):
        Recalibration.from_json(stored)(0.5)


def test_inputs_broadcast_and_a_better_score_is_likelier():
    found = fit_recalibration("logistic", ("score", "rank", "popularity"), LOGISTIC)
    p = found(np.linspace(0, 2, 7)[:, None], rank=np.arange(1, 4), popularity=5)
    assert p.shape == (7, 3) and (np.diff(p, axis=0) > 0).all()


@pytest.mark.parametrize(
    ("probability", "method", "inputs"),
    [
        (lambda x: expit(4 * x["score"] - 3), "logistic", ("score",)),
        (lambda x: np.where(x["score"] > 0.5, 0.6, 0.05), "isotonic", ("score",)),
        (
            lambda x: expit(2 * x["score"] + 2 * np.log1p(x["popularity"]) - 5),
            "logistic",
            ("score", "rank", "popularity"),
        ),
    ],
)
def test_the_simplest_that_holds_is_chosen(probability, method, inputs):
    found, table = choose_recalibration(listed(probability))
    assert (found.method, found.inputs) == (method, inputs)
    assert table["chosen"].sum() == 1 and len(table) == len(CANDIDATES)
    best = table.loc[table["brier"].idxmin()]
    assert best["difference"] == 0
    np.testing.assert_allclose(table["difference"], table["brier"] - best["brier"], atol=1e-12)


def test_what_is_better_by_less_than_a_standard_error_is_not_worth_more_inputs():
    """Relevance follows the score alone: of ten samples some prefer another candidate, and none is given it."""
    tables = [choose_recalibration(listed(lambda x: expit(4 * x["score"] - 3), seed))[1] for seed in range(10)]
    assert [table["chosen"].to_numpy().argmax() for table in tables] == [0] * 10
    assert sum(table["brier"].idxmin() > 0 for table in tables) >= 2


def test_a_recalibration_that_turns_the_ranking_around_is_not_chosen():
    """Popularity makes relevant and is large where the score is; given popularity the score does harm."""
    rng = np.random.default_rng(1)
    columns = listed(lambda x: x["score"])
    popularity = 5 * columns["score"] + rng.normal(1.0, 0.2, len(columns["y"]))
    chance = expit(6 * popularity - 28 * columns["score"] - 7)
    columns |= {"popularity": np.expm1(popularity), "y": (rng.random(len(chance)) < chance).astype(float)}
    falls = [fit_recalibration(*one, columns).coefficients[0] < 0 for one in CANDIDATES]
    found, table = choose_recalibration(columns)
    assert falls == [False, False, False, True, True, True]
    assert found.inputs in (("score",), ("log score",)) and table["brier"].idxmin() >= 3
    turned, _ = choose_recalibration(columns, CANDIDATES[3:])  # where all fall the ranking is of no use anyway
    assert turned.coefficients[0] < 0


def test_outcomes_of_one_kind_are_refused():
    with pytest.raises(InputError, match="no listed item of the reserved users"):
        fit_recalibration("logistic", ("score",), LOGISTIC | {"y": np.zeros(N_USERS * TOP)})


def test_calibration_error_equals_scikit_learns_curve():
    rng = np.random.default_rng(0)
    p = rng.beta(2, 5, 1500)
    y = (rng.random(1500) < p**1.3).astype(float)
    assert np.bincount(equal_mass_bins(p, 15)).tolist() == [100] * 15
    share, mean = calibration_curve(y, p, n_bins=15, strategy="quantile")
    assert calibration_error(p, y, 15) == pytest.approx(np.abs(share - mean).mean(), rel=1e-12)


def test_equal_predictions_share_a_bin():
    p = np.repeat([0.1, 0.2, 0.9], [700, 200, 100])
    assert [set(p[equal_mass_bins(p, 10) == b]) for b in range(3)] == [{0.1}, {0.2}, {0.9}]
    y = np.zeros(1000)
    y[:70] = y[700:740] = 1
    assert calibration_error(p, y, 10) == pytest.approx(0.1 * 0.9, abs=1e-12)
    assert calibration_error(np.full(9, 0.5), np.ones(9)) == 0.5


def test_the_raw_probability_undoes_the_confidences():
    """Weighted least squares of cells that are one with probability p has its minimum at the s that gives p back."""
    a, b = 3.0, 0.2
    for p in (0.01, 0.2, 0.5, 0.97):
        loss = lambda s, p=p: a * p * (1 - s) ** 2 + b * (1 - p) * s**2  # noqa: E731
        s = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
        assert raw_probability(np.array([s]), None, a, b)[0] == pytest.approx(p, abs=1e-6)
    assert raw_probability(np.array([-0.3, 1.4]), None, a, b).tolist() == [0.0, 1.0]
    assert raw_probability(np.array([0.3]), None, a, 0.0)[0] == pytest.approx(0.3, rel=1e-12)


def test_the_raw_probability_is_a_mean_over_the_posterior():
    a, b = 3.0, 0.2
    for mean, sd in ((0.4, 0.05), (0.3, 0.03)):  # the clipped ends are eight sds away and more
        undone = lambda t, m=mean, s=sd: (m + s * t) / (m + s * t + a / b * (1 - m - s * t))  # noqa: E731
        exact, _ = quad(lambda t, f=undone: norm.pdf(t) * f(t), -7, 7, epsabs=1e-13)
        found = raw_probability(np.array([mean]), np.array([sd]), a, b)[0]
        assert found == pytest.approx(exact, rel=1e-9)
        assert found > raw_probability(np.array([mean]), None, a, b)[0]


def test_items_without_ratings_have_an_intercept_of_their_own_where_enough_are_listed():
    """Cold items hit more often than their scores say; without the intercept they are said to hit less by far."""
    columns = listed(lambda x: expit(4 * x["score"] - 3 + 1.5 * (x["popularity"] == 0)))
    cold = columns["popularity"] == 0
    assert 50 < cold.sum() < len(cold) / 2
    candidates = candidates_for(columns)
    assert [inputs for _, inputs in candidates] == [(first, "cold", *rest) for _, (first, *rest) in CANDIDATES]
    found, _ = choose_recalibration(columns, candidates)
    assert found.inputs == ("score", "cold") and found.coefficients[1] > 0
    told, without = (predict(one, columns)[cold].mean() for one in (found, fit_recalibration(*CANDIDATES[0], columns)))
    assert told == pytest.approx(columns["y"][cold].mean(), abs=1e-6) and told > without + 0.05
    assert Recalibration.from_json(found.to_json()) == found
    assert found(0.5, popularity=[0, 1, 9]).round(12).tolist()[1:] == [found(0.5, popularity=4).round(12)] * 2
    with pytest.raises(InputError, match="needs the popularity"):
        found(0.5)
    for few in (columns | {"popularity": np.where(cold, 1, columns["popularity"])},
                columns | {"y": np.where(cold, 0.0, columns["y"])}):  # fmt: skip
        assert candidates_for(few) == CANDIDATES
