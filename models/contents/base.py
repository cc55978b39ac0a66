"""The contract of a content likelihood p(x | z), and the distribution that puts it into a Pyro program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from models.making import Remembered
from models.networks.base import Decoder
from models.rows import AnyRows, NumberRows, SparseRows
from pyro_cvae.errors import InputError
from pyro_cvae.kinds import Scaling

Params = dict[str, Tensor]


class ContentLikelihood(Remembered, nn.Module, ABC):
    """p(x_j | parameters of item j): what a decoder's heads mean.

    Subclasses state ``param_names`` (what the heads produce, each (n_items, n_features)) and
    :meth:`distribution`. ``reads`` are the kinds of content it is a density of, by default all rows of numbers;
    ``default_scaling`` is how word counts become x; ``pseudo`` marks likelihoods without a
    normaliser on their support, whose objective is no evidence bound and is labelled so. ``subsample`` > 0 is the
    number of features drawn at random for a training step, where :meth:`log_prob_sampled` exists; 0 takes all;
    ``of_shares`` says that it is log n!/prod x! + sum_w x_w log p_w, with p the softmax of its one head;
    ``unbiased`` says that the mean of this estimate over all such draws is log p(x). ``any_unit`` says that columns of
    a table of numbers come less their means and in units of their deviations, not as they are. ``several`` says that it
    is of several contents, which :meth:`each` names. What is learned besides the networks is an ``nn.Parameter`` of
    the likelihood: it is fitted and saved with them. Other tensors that are not made from the constructor's
    arguments alone are buffers (``register_buffer``), which are saved too.
    """

    reads: ClassVar[tuple[str, ...]] = ("words", "vectors", "images")
    param_names: ClassVar[tuple[str, ...]]
    default_scaling: ClassVar[Scaling] = "none"
    pseudo: ClassVar[bool] = False
    unbiased: ClassVar[bool] = True
    several: ClassVar[bool] = False
    of_shares: ClassVar[bool] = False
    any_unit: ClassVar[bool] = False
    subsample: int = 0

    @abstractmethod
    def distribution(self, **params: Tensor) -> Distribution:
        """p(x | params) with batch shape (n_items,) and event shape (n_features,)."""

    def log_prob(self, obs: Any, params: Params) -> Tensor:
        """Log p(x_j | params_j) in nats, (n_items,). The default makes the minibatch's block dense."""
        return self.distribution(**params).log_prob(obs.dense())

    def log_prob_sampled(self, obs: NumberRows, stored: Params, drawn: Params, n_features: int) -> Tensor:
        """An estimate of :meth:`log_prob`, (n_items,), from features drawn at random without replacement.

        ``stored`` are the parameters at the stored entries of ``obs``, each (n_entries,); ``drawn`` those of the drawn
        features, each (n_items, n_drawn).
        """
        raise NotImplementedError(f"{type(self).__name__} cannot subsample its features")

    def check(self, obs: Any) -> None:
        """Raise InputError if a value of the content is outside the support.

        By default the support of :meth:`distribution` is asked of rows of numbers, where it is always one. One that
        moves with the parameters, or is not stated, lets any value in.
        """
        if not isinstance(obs, NumberRows):
            return
        try:
            made = [
                self.distribution(**{name: torch.full(tuple(obs.shape), value) for name in self.param_names})
                for value in (0.0, 0.7)
            ]
            if not all(isinstance(one, Distribution) for one in made):  # models.returns says so by name
                return
            support, other = (innermost(one.support) for one in made)
        except (ValueError, RuntimeError, NotImplementedError):
            return
        ends = [[getattr(one, end, None) for end in ("lower_bound", "upper_bound")] for one in (support, other)]
        if support is constraints.real or str(ends[0]) != str(ends[1]):
            return
        values = obs.dense()
        good = support.check(values)
        if not bool(good.all()):
            value = float(values[~good].flatten()[0])
            remedy = of_scaling(obs, "use another --scaling or --content-likelihood", "normal")
            raise InputError(f"{type(self).__name__} content cannot hold a {value:g}", remedy)

    def each(self) -> list[tuple[str, ContentLikelihood]]:
        """The likelihoods of several contents by the names of these; of one that is of a single content, none."""
        return []

    def start(self, variance: float) -> None:
        """Take what is learned from vectors or images whose features have this mean variance; by default nothing."""

    def initial_bias(self, mean: Tensor) -> dict[str, Tensor]:
        """Output biases of the heads at which the likelihood's mean is ``mean`` (n_features,); zero by default."""
        return {}

    def sample(self, params: Params, like: Any) -> AnyRows:
        """A draw for a minibatch; ``like`` gives what is not drawn (a text's length)."""
        return SparseRows.from_dense(self.distribution(**params).sample())

    def conditional(self, decoder: Decoder, z: Tensor, content: Any, sampled: bool) -> TorchDistribution:
        """p(x | z) as the Pyro program has it; with ``sampled`` from ``subsample`` drawn features, where it is set."""
        if sampled and 0 < self.subsample < content.n_columns:
            columns = torch.randperm(content.n_columns, device=z.device)[: self.subsample]
            return SubsampledContent(self, decoder, z, columns, content.n_columns)
        return ContentDistribution(self, decoder, z, content)


