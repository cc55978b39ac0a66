"""Where sweeps begin: contents of few directions must not keep ratings from the other factors."""

import numpy as np
import pytest
import torch

import inference
from inference.algorithms.sides import MOST_ITEMS, silent_directions, start_of_items
from inference.liveness import SHOUTED, constant_parts, judge
from models.priors import NormalPrior
from pyro_cvae.data.frames import from_frames
from pyro_cvae.data.splits import nothing_held_out
from pyro_cvae.errors import InputError
from tests.models.toy import N_FACTORS, toy_model


def means(rank, n_items=40, length=9.0):
    generator = torch.Generator().manual_seed(rank)
    z = (
        torch.randn(n_items, rank, generator=generator).double()
        @ torch.randn(rank, N_FACTORS, generator=generator).double()
    )
    return length * z / z.norm(dim=1, keepdim=True).clamp(min=1e-9)


def test_contents_that_speak_of_every_direction_are_the_start():
    z = means(N_FACTORS)
    assert silent_directions(z, 1.2).shape == (N_FACTORS, 0)
    assert torch.equal(start_of_items(toy_model(), NormalPrior(z, 1.2)).loc, z)


@pytest.mark.parametrize("length", [9.0, 0.01])
def test_draws_are_in_the_other_directions_alone(length):
    """The belief is the same at any length of z: precision lambda_v length^2 of the same contents."""
    z, precision = means(1, length=length), 1.2 * (9 / length) ** 2
    silent = silent_directions(z, precision)
    assert silent.shape == (N_FACTORS, N_FACTORS - 1) and float((z @ silent).abs().max()) < 1e-9 * length
    away = start_of_items(toy_model(), NormalPrior(z, precision)).loc - z
    assert float((away @ (z[0] / length)).abs().max()) < 1e-9 * length
    assert 0.6 < float(away.square().sum(1).mean()) * precision / (N_FACTORS - 1) < 1.6
    assert torch.equal(start_of_items(toy_model(), NormalPrior(z, precision)).loc - z, away)


def test_of_many_items_some_are_looked_at():
    z = means(N_FACTORS, 3 * MOST_ITEMS)
    z[1::3], z[2::3] = 0.0, 0.0
    assert silent_directions(z, 1.2).shape == (N_FACTORS, 0)
    z[0::3] = 0.0
    assert silent_directions(z, 1.2).shape == (N_FACTORS, N_FACTORS)


@pytest.mark.parametrize("mode", ["map", "bayes"])
def test_choices_tell_more_directions_than_two_genres(mode):
    """Two genres, four tastes: the scores have a rank of four or more, where the contents have two."""
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(80) for item in range(60) if item % 4 == user % 4 and rng.random() < 0.6]
    users, items = map(list, zip(*pairs, strict=True))
    texts = ["drama film" if item % 2 else "comedy film fun" for item in range(60)]
    dataset = from_frames({"user": users, "item": items}, {"item": list(range(60)), "text": texts})
    options = {"factors": 8, "hidden": (8,), "start": "svd", "radius": 9.0, "pretrain_epochs": 20, "epochs": 0}
    options |= {"user_shrinkage": 0.5, "item_shrinkage": 0.1}
    fit = inference.fit(
        dataset, nothing_held_out(dataset), method="coordinate", mode=mode, sweeps=8, threads=1, b=1.0, **options
    )
    v = fit.posterior.v_loc.double()
    groups = torch.stack([fit.posterior.u_loc.double()[taste::4].mean(0) for taste in range(4)]) @ v.mT
    of_groups = torch.stack([groups[:, item::4].mean(1) for item in range(4)])
    assert bool((of_groups.argmax(1) == torch.arange(4)).all()), "every group of items is its own users' first"
    assert float(torch.linalg.svdvals(of_groups)[3]) > 0.1


def test_a_constant_content_beside_others_is_named(caplog):
    rng = np.random.default_rng(0)
    pairs = {"user": [n % 20 for n in range(200)], "item": rng.permutation(200) % 40}
    words = ["comet", "sail", "oven", "lemma", "mast", "proof"]
    items = {"item": list(range(40)), "text": [" ".join(rng.choice(words, 5)) for _ in range(40)]}
    items["note"] = ["rusty nails"] * 40
    how = {"preset": "best", "method": "coordinate", "mode": "map", "split": "none", "contents": ("note",), "tune": 0}
    small = {"factors": 4, "hidden": (4,), "pretrain_epochs": 60, "sweeps": 1, "radius": 0.0, "kl_weight": 0.1}
    fit = inference.fit(pairs, items=items, **how, **small)
    assert constant_parts(fit) == ["note"]
    told = fit.dataset.others["note"].n_features, caplog.text
    assert judge(fit)["state"] in SHOUTED or "of the contents note is constant: all items" in told[1], told


def test_a_content_of_one_word_is_named():
    items = {"item": [1, 2, 3], "text": ["a film", "two films", "a film of two"], "note": ["rust", "rust", "rust"]}
    pairs = {"user": [1, 1, 2, 2], "item": [1, 2, 2, 3]}
    with pytest.raises(InputError, match=r"1 word in the content note: no catalogue.*or leave note out"):
        inference.fit(pairs, items=items, contents=("note",), content_likelihood="auto", preset="best",
                      method="coordinate", mode="map", split="none")  # fmt: skip
