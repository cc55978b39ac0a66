"""Simulators: data sets drawn from the model's own story, the truth kept.

    u_i ~ N(0, I / lambda_u)      z_j ~ N(0, I)      v_j = z_j + v_dagger_j,  v_dagger_j ~ N(0, I / lambda_v)
    words of item j ~ Multinomial(L_j, softmax(W z_j + bias)),  L_j ~ 5 + Poisson(words_per_item - 5)

They differ in how ratings follow from the scores u_i . v_j: clicks by a stated rule (:func:`simulated`), or the
model's own real-valued ratings (:func:`simulated_gaussian`).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions

# Both ends of a factor are a theme: a large z_jk speaks of the first of a pair, a very negative one of the second.
THEMES = tuple(
    tuple(line.split())
    for line in """
    orchard compost seedling trellis mulch pruning blossom greenhouse hedge tulip harvest rhubarb
    galaxy telescope comet nebula orbit eclipse meteor planet starlight observatory asteroid aurora
    violin melody rhythm orchestra chorus tempo harmony cello ballad overture drummer concert
    harbour sail anchor lighthouse current rudder mast tide ferry compass lagoon sailor
    sourdough oven pastry butter recipe saffron pepper kitchen broth cinnamon dumpling skillet
    glacier summit ridge avalanche boulder crevasse climber ravine plateau altitude moraine rope
    theorem lemma proof integer polynomial graph axiom geometry vector matrix induction topology
    beetle moth antenna larva pollen hive wasp dragonfly cocoon ant cricket ladybird
    castle knight siege dungeon crown abbey banner armour scribe feudal tournament moat
    circuit transistor voltage solder battery sensor amplifier relay capacitor robot motor firmware
    novel poem chapter narrator sonnet manuscript fable metaphor printer library essay anthology
    sprint marathon goalkeeper referee racket league stadium javelin training cyclist hurdle medal
    thunder drizzle blizzard monsoon barometer cloud hail humidity forecast drought fog gale
    neuron enzyme protein genome membrane cortex vaccine antibody tissue chromosome synapse plasma
    market currency tariff invoice auction mortgage dividend ledger broker inflation budget pension
    canvas pigment fresco sculpture gallery portrait easel mosaic charcoal varnish etching palette
    railway locomotive carriage signal tunnel platform freight timetable viaduct conductor junction sleeper
    weaving loom linen velvet embroidery thread tailor silk button denim spindle pattern
    verdict statute juror contract appeal tribunal clause advocate testimony plaintiff treaty bylaw
    coral plankton whale reef octopus kelp turtle abyss herring dolphin seagrass lobster
    """.strip().splitlines()
)


def simulated(
    seed: int = 0,
    *,
    n_users: int = 600,
    n_items: int = 1200,
    n_words: int = 1500,
    n_factors: int = 10,
    lambda_u: float = 1.0,
    lambda_v: float = 10.0,
    words_per_item: float = 60.0,
    clicks_per_user: float = 30.0,
) -> Dataset:
    """Clicks: user i clicks n_i different items, one after the other with probability proportional to exp(u_i . v_j).

    The number of clicks n_i is 12 or more, 12 + an exponential draw of mean ``clicks_per_user - 12``. Ratings are 1.
    ``truth`` has u (n_users, n_factors), v and z (n_items, n_factors), scores (n_users, n_items), lambda_u, lambda_v.
    """
    rng = np.random.default_rng(seed)
    truth = _factors(rng, n_users, n_items, n_factors, lambda_u, lambda_v)
    content, titles = _texts(rng, truth["z"], n_words, words_per_item)
    clicks = np.minimum(12 + rng.exponential(clicks_per_user - 12, n_users), n_items).astype(np.int64)
    # The n largest of score + Gumbel noise are n draws without replacement, with probabilities softmax(score).
    order = np.argsort(-(truth["scores"] + rng.gumbel(size=(n_users, n_items))), axis=1)
    items = order[np.arange(n_items) < clicks[:, None]]
    pairs = Interactions.from_arrays(np.repeat(np.arange(n_users), clicks), items, n_users=n_users, n_items=n_items)
    return _dataset("simulated", pairs, content, titles, truth)


def simulated_gaussian(
    seed: int = 0,
    *,
    n_users: int = 150,
    n_items: int = 200,
    n_words: int = 300,
    n_factors: int = 5,
    lambda_u: float = 1.0,
    lambda_v: float = 10.0,
    a: float = 1.0,
    b: float = 0.01,
    exposure: float = 0.2,
    words_per_item: float = 60.0,
) -> Dataset:
    """Ratings R_ij ~ N(u_i . v_j, 1 / C_ij), with C_ij = a where user i was exposed to item j and b elsewhere.

    The exposure mask is drawn first, each cell with probability ``exposure``, and is then a given: C must not depend on
    R for the model to be a generative one. Every cell is stored, with its C. ``truth`` has u, v, z, scores as in
    :func:`simulated`, and lambda_u, lambda_v, a, b.
    """
    rng = np.random.default_rng(seed)
    truth = _factors(rng, n_users, n_items, n_factors, lambda_u, lambda_v)
    truth |= {"a": np.array(a), "b": np.array(b)}
    content, titles = _texts(rng, truth["z"], n_words, words_per_item)
    confidences = np.where(rng.random((n_users, n_items)) < exposure, a, b)
    ratings = truth["scores"] + rng.standard_normal((n_users, n_items)) / np.sqrt(confidences)
    users, items = np.divmod(np.arange(n_users * n_items), n_items)
    pairs = Interactions(users, items, ratings.ravel(), confidences.ravel(), None, n_users, n_items)
    return _dataset("simulated-gaussian", pairs, content, titles, truth)


def simulated_stars(
    seed: int = 0,
    *,
    n_users: int = 300,
    n_items: int = 400,
    n_words: int = 300,
    n_factors: int = 5,
    lambda_u: float = 20.0,
    lambda_v: float = 10.0,
    lambda_b: float = 4.0,
    mean: float = 3.5,
    tau: float = 2.0,
    exposure: float = 0.1,
    words_per_item: float = 60.0,
) -> Dataset:
    """Explicit ratings R_ij ~ N(s_ij, 1 / tau) with s_ij = u_i . v_j + b_i + c_j, of cells chosen by chance.

    Biases of users are b_i ~ N(0, 1 / lambda_b), of items c_j ~ N(mean, 1 / lambda_b). Ratings are real numbers around
    ``mean``, as the model has them, not rounded to stars. Each cell is rated with probability ``exposure``. ``truth``
    has u, v, z as in :func:`simulated`, scores s, user_bias, item_bias, lambda_u, lambda_v, and a = tau.
    """
    rng = np.random.default_rng(seed)
    truth = _factors(rng, n_users, n_items, n_factors, lambda_u, lambda_v)
    truth["user_bias"] = rng.standard_normal(n_users) / np.sqrt(lambda_b)
    truth["item_bias"] = mean + rng.standard_normal(n_items) / np.sqrt(lambda_b)
    truth["scores"] = truth["scores"] + truth["user_bias"][:, None] + truth["item_bias"]
    truth["a"] = np.array(tau)
    content, titles = _texts(rng, truth["z"], n_words, words_per_item)
    users, items = np.nonzero(rng.random((n_users, n_items)) < exposure)
    ratings = truth["scores"][users, items] + rng.standard_normal(len(users)) / np.sqrt(tau)
    pairs = Interactions.from_arrays(users, items, n_users=n_users, n_items=n_items, ratings=ratings)
    return _dataset("simulated-stars", pairs, content, titles, truth)


def _factors(
    rng: np.random.Generator, n_users: int, n_items: int, n_factors: int, lambda_u: float, lambda_v: float
) -> dict[str, np.ndarray]:
    u = rng.standard_normal((n_users, n_factors)) / np.sqrt(lambda_u)
    z = rng.standard_normal((n_items, n_factors))
    v = z + rng.standard_normal((n_items, n_factors)) / np.sqrt(lambda_v)
    precisions = {"lambda_u": np.array(lambda_u), "lambda_v": np.array(lambda_v)}
    return {"u": u, "v": v, "z": z, "scores": u @ v.T} | precisions


def _texts(rng: np.random.Generator, z: np.ndarray, n_words: int, words_per_item: float) -> tuple[Content, np.ndarray]:
    """Counts by the story above, and titles of each item's most telling theme words."""
    vocabulary, named, weights, bias = _words(rng, n_words, z.shape[1])
    logits = z @ weights.T + bias
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    counts = rng.multinomial(5 + rng.poisson(words_per_item - 5, len(z)), probabilities)
    telling = counts[:, : len(named)] * (1 + np.maximum(z @ weights[: len(named)].T, 0))
    best = np.argsort(-telling, axis=1, kind="stable")[:, :3]
    titles = np.array([_title([named[w] for w in row]) for row in best], object)
    return Content(sp.csr_matrix(counts, dtype=np.float64), tuple(vocabulary)), titles


