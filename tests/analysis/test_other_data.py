"""What notebooks ask of a fit, asked of fits other than theirs: an answer, or a line that says why there is none."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import inference
from analysis.calibration import error_correlation
from analysis.compare import CompareOptions, compare, draw_differences, draw_recall
from analysis.diagnostics import content_units, traces
from analysis.plots import figure
from inference.algorithms.convergence import convergence
from inference.recommending import recommend
from models.build import observe
from models.drawing import draw
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.simulated import simulated_gaussian, simulated_stars
from pyro_cvae.errors import InputError
from tests.strangers import SMALL, catalogue

PRODUCT = {"content_likelihood": "product", "content_likelihood_args": {"text": "multinomial", "sketch": "normal"}}


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    plt.close("all")


def one_user():
    data = catalogue()
    chosen = data.interactions.items[data.interactions.users == 1]
    pairs = Interactions.from_arrays(np.zeros(len(chosen), int), chosen, n_users=1, n_items=data.n_items)
    return replace(data, interactions=pairs, user_ids=data.user_ids[1:2], truth=None)


@pytest.mark.parametrize(
    ("model", "mode"), [("pmf", "bayes"), ("pmf", "map"), ("ctr", "map"), ("cdl", "map"), ("deepmusic", "map")]
)
def test_a_model_without_units_of_content_has_no_figure_of_them(model, mode):
    options = {key: value for key, value in SMALL.items() if model != "pmf" or key in ("factors", "threads")}
    if model == "ctr":
        options = {key: options[key] for key in ("factors", "threads", "epochs", "train_per_user")}
    fit = inference.fit(catalogue(), method="coordinate", model=model, mode=mode, **options)
    with pytest.raises(InputError, match=rf"(?i){model} has no q\(z\|x\) whose units could be looked at; fit a model"):
        content_units(fit)
    traces(fit)


def test_convergence_is_of_chains():
    fit = inference.fit(catalogue(), method="coordinate", mode="bayes", **SMALL)
    with pytest.raises(InputError, match=r"no chains, of which convergence is asked; fit with inference\.mcmc"):
        convergence(fit.posterior)


def test_a_story_of_single_precision_with_several_contents_is_drawn():
    data = catalogue()
    fit = inference.fit(data, method="coordinate", mode="bayes", **PRODUCT, **SMALL)
    observations, _ = observe(data, fit.split, fit.model.content, fit.options.model, "auto")
    assert observations.columns.ratings.dtype == torch.float64 != next(fit.model.parameters()).dtype
    told = draw(fit.model, observations.batch(torch.arange(2))).source
    assert all(f"\t{site} [" in told for site in ("u", "z", "x", "v", "R")), told


def test_figures_of_recall_say_where_there_is_nothing_to_draw(tmp_path):
    clicks, stars = one_user(), simulated_stars(n_users=20, n_items=30, n_words=30, n_factors=2)
    inference.fit(clicks, method="coordinate", mode="map", out=str(tmp_path / "clicks"), **SMALL)
    more = {"rating_likelihood": "normal", "split": "cells"} | {k: v for k, v in SMALL.items() if k != "train_per_user"}
    inference.fit(stars, method="coordinate", mode="map", out=str(tmp_path / "stars"), **more)
    _, axes = figure(2)
    options = {
        name: CompareOptions((str(tmp_path / name),), out=str(tmp_path / f"{name}-told"), rivals=False)
        for name in ("clicks", "stars")
    }
    clicked = compare(options["clicks"])
    draw_recall(axes.flat[0], clicked)
    with pytest.raises(InputError, match="one model alone has no differences; name two runs or more, or rivals"):
        draw_differences(axes.flat[1], clicked)
    with pytest.raises(InputError, match="explicit ratings have errors, no recall@M; use draw_errors"):
        draw_recall(axes.flat[1], compare(options["stars"]))


def test_errors_of_nothing_are_not_correlated():
    data = simulated_gaussian(n_users=12, n_items=10, n_words=20, n_factors=2)
    own = {key: value for key, value in SMALL.items() if key != "train_per_user"}
    fit = inference.fit(data, method="coordinate", mode="bayes", split="none", **own)
    with pytest.raises(InputError, match="no held-out pair can be looked at; choose a split that leaves some over"):
        error_correlation(fit, "all")


def test_the_seventh_user_or_the_last():
    data = one_user()
    fit = inference.fit(data, method="coordinate", mode="map", **SMALL)
    assert len(recommend(fit, [data.user_ids[:7][-1]], top=3)) == 3
