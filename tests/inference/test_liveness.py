"""Contents that are dead are told at the end of a fit, in the report and in the diagnostics; live ones are not."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import inference
from analysis.diagnostics import diagnose
from inference.liveness import content_verdict, judge, n_distinct
from inference.posterior import content_diagnostics
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import Images, Tokens, Vectors
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import Split

N_USERS, N_ITEMS = 30, 60
RNG = np.random.default_rng(0)
SMALL = {"factors": 5, "hidden": (20,), "pretrain_epochs": 4, "epochs": 2, "threads": 1, "method": "coordinate"}


def catalogue(n_texts):
    """Items of so many different texts."""
    texts = 1.0 * RNG.poisson(2.0, (n_texts, 30)) + (np.arange(30) == 0)
    users, items = np.nonzero(RNG.random((N_USERS, N_ITEMS)) < 0.2)
    pairs = Interactions.from_arrays(users, items, n_users=N_USERS, n_items=N_ITEMS)
    split = Split(pairs, pairs.select(np.zeros(len(pairs), bool)), None, None, {"all": "train"})
    words = Content(sp.csr_matrix(texts[np.arange(N_ITEMS) % n_texts]), tuple(f"w{k}" for k in range(30)))
    return Dataset("few", pairs, words, np.arange(N_USERS), np.arange(N_ITEMS)), split


@pytest.mark.parametrize(("n_texts", "words"), [(1, "the same content"), (2, "one of two")])
def test_a_catalogue_of_few_texts_is_shouted_about(n_texts, words, caplog):
    with caplog.at_level(logging.WARNING, "pyro_cvae"):
        fit = inference.fit(*catalogue(n_texts), **SMALL)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1 and told[0].startswith("the content is constant (") and words in told[0]
    found = diagnose(fit, n_users=2, draws=100, check_users=2, check_texts=2, check_draws=10).summary
    row = found[found["what"] == "content"].iloc[0]
    assert row["value"] == "constant" and words in row["note"]


@pytest.mark.parametrize("options", [{}, {"preset": "best", "factors": 10, "hidden": (10,)}])
def test_a_fit_of_the_embedded_data_is_not(options, caplog):
    with caplog.at_level(logging.WARNING, "pyro_cvae"):
        fit = inference.fit(load_dataset("simulated-stars"), **SMALL | {"mode": "map"} | options)
    assert judge(fit)["state"] == "alive" and not caplog.records


def test_different_contents_are_counted_of_every_kind():
    which = np.arange(N_ITEMS) % 3
    there = np.ones(N_ITEMS, bool)
    words = Content(sp.csr_matrix(np.eye(3)[which]))
    vectors = Vectors(np.eye(3, dtype=np.float32)[which], there)
    pictures = Images(np.zeros((N_ITEMS, 1, 4, 4), np.uint8) + which.astype(np.uint8)[:, None, None, None], there)
    tokens = Tokens(np.arange(N_ITEMS + 1), which.astype(np.int32), ("?", "a", "b"), there)
    assert [n_distinct([one]) for one in (words, vectors, pictures, tokens)] == [3, 3, 3, 3]
    half = np.arange(N_ITEMS) % 2 == 0
    other = Vectors(np.where(half[:, None], np.float32(1), np.float32(0)), half)
    assert n_distinct([words, other]) == 6 and n_distinct([other]) == 1, (
        "a lacking part is one more content, none is no"
    )


def figures(loc, scale):
    torch.manual_seed(0)
    return content_diagnostics(loc, scale)


def test_the_rule_knows_what_a_small_catalogue_can_say():
    """Three genres have two directions and log 3 nats: a posterior with these is alive, of however many factors."""
    genres = torch.zeros(600, 50)
    genres[:, :3] = 2.0 * torch.eye(3)[torch.arange(600) % 3]
    found = figures(genres, torch.full((600, 50), 0.9))
    assert content_verdict(found, 600, 50)["state"] == "faint"
    assert content_verdict(found, 600, 50, distinct=3)["state"] == "alive"


def test_one_unit_of_many_is_faint_and_absurd_numbers_are_implausible():
    one = torch.zeros(600, 500)
    one[:, 0] = 5 * torch.randn(600)
    scale = torch.full((600, 500), 0.99)
    assert content_verdict(figures(one, scale), 600, 500)["state"] == "faint"
    wild = figures(1e3 * torch.randn(600, 10), torch.full((600, 10), 0.5))
    assert content_verdict(wild, 600, 10)["state"] == "implausible"
    assert content_verdict(wild | {"kl": float("nan")}, 600, 10)["state"] == "implausible"
    good = figures(torch.randn(600, 10), torch.full((600, 10), 1e-3))
    assert content_verdict(good, 600, 10)["state"] == "alive", "precise, as learned precisions make it"
