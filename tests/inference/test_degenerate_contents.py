"""Contents that say nothing, or next to nothing: fits stay finite and their scores those of clicks."""

import numpy as np
import pytest
import scipy.sparse as sp

import inference
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import Images, Tokens, Vectors
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import Split

N_USERS, N_ITEMS = 40, 60
EVERY, FIRST = np.ones(N_ITEMS, bool), np.arange(N_ITEMS) == 0
RNG = np.random.default_rng(0)
GOOD = RNG.standard_normal((N_ITEMS, 8)).astype(np.float32)
LEARNED = {"content_likelihood": "normal", "content_likelihood_args": {"learned": True}}


def words(n_distinct):
    texts = RNG.poisson(2.0, (n_distinct, 30)) + (np.arange(30) == 0)
    return Content(sp.csr_matrix(texts[RNG.integers(n_distinct, size=N_ITEMS)].astype(float)))


def category(n):
    return Content(sp.csr_matrix(np.eye(5)[RNG.integers(n, size=N_ITEMS)]))


def pictures(n_distinct):
    return Images(
        RNG.integers(255, size=(n_distinct, 1, 8, 8)).astype(np.uint8)[np.arange(N_ITEMS) % n_distinct], EVERY
    )


def constant(value):
    return Vectors(np.tile(np.float32(value) * GOOD[:1], (N_ITEMS, 1)), EVERY)


def sequences():
    tokens = np.tile([1, 2, 3], N_ITEMS).astype(np.int32)
    return Tokens(3 * np.arange(N_ITEMS + 1), tokens, ("?", "a", "b", "c"), EVERY)


ALONE = {
    "one text": (words(1), {}),
    "two texts": (words(2), {}),
    "one category": (category(1), {"content_likelihood": "categorical"}),
    "one word set": (category(1), {"content_likelihood": "bernoulli"}),
    "the same counts": (words(1), {"content_likelihood": "negative-binomial"}),
    "vectors of zeros": (constant(0), LEARNED),
    "the same vector": (constant(1), LEARNED),
    "the same large vector": (constant(1e6), LEARNED),
    "one feature that varies": (Vectors(np.where(np.arange(8) == 0, GOOD, 3.0).astype(np.float32), EVERY), LEARNED),
    "one item's vector": (Vectors(GOOD * FIRST[:, None], FIRST), LEARNED),
    "black pictures": (Images(np.zeros((N_ITEMS, 1, 8, 8), np.uint8), EVERY), LEARNED | {"network": "convolutional"}),
    "the same picture": (pictures(1), LEARNED | {"network": "mlp"}),
    "two pictures": (pictures(2), {"content_likelihood": "pseudo-bernoulli", "network": "convolutional"}),
    "the same sequence": (sequences(), {"content_likelihood": "tokens"}),
}


def fit(contents, **options):
    users, items = np.nonzero(np.random.default_rng(1).random((N_USERS, N_ITEMS)) < 0.15)
    pairs = Interactions.from_arrays(users, items, n_users=N_USERS, n_items=N_ITEMS)
    split = Split(pairs, pairs.select(np.zeros(len(pairs), bool)), None, None, {"all": "train"})
    nothing = Content(sp.csr_matrix((N_ITEMS, 0)))
    data = Dataset("few", pairs, nothing, np.arange(N_USERS), np.arange(N_ITEMS), None, None, contents)
    small = {"factors": 10, "hidden": (20,), "activation": "tanh", "epochs": 3, "pretrain_epochs": 6, "threads": 1}
    return inference.fit(data, split, **small | options)


def is_sane(fitted):
    """Scores of clicks, which are 0 or 1, and less information than a sane content of 10 factors has."""
    scores = fitted.posterior.score_block(np.arange(N_USERS))
    assert float(scores.min()) > -1 and float(scores.max()) < 1.5
    assert fitted.metrics["content"]["kl"] < 60


@pytest.mark.parametrize("case", ALONE)
@pytest.mark.parametrize("method", ["svi", "coordinate"])
def test_a_content_that_hardly_varies_gives_sane_scores(case, method):
    content, options = ALONE[case]
    is_sane(fit({"own": content}, method=method, **options))


@pytest.mark.parametrize("start", ["whitened", "svd"])
def test_a_part_that_never_varies_leaves_the_other_alive(start):
    parts = {"own": "normal", "own.learned": True, "same": "bernoulli"}
    contents = {"own": Vectors(GOOD, EVERY), "same": category(1)}
    fitted = fit(
        contents, start=start, method="coordinate", content_likelihood="product", content_likelihood_args=parts
    )
    is_sane(fitted)
    assert fitted.metrics["content"]["active_units"] >= 4


def test_two_texts_with_unit_length_means():
    is_sane(fit({"own": words(2)}, method="coordinate", start="svd", radius=3.0))
