"""The conformance kit: does a likelihood of one's own keep the contract that the rest of the package relies on?

    from models.testing import check_likelihood
    check_likelihood(MyLikelihood, rate=3)

for contents, ``check_rating_likelihood`` for ratings (:mod:`models.testing_ratings`), ``check_network`` for pairs of
networks (:mod:`models.testing_networks`), ``check_model`` for whole models (:mod:`models.testing_models`).
It works in float64 at random parameters of a small decoder, by second computations: the likelihood's own dense
distribution, sums over whole supports, draws. Each failure is an AssertionError that names the mistake and its remedy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution, constraints

from models.contents import ContentDistribution, ContentLikelihood
from models.contents.base import innermost
from models.networks.mlp import MLPDecoder
from models.ratings import cells
from models.rows import DenseRows, SparseRows
from models.testing_base import ANOTHER, KEEP, N_DRAWS, Kit, in_float64, moved, quantile
from models.testing_contents import ProductKit, SequenceKit
from models.testing_inputs import ASKED, candidate_rows, compositions, texts
from models.testing_models import check_model
from models.testing_networks import check_network
from models.testing_ratings import check_rating_likelihood

__all__ = ["check_likelihood", "check_model", "check_network", "check_rating_likelihood"]

Params = dict[str, Tensor]

N_ITEMS, N_FEATURES, N_FACTORS = 7, 5, 3
LARGEST_COUNT = 150
"""Supports of counts are summed up to this, for two features."""


def check_likelihood(likelihood: type[ContentLikelihood], /, *, seed: int = 0, **arguments: Any) -> None:
    """Raise AssertionError unless a content likelihood class, built with ``arguments``, keeps its contract.

    - shapes: log p(x | z) and ``distribution`` have one value an item, in a Pyro plate and for minibatches, which are
      rows of the whole; no item's value depends on another's; the type is that of the parameters;
    - parameters: gradients reach every weight of the decoder's heads and every parameter of the likelihood;
      ``initial_bias`` fits the heads;
    - density: ``log_prob`` is that of ``distribution``, with its gradient, on contents that the kit makes itself (empty
      ones, long texts, large counts, sparse rows and dense ones), wherever ``check`` takes them; it
      sums to one over the support of two
      features (counts, up to 150; of given totals for multinomial ones), or integrates to one over the plane (real
      values). Other supports, and ``pseudo`` likelihoods, have no normaliser that is looked at;
    - support: ``check`` takes what is drawn and refuses values outside the support of ``distribution``;
    - draws: as many rows as were asked for, texts as long as was asked for where the length is given, whatever the rows
      beside them; means and variances of ``sample`` are those of the density (two-sided, at most ``FAILURE_RATE`` false
      alarms over seeds), of texts of one, four and nine words by the masses of all counts there are;
    - part of the features: where there is ``log_prob_sampled``, it is ``log_prob`` if all features are drawn; over all
      subsets its mean is, or its error falls with their size where ``unbiased`` is False;
    - saved and loaded: the constructor's arguments, the parameters and the buffers are all there is to know.

    Of a likelihood of tokens, teacher forcing is held to one token at a time, the masses of all sequences sum to one,
    and frequencies of draws are compared; of a product each part is checked by itself, and its value held to its parts
    one by one, of which some items lack some. What a fit is worth is not tested.
    """
    if not (isinstance(likelihood, type) and issubclass(likelihood, ContentLikelihood)):
        raise AssertionError(f"{likelihood}: this is no class of content likelihoods; derive it from ContentLikelihood")
    with in_float64(seed):
        kit = _kit_of(likelihood)(likelihood, arguments)
        for name, part in kit.each() if isinstance(kit, ProductKit) else ():
            try:
                _kit_of(type(part))(type(part), dict(part.made_with)).run()
            except AssertionError as error:
                raise AssertionError(f"{likelihood.__name__}: its part {name} breaks the contract: {error}") from error
        kit.run()


def _kit_of(likelihood: type[ContentLikelihood]) -> type[Kit]:
    if likelihood.several:
        return ProductKit
    return SequenceKit if "tokens" in likelihood.reads else _RowsKit


class _RowsKit(Kit):
    """One likelihood of rows of numbers at random parameters of a small decoder, with content that the kit makes."""

    def __init__(self, cls: type[ContentLikelihood], arguments: dict[str, Any]) -> None:
        super().__init__(cls, arguments)
        self.decoder = self.decode(N_FEATURES)
        self.z = torch.randn(N_ITEMS, N_FACTORS)

    def run(self) -> None:
        """All checks, from the ones that others rely on to the subtle ones."""
        self.params = {name: value.detach() for name, value in self.decoder(self.z).items()}
        self.shapes_of_the_distribution()
        self.obs, self.every = self.content()
        self.lengths()
        self.support()
        self.shapes()
        self.minibatches()
        self.plates()
        self.gradients()
        self.dense()
        self.everywhere()
        self.normaliser()
        self.moments()
        self.parts()
        self.saved_and_loaded()
        self.single_precision()

    def decode(self, n_features: int) -> MLPDecoder:
        """A decoder with a head for each of ``param_names``, at random weights and biases."""
        names = getattr(self.likelihood, "param_names", ())
        if not names or isinstance(names, str):
            self.fail(f"param_names is {names!r}", 'name the decoder\'s heads, for instance ("log_rate",)')
        decoder = MLPDecoder(n_features, N_FACTORS, (4,), "tanh", names)
        moved(decoder, 0.3)
        return decoder

    def distribution(self, params: Params) -> Distribution:
        """The dense distribution; a wrong ``param_names`` shows here."""
        try:
            return self.likelihood.distribution(**params)
        except (KeyError, TypeError) as error:
            problem = f"distribution fails on the heads {', '.join(params)} ({type(error).__name__}: {error})"
            self.fail(problem, "take exactly the names of param_names", error)
        except (RuntimeError, ValueError, IndexError) as error:
            problem = f"distribution fails on parameters of {N_ITEMS} items ({type(error).__name__}: {error})"
            remedy = "work for any number of items and features, (n_items, n_features); let heads tell features apart"
            self.fail(problem, remedy, error)

    def log_prob(self, obs: SparseRows, params: Params) -> Tensor:
        try:
            return self.likelihood.log_prob(obs, params)
        except (KeyError, RuntimeError, IndexError) as error:
            problem = f"log_prob fails on {len(obs)} items ({type(error).__name__}: {error})"
            self.fail(problem, "work for any number of items, with parameters (n_items, n_features)", error)

    def content(self) -> tuple[SparseRows, Tensor]:
        """Rows for the checks, N_ITEMS of them, and all that the support and ``check`` let in, (n_rows, n_features)."""
        inside = (lambda rows: torch.ones(len(rows), dtype=torch.bool)) if self.likelihood.pseudo else None
        inside = inside or _inside(self.distribution(self.params))
        kinds = [
            [row for row in rows[inside(rows)] if self.takes(row[None])] for rows in candidate_rows(N_FEATURES).values()
        ]
        if self.likelihood.pseudo:
            kinds.append([0.7 * row for rows in kinds for row in rows if self.takes(0.7 * row[None])])
        turns = itertools.chain.from_iterable(itertools.zip_longest(*(kind[::-1] for kind in kinds)))
        found = [row for row in turns if row is not None]
        if len(found) < N_ITEMS:  # a support that the kit does not know: what is drawn besides
            like = SparseRows.from_dense(texts((1,) * N_ITEMS, N_FEATURES))
            found += list(self.draw(self.params, like).dense())
        every = torch.stack(found)
        return SparseRows.from_dense(every[torch.randperm(len(every))[:N_ITEMS]]), every

    def draw(self, params: Params, like: SparseRows) -> SparseRows:
        drawn = self.likelihood.sample(params, like)
        wanted = (len(like), like.n_columns)
        if not isinstance(drawn, SparseRows) or tuple(drawn.shape) != wanted:
            shape = tuple(drawn.shape) if hasattr(drawn, "shape") else type(drawn).__name__
            self.fail(f"sample gives {shape} where SparseRows of {wanted} are due", "draw one row an item")
        return drawn

    def takes(self, dense: Tensor) -> bool:
        """Whether ``check`` accepts these rows."""
        return self.accepts(SparseRows.from_dense(dense))

    # --- the checks --------------------------------------------------------------------------------------------------

    def shapes_of_the_distribution(self) -> None:
        found = self.distribution(self.params)
        shapes = tuple(found.batch_shape), tuple(found.event_shape)
        self.require(
            shapes == ((N_ITEMS,), (N_FEATURES,)),
            f"distribution has batch and event shapes {shapes[0]} and {shapes[1]}, not ({N_ITEMS},) and "
            f"({N_FEATURES},) for {N_ITEMS} items with {N_FEATURES} features",
            "an item's features are one event: end with .to_event(1)",
        )

    def shapes(self) -> None:
        found = self.log_prob(self.obs, self.params)
        self.require(
            found.shape == (N_ITEMS,),
            f"log_prob has shape {tuple(found.shape)} for {N_ITEMS} items, not ({N_ITEMS},)",
            "sum over the features of each item (sum(-1)) and over nothing else",
        )
        self.require(torch.isfinite(found).all(), "log_prob is not finite on draws of its own", "look for log(0)")

    def support(self) -> None:
        if self.likelihood.pseudo:
            return
        inside = _inside(self.distribution(self.params))
        for what, rows in candidate_rows(N_FEATURES).items():
            for row, good in zip(rows, inside(rows).tolist(), strict=True):
                if not good and self.takes(row[None]):
                    values = ", ".join(f"{value:g}" for value in row.tolist())
                    self.fail(
                        f"check accepts {what} ({values}), which is outside the support of distribution",
                        "raise InputError in check, or choose a distribution with that support",
                    )

    def lengths(self) -> None:
        """Draws are what was asked for: one row an item, of a given length where lengths are given."""
        given = _given_totals(innermost(self.distribution(self.params).support))
        wanted = texts((9, 1, 0, 4, 40, 1, 9), N_FEATURES)
        wanted = torch.stack(
            [row if self.takes(row[None]) or not given else torch.eye(N_FEATURES)[0] for row in wanted]
        )
        for like in (wanted, wanted[:2], wanted[[3]]):
            params = {name: value[: len(like)] for name, value in self.params.items()}
            drawn = self.draw(params, SparseRows.from_dense(like))
            if not self.takes(drawn.dense()):
                self.fail("check refuses what sample draws", "let check take exactly the support of distribution")
            off = (drawn.totals != like.sum(-1)).nonzero().flatten().tolist()
            if given and off:
                totals = drawn.totals[off[0]], like[off[0]].sum()
                self.fail(
                    "sample draws {:g} words where {:g} were asked for".format(*map(float, totals)),
                    "draw texts as long as those of `like` (like.totals), each as long as its own",
                )

    def minibatches(self) -> None:
        whole = self.log_prob(self.obs, self.params)
        for chosen in ([0], [N_ITEMS - 1], [2, 5, 6], list(reversed(range(N_ITEMS)))):
            rows = torch.tensor(chosen)
            part = self.log_prob(self.obs.select(rows), {name: value[rows] for name, value in self.params.items()})
            self.close(
                part,
                whole[rows],
                f"log_prob of a minibatch of {len(rows)} is not that of the same items among all {N_ITEMS}",
                "an item's value must not depend on the others: no sum, mean or maximum over dimension 0, and a "
                "parameter (n_items,) has to be given a last dimension before it meets (n_items, n_features)",
            )
        other = {name: value.clone() for name, value in self.params.items()}
        for value in other.values():
            value[1:] += 0.5
        self.close(
            self.log_prob(self.obs, other)[:1],
            whole[:1],
            "log_prob of an item changes with the parameters of the others",
            "keep the rows of items apart",
        )

    def plates(self) -> None:
        rows, n_items = torch.tensor([1, 3, 4]), 4 * N_ITEMS
        obs, params = self.obs.select(rows), {name: value[rows] for name, value in self.params.items()}

        def model() -> None:
            with pyro.plate("items", n_items, subsample=rows):
                pyro.sample("x", ContentDistribution(self.likelihood, self.decoder, self.z[rows], obs), obs=obs)

        site = poutine.trace(model).get_trace()
        site.compute_log_prob()
        found = site.nodes["x"]["log_prob_sum"]
        wanted = self.log_prob(obs, params).sum() * (n_items / len(rows))
        self.close(
            found, wanted, "a Pyro plate does not scale it from a minibatch to all items", "leave scales to the plate"
        )

    def gradients(self) -> None:
        for name, value in vars(self.likelihood).items():
            if isinstance(value, Tensor) and value.requires_grad:
                self.fail(f"{name} is a plain tensor, which no optimiser and no run knows", "make it an nn.Parameter")
        heads = {f"the head {name!r}": weight for name, weight in self.decoder.outputs.items()}
        heads |= {f"the biases of the head {name!r}": bias for name, bias in self.decoder.output_biases.items()}
        own = {f"its parameter {name}": p for name, p in self.likelihood.named_parameters() if p.requires_grad}
        total = self.log_prob(self.obs, self.decoder(self.z)).sum()
        if not total.requires_grad:
            self.fail("no gradient leaves log_prob", "compute with tensors only: no .detach(), .item() or torch.tensor")
        wanted = {**heads, **own}
        found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        for what, gradient in zip(wanted, found, strict=True):
            if gradient is None or not bool(gradient.any()):
                self.fail(f"no gradient reaches {what}", "use it in log_prob, without .detach() or .item(), or drop it")
            self.require(torch.isfinite(gradient).all(), f"the gradient of {what} is not finite", "look for log(0)")
        mean = torch.full((N_FEATURES,), 0.2)
        for name, bias in self.likelihood.initial_bias(mean).items():
            if name not in self.likelihood.param_names:
                self.fail(f"initial_bias names {name!r}", "return biases of heads in param_names only")
            if bias.shape != mean.shape or not bool(torch.isfinite(bias).all()):
                self.fail(f"initial_bias of {name!r} is not ({N_FEATURES},) finite numbers", "give one a feature")

    def dense(self) -> None:
        params = {name: value.clone().requires_grad_() for name, value in self.params.items()}
        leaves = [*params.values(), *(p for p in self.likelihood.parameters() if p.requires_grad)]
        weights = torch.arange(1.0, N_ITEMS + 1)
        both = self.log_prob(self.obs, params), self.distribution(params).log_prob(self.obs.dense())
        self.close(
            *both,
            "log_prob is not distribution's log_prob",
            "a term of the normaliser (log x!, log 2 pi, a rate) may be forgotten, or the zeros of a sparse row",
        )
        grads = [torch.autograd.grad((value * weights).sum(), leaves, allow_unused=True) for value in both]
        for ours, theirs in zip(*grads, strict=True):
            ours, theirs = (torch.zeros(()) if g is None else g for g in (ours, theirs))
            self.close(ours, theirs, "the gradient of log_prob is not distribution's", "look at its backward", 1e-8)

    def everywhere(self) -> None:
        """The same on every row that is let in, sparse and as the rows of vectors and images are."""
        params = {name: value.detach() for name, value in self.decoder(torch.randn(len(self.every), N_FACTORS)).items()}
        wanted = self.distribution(params).log_prob(self.every)
        kinds: list[tuple[str, Any]] = [("", SparseRows.from_dense(self.every))]
        if {"vectors", "images"} & set(self.likelihood.reads):
            kinds.append((" of rows of numbers (DenseRows)", DenseRows(self.every, dtype=self.every.dtype)))
        for what, rows in kinds:
            found = self.log_prob(rows, params)
            off = (found - wanted).abs() > 1e-9 * (1 + wanted.abs())
            if bool((off | found.isnan()).any()):
                at = int((off | found.isnan()).nonzero()[0])
                values = ", ".join(f"{value:.3g}" for value in self.every[at].tolist())
                self.fail(
                    f"log_prob{what} is {float(found[at]):.6g} at ({values}), where distribution's is "
                    f"{float(wanted[at]):.6g}",
                    "let it be right for empty rows, long texts and large values too",
                )

    def normaliser(self) -> None:
        if self.likelihood.pseudo:
            return
        two = {name: value[:, :2] for name, value in self.params.items()}
        first = {name: value[:1] for name, value in two.items()}
        dist = self.distribution(first)
        base, weight = innermost(dist.support), torch.ones(())
        if bool(base.is_discrete):
            grid = torch.arange(LARGEST_COUNT + 1.0)
            rows = torch.cartesian_prod(grid, grid)
            rows = rows[_inside(dist)(rows)]
            totals = rows.sum(-1)
            lengths = (*range(6), 9, 40, LARGEST_COUNT)
            groups = [totals == n for n in lengths] if _given_totals(base) else [totals >= 0]
            groups = [group for group in groups if self.takes(rows[group])]
            masses = [self.mass(rows[group], first) for group in groups]
            outside = float((dist.sample((1000,)) > LARGEST_COUNT / 2).any(-1).double().mean())
            tolerance = 1e-6 + 10 * outside
        elif base is constraints.real:
            sd, mean = (part.detach() for part in (dist.stddev[0], dist.mean[0]))
            nodes = cells.line(torch.where(mean.isfinite(), mean, 0.0), torch.where(sd.isfinite(), sd, 1.0))
            rows, weights = (torch.cartesian_prod(*part.mT) for part in nodes)
            weight, tolerance = weights.prod(-1), 1e-6
            masses = [self.mass(rows, first, weight)]
        else:
            return
        for mass in masses:
            self.require(
                abs(float(mass) - 1) < tolerance,
                f"p(x) sums to {float(mass):.6g} over its support, not to 1",
                "add the normaliser to log_prob and to distribution, or set pseudo = True and say what it is",
            )
        if not _given_totals(base):
            self.stated_moments(dist, rows, weight, first, tolerance)

    def stated_moments(
        self, dist: Distribution, rows: Tensor, weight: Tensor, params: Params, tolerance: float
    ) -> None:
        """Mean and variance as distribution states them are those of the density at ``rows`` of such a weight."""
        with torch.no_grad():
            repeated = {name: value.expand(len(rows), -1) for name, value in params.items()}
            mass = (self.log_prob(SparseRows.from_dense(rows), repeated) + weight.log()).softmax(0)[:, None]
            mean = (mass * rows).sum(0)
            found = mean, (mass * (rows - mean).square()).sum(0)
        for what, ours, stated in zip(("mean", "variance"), found, self.of_distribution(dist), strict=True):
            wanted, scale = stated.flatten()[: len(ours)], 1 + ours.abs()
            self.require(
                (((ours - wanted).abs() < (1e-6 + 1e3 * (tolerance - 1e-6)) * scale) | ~wanted.isfinite()).all(),
                f"the {what} that distribution states ({float(wanted[0]):.6g}) is not that of its density "
                f"({float(ours[0]):.6g})",
                "mend it: draws are held to it",
            )

    def mass(self, rows: Tensor, params: Params, weight: Tensor | float = 1.0) -> Tensor:
        with torch.no_grad():
            repeated = {name: value.expand(len(rows), -1) for name, value in params.items()}
            return (self.log_prob(SparseRows.from_dense(rows), repeated).exp() * weight).sum()

    def moments(self) -> None:
        """Of draws for texts of different lengths side by side, against those of the density."""
        rows, asked = torch.arange(3), texts(ASKED, N_FEATURES)
        params = {name: value[rows] for name, value in self.params.items()}
        dist = self.distribution(params)
        given = _given_totals(innermost(dist.support))
        if given:
            asked = torch.stack([row if self.takes(row[None]) else torch.eye(N_FEATURES)[0] for row in asked])
        with torch.no_grad():
            like = SparseRows.from_dense(asked).select(rows.repeat(N_DRAWS))
            drawn = self.draw({name: value.repeat(N_DRAWS, 1) for name, value in params.items()}, like)
            if given:
                mean, variance = self.of_lengths(asked.sum(-1), params)
            else:
                mean, variance = self.of_distribution(dist)
        x = drawn.dense().view(N_DRAWS, 3, N_FEATURES)
        square = (x - mean).square()
        bound = quantile(2 * mean.numel())
        for what, values, wanted in (("mean", x, mean), ("variance", square, variance)):
            spread = values.std(0) / math.sqrt(N_DRAWS)
            off = (values.mean(0) - wanted).abs() / spread.clamp(min=1e-12)
            lengths = f" of texts of {', '.join(f'{n:g}' for n in asked.sum(-1).tolist())} words" if given else ""
            self.require(
                (off < bound).all(),
                f"the {what} of {N_DRAWS} draws of sample{lengths} is {float(off.max()):.1f} standard errors off "
                f"that of distribution, above {bound:.1f}",
                "draw each row of sample from its own parameters",
            )

    def of_distribution(self, dist: Distribution) -> tuple[Tensor, Tensor]:
        """Mean and variance as it states them."""
        try:
            return dist.mean.detach(), dist.variance.detach()
        except NotImplementedError as error:
            self.fail("distribution has no mean or variance", "give it these: draws are held to them", error)

    def of_lengths(self, lengths: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Mean and variance of texts of these lengths, (n_rows, n_features) each, by the masses of all counts."""
        means, variances = [], []
        for row, length in enumerate(lengths.tolist()):
            counts = compositions(int(length), N_FEATURES)
            repeated = {name: value[row].expand(len(counts), -1) for name, value in params.items()}
            mass = self.log_prob(SparseRows.from_dense(counts), repeated).softmax(0)[:, None]
            means.append((mass * counts).sum(0))
            variances.append((mass * (counts - means[-1]).square()).sum(0))
        return torch.stack(means), torch.stack(variances)

    def parts(self) -> None:
        likelihood = self.likelihood
        if type(likelihood).log_prob_sampled is ContentLikelihood.log_prob_sampled:
            if likelihood.subsample:
                self.fail("subsample is set without log_prob_sampled", "define it, or leave subsample at 0")
            return
        exact = self.log_prob(self.obs, self.params)
        stored = {name: value[self.obs.rows, self.obs.columns] for name, value in self.params.items()}

        def estimates(size: int) -> Tensor:
            drawn = itertools.combinations(range(N_FEATURES), size)
            parts = ({name: value[:, list(one)] for name, value in self.params.items()} for one in drawn)
            return torch.stack([likelihood.log_prob_sampled(self.obs, stored, part, N_FEATURES) for part in parts])

        remedy = "weigh what is summed over drawn features by n_features / n_drawn, and stored entries by 1"
        self.close(estimates(N_FEATURES)[0], exact, "log_prob_sampled of all features is not log_prob", remedy)
        if likelihood.unbiased:
            for size in range(1, N_FEATURES):
                problem = f"the mean of log_prob_sampled over all subsets of {size} features is not log_prob"
                self.close(estimates(size).mean(0), exact, problem, remedy + ", or set unbiased = False")
            return
        errors = [float((estimates(size) - exact).abs().mean()) for size in range(1, N_FEATURES)]
        falling = all(more < fewer for fewer, more in itertools.pairwise(errors))
        self.require(falling, "the error of log_prob_sampled does not fall with more features", remedy)

    def saved_and_loaded(self) -> None:
        self.likelihood.start(2.5)
        with torch.no_grad():
            for parameter in self.likelihood.parameters():
                parameter.add_(0.1)
        wanted = self.log_prob(self.obs, self.params)
        found = self.copied().log_prob(self.obs, self.params)
        self.require(torch.equal(found, wanted), ANOTHER, KEEP)
        found = self.reloaded().log_prob(self.obs, self.params)
        self.require(torch.equal(found, wanted), "state_dict and load_state_dict give another", KEEP)

    def single_precision(self) -> None:
        wanted = self.log_prob(self.obs, self.params)
        single = {name: value.float() for name, value in self.params.items()}
        self.likelihood.float()
        found = self.log_prob(self.obs.to(dtype=torch.float32), single)
        self.require(
            found.dtype == torch.float32,
            f"log_prob of float32 parameters has the type {found.dtype}",
            "make new tensors with new_zeros or zeros_like of the parameters",
        )
        self.close(found.double(), wanted, "log_prob in float32 is far from float64", "sum in a stable order", 1e-3)


def _given_totals(support: Any) -> bool:
    return isinstance(support, type(constraints.multinomial(1)))


def _inside(distribution: Distribution) -> Callable[[Tensor], Tensor]:
    """Which rows are in the support; a multinomial's total is given, so that any total is."""
    support = innermost(distribution.support)
    if _given_totals(support):
        support = constraints.nonnegative_integer
    return lambda rows: support.check(rows) if support.event_dim else support.check(rows).all(-1)
