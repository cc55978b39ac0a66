"""The conformance kit's half for ratings: does a ratings likelihood of one's own keep its contract?

    from models.testing import check_rating_likelihood
    check_rating_likelihood(MyLikelihood, zeros=False)

As for contents it works in float64 and by second computations: every cell by itself, sums over supports, draws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution

from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.ratings import Moments, RatingLikelihood, cells
from models.ratings.confidence_normal import gaussian_factors
from models.ratings.predictive import predictive
from models.testing_base import ANOTHER, KEEP, N_DRAWS, Kit, in_float64, moved, quantile
from models.testing_inputs import ratings_to_try
from pyro_cvae.errors import InputError

N_USERS, N_ITEMS, N_FACTORS = 6, 7, 3
CANDIDATES = (-1.0, 0.5, 7.25)
LARGEST_COUNT = 400


def check_rating_likelihood(likelihood: type[RatingLikelihood], /, *, seed: int = 0, **arguments: Any) -> None:
    """Raise AssertionError unless a ratings likelihood class, built with ``arguments``, keeps its contract.

    - cells: :meth:`cell` is one distribution a score; it sums or integrates to one; mean, variance and ``cdf``, where
      it states them, are those of its density; ``log_prob`` is its log density at ratings that the kit chooses over the
      whole support, at any confidence; ``check`` takes what it draws and refuses what is outside its support; missing
      cells may hold anything;
    - columns: ``distribution`` is the product over all users, cells that are not stored being zeros (or missing without
      ``zeros``), missing ones and items without a column left out; with its gradient in u and v; minibatches are parts
      of the whole, and a Pyro plate scales them; zeros subsampled by users are unbiased over all subsets;
    - draws have the mean and variance of the cells (two-sided, at most ``FAILURE_RATE`` false alarms over seeds);
    - expectation: ``expected_log_prob``, where it is given, is that of draws of u and v (not above it for a bound), and
      at points, with ``constant``, is log p itself;
    - closed form: where ``conjugate``, the gradient of ``expected_log_prob`` in v is that of :meth:`site`'s Gaussian;
    - predictions: ``predict`` has the mean and standard deviation of draws of s and then R; ``predictive``, where it is
      given, is what :mod:`models.ratings.predictive` makes of ``cell``;
    - parameters: gradients reach them; saved and loaded it is the same; float32 stays float32.
    """
    if not (isinstance(likelihood, type) and issubclass(likelihood, RatingLikelihood)):
        raise AssertionError(f"{likelihood}: this is no class of ratings likelihoods; derive it from RatingLikelihood")
    with in_float64(seed):
        _RatingKit(likelihood, arguments).run()


class _RatingKit(Kit):
    """One likelihood with random parameters, and columns drawn from it: stored cells, missing ones, an empty item."""

    def __init__(self, cls: type[RatingLikelihood], arguments: dict[str, Any]) -> None:
        super().__init__(cls, arguments)
        moved(self.likelihood, 0.3)
        self.u, self.v = 0.8 * torch.randn(N_USERS, N_FACTORS), 0.8 * torch.randn(N_ITEMS, N_FACTORS)

    def run(self) -> None:
        """All checks, from the ones that others rely on to the subtle ones."""
        self.cells()
        self.normaliser()
        self.columns = self.drawn_columns()
        self.support()
        self.product()
        self.minibatches()
        self.plates()
        self.subsampled()
        self.moments_of_draws()
        self.expectation()
        self.closed_form()
        self.predictions()
        self.parameters()
        self.single_precision()

    def make(self) -> RatingLikelihood:
        made: RatingLikelihood = super().make()
        made.prepare(N_USERS)
        return made.double()

    def cell(self, score: Tensor, confidence: Tensor | None = None) -> Distribution:
        given = torch.full_like(score, self.likelihood.default_confidence) if confidence is None else confidence
        try:
            return self.likelihood.cell(score, given)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            problem = f"cell fails on scores of shape {tuple(score.shape)} ({type(error).__name__}: {error})"
            self.fail(problem, "work elementwise, whatever the shape", error)

    # --- the checks --------------------------------------------------------------------------------------------------

    def cells(self) -> None:
        for shape in ((5,), (3, 4)):
            score = torch.randn(shape)
            found = self.cell(score)
            shapes = tuple(found.batch_shape), tuple(found.event_shape)
            self.require(
                shapes == (shape, ()),
                f"cell has batch and event shapes {shapes[0]} and {shapes[1]} for scores of shape {shape}",
                "give every score one distribution, without .to_event",
            )
            drawn, confidence = found.sample(), torch.full(shape, self.likelihood.default_confidence)
            ours = self.likelihood.log_prob(score, drawn, confidence)
            self.close(
                ours, found.log_prob(drawn), "log_prob is not that of cell", "leave log_prob out, or mend its formula"
            )
        self.tried = self.ratings_to_try()
        with torch.no_grad():
            self.anywhere()

    def anywhere(self) -> None:
        """The same at ratings, scores and confidences that the kit chooses."""
        for times in (1.0, 0.3, 4.0):
            scores = torch.tensor([-4.0, -1.2, 0.3, 1.5, 3.0])[:, None].expand(-1, len(self.tried)).contiguous()
            ratings = self.tried.expand_as(scores).contiguous()
            confidence = torch.full_like(scores, times * self.likelihood.default_confidence)
            ours = self.likelihood.log_prob(scores, ratings, confidence)
            theirs = self.cell(scores, confidence).log_prob(ratings)
            off = ((ours - theirs).abs() > 1e-9 * (1 + theirs.abs())) | (ours.isnan() & ~theirs.isnan())
            if bool(off.any()):
                at = tuple(off.nonzero()[0].tolist())
                self.fail(
                    f"log_prob of a rating of {float(ratings[at]):g} at the score {float(scores[at]):g} is "
                    f"{float(ours[at]):.6g}, that of cell {float(theirs[at]):.6g}",
                    "leave log_prob out, or mend its formula",
                )

    def ratings_to_try(self) -> Tensor:
        """Ratings that the kit chooses, over the whole support."""
        try:
            return ratings_to_try(self.cell(torch.zeros(1)))
        except InputError as error:
            self.fail(error.problem, error.remedy, error)

    @torch.no_grad()
    def normaliser(self) -> None:
        score = torch.tensor([-1.2, 0.3, 1.5])
        dist = self.cell(score)
        if cells.is_discrete(dist):
            rows = cells.points(dist, up_to=LARGEST_COUNT)[:, None].expand(-1, 3)
            weight = torch.ones_like(rows)
        else:
            rows, mass = cells.nodes(dist)
            weight = (mass / cells.log_prob(dist, rows).exp()).nan_to_num(0.0)
        mass = (self.density(score, rows) * weight).nan_to_num(0.0, posinf=0.0)
        total = mass.sum(0)
        self.require(
            ((total - 1).abs() < 1e-6).all(),
            f"p(R | s) sums to {float(total[(total - 1).abs().argmax()]):.6g} over its support, not to 1",
            "add the normaliser to log_prob and to cell",
        )
        self.stated(dist, rows, mass)

    def stated(self, dist: Distribution, rows: Tensor, mass: Tensor) -> None:
        """Mean, variance and distribution function as cell states them are those of the masses at ``rows``."""
        mean = (mass * rows).sum(0)
        for what, ours in (("mean", mean), ("variance", (mass * (rows - mean).square()).sum(0))):
            try:
                stated = getattr(dist, what).detach()
            except NotImplementedError:
                continue
            off = ((ours - stated).abs() > 1e-4 * (1 + ours.abs())) & stated.isfinite()
            if bool(off.any()):
                self.fail(
                    f"the {what} that cell states is {float(stated[off][0]):.6g}, that of its density "
                    f"{float(ours[off][0]):.6g}",
                    f"mend the {what}, or leave it out",
                )
        if cells.is_discrete(dist):
            return
        for at in (0.1, 0.6, 0.9):
            place = rows[(mass.cumsum(0) >= at).double().argmax(0), torch.arange(rows.shape[1])]
            try:
                stated = dist.cdf(place)
            except NotImplementedError:
                return
            ours = cells.integrated(dist, place)
            if not torch.allclose(stated, ours, atol=1e-5, rtol=0):
                self.fail("cdf is not the integral of cell's density", "mend it, or leave it out")

    def density(self, score: Tensor, ratings: Tensor) -> Tensor:
        with torch.no_grad():
            many = score.expand_as(ratings)
            return self.likelihood.log_prob(
                many, ratings, torch.full_like(many, self.likelihood.default_confidence)
            ).exp()

    def drawn_columns(self) -> RatingColumns:
        stored = torch.rand(N_ITEMS, N_USERS) < 0.5
        stored[0, :2], observed = True, torch.ones(N_ITEMS, dtype=torch.bool)
        stored[2], observed[2] = False, False
        items, users = stored.nonzero(as_tuple=True)
        indptr = torch.cat([torch.zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
        confidence = self.likelihood.default_confidence * (0.5 + torch.rand(len(users)))
        ratings = self.cell((self.u[users] * self.v[items]).sum(-1), confidence).sample()
        near = self.tried[self.tried.abs() <= 20.0]
        if len(near):  # and some that it would hardly draw
            ratings[1::3] = near[torch.randint(len(near), (len(ratings[1::3]),))].to(ratings)
        confidence[::4], ratings[::4] = 0.0, 0.0
        return self.likelihood.weighed(RatingColumns(indptr, users, ratings, confidence, observed, N_USERS))

    def with_ratings(self, ratings: Tensor) -> RatingColumns:
        return replace(self.columns, ratings=ratings)

    def support(self) -> None:
        there = self.columns.confidences > 0
        if not self.accepts(self.columns):
            self.fail("check refuses what cell draws", "let check take exactly the support of cell")
        support: Any = self.cell(torch.zeros(1)).support
        first = int(there.nonzero()[0])
        for value in CANDIDATES:
            inside = bool(support.check(torch.tensor([value])))
            ratings = self.columns.ratings.clone()
            ratings[first] = value
            if self.accepts(self.with_ratings(ratings)) > inside:
                self.fail(f"check takes a rating of {value:g}, which cell cannot draw", "refuse it with InputError")
            missing = torch.where(there, self.columns.ratings, value)
            self.require(
                self.accepts(self.with_ratings(missing)),
                f"check refuses a missing cell (confidence 0) that holds {value:g}",
                "look at cells with a confidence above 0 alone",
            )
        start = self.likelihood.initial_mean(self.columns)
        self.require(math.isfinite(start), f"initial_mean is {start}", "give a finite score")

    def distribution(self, u: Tensor, v: Tensor, columns: RatingColumns) -> TorchDistribution:
        return self.likelihood.eval().distribution(u, v, columns)

    def by_hand(self, u: Tensor, v: Tensor) -> Tensor:
        """Log p of every column, cell by cell, (..., n_items); ``u`` and ``v`` may be many draws, (n_draws, ...)."""
        likelihood, c = self.likelihood, self.columns
        ratings, confidences = c.dense(likelihood.background if likelihood.zeros else 0.0)
        there = confidences > 0
        score = v @ u.mT
        own, found = score[..., there], torch.zeros_like(score)
        given = confidences[there].expand_as(own), ratings[there].expand_as(own)
        found[..., there] = self.cell(own, given[0]).log_prob(given[1])
        return found.sum(-1)

    def product(self) -> None:
        u, v = self.u.clone().requires_grad_(), self.v.clone().requires_grad_()
        found, wanted = self.distribution(u, v, self.columns).log_prob(self.columns), self.by_hand(u, v)
        remedy = "leave distribution out, or look at zeros, missing cells (confidence 0) and items without a column"
        self.close(found, wanted, "log p of the columns is not the product of their cells", remedy)
        weights = torch.arange(1.0, N_ITEMS + 1)
        ours, theirs = (torch.autograd.grad((value * weights).sum(), (u, v)) for value in (found, wanted))
        for one, other in zip(ours, theirs, strict=True):
            self.close(one, other, "the gradient of log p of the columns is not that of their cells", remedy, 1e-8)

    def minibatches(self) -> None:
        whole = self.distribution(self.u, self.v, self.columns).log_prob(self.columns)
        for rows in (torch.tensor([1]), torch.tensor([0, 2, 5])):
            part = self.columns.select(rows)
            found = self.distribution(self.u, self.v[rows], part).log_prob(part)
            problem = f"columns of items {rows.tolist()} alone have another log p than within all items"
            self.close(found, whole[rows], problem, "let no item depend on another")

    def plates(self) -> None:
        rows, n_items = torch.tensor([1, 3, 4]), 4 * N_ITEMS
        part = self.columns.select(rows)

        def model() -> None:
            with pyro.plate("items", n_items, subsample=rows):
                pyro.sample("R", self.distribution(self.u, self.v[rows], part), obs=part)

        trace = poutine.trace(model).get_trace()
        trace.compute_log_prob()
        wanted = self.by_hand(self.u, self.v)[rows].sum() * (n_items / len(rows))
        problem = "a Pyro plate does not scale it from a minibatch to all items"
        self.close(trace.nodes["R"]["log_prob_sum"], wanted, problem, "leave scales to the plate")

    def subsampled(self) -> None:
        if not self.likelihood.subsample:
            return
        exact = self.by_hand(self.u, self.v)
        self.likelihood.subsample, before = 2, self.likelihood.subsample
        values = []
        for drawn in itertools.combinations(range(N_USERS), 2):
            with _users_drawn(drawn):
                distribution = self.likelihood.train().distribution(self.u, self.v, self.columns)
                values.append(distribution.log_prob(self.columns))
        self.likelihood.subsample = before
        problem = "the mean of log p over all subsets of 2 users is not log p"
        remedy = "weigh zeros of drawn users by n_users / n_drawn and stored cells by 1"
        self.close(torch.stack(values).mean(0), exact, problem, remedy)

    def moments_of_draws(self) -> None:
        rows = torch.arange(3)
        c = self.columns.select(rows)
        wide = c.select(rows.repeat(2000))
        with torch.no_grad():
            drawn = self.distribution(self.u, self.v[rows].repeat(2000, 1), wide).sample()
        if not isinstance(drawn, RatingColumns):
            self.fail(f"columns are drawn as {type(drawn).__name__}", "give RatingColumns")
        background = self.likelihood.background if self.likelihood.zeros else 0.0
        _, confidences = c.dense(background)
        there = confidences > 0
        dist = self.cell(self.v[rows] @ self.u.mT, torch.where(there, confidences, 1.0))
        x = drawn.dense(0.0)[0].view(2000, 3, N_USERS)
        mean, variance = (part.detach() for part in cells.moments(dist))
        bound = quantile(2 * int(there.sum()))
        for what, values, wanted in (("mean", x, mean), ("variance", (x - mean).square(), variance)):
            spread = values.std(0) / math.sqrt(len(x))
            off = ((values.mean(0) - wanted).abs() / spread.clamp(min=1e-12))[there]
            self.require(
                (off < bound).all(),
                f"the {what} of {len(x)} drawn columns is {float(off.max()):.1f} standard errors off that of cell, "
                f"above {bound:.1f}",
                "leave distribution out, or draw each cell from its own score and confidence",
            )

    def moments(self, spread: float) -> Moments:
        generator = torch.Generator().manual_seed(1)
        u_var, v_var = (spread * torch.rand(x.shape, generator=generator) + 0.01 for x in (self.u, self.v))
        return Moments(Gaussians(self.u, u_var), Gaussians(self.v, v_var))

    def expectation(self) -> None:
        likelihood, c = self.likelihood, self.columns
        moments = self.moments(0.3)
        with torch.no_grad():
            expected = likelihood.expected_log_prob(moments, c)
            if expected is None:
                return
            constant = likelihood.constant(c)
            points = likelihood.expected_log_prob(Moments(Gaussians(self.u), Gaussians(self.v)), c)
            assert points is not None
            exact = self.by_hand(self.u, self.v)
            if likelihood.exact:
                remedy = "let constant and expected_log_prob add up to log p"
                self.close(points + constant, exact, "at points expected_log_prob is not log p", remedy)
            elif not bool((points + constant <= exact + 1e-9).all()):
                self.fail("at points the bound is above log p", "it must be a lower bound, or set exact = True")
            u, v = (q.moved(torch.randn(N_DRAWS, *q.loc.shape), q.root()) for q in (moments.users, moments.items))
            values = self.by_hand(u, v)
        off = (expected + constant - values.mean(0)) / (values.std(0) / math.sqrt(len(values))).clamp(min=1e-12)
        bound = quantile(N_ITEMS)
        wrong = off.abs() >= bound if likelihood.exact else off >= bound
        if bool(wrong.any()):
            which = float(off[wrong][0])
            what = "off" if likelihood.exact else "above"
            self.fail(
                f"expected_log_prob is {which:.1f} standard errors {what} the mean over draws of u and v",
                "count the variances of u and v and of their product, or return None",
            )

    def closed_form(self) -> None:
        likelihood, c = self.likelihood, self.columns
        if not likelihood.conjugate:
            return
        moments = self.moments(0.3)
        v = moments.v.clone().requires_grad_()
        given = Moments(moments.users, replace(moments.items, loc=v))
        expected = likelihood.expected_log_prob(given, c)
        if expected is None:
            self.fail("it is conjugate without expected_log_prob", "define it: closed forms report it")
        assert expected is not None
        (slope,) = torch.autograd.grad(expected.sum(), v)
        with torch.no_grad():
            score, variance = moments.scores(c.users, c.items)
            try:
                site = likelihood.site(c, score.square() + variance)
            except NotImplementedError as error:
                self.fail("it is conjugate without a site", "define site, or leave conjugate at False", error)
            precision, shift = gaussian_factors(site, moments.users, c)
            wanted = shift - (precision @ moments.v[..., None]).squeeze(-1)
        problem = "the gradient of expected_log_prob in v is not that of site's Gaussian"
        self.close(slope, wanted, problem, "check precisions, shifts and what zeros have of both", 1e-8)

    def predictions(self) -> None:
        mean, variance = torch.tensor([-0.6, 0.4, 0.9]), torch.tensor([0.05, 0.2, 0.4])
        with torch.no_grad():
            found, sd = self.likelihood.predict(mean, variance)
            s = mean + variance.sqrt() * torch.randn(N_DRAWS, 3)
            drawn = self.cell(s).sample()
        if type(self.likelihood).predictive is not RatingLikelihood.predictive:
            self.own_predictive(mean, variance)
        bound = quantile(6)
        for what, ours, values in (("mean", found, drawn), ("variance", sd**2, (drawn - found).square())):
            off = (ours - values.mean(0)).abs() / (values.std(0) / math.sqrt(N_DRAWS))
            self.require(
                (off < bound).all(),
                f"the {what} that predict gives is {float(off.max()):.1f} standard errors off that of draws",
                "leave predict out, or count both the spread of s and that of R given s",
            )

    def own_predictive(self, mean: Tensor, variance: Tensor) -> None:
        """A predictive distribution of its own is the one that its cells have."""
        with torch.no_grad():
            found, wanted = self.likelihood.predictive(mean, variance), predictive(self.likelihood, mean, variance)
            for rating in self.tried.tolist():
                given = torch.full_like(mean, rating)
                for name in ("log_prob", "cdf"):
                    problem = f"{name} of predictive is not that of cell's average over scores"
                    ours, theirs = getattr(found, name)(given), getattr(wanted, name)(given)
                    self.close(ours, theirs, problem, "leave predictive out", 1e-6)

    def parameters(self) -> None:
        likelihood = self.likelihood
        for name, value in vars(likelihood).items():
            if isinstance(value, Tensor) and value.requires_grad:
                self.fail(f"{name} is a plain tensor, which no optimiser and no run knows", "make it an nn.Parameter")
        own = {name: p for name, p in likelihood.named_parameters() if p.requires_grad and p.numel()}
        expected = likelihood.expected_log_prob(self.moments(0.3), self.columns)
        value = expected if expected is not None else self.by_hand(self.u, self.v)
        found: Any = [None] * len(own)
        if own and value.requires_grad:
            found = torch.autograd.grad(value.sum(), list(own.values()), allow_unused=True)
        for name, gradient in zip(own, found, strict=True):
            if gradient is None or not bool(gradient.any()):
                self.fail(
                    f"no gradient reaches its parameter {name}", "use it without .detach() or .item(), or drop it"
                )
        if likelihood.learns and (own or likelihood.learns == "noise"):
            likelihood.learn(torch.tensor(0.7) if likelihood.learns == "noise" else torch.full((N_USERS,), 0.7))
        wanted = self.by_hand(self.u, self.v)
        self.likelihood = self.copied()
        same = torch.equal(self.by_hand(self.u, self.v), wanted)
        self.likelihood = likelihood
        self.require(same, ANOTHER, KEEP)

    def single_precision(self) -> None:
        wanted = self.distribution(self.u, self.v, self.columns).log_prob(self.columns)
        self.likelihood.float()
        u, v, columns = self.u.float(), self.v.float(), self.columns.to(dtype=torch.float32)
        found = self.distribution(u, v, columns).log_prob(columns)
        problem = f"log p of float32 factors has the type {found.dtype}"
        self.require(found.dtype == torch.float32, problem, "make new tensors with zeros_like or new_zeros")
        self.close(found.double(), wanted, "log p in float32 is far from float64", "sum in a stable order", 1e-3)


@contextmanager
def _users_drawn(drawn: tuple[int, ...]) -> Iterator[None]:
    """Have ``torch.randperm`` begin with these."""
    before = torch.randperm
    torch.randperm = lambda n, **_: torch.tensor([*drawn, *(i for i in range(n) if i not in drawn)])
    try:
        yield
    finally:
        torch.randperm = before
