"""Draws of a posterior in Pyro's own ``Predictive``: every site is the posterior's, also v_dagger."""

import math

import pytest
import torch
from pyro.infer import Predictive

import inference
from models.build import observe
from pyro_cvae.data.simulated import simulated_gaussian, simulated_stars
from pyro_cvae.data.splits import held_out_cells

N_DRAWS = 4000


def fitted(parametrization, biases):
    sizes = {"n_users": 20, "n_items": 12, "n_words": 20, "n_factors": 2}
    dataset = simulated_stars(exposure=0.5, **sizes) if biases else simulated_gaussian(**sizes)
    likelihood = {"rating_likelihood": "normal"} if biases else {"a": 1.0, "b": 0.01}
    split = held_out_cells(dataset, 0.2, 0)
    sizes = {"factors": 2, "hidden": (5,), "pretrain_epochs": 2, "epochs": 40, "threads": 1, "dtype": "float64"}
    precisions = {"lambda_u": 1.0, "lambda_v": 2.0}
    fit = inference.fit(
        dataset, split, method="svi", parametrization=parametrization, **likelihood, **sizes, **precisions
    )
    observations, _ = observe(dataset, fit.split, fit.model.content, fit.options.model, "auto")
    fit.model.eval()
    return fit, observations.batch(torch.arange(dataset.n_items))


def off(values, mean, sd):
    """Standard errors between draws' mean and sd and those of a Normal, the largest."""
    error = sd / math.sqrt(N_DRAWS)
    return max(float(((values.mean(0) - mean) / error).abs().max()), float(((values.std(0) - sd) / error).abs().max()))


@pytest.mark.parametrize("parametrization", ["centred", "non-centred"])
def test_sites_of_predictive_have_the_posteriors_moments(parametrization):
    fit, batch = fitted(parametrization, biases=False)
    posterior = fit.posterior
    sites = ("u", "v", "v_dagger", "z")
    given = posterior.sample(N_DRAWS, seed=0)
    through = {name: draws[:50] for name, draws in given.items()}
    drawn = Predictive(fit.model, posterior_samples=through, return_sites=sites)(batch)
    away = (drawn["v_dagger"] - posterior.mean("v_dagger")).square().mean()
    v, z = posterior.v_scale, posterior.z_scale
    sd = (v.square() + z.square()).sqrt() if parametrization == "centred" else (v.square() - z.square()).sqrt()
    spread = float(away / sd.square().mean())
    assert spread == pytest.approx(1, abs=0.25)  # a draw of the prior has about 1.4 times this
    for name, wanted in (("u", posterior.u_scale), ("v", v), ("v_dagger", sd), ("z", z)):
        assert off(given[name], posterior.mean(name), wanted) < 6, name
        assert torch.equal(drawn[name], through[name]), name
    assert parametrization == "centred" or float(sd.max()) < 0.95 * 0.5**0.5
    assert torch.allclose(drawn["v"], drawn["v_dagger"] + drawn["z"])


@pytest.mark.parametrize("parametrization", ["centred", "non-centred"])
def test_sites_with_biases_are_as_wide_as_the_programs(parametrization):
    fit, batch = fitted(parametrization, biases=True)
    given = fit.draw_sites(N_DRAWS, seed=0)
    sites = ("u", "v", "v_dagger")
    through = {name: draws[:10] for name, draws in given.items()}
    drawn = Predictive(fit.model, posterior_samples=through, return_sites=sites)(batch)
    assert all(torch.equal(drawn[name], through[name]) for name in sites)
    drawn = given
    assert drawn["u"].shape[2] == drawn["v"].shape[2] == drawn["v_dagger"].shape[2] == 3
    users, items = torch.arange(20)[:, None], torch.arange(12)
    mean, sd = fit.posterior.score(users, items)
    u, v = (of(drawn[name].flatten(0, 1)) for name, of in (("u", fit.model.of_users), ("v", fit.model.of_items)))
    scores = u.view(N_DRAWS, 20, -1) @ v.view(N_DRAWS, 12, -1).mT
    assert float(((scores.mean(0) - mean) / sd * math.sqrt(N_DRAWS)).abs().max()) < 6
    assert torch.allclose(scores.std(0), sd, rtol=0.12)
    around = fit.model.prior_of_items(given["z"].flatten(0, 1)).loc.view(N_DRAWS, 12, 3)
    assert torch.allclose(drawn["v"] - drawn["v_dagger"], around)
