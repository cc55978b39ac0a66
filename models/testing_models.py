"""The conformance kit's part for models: is the Pyro program what its methods state, and can a run folder keep it?

    from models.testing import check_model
    check_model(MyModel, rate=3.0)

It works in float64 on a small data set, by second computations: traces, minibatches over all parts, copies.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from pyro import poutine
from torch import Tensor

from models.base import KNOWN_SITES, FactorModel
from models.build import contents_of, make_model, observe
from models.contents.making import content_likelihood
from models.observations import Observations
from models.priors import NormalPrior
from models.state import fill, kept
from models.story import check_story
from models.testing_base import in_float64
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.simulated import simulated_gaussian
from pyro_cvae.data.splits import nothing_held_out
from pyro_cvae.errors import InputError

N_FACTORS = 3


class _Options:
    """Model options of the kit; the same names as the command's."""

    factors, hidden, activation, tied, radius = N_FACTORS, (5,), "tanh", True, 0.0
    network, content, encoder_input = "auto", "", "same"
    lambda_u, lambda_v, lambda_b, lambda_r, lambda_w = 0.8, 3.0, 1.5, 1.0, 0.5
    a, b, unrated, parametrization, biases = 2.0, 0.05, "masked", "centred", "off"
    rating_likelihood = "confidence-normal"
    model = "cvae"

    def __init__(self, model: str, arguments: dict[str, Any], **changes: Any) -> None:
        self.model, self.model_args = model, arguments
        self.network_args: dict[str, Any] = {}
        self.rating_likelihood_args: dict[str, Any] = {}
        self.__dict__.update(changes)


def check_model(
    model: type[FactorModel], /, *, dataset: Dataset | None = None, seed: int = 0, **arguments: Any
) -> None:
    """Raise AssertionError unless a model class, built with ``arguments``, keeps its contract.

    - making: it takes the sizes, the likelihoods and precisions that the package gives, and ``arguments``; ``of_data``
      may be called again;
    - story: u and v are in the plates "users" and "items", drawn from ``prior_of_users`` and ``prior_of_items``; the
      mean of v moves one to one with m; R is the likelihood's at u.v; every other latent site is one of ``above``
      (:func:`models.story.check_story`); of every item, in minibatches and at once; with biases and non-centred too;
    - priors: means are of the right width and type, precisions are lambda_u and lambda_v as they are at that moment;
    - minibatches: the log joint of parts, scaled to all items, is on average that of the whole;
    - q(m): ``encode`` gives means and standard deviations of the right shape, row by row, and 0 of a model that draws
      no z;
    - saved and loaded: the constructor's arguments, parameters, buffers and ``of_data`` are all there is to know.

    ``dataset`` is one whose ids suit ``of_data``; by default a small simulated one. What a fit is worth is not tested.
    """
    if not (isinstance(model, type) and issubclass(model, FactorModel)):
        raise AssertionError(f"{model}: this is no class of models; derive it from models.FactorModel")
    if dataset is None:
        dataset = simulated_gaussian(seed, n_users=8, n_items=9, n_words=12, n_factors=N_FACTORS)
    with in_float64(seed):
        for changes in ({}, {"biases": "on"}, {"parametrization": "non-centred"}):
            _ModelKit(model, arguments, dataset, changes).run()


