"""Options of what is believed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from inference.kinds import Biases
from inference.options.checking import check, check_words, choice
from models.catalogue import MODELS, MOST_POWER, RATINGS, RatingFacts
from models.kinds import Activation, Cold, EncoderInput, Parametrization, Unrated
from pyro_cvae.trust import is_path


@dataclass(frozen=True)
class ModelOptions:
    """What is believed: the generative story and its networks.

    Parameters:
        model: The story: cvae (items around a latent content), ctr (around topics of their words), cdl (around the code
            of a denoising autoencoder), deepmusic (around a regression on content, learned of the factors that ratings
            give), pmf (ratings alone, no content is read), or the path of a class.
        model_args: Arguments of that class.
        factors: Number of latent factors K.
        content_likelihood: p(x|z): multinomial, pseudo-multinomial, bernoulli, pseudo-bernoulli, categorical, poisson,
            negative-binomial, normal, tokens, product (of several contents), the path of a class, or auto: what suits
            the kind of each content, and of several their product.
        content_likelihood_args: Arguments of that class.
        balance: Weigh the contents of a product so that each pulls z equally hard at the start; the objective is then
            no bound.
        content: Which of the items' contents it is of; by default their text, or the only one.
        network: Encoder and decoder: mlp (of words, vectors, images), convolutional (of images, tokens), recurrent (of
            tokens), the path of a class, or auto, which takes what suits each content.
        network_args: Arguments of that class.
        hidden: Widths of the encoder's layers, from the content inwards; the decoder mirrors them.
        activation: Of the hidden layers.
        radius: Length that the encoder's means have; 0 leaves it free.
        tied: Share the layers' matrices between encoder and decoder (of words and tokens).
        encoder_input: What the encoder reads: the words weighted by tfidf, or the same content as the likelihood.
        rating_likelihood: p(R|U,V): confidence-normal (the paper's), normal (stars), bernoulli (clicks),
            bernoulli-bound (clicks, with closed forms), poisson (counts), or the path of a class.
        rating_likelihood_args: Arguments of that class.
        biases: A global mean and biases of users and items in the scores; auto leaves them out of confidence-normal
            alone.
        lambda_b: Precision of the biases' priors; 0 takes 1, and for normal what predicts training ratings best.
        lambda_u: Precision of the users' prior; 0 takes that of user_shrinkage.
        lambda_v: Precision of the items around their content, v - z; 0 takes that of item_shrinkage.
        user_shrinkage: lambda_u in units of a s^2, s the root mean square length of the content means; 0 takes the
            rating likelihood's, for normal what predicts training ratings best.
        item_shrinkage: lambda_v in units of a / s^2; 0 takes the rating likelihood's.
        lambda_r: Factor of the content's terms; with any value but 1 the objective is tempered.
        lambda_w: Precision of the prior of the networks' weights and biases.
        a: Precision (confidence) of a stored rating that states none.
        b: Precision of all other cells.
        b_power: Power of an item's number of ratings that b goes with, its mean over rated items being b: with 0 all
            zeros weigh the same, with 1 as much as the item is popular. Of confidence-normal alone; at most 10.
        cold: What items without a training rating are: there and not chosen (unchosen), or such that nobody could have
            chosen (new); auto is new with --split items, else unchosen. Only --tune asks.
        cold_scale: Factor of an item's content in its prior while it has no training rating; by default 1, or with
            --tune what ranks pairs that are kept aside best.
        unrated: Items without a training rating have no column (masked) or a column of zeros (zeros, the paper's).
        parametrization: Draw v around z (centred, the paper's) or v_dagger around 0 (non-centred).
    """

    model: str = "cvae"
    model_args: dict[str, Any] = field(default_factory=dict)
    factors: int = 50
    content_likelihood: str = "multinomial"
    content_likelihood_args: dict[str, Any] = field(default_factory=dict)
    balance: bool = False
    content: str = ""
    network: str = "auto"
    network_args: dict[str, Any] = field(default_factory=dict)
    hidden: tuple[int, ...] = (200, 100)
    activation: Activation = "sigmoid"
    radius: float = 0.0
    tied: bool = True
    encoder_input: EncoderInput = "tfidf"
    rating_likelihood: str = "confidence-normal"
    rating_likelihood_args: dict[str, Any] = field(default_factory=dict)
    biases: Biases = "auto"
    lambda_b: float = 0.0
    lambda_u: float = 0.0
    lambda_v: float = 0.0
    user_shrinkage: float = 0.0
    item_shrinkage: float = 0.0
    lambda_r: float = 1.0
    lambda_w: float = 0.01
    a: float = 100.0
    b: float = 1.0
    b_power: float = 0.0
    cold: Cold = "auto"
    cold_scale: float | None = None
    unrated: Unrated = "masked"
    parametrization: Parametrization = "centred"

    def __post_init__(self) -> None:
        check_words(self)
        if not is_path(self.model):
            choice("model", self.model, (*MODELS, "the path of a class"))
        check(self.factors >= 1, "factors", self.factors, "at least 1")
        check(
            len(self.hidden) >= 1 and all(width >= 1 for width in self.hidden), "hidden", self.hidden, "widths above 0"
        )
        check(0 <= self.radius < math.inf, "radius", self.radius, "a finite number, 0 or more")
        if not is_path(self.rating_likelihood):
            choice("rating_likelihood", self.rating_likelihood, (*RATINGS, "the path of a class"))
        own = self.rating_facts
        if self.biases == "auto":
            object.__setattr__(self, "biases", "on" if own.biases else "off")
        for name in ("lambda_u", "lambda_v", "lambda_b", "user_shrinkage", "item_shrinkage"):
            check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a finite number, 0 or more")
        for name in ("lambda_r", "lambda_w", "a"):
            check(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a finite number above 0")
        check(0 <= self.b < math.inf, "b", self.b, "a finite number, 0 or more")
        self._check_power()
        scale = self.cold_scale
        check(scale is None or 0 <= scale < math.inf, "cold_scale", scale, "a finite number, 0 or more")

    def _check_power(self) -> None:
        """A power of popularity needs zeros to weigh, and is told once."""
        power, again = self.b_power, self.rating_likelihood_args.get("b_power", self.b_power)
        check(0 <= power <= MOST_POWER, "b_power", power, f"a number from 0 to {MOST_POWER:g}")
        if power:
            own = self.rating_likelihood
            check(own == "confidence-normal", "b_power", power, f"0 with {own} ratings")
            check(self.b > 0, "b_power", power, "0 with --b 0, which has no zeros to weigh")
            check(power == again, "b_power", power, f"left out, or {again!r} as --rating-likelihood.b_power is")

    @property
    def has_content(self) -> bool | None:
        """Whether the model reads the items' contents; ``None`` of a class of one's own, before it is imported."""
        return MODELS[self.model].has_content if self.model in MODELS else None

    @property
    def has_z(self) -> bool | None:
        """Whether contents have a Gaussian posterior; ``None`` of a class of one's own."""
        return MODELS[self.model].has_z if self.model in MODELS else None

    @property
    def staged(self) -> bool:
        """Whether the contents are looked at after the ratings; not known of a class of one's own."""
        return self.model in MODELS and MODELS[self.model].phases[0] == "ratings"

    @property
    def rating_facts(self) -> RatingFacts:
        """What is known of the rating likelihood; of a class of one's own, that it might do anything."""
        return RATINGS.get(self.rating_likelihood, RatingFacts())