def innermost(support: Any) -> Any:
    """The constraint of single values."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def at_least_zero(subsample: int) -> int:
    """The number of features to draw for a step; InputError if it is negative or not whole."""
    if not isinstance(subsample, int) or subsample < 0:
        problem = f"subsample is {subsample!r}, but it must be a whole number, 0 or more"
        raise InputError(problem, "0 takes all features")
    return subsample


def of_scaling(obs: NumberRows, words: str, numbers: str) -> str:
    """A remedy for values outside the support: by scaling, which only words have, or by another likelihood."""
    return words if isinstance(obs, SparseRows) else f"use --content-likelihood {numbers}"


def whole_counts(obs: NumberRows, name: str) -> None:
    """Raise InputError unless every value is a whole number, 0 or more; ``name`` is the likelihood's."""
    if not bool(((obs.values >= 0) & (obs.values == obs.values.round())).all()):
        remedy = of_scaling(obs, "use --scaling none or binary", "normal")
        raise InputError(f"{name} content must be whole counts", remedy)


class ContentDistribution(TorchDistribution):
    """p(x | z) of a content: batch shape (n_items,), event shape (n_features,), values rows of content.

    ``like`` gives what is not drawn (a text's length). The decoder is asked for the likelihood's parameters with the
    content that is observed in hand (:meth:`~models.networks.base.Decoder.given`), so that it may predict a sequence
    token by token.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, likelihood: ContentLikelihood, decoder: Decoder, z: Tensor, like: AnyRows) -> None:
        self.likelihood, self.decoder, self.z, self.like = likelihood, decoder, z, like
        super().__init__(torch.Size(z.shape[:1]), torch.Size(like.shape[1:]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> ContentDistribution:
        """Itself: a row of content belongs to one item, so only its own batch shape is possible."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"content of batch shape {tuple(self.batch_shape)} cannot expand to {batch_shape}")
        return self

    def log_prob(self, value: AnyRows) -> Tensor:
        """Log p(x_j | z_j) in nats, (n_items,)."""
        return self.likelihood.log_prob(value, self.decoder.given(self.z, value))

    def dense(self) -> Distribution:
        """The same over dense rows, for a few items."""
        return self.likelihood.distribution(**self.decoder(self.z))

    def sample(self, sample_shape: tuple[int, ...] = ()) -> AnyRows:
        """A draw of the minibatch's content."""
        if len(sample_shape):
            raise NotImplementedError("draw content one sample at a time")
        return self.decoder.draw(self.likelihood, self.z, self.like)


class SubsampledContent(TorchDistribution):
    """The same with log p(x | z) estimated from the features ``columns``, (n_drawn,), drawn for this step.

    It can be observed, not drawn: put the model into ``eval`` mode for that.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, likelihood: ContentLikelihood, decoder: Decoder, z: Tensor, columns: Tensor, n: int) -> None:
        self.likelihood, self.decoder, self.z, self.columns = likelihood, decoder, z, columns
        super().__init__(torch.Size(z.shape[:1]), torch.Size([n]), validate_args=False)

    expand = ContentDistribution.expand

    def log_prob(self, value: NumberRows) -> Tensor:
        """The estimate of log p(x_j | z_j) in nats, (n_items,)."""
        stored, drawn = self.decoder.at(self.z, value.rows, value.columns, self.columns)
        return self.likelihood.log_prob_sampled(value, stored, drawn, value.n_columns)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> NumberRows:
        """Not possible from a part of the features."""
        raise NotImplementedError("content cannot be drawn from a part of its features; call model.eval() first")