def _words(
    rng: np.random.Generator, n_words: int, n_factors: int
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """The vocabulary, those of its first words that belong to themes, W (n_words, n_factors) and bias (n_words,)."""
    themes = [THEMES[t % len(THEMES)] for t in range(2 * n_factors)]
    named = list(dict.fromkeys(word for theme in themes for word in theme))[:n_words]
    vocabulary = named + _made_up_words(rng, n_words - len(named), set(named))
    weights = 0.3 * rng.standard_normal((n_words, n_factors))
    number = {word: w for w, word in enumerate(named)}
    for t, theme in enumerate(themes):
        rows = [number[word] for word in theme if word in number]
        weights[rows, t // 2] = (2.0, -2.0)[t % 2]
    bias = 0.7 * rng.standard_normal(n_words) - 0.5 * (np.arange(n_words) < len(named))
    return vocabulary, named, weights, bias


def gaussian_decoder(
    seed: int = 0,
    *,
    n_users: int = 150,
    n_items: int = 200,
    n_words: int = 300,
    n_factors: int = 5,
) -> tuple[np.ndarray, np.ndarray]:
    """W (n_words, n_factors) and bias (n_words,) of the texts of :func:`simulated_gaussian`, of this seed and size.

    The probabilities of the words of item j are softmax(W z_j + bias): what a decoder has to find.
    """
    rng = np.random.default_rng(seed)
    _factors(rng, n_users, n_items, n_factors, 1.0, 1.0)
    return _words(rng, n_words, n_factors)[2:]


def _title(words: list[str]) -> str:
    first, *rest = words
    return first.capitalize() + (f", {', '.join(rest[:-1])} and {rest[-1]}" if len(rest) > 1 else "")


def _made_up_words(rng: np.random.Generator, n: int, taken: set[str]) -> list[str]:
    """``n`` different words of two to four syllables that can be said aloud."""
    onsets = [*"bcdfghjklmnprstvwz", "br", "cl", "dr", "gl", "pl", "sk", "st", "tr"]
    ends = [*"aeiou", "an", "el", "in", "or", "us"]
    words: dict[str, None] = {}
    while len(words) < n:
        word = "".join(rng.choice(onsets) + rng.choice(ends) for _ in range(rng.integers(2, 5)))
        if word not in taken:
            words[word] = None
    return list(words)


def _dataset(
    name: str, pairs: Interactions, content: Content, titles: np.ndarray, truth: dict[str, np.ndarray]
) -> Dataset:
    user_ids = np.array([f"user-{row:04d}" for row in range(1, pairs.n_users + 1)], object)
    item_ids = np.array([f"item-{row:04d}" for row in range(1, pairs.n_items + 1)], object)
    return Dataset(name, pairs, content, user_ids, item_ids, titles, truth)
