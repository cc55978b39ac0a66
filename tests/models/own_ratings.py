"""Ratings likelihoods as somebody would write them, none of them Normal: heavy tails, whole stars, between 1 and 5."""

from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints

from models.ratings import RatingLikelihood


class Students(RatingLikelihood):
    """Heavy tails; torch has no distribution function of them."""

    explicit = True
    zeros = False

    def cell(self, score, confidence):
        return dist.StudentT(3.0, score, 0.6 * confidence.rsqrt())


class Stars(dist.TorchDistribution):
    """Whole stars 1 to 5 by an ordered logit."""

    arg_constraints: ClassVar[dict] = {}
    support = constraints.integer_interval(1, 5)
    CUTS = (-1.5, -0.5, 0.5, 1.5)

    def __init__(self, score):
        self.score = score
        super().__init__(score.shape, validate_args=False)

    @property
    def probs(self):
        up_to = torch.sigmoid(self.score.new_tensor(self.CUTS) - self.score[..., None])
        up_to = torch.cat([torch.zeros_like(up_to[..., :1]), up_to, torch.ones_like(up_to[..., :1])], -1)
        return up_to.diff()

    def log_prob(self, value):
        shape = torch.broadcast_shapes(value.shape, self.score.shape)
        probs = self.probs.expand(*shape, 5)
        return probs.gather(-1, (value.expand(shape).long() - 1)[..., None]).squeeze(-1).log()

    def sample(self, sample_shape=()):
        shape = torch.Size(sample_shape) + self.score.shape
        return 1 + dist.Categorical(self.probs).sample(sample_shape).view(shape).to(self.score)


class Ordinal(RatingLikelihood):
    """Says nothing of mean, variance and distribution function."""

    explicit = True
    zeros = False

    def cell(self, score, confidence):
        return Stars(score)


class Bounded(RatingLikelihood):
    """Between 1 and 5, by a Beta."""

    explicit = True
    zeros = False

    def cell(self, score, confidence):
        p = torch.sigmoid(score)
        return dist.TransformedDistribution(dist.Beta(4 * p, 4 * (1 - p)), [dist.transforms.AffineTransform(1.0, 4.0)])


class Unchecked(RatingLikelihood):
    """Counts, of which ``check`` says nothing of its own."""

    def cell(self, score, confidence):
        return dist.NegativeBinomial(torch.full_like(score, 2.0), logits=score)


class Kinked(RatingLikelihood):
    """Laplace's noise, whose density has a kink, one side of it longer where they are told apart."""

    explicit = True
    zeros = False

    def __init__(self, asymmetry: float = 1.0) -> None:
        super().__init__()
        self.asymmetry = asymmetry

    def cell(self, score, confidence):
        if self.asymmetry == 1:
            return dist.Laplace(score, 0.7 / confidence)
        return dist.AsymmetricLaplace(score, 0.7 / confidence, torch.full_like(score, self.asymmetry))


class Around(RatingLikelihood):
    """Uniform around the score: its support moves with it."""

    explicit = True
    zeros = False

    def cell(self, score, confidence):
        return dist.Uniform(score - 1, score + 1)
