"""All plug-ins: the package's own by name, where their classes are, and what options must know of them.

Models, likelihoods of contents and of ratings, pairs of networks. Another is named by the path of its class. No heavy
import here: a combination that cannot work is refused before torch is imported. What is said of a class is held to it
by a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyro_cvae.kinds import ContentKind

NUMBERS: tuple[ContentKind, ...] = ("words", "vectors", "images")
"""Kinds of content that are rows of numbers."""


MOST_POWER = 10.0
"""Power of an item's number of ratings that the weight of its zeros may go with, at most: numbers stay numbers."""


@dataclass(frozen=True)
class Facts:
    """What is known of a class before it is imported: its ``path``, as ``models.pmf:PMF``; empty of one's own."""

    path: str = ""


@dataclass(frozen=True)
class ModelFacts(Facts):
    """Of a model: whether it reads the items' contents, how it is fitted, and the contents' likelihoods it takes.

    ``has_z`` says that contents are latent with a Gaussian posterior, so that there is a q(v|z). ``phases`` as in
    :class:`models.item_prior.ItemPrior`; ``likelihoods`` empty: all of them.
    """

    has_content: bool = True
    has_z: bool = False
    phases: tuple[str, ...] = ("content", "joint")
    likelihoods: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContentFacts(Facts):
    """Of a likelihood of content, as in :class:`models.contents.ContentLikelihood`.

    ``reads`` are the kinds that it is a density of; of a product those that its parts may be of. ``pseudo``: it has no
    normaliser on its support.
    """

    reads: tuple[ContentKind, ...] = NUMBERS
    pseudo: bool = False


@dataclass(frozen=True)
class NetworkFacts(Facts):
    """Of a pair of networks: the kinds of content that it reads, and those that it cannot start as ``svd`` says."""

    reads: tuple[ContentKind, ...] = NUMBERS
    without_svd: tuple[ContentKind, ...] = ()


@dataclass(frozen=True)
class RatingFacts(Facts):
    """Of a likelihood of ratings; the defaults are those of a class of one's own, which might do anything.

    ``conjugate``, ``exact`` and ``explicit`` as in :class:`models.ratings.RatingLikelihood`; the rest are defaults of
    ``biases`` and precisions. Shrinkages as in :mod:`inference.algorithms.precisions`. Where ``per_factor``, that of
    items is times the factors, so that their number is no matter to the prior of u.v; ``of_points`` is that of map
    where it is another one. ``alone`` is what both shrinkages of a model without content are, in map and in bayes,
    where it is not these. ``lambda_b`` is in units of the precision of a rating.
    """

    conjugate: bool = True
    exact: bool = True
    explicit: bool = False
    biases: bool = True
    per_factor: bool = True
    user_shrinkage: float = 0.4
    item_shrinkage: float = 3.0
    of_points: float = 0.0
    alone: tuple[float, float] | None = None
    lambda_b: float = 1.0

    def default_shrinkages(self, mode: str, factors: int, has_content: bool) -> tuple[float, float]:
        """Shrinkages of users and of items where none is given."""
        if self.alone and not has_content:
            each = self.alone[mode == "bayes"]
            return each, each
        return self.user_shrinkage, self.default_item_shrinkage(mode, factors)

    def default_item_shrinkage(self, mode: str, factors: int) -> float:
        """The items' shrinkage where none is given."""
        if mode == "map" and self.of_points:
            return self.of_points
        return self.item_shrinkage * (factors if self.per_factor else 1)


MODELS = {
    "cvae": ModelFacts("models.cvae:CVAE", has_z=True),
    "pmf": ModelFacts("models.pmf:PMF", has_content=False, phases=("joint",)),
    "ctr": ModelFacts("models.ctr:CTR", likelihoods=("multinomial", "pseudo-multinomial")),
    "cdl": ModelFacts("models.cdl:CDL"),
    "deepmusic": ModelFacts("models.deepmusic:DeepMusic", phases=("ratings", "content")),
}
CONTENTS = {
    "multinomial": ContentFacts("models.contents.multinomial:Multinomial"),
    "pseudo-multinomial": ContentFacts("models.contents.multinomial:PseudoMultinomial", pseudo=True),
    "bernoulli": ContentFacts("models.contents.bernoulli:Bernoulli"),
    "pseudo-bernoulli": ContentFacts("models.contents.bernoulli:PseudoBernoulli", pseudo=True),
    "categorical": ContentFacts("models.contents.categorical:Categorical"),
    "poisson": ContentFacts("models.contents.poisson:Poisson"),
    "negative-binomial": ContentFacts("models.contents.negative_binomial:NegativeBinomial"),
    "normal": ContentFacts("models.contents.normal:Normal"),
    "tokens": ContentFacts("models.contents.tokens:Tokens", reads=("tokens",)),
    "product": ContentFacts("models.contents.product:Product", reads=(*NUMBERS, "tokens")),
}
NETWORKS = {
    "mlp": NetworkFacts("models.networks.mlp_pair:MLPPair"),
    "convolutional": NetworkFacts(
        "models.networks.convolutional:ConvolutionalPair", ("images", "tokens"), without_svd=("images",)
    ),
    "recurrent": NetworkFacts("models.networks.recurrent:RecurrentPair", ("tokens",)),
}
"""Pairs of networks; those of a kind of content are, by default, the last pair here that reads it."""
RATINGS = {
    "confidence-normal": RatingFacts(
        "models.ratings.confidence_normal:ConfidenceNormal",
        biases=False,
        per_factor=False,
        user_shrinkage=4.0,
        item_shrinkage=0.75,
    ),
    "normal": RatingFacts(
        "models.ratings.normal:Normal",
        explicit=True,
        user_shrinkage=20.0,
        item_shrinkage=0.125,
        of_points=2.5,
        alone=(12.0, 6.0),
    ),
    "bernoulli": RatingFacts("models.ratings.bernoulli:Bernoulli", conjugate=False, alone=(3.0, 3.0)),
    "bernoulli-bound": RatingFacts("models.ratings.bernoulli:BernoulliBound", exact=False, alone=(3.0, 3.0)),
    "poisson": RatingFacts("models.ratings.poisson:Poisson", conjugate=False, alone=(3.0, 3.0)),
}


@dataclass(frozen=True)
class Plugin:
    """A field of options that takes a name or the path of a class: the base class of all, and the package's own."""

    base: str
    own: Mapping[str, Facts]


PLUGINS = {
    "model": Plugin("models:FactorModel", MODELS),
    "content_likelihood": Plugin("models.contents:ContentLikelihood", CONTENTS),
    "network": Plugin("models.networks:NetworkPair", NETWORKS),
    "rating_likelihood": Plugin("models.ratings:RatingLikelihood", RATINGS),
}
"""All fields that take a plug-in.

The arguments of its constructor are flags with a dot (``--content-likelihood.rate 3``) and arrive in the field of the
same name with ``_args`` (a dict), which is also their key in a YAML file.
"""
GIVEN = ("n_users", "n_items", "n_factors", "item_prior", "ratings", "lambda_u", "lambda_v", "lambda_b")
"""Arguments of a model's constructor that the package gives, by their options; others are ``--model.NAME``."""
