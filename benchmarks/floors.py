"""What small fits must reach, whatever the seed: each a measurement of one seed and its bounds.

``tests/test_floors.py`` asks six seeds of each, ``python -m benchmarks.seeds`` twenty. The data are the same for every
seed, which is that of the fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from scipy import sparse

import inference
from benchmarks import combinations
from inference.fitting import Fit, fit_with
from inference.options import Options
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import Images, Tokens, Vectors
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.simulated import simulated
from pyro_cvae.data.splits import held_out_items

Figures = dict[str, float]
SMALL: dict[str, Any] = {
    **{"factors": 3, "hidden": (20,), "a": 1.0, "b": 0.01, "lambda_u": 1.0, "lambda_v": 10.0, "threads": 1},
    "method": "coordinate",
}


@dataclasses.dataclass(frozen=True)
class Floor:
    """What ``measure(seed)`` finds, and the least that each of these figures must be (``most``: the largest)."""

    measure: Callable[[int], Figures]
    least: Figures
    most: Figures = dataclasses.field(default_factory=dict)

    def passes(self, found: Figures) -> bool:
        """True if every bound is kept."""
        above = all(found[name] >= bound for name, bound in self.least.items())
        return above and all(found[name] <= bound for name, bound in self.most.items())


def correlation(fit: Fit, truth: np.ndarray, items: np.ndarray) -> float:
    """Of scores and true scores over these items, mean over users."""
    found = fit.posterior.score_block(np.arange(len(truth))).double().numpy()
    return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(found[:, items], truth[:, items], strict=True)]))


def _cold(fit: Fit) -> np.ndarray:
    return np.setdiff1d(np.arange(fit.dataset.n_items), fit.split.train.items)


def _alive(fit: Fit) -> Figures:
    content = fit.metrics["content"]
    return {"active units": content["active_units"], "I(x; z)": content["mutual_information"]}


@cache
def pictures() -> Dataset:
    """Items with a picture of 8 x 7 grey values that their z tells, of which a tenth are missing."""
    found = simulated(n_users=100, n_items=400, n_words=60, n_factors=3, clicks_per_user=50.0)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:8, :7]
    waves = [np.sin(0.9 * rows + shift) * np.cos(0.7 * columns - shift) for shift in range(3)]
    assert found.truth is not None
    grey = 1 / (1 + np.exp(-np.tensordot(found.truth["z"], np.stack(waves), 1)))
    values = (255 * grey.clip(0, 1)).astype(np.uint8)[:, None]
    there = rng.random(400) < 0.9
    values[~there] = 0
    return dataclasses.replace(found, others={"pictures": Images(values, there)})


def of_pictures(network: str, likelihood: str, seed: int) -> Figures:
    """Held-out pictures, ranked by what they show."""
    data = pictures()
    arguments = {"learned": True} if likelihood == "normal" else {}
    fit = inference.fit(
        data, held_out_items(data, 0.25, 0), mode="map", content="pictures", content_likelihood=likelihood,
        content_likelihood_args=arguments, network=network, pretrain_epochs=40, epochs=5, activation="tanh", seed=seed,
        **SMALL,
    )  # fmt: skip
    assert data.truth is not None
    cold = np.intersect1d(_cold(fit), np.flatnonzero(data.others["pictures"].present))
    return {"correlation": correlation(fit, data.truth["scores"], cold)} | _alive(fit)


@cache
def vectors_and_tags() -> Dataset:
    """Items whose z is told by vectors and tags, each of which two thirds of them have, and some none."""
    found = simulated(n_users=100, n_items=400, n_words=60, n_factors=3, clicks_per_user=50.0)
    assert found.truth is not None
    rng, z = np.random.default_rng(0), found.truth["z"]
    vectors = (z @ rng.standard_normal((3, 12)) + 0.3 * rng.standard_normal((400, 12))).astype(np.float32)
    p = 1 / (1 + np.exp(-2 * (z @ rng.standard_normal((3, 40)))))
    first, second = rng.random(400) < 0.67, rng.random(400) < 0.67
    vectors[~first] = 0
    tags = sparse.csr_matrix(((rng.random(p.shape) < p) & second[:, None]).astype(float))
    return dataclasses.replace(found, others={"vectors": Vectors(vectors, first), "tags": Content(tags, given=second)})


PARTS: dict[str, Any] = {"vectors": "normal", "vectors.learned": True, "tags": "bernoulli"}


def of_a_product(mode: str, seed: int) -> Figures:
    """Held-out items by two contents together, of which they have one, both or none, and by one alone."""
    data = vectors_and_tags()
    chosen = SMALL | {"mode": mode, "pretrain_epochs": 50, "epochs": 5, "seed": seed}
    split = held_out_items(data, 0.25, 0)
    fit = inference.fit(data, split, content_likelihood="product", content_likelihood_args=PARTS, **chosen)
    alone = inference.fit(data, split, content="tags", content_likelihood="bernoulli", **chosen)
    assert data.truth is not None
    both, one = (correlation(each, data.truth["scores"], _cold(each)) for each in (fit, alone))
    return {"both": both, "one": one, "gain": both - one}


WORTH: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "poisson": ({}, {}, 0.6),
    "poisson of a part": ({"subsample": 40}, {}, 0.5),
    "negative-binomial": ({}, {}, 0.6),
    "categorical": ({}, {"start": "svd"}, 0.15),
    "normal": ({"learned": True}, {"encoder_input": "same", "tied": False}, 0.5),
}
"""Arguments, options, and the least correlation of scores of held-out items with the truth."""


@cache
def drawn_from(name: str) -> Dataset:
    """A simulated catalogue whose contents follow from its z by the very likelihood; real values are made by tf-idf."""
    dataset = simulated(n_users=100, n_items=500, n_words=60, n_factors=3, clicks_per_user=50.0)
    assert dataset.truth is not None
    rng, z = np.random.default_rng(0), dataset.truth["z"]
    loadings = rng.standard_normal((20 if name == "categorical" else 100, 3))
    mean = np.exp(0.5 * z @ loadings.T - 0.5)
    if name == "categorical":
        logits = 2 * z @ loadings.T
        p = np.exp(logits - logits.max(1, keepdims=True))
        counts = np.stack([rng.multinomial(1, row) for row in p / p.sum(1, keepdims=True)])
    elif name == "negative-binomial":
        counts = rng.poisson(mean * rng.gamma(2.0, 0.5, mean.shape))  # a dispersion of 0.5
    else:
        counts = rng.poisson(mean)
    return dataclasses.replace(dataset, content=Content(sparse.csr_matrix(counts.astype(float))))


def of_drawn_contents(case: str, seed: int) -> Figures:
    """Held-out items by contents that were drawn from the likelihood, less the best of 200 shuffles of the items."""
    arguments, options, _ = WORTH[case]
    name = case.split()[0]
    data = drawn_from(name)
    chosen = {"mode": "map", "pretrain_epochs": 60, "epochs": 8, "seed": seed} | SMALL | options
    split = held_out_items(data, 0.2, 0)
    fit = inference.fit(data, split, content_likelihood=name, content_likelihood_args=arguments, **chosen)
    assert data.truth is not None
    cold, rng, scores = _cold(fit), np.random.default_rng(1), data.truth["scores"]
    value, best = correlation(fit, scores, cold), -1.0
    found = fit.posterior.score_block(np.arange(len(scores))).double().numpy()[:, cold]
    for _ in range(200):
        pairs = zip(found, scores[:, cold[rng.permutation(len(cold))]], strict=True)
        best = max(best, float(np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs])))
    learned = {key: float(value.detach().exp()) for key, value in fit.model.content.named_parameters()}
    return {"correlation": value, "above chance": value - best} | _alive(fit) | learned


def of_the_embedded(options: dict[str, Any], seed: int) -> Figures:
    """The content of the embedded catalogue, with 20 factors."""
    return _alive(inference.fit(load_dataset("simulated"), mode="map", factors=20, threads=1, seed=seed, **options))


@cache
def phrases_and_pictures() -> tuple[Dataset, np.ndarray]:
    """Items with a text, a phrase that a tenth of them lacks, and pictures; and which lack the phrase."""
    n_items = 300
    found = simulated(n_users=100, n_items=n_items, n_words=60, n_factors=3, clicks_per_user=50.0)
    assert found.truth is not None
    rng, z = np.random.default_rng(0), found.truth["z"]
    words = np.array([f"word{index:02d}" for index in range(30)])
    logits = 2 * z @ rng.standard_normal((3, 30))
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    phrases = [" ".join(rng.choice(words, size=1 + rng.poisson(7), p=row)) for row in p]
    lacking = rng.random(n_items) < 0.1
    phrases = ["" if lack else phrase for phrase, lack in zip(phrases, lacking, strict=True)]
    waves = rng.standard_normal((3, 6 * 5))
    grey = (1 / (1 + np.exp(-z @ waves))).reshape(n_items, 1, 6, 5).astype(np.float32)
    others = {"phrase": Tokens.fit(phrases), "pictures": Images(grey, np.ones(n_items, bool))}
    return dataclasses.replace(found, others=others), lacking


KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "tokens": (  # users are the sum of their items' z: with a weak prior v leaves z, and cold items say little of it
        {
            **{"content": "phrase", "content_likelihood": "tokens", "learning_rate": 0.0},
            **{"lambda_u": 10000.0, "lambda_v": 3.0},
        },
        0.35,
    ),
    "tokens, convolutional": (
        {
            **{"content": "phrase", "content_likelihood": "tokens", "network": "convolutional", "learning_rate": 0.0},
            **{"activation": "tanh", "lambda_u": 10000.0, "lambda_v": 3.0},
        },
        0.35,
    ),
    "convolutional": (
        {
            **{"content": "pictures", "content_likelihood": "normal", "content_likelihood_args": {"learned": True}},
            **{"network": "convolutional", "activation": "tanh"},
        },
        0.4,
    ),
    "product": (
        {
            **{"content_likelihood": "product", "part_dropout": 0.2},
            "content_likelihood_args": {
                **{"phrase": "tokens", "pictures": "normal", "pictures.learned": True, "text": "multinomial"}
            },
        },
        0.55,
    ),
}
"""Options of each kind of content, and the least correlation over held-out items that have it, mean over users."""


def of_kinds(case: str, seed: int) -> Figures:
    """Held-out items by a phrase, by a picture, and by text, phrase and picture."""
    data, lacking = phrases_and_pictures()
    chosen = SMALL | {"mode": "map", "pretrain_epochs": 30, "epochs": 5, "seed": seed} | KINDS[case][0]
    fit = inference.fit(data, held_out_items(data, 0.25, 0), **chosen)
    cold = np.setdiff1d(_cold(fit), np.flatnonzero(lacking)) if chosen.get("content") == "phrase" else _cold(fit)
    assert data.truth is not None
    return {"correlation": correlation(fit, data.truth["scores"], cold)} | _alive(fit)


@cache
def short_words_and_tags() -> Dataset:
    """Items with six words of text and, four in five of them, with about 28 tags, told by ten factors."""
    found = simulated(n_users=100, n_items=600, n_words=300, n_factors=10, clicks_per_user=20.0)
    assert found.truth is not None
    rng, z = np.random.default_rng(0), found.truth["z"]
    there = rng.random(600) < 0.8
    tags = rng.poisson(np.exp(0.7 * z @ rng.standard_normal((10, 200)) - 5)) * there[:, None]
    text = found.content.counts.copy()
    text.data = rng.binomial(text.data.astype(int), 0.1).astype(float)
    text.eliminate_zeros()
    contents = {"tags": Content(sparse.csr_matrix(tags * 1.0), given=there)}
    return dataclasses.replace(found, content=Content(text, found.content.vocabulary), others=contents)


def of_the_preset(seed: int) -> Figures:
    """``--preset best`` of two contents with nothing else, of 200 factors."""
    options: dict[str, Any] = {"factors": 200, "hidden": (200,), "batch_size": 32, "sweeps": 1, "threads": 1}
    fit = inference.fit(
        short_words_and_tags(), method="coordinate", mode="map", preset="best", seed=seed, **options
    )  # fmt: skip
    return _alive(fit)


RECOVERED = (
    combinations.Case("bernoulli", "words", "mlp", "confidence-normal", "coordinate", "bayes"),
    combinations.Case("normal", "images", "convolutional", "normal", "coordinate", "map"),
    combinations.Case("poisson", "vectors", "mlp", "bernoulli-bound", "coordinate", "bayes"),
)


def of_a_combination(case: combinations.Case, seed: int) -> Figures:
    """Scores of cells that were not seen, of data that the combination itself drew."""
    dataset, split, scores, cold = combinations.simulate(case)
    chosen = case.options()
    options = Options(chosen.data, chosen.model, dataclasses.replace(chosen.fit, seed=seed), chosen.method, chosen.run)
    return combinations.correlations(fit_with(dataset, split, options), scores, cold)


def _floors() -> dict[str, Floor]:
    found: dict[str, Floor] = {}
    for network in ("mlp", "convolutional"):
        for likelihood in ("normal", "pseudo-bernoulli"):
            least = {"correlation": 0.5, "active units": 3}
            found[f"pictures, {likelihood}, {network}"] = Floor(partial(of_pictures, network, likelihood), least)
    for mode in ("map", "bayes"):
        found[f"product, {mode}"] = Floor(partial(of_a_product, mode), {"both": 0.65, "one": 0.4, "gain": 0.05})
    learned = {"negative-binomial": ("log_dispersion", 0.4, 0.9), "normal": ("log_lambda_x", 50.0, np.inf)}
    for case, (_, _, worth) in WORTH.items():
        least, most = {"correlation": worth, "above chance": 0.0, "active units": 2}, {}
        if case in learned:
            name, low, high = learned[case]
            least[name], most[name] = low, high
        found[f"contents drawn, {case}"] = Floor(partial(of_drawn_contents, case), least, most)
    alive = {"active units": 15, "I(x; z)": 3.0}
    for likelihood in ("multinomial", "bernoulli"):
        options: dict[str, Any] = {"method": "svi", "content_likelihood": likelihood, "epochs": 4}
        found[f"svi, {likelihood}"] = Floor(partial(of_the_embedded, options), alive)
    for start in ("whitened", "svd"):
        options = {"start": start, "activation": "tanh", "hidden": (40, 30), "pretrain_epochs": 4, "epochs": 0}
        options["method"] = "svi"
        found[f"start, {start}"] = Floor(partial(of_the_embedded, options), alive)
    for case, (_, worth) in KINDS.items():
        least = {"correlation": worth, "active units": 3, "I(x; z)": 0.8}
        found[f"kinds, {case}"] = Floor(partial(of_kinds, case), least)
    found["preset best, words and tags"] = Floor(of_the_preset, {"active units": 150})
    for one in RECOVERED:
        bounds = {"warm": combinations.WARM_FLOOR, "cold": combinations.COLD_FLOOR}
        found[f"recovered, {one.content}, {one.rating}"] = Floor(partial(of_a_combination, one), bounds)
    return found


FLOORS = _floors()
"""Every floor by name."""
