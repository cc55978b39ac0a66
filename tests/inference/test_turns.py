"""Several threads of one process: fits take turns, and what is asked of a fit does not depend on what others do."""

import threading

import numpy as np
import pytest
import torch
from pyro import poutine

import inference
from analysis.draws.ratings import draw_ratings
from inference.recommending import add_items, fold_in, recommend, similar_items, why
from models.ratings.normal import Normal
from models.testing_base import in_float64
from pyro_cvae.data.simulated import simulated, simulated_stars

SIZE = {"n_users": 30, "n_items": 40, "n_words": 20, "n_factors": 2}
SMALL = {"factors": 2, "hidden": (5,), "threads": 1, "train_per_user": 5}
HOWS = {
    "map": {"method": "coordinate", "mode": "map", "pretrain_epochs": 2, "epochs": 2},
    "float64": {"method": "svi", "epochs": 3, "dtype": "float64"},
    "seed": {"method": "svi", "mode": "map", "epochs": 3, "seed": 3},
    "sampler": {"method": "mcmc", "pretrain_epochs": 1, "draws": 3, "warmup": 3},
}


def together(*works):
    """What each of some functions gives in a thread of its own, all at once; an error is what it gives, too."""
    gate, found = threading.Barrier(len(works)), [None] * len(works)

    def work(place):
        gate.wait()
        try:
            found[place] = works[place]()
        except Exception as error:
            found[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_fits_of_several_threads_come_to_the_numbers_of_one():
    """They wrote into one trace of Pyro: "multiple sample sites named theta", or numbers of another seed and type."""
    data = simulated(**SIZE)
    works = [lambda how=how: inference.fit(data, **SMALL | how).posterior.v_loc for how in HOWS.values()]
    for name, alone, found in zip(HOWS, [work() for work in works], together(*works), strict=True):
        assert isinstance(found, torch.Tensor), f"{name}: {found!r}"
        assert found.dtype == alone.dtype and torch.equal(found, alone), name


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode, poutine.trace, lambda: in_float64(0)])
def test_a_fit_is_the_same_whatever_it_is_called_within(within):
    data = simulated(**SIZE)
    for name, how in HOWS.items():
        alone = inference.fit(data, **SMALL | how)
        with within() as outer:
            found = inference.fit(data, **SMALL | how)
            listed = recommend(found, data.user_ids[:1], 3)
        assert torch.equal(alone.posterior.v_loc, found.posterior.v_loc), name
        assert str(listed) == str(recommend(alone, data.user_ids[:1], 3))
        assert within is not poutine.trace or not list(outer.trace.nodes), "the fit's sites are its own"


def test_runs_are_opened_by_several_threads(tmp_path):
    fits = {}
    for dtype in ("float32", "float64"):
        fits[dtype] = inference.fit(
            simulated(**SIZE), **SMALL | HOWS["map"] | {"dtype": dtype, "out": tmp_path / dtype}
        )
    found = together(*[lambda dtype=dtype: inference.load(tmp_path / dtype) for dtype in [*fits, *fits]])
    for dtype, fit in zip([*fits, *fits], found, strict=True):
        assert torch.equal(fit.posterior.v_loc, fits[dtype].posterior.v_loc), dtype
        assert {p.dtype for p in fit.model.parameters()} == {getattr(torch, dtype)}
    assert torch.get_default_dtype() == torch.float32


def test_draws_of_several_threads_are_those_of_their_seeds():
    scores, ones = np.zeros((50, 2000)), np.ones(2000)
    works = [lambda seed=seed: draw_ratings(Normal(), scores, ones, seed) for seed in range(4)]
    for alone, found in zip([work() for work in works], together(*works), strict=True):
        assert np.array_equal(alone, found)


@pytest.mark.parametrize("kind", [*HOWS, "stars"])
def test_answers_do_not_depend_on_the_type_that_another_thread_has_set(kind):
    """Another thread may open a run of float64 at that moment, for which torch's default type is changed."""
    data = simulated_stars(**SIZE) if kind == "stars" else simulated(**SIZE)
    how = HOWS.get(kind, {"method": "coordinate", "epochs": 2, "pretrain_epochs": 2})
    fit = inference.fit(data, **SMALL | how)
    counts, user, items = data.content.counts[:1], data.user_ids[3], data.item_ids.tolist()
    sure = {} if kind in ("map", "seed") else {"interval": 0.8}

    def answers():
        found = [recommend(fit, [user], 5, **sure), similar_items(fit, items[:1], 5), fit.predict([user], items[:1])]
        if kind == "sampler":  # whose draws have no closed form
            return found
        reasons, one = why(fit, user, items[4:6], 3), fold_in(fit, ["one"] * 3, items[:3])
        new = add_items(fit, ["new"], counts=counts)
        lists = [recommend(one, ["one"], 5, **sure), recommend(new, [user], 5, **sure)]
        return [*found, reasons.scores, reasons.reasons, *lists]

    before = answers()
    torch.set_default_dtype(torch.float64)
    try:
        after = answers()
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(before, after, strict=True):
        assert str(one) == str(other)