class _ModelKit:
    """One model with its data; every failure is an AssertionError with its remedy."""

    def __init__(
        self, cls: type[FactorModel], arguments: dict[str, Any], dataset: Dataset, changes: dict[str, Any]
    ) -> None:
        self.cls, self.name, self.dataset = cls, cls.__name__, dataset
        self.options = _Options(f"{cls.__module__}.{cls.__qualname__}", arguments, **changes)
        self.likelihood = content_likelihood("multinomial", {}) if cls.has_content else None
        self.model = self.made()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))

    def made(self) -> FactorModel:
        """A fresh model, as a fit and the opening of a run make it."""
        form: Any = None
        if self.likelihood is not None:
            chosen, _, _ = contents_of(self.dataset, self.likelihood)
            form = next(iter(chosen.values())).n_features
        try:
            options: Any = self.options
            model = make_model(self.dataset.n_users, self.dataset.n_items, form, self.likelihood, options, self.cls)
            model.of_data(self.dataset)
        except InputError as error:
            self.fail(f"cannot be built ({error.problem})", "take what models.FactorModel takes, and name your own")
        return model.double()

    def run(self) -> None:
        """All checks, from the ones that others rely on."""
        self.observations = self.observed()
        self.story()
        self.scaled()
        self.priors()
        self.encoded()
        self.minibatches()
        self.saved()

    def observed(self) -> Observations:
        """The data as a fit sees them."""
        split = nothing_held_out(self.dataset)
        observations, _ = observe(self.dataset, split, self.likelihood, self.options, "none")
        return observations.to(dtype=torch.float64)

    def story(self) -> None:
        """The program is what the methods state."""
        try:
            check_story(self.model, self.observations)
        except InputError as error:
            raise AssertionError(f"{error.problem}; {error.remedy}") from error
        except (TypeError, KeyError, RuntimeError, ValueError, AttributeError) as error:
            self.fail(f"its story fails ({type(error).__name__}: {error})", "run it by hand: MyModel(...)(batch)")
        self.above = {name: value.detach() for name, value in self.model.above().items()}
        if wrong := sorted(set(self.above) & set(KNOWN_SITES)):
            self.fail(f"a site above u and v is called {wrong[0]}", "give it another name")

    def scaled(self) -> None:
        """The program is what the methods state where contents of some items count otherwise, too."""
        if self.cls.prior_of_items is not FactorModel.prior_of_items:
            return
        self.model.scale_contents(torch.arange(self.model.n_items) % 3 == 0, 1.5, 2.0)
        try:
            check_story(self.model, self.observations)
        except InputError as error:
            raise AssertionError(f"with a content_scale: {error.problem}; {error.remedy}") from error
        finally:
            self.model.content_scale = None

    def priors(self) -> None:
        """Priors of u and v as data."""
        model, width = self.model, self.model.width
        m = torch.randn(model.n_items, model.n_factors)
        for side, n_rows in (("users", model.n_users), ("items", model.n_items)):
            prior = self.prior(side, m)
            if tuple(prior.loc.shape) not in ((n_rows, width), (width,)):
                problem = f"prior_of_{side} has means of shape {tuple(prior.loc.shape)}"
                self.fail(problem, f"give ({n_rows}, {width}), a row each, or ({width},)")
        before = model.lambda_u, model.lambda_v
        model.set_precisions(2 * before[0], 3 * before[1], model.lambda_b)
        for side, name in (("users", "lambda_u"), ("items", "lambda_v")):
            if self.prior(side, m).precision != getattr(model, name):
                self.fail(f"prior_of_{side} keeps an old precision", f"read self.{name} when it is called")
        model.set_precisions(*before, model.lambda_b)

    def prior(self, side: str, m: Tensor) -> NormalPrior:
        """The prior of "users" or "items"."""
        model = self.model
        return model.prior_of_users(self.above) if side == "users" else model.prior_of_items(m, self.above)

    @torch.no_grad()
    def encoded(self) -> None:
        """Means and standard deviations of q(m), row by row."""
        model, inputs = self.model, self.observations.inputs
        loc, scale = model.item_prior.encode(inputs)
        shape = (model.n_items, model.n_factors)
        if tuple(loc.shape) != shape or tuple(scale.shape) != shape:
            self.fail(f"encode gives shapes {tuple(loc.shape)} and {tuple(scale.shape)}", f"give {shape} each")
        if model.item_prior.latent and not bool((scale > 0).all()):
            self.fail("encode gives a standard deviation of 0 or less", "give one above 0 for every z")
        if not model.item_prior.latent and bool(scale.any()):
            self.fail("encode is uncertain of an m that the story does not draw", "set latent, and draw the site z")
        some = torch.tensor([0, 3, 5])
        alone = model.item_prior.encode(inputs.select(some))[0]
        if not torch.allclose(alone, loc[some], rtol=1e-10, atol=1e-10):
            self.fail("encode of some items is not that of all", "let no item depend on those beside it")

    @torch.no_grad()
    def minibatches(self) -> None:
        """The log joint of parts of the items, scaled, is on average that of all."""
        model, n = self.model.eval(), self.model.n_items
        with model.sparse():
            whole = poutine.trace(model).get_trace(self.observations.batch(torch.arange(n)))
            values = {name: site["value"] for name, site in whole.nodes.items() if name in (*KNOWN_SITES, *self.above)}
            latent = {name: values[name] for name in values if name not in ("x", "R", "theta", "m")}
            total, parts = float(whole.log_prob_sum()), []
            of_items = ("v", "v_dagger", model.item_prior.site)
            for items in torch.arange(n).split(-(-n // 3)):
                given = {name: rows[items] if name in of_items else rows for name, rows in latent.items()}
                conditioned = poutine.condition(model, data=given)
                part = poutine.trace(conditioned).get_trace(self.observations.batch(items))
                parts.append(len(items) / n * float(part.log_prob_sum()))
        if abs(sum(parts) - total) > 1e-8 * abs(total):
            problem = f"minibatches have a log joint of {sum(parts):.6g} on average, all items {total:.6g}"
            self.fail(problem, "draw what is of items inside the plate items, what is not outside of it")

    @torch.no_grad()
    def saved(self) -> None:
        """A fresh model with what a run folder keeps says the same."""
        other = self.made()
        try:
            fill(other, kept(self.model))
        except InputError as error:
            self.fail(f"a fresh one does not take what is kept of this one ({error.problem})", "keep shapes the same")
        m = torch.randn(self.model.n_items, self.model.n_factors)
        for side in ("users", "items"):
            ours, theirs = (
                model.prior_of_users(self.above) if side == "users" else model.prior_of_items(m, self.above)
                for model in (self.model, other)
            )
            if not torch.allclose(ours.loc, theirs.loc, rtol=1e-12, atol=1e-12):
                remedy = "keep what is learned in nn.Parameter or register_buffer, take the rest in of_data"
                self.fail(f"prior_of_{side} of a copy with its parameters and buffers is another", remedy)

    def fail(self, problem: str, remedy: str) -> NoReturn:
        """Raise an AssertionError of this model."""
        raise AssertionError(f"{self.name}: {problem}; {remedy}")
