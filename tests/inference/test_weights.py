"""A weight of a pair is relative: what unit the column is in is no matter, and no column is a column of ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import inference
from inference.recommending import fold_in
from models.observations import RatingColumns
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.simulated import simulated, simulated_gaussian, simulated_stars
from pyro_cvae.data.splits import Split, held_out_cells
from pyro_cvae.errors import InputError
from pyro_cvae.runs import open_run

SMALL = {"factors": 2, "hidden": (5,), "pretrain_epochs": 1, "epochs": 1, "threads": 1}
CLICKS = {"method": "coordinate", "sweeps": 2}
FITS = {
    "coordinate, map": CLICKS | {"mode": "map"},
    "coordinate, bayes": CLICKS | {"mode": "bayes"},
    "svi, map": {"mode": "map"},
    "svi, structured": {"guide": "structured"},
    "mcmc": {"method": "mcmc", "draws": 2, "warmup": 2, "chains": 1},
    "preset best": {"preset": "best", "method": "coordinate", "mode": "map", "pretrain_epochs": 1, "sweeps": 2},
    "bernoulli-bound": CLICKS | {"rating_likelihood": "bernoulli-bound"},
    "stars": CLICKS | {"rating_likelihood": "normal", "ratings": "stars"},
    "stars by svi": {"rating_likelihood": "normal", "ratings": "stars"},
}


def data_of(name, weights=None):
    """Clicks or stars, each pair with a weight."""
    make = simulated_stars if "stars" in name else simulated
    data = make(n_users=15, n_items=20, n_words=40, n_factors=2)
    return replace(data, interactions=replace(data.interactions, confidences=weights), truth=None)


def fitted(name, weights=None, **more):
    data = data_of(name, weights)
    nothing = data.interactions.select(np.zeros(len(data.interactions), bool))
    asked = FITS[name] if "preset" not in FITS[name] else FITS[name] | {"factors": 4, "hidden": (6,)}
    return inference.fit(data, Split(data.interactions, nothing, None, None, {}), **SMALL | asked | more)


def n_pairs(name):
    return len(data_of(name).interactions)


def some_weights(name):
    """Weights of every size, a tenth not stated."""
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0, 1, n_pairs(name))
    weights[rng.random(len(weights)) < 0.1] = np.nan
    return weights


@pytest.mark.parametrize("constant", [1.0, 0.3, 1e30])
@pytest.mark.parametrize("name", FITS)
def test_one_constant_is_no_weight(name, constant):
    """The same numbers to the last bit."""
    without, with_one = fitted(name), fitted(name, np.full(n_pairs(name), constant))
    for side in ("u_loc", "v_loc"):
        assert torch.equal(getattr(without.posterior, side), getattr(with_one.posterior, side))
    ours, theirs = ({**fit.history[-1], "seconds": 0} for fit in (without, with_one))
    assert ours == theirs


@pytest.mark.parametrize("name", FITS)
def test_their_unit_is_no_matter(name):
    """Weights in pennies are weights in pounds."""
    weights = some_weights(name)
    first, second = fitted(name, weights), fitted(name, 128 * weights)
    assert torch.equal(first.posterior.u_loc, second.posterior.u_loc)
    if name != "bernoulli-bound":  # for which a weight says whether a cell is there, and no more
        assert not torch.equal(first.posterior.u_loc, fitted(name).posterior.u_loc)


def test_the_median_weight_counts_as_a():
    """C_ij = a w_ij / median; of an even number the lower one of the middle two; what is not stated is the median."""
    pairs = Interactions.from_arrays(
        [0, 0, 1, 1, 2], [0, 1, 0, 1, 1], n_users=3, n_items=2, confidences=[6.0, np.nan, 0.0, 2.0, 4.0]
    )
    assert pairs.weight_unit == 4.0
    np.testing.assert_array_equal(pairs.precisions(10.0, pairs.weight_unit), [15.0, 10.0, 0.0, 5.0, 10.0])
    columns = RatingColumns.from_interactions(pairs, 10.0, unit=2.0)
    np.testing.assert_array_equal(columns.confidences, [30.0, 0.0, 10.0, 10.0, 20.0])
    assert replace(pairs, confidences=None).weight_unit == 1.0
    assert pairs.select([False, True, True, False, False]).weight_unit == 1.0  # none states one above 0


@pytest.mark.parametrize("extreme", [1e30, 1e-8])
@pytest.mark.parametrize("name", FITS)
def test_extreme_weights_are_refused(name, extreme):
    """One line in every mode and algorithm."""
    weights = np.ones(n_pairs(name))
    weights[3] = extreme
    with pytest.raises(InputError, match=r"a weight is .* where the usual one is 1"):
        fitted(name, weights)


@pytest.mark.parametrize("bad", [-1.0, np.inf])
def test_what_is_no_weight_is_refused(bad):
    """Before anything is fitted."""
    weights = np.ones(n_pairs("coordinate, map"))
    weights[3] = bad
    with pytest.raises(InputError, match="negative or infinite"):
        data_of("coordinate, map", weights)


@pytest.mark.parametrize("largest", [1e5, 1e-5])
@pytest.mark.parametrize("name", ["coordinate, map", "coordinate, bayes", "preset best", "stars"])
def test_what_is_not_refused_is_fitted(name, largest):
    """In float32, a weight far from the usual one."""
    weights = np.ones(n_pairs(name))
    weights[::7] = largest
    assert torch.isfinite(fitted(name, weights).posterior.u_loc).all()


def test_a_run_knows_what_its_weights_meant(tmp_path):
    """Weights of who is folded in are in units of the training pairs'; in older runs they were confidences."""
    fit = fitted("coordinate, map", 5 * some_weights("coordinate, map"), out=tmp_path / "run", dtype="float64")
    again = inference.load(tmp_path / "run")
    assert again.model.ratings.weight_unit == fit.model.ratings.weight_unit
    mine = fit.split.train.users == 2
    items = fit.dataset.item_ids[fit.split.train.items[mine]]
    stated = fit.split.train.confidences[mine]
    found = fold_in(again, ["new"] * len(items), items, confidences=stated).posterior.u_loc[-1]
    same = fold_in(fit, ["user-0003"] * len(items), items, confidences=stated).posterior.u_loc[2]
    torch.testing.assert_close(found, same, rtol=1e-12, atol=0)

    a = fit.options.model.a
    usual = fit.model.ratings.weight_unit
    again.model.ratings.weight_unit = None  # as load leaves a run whose config.json has no weight_unit
    old = fold_in(again, ["new"] * len(items), items, confidences=a * stated / usual).posterior.u_loc[-1]
    torch.testing.assert_close(old, found, rtol=1e-9, atol=0)


def test_an_old_run_folder_has_no_unit(tmp_path):
    """What config.json does not say is that weights are confidences."""
    fitted("coordinate, map", some_weights("coordinate, map"), out=tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.config.pop("weight_unit") > 0
    assert inference.load(run).model.ratings.weight_unit is None


def test_simulated_precisions_stay_precisions():
    """simulated-gaussian draws its ratings at the C_ij that it states, whatever a is."""
    data = simulated_gaussian(n_users=12, n_items=15, n_words=30, n_factors=2)
    fit = inference.fit(data, held_out_cells(data, 0.1, 0), a=100.0, **SMALL | CLICKS)
    assert fit.model.ratings.weight_unit is None
    stated = set(np.unique(fit.split.train.precisions(100.0, None)))
    assert stated == {0.0, 0.01, 1.0}
