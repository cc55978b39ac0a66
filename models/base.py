r"""The family of models: factors of users and items around their priors, ratings by their products.

    u_i ~ N(m_i, 1 / lambda_u),    v_j ~ N(m_j, 1 / lambda_v),    R_ij ~ p(R | s_ij),    s_ij = u_i.v_j

An item without a training rating may lie at c m_j: its content then counts c times as much
(:mod:`inference.algorithms.choosing` says how c is found). c is 1 unless it was asked for.

A member says where the factors of an item lie before anybody has chosen it, m_j: an :class:`ItemPrior`. Those of a
user lie at 0, unless a subclass says otherwise. The story itself, the Pyro program, is each member's ``forward``. The
algorithms read the priors from :meth:`FactorModel.prior_of_users` and :meth:`FactorModel.prior_of_items`, and every
fit begins by holding the program to them (:mod:`models.story`).

With biases,

    b_i ~ N(0, 1 / lambda_b),   c_j ~ N(m, 1 / lambda_b),   s_ij = u_i.v_j + b_i + c_j

with m the global mean. u_i and v_j have one coordinate more, b_i / kappa_u and c_j / kappa_v with kappa_u^2 =
lambda_u / lambda_b and kappa_v^2 = lambda_v / lambda_b, so that all coordinates of a row have the same precision.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pyro
import torch
from pyro.nn import PyroModule
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from models.dense_sites import DenseSites
from models.gaussians import Gaussians
from models.item_prior import ItemPrior, NoContent
from models.observations import Batch
from models.priors import NOTHING, Above, NormalPrior
from models.ratings import RatingLikelihood
from pyro_cvae.errors import InputError

if TYPE_CHECKING:
    from pyro_cvae.data.dataset import Dataset


__all__ = ["KNOWN_SITES", "OF_THE_CONTENT", "FactorModel", "ItemPrior", "NoContent", "own_parameters"]

KNOWN_SITES = ("u", "v", "v_dagger", "z", "topics", "m", "x", "R", "theta")
"""Sites that a model of this family may have; those above u and v are called otherwise."""


OF_THE_CONTENT = ("encoder", "decoder", "content", "lambda_w", "lambda_r")
"""What a model has of its item prior under its own name, where that has it."""


def own_parameters() -> AbstractContextManager[None]:
    """While it lasts parameters live in their modules, not in Pyro's global store: two models are two.

    It is around the package's own calls alone, whatever the setting is outside.
    """
    return pyro.settings.context(module_local_params=True)


class FactorModel(PyroModule):
    """Factors of users and items, and ratings; see the module's docstring.

    Parameters: ``item_prior`` says m_j; ``lambda_u``, ``lambda_v`` are precisions; ``parametrization`` is "centred"
    (v is drawn) or "non-centred" (v_dagger = v - m is drawn); with ``lambda_b`` there are biases, and ``mean`` is the
    global mean m. ``to_find`` names precisions that are not given, ``trials``
    are rows that tell how they were found.

    A subclass states the story in ``forward``, and what of it differs in ``prior_of_users``, ``prior_of_items`` and
    ``above``. ``has_content`` says that it reads the items' contents, ``reads_by`` by which item prior (``None``: a
    :class:`~models.cvae.VAE`), and ``as_is`` that this reads them as the likelihood does.

    A model that is ``plain`` is one for Pyro's own tools: its observed sites x and R are dense tensors. Otherwise, as
    the package's algorithms call it, these sites are as sparse as the data. Parameters are the modules' own in both.
    """

    content_scale: Tensor | None
    has_content: ClassVar[bool] = False
    reads_by: ClassVar[type[ItemPrior] | None] = None
    as_is: ClassVar[bool] = False

    def __init__(
        self,
        n_users: int,
        n_items: int,
        n_factors: int,
        item_prior: ItemPrior,
        ratings: RatingLikelihood,
        *,
        lambda_u: float = 1.0,
        lambda_v: float = 1.0,
        lambda_b: float | None = None,
    ) -> None:
        with own_parameters():
            super().__init__()
        self.plain = False
        self.kappa_u, self.kappa_v = (
            (1.0 if lambda_b is None else (own / lambda_b) ** 0.5) for own in (lambda_u, lambda_v)
        )
        self.mean = None if lambda_b is None else nn.Parameter(torch.zeros(()))
        self.n_users, self.n_items, self.n_factors = n_users, n_items, n_factors
        self.item_prior, self.ratings = item_prior, ratings
        self.lambda_u, self.lambda_v = lambda_u, lambda_v
        self.parametrization = "centred"
        self.to_find: tuple[str, ...] = ()
        self.trials: list[dict[str, Any]] = []
        self.register_buffer("content_scale", None)

    @classmethod
    def phases(cls) -> tuple[str, ...]:
        """The stages of a fit, as of its item prior."""
        if cls.reads_by is not None:
            return cls.reads_by.phases
        return ItemPrior.phases if cls.has_content else NoContent.phases

    @classmethod
    def is_staged(cls) -> bool:
        """Whether the contents are looked at after the ratings."""
        return cls.phases()[0] == "ratings"

    def forward(self, batch: Batch) -> None:
        """The generative story over a minibatch of items and all users: each model's own."""
        raise NotImplementedError(f"{type(self).__name__} states no story: define forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The story as a Pyro program, dense where the model is ``plain``."""
        if not self.plain:
            with own_parameters():
                return super().__call__(*args, **kwargs)
        for parameter in self.parameters():
            parameter.unconstrained = weakref.ref(parameter)  # pyro.infer.SVI asks for it
        try:
            with own_parameters(), DenseSites():
                return super().__call__(*args, **kwargs)
        finally:  # Pyro's scope of parameters takes this off those of the caller; looking at them brings it back
            list(pyro.get_param_store().values())

    def __getattr__(self, name: str) -> Any:
        """Networks, likelihood and precisions of the content are those of the item prior."""
        if name in OF_THE_CONTENT:
            return getattr(self.item_prior, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OF_THE_CONTENT:
            setattr(self.item_prior, name, value)
        else:
            super().__setattr__(name, value)

    @contextmanager
    def sparse(self) -> Iterator[FactorModel]:
        """While it lasts the model is not ``plain``."""
        before, self.plain = self.plain, False
        try:
            yield self
        finally:
            self.plain = before

    def content_only(self, batch: Batch) -> None:
        """The part of the story without ratings, for pre-training."""
        self.item_prior.weights()
        with pyro.plate("items", self.n_items, subsample=batch.items):
            self.item_prior(batch)

    # --- what a subclass may say otherwise ---------------------------------------------------------------------------

    def of_data(self, dataset: Dataset) -> None:
        """Take from the data set what the story needs of it, such as the groups of users.

        Called once the model is made: before a fit, and when a run is opened. What is taken is no parameter.
        """

    def above(self) -> Above:
        """Draw the sites above u and v, by name; the names are those of the sites. By default there are none."""
        return NOTHING

    def prior_of_users(self, above: Above = NOTHING) -> NormalPrior:
        """Prior of u given the sites above it: N(0, 1 / lambda_u)."""
        return NormalPrior(self._zeros(self.width), self.lambda_u)

    def prior_of_new_users(self, ids: Sequence[Any], above: Above = NOTHING) -> NormalPrior:
        """Prior of u of users who are not in the data, a row for each external id.

        InputError where the users of the data have priors of their own and a subclass does not say whose a new one has.
        """
        prior = self.prior_of_users(above)
        if prior.loc.dim() == 1:
            return prior
        problem = f"{type(self).__name__} does not say which prior a user has who is not in the data"
        raise InputError(problem, "define prior_of_new_users(ids, above), or fit again with these users")

    def prior_of_items(self, m: Tensor, above: Above = NOTHING, items: Tensor | None = None) -> NormalPrior:
        """Prior of v given m (n_items, n_factors): N(c m, 1 / lambda_v), the bias around the global mean.

        ``items`` (n_items,) are the rows of m in the catalogue; ``None``: all of it, in order. c is 1 unless there is a
        ``content_scale``.
        """
        if self.content_scale is None:
            return self._around(m)
        slope = self.content_scale[:-1].to(m)
        slope = slope if items is None else slope[items]
        return replace(self._around(slope[:, None] * m), slope=slope)

    def _around(self, m: Tensor) -> NormalPrior:
        if self.mean is None:
            return NormalPrior(m, self.lambda_v)
        return NormalPrior(torch.cat([m, (self.mean / self.kappa_v).expand(len(m), 1).to(m)], -1), self.lambda_v)

    def prior_of_new_items(self, m: Tensor, above: Above = NOTHING) -> NormalPrior:
        """Prior of v of items that are not in the data, given their m, a row each.

        InputError where a subclass has a prior of v of its own and does not say which a new item has.
        """
        if self.has_items_around_content():
            return self._around(self.scale_of_new_items * m)
        problem = f"{type(self).__name__} does not say which prior an item has that is not in the data"
        raise InputError(problem, "define prior_of_new_items(m, above), or fit again with these items")

    @property
    def scale_of_new_items(self) -> float:
        """C of items that are not in the data."""
        return 1.0 if self.content_scale is None else float(self.content_scale[-1])

    def scale_contents(self, unrated: Tensor, scale: float, of_new_items: float) -> None:
        """Let the contents of the items ``unrated``, bool (n_items,), count ``scale`` times as much in their prior.

        ``of_new_items`` is the same of items that are not in the data. 1 is the model as it is written above.
        """
        self.content_scale = None
        if scale != 1 or of_new_items != 1:
            one = self._zeros(1) + 1.0
            self.content_scale = torch.cat([torch.where(unrated, scale * one, one), of_new_items * one])

    @classmethod
    def has_standard_priors(cls) -> bool:
        """Whether u and v have the priors of this class, so that ratings in another unit are the same model."""
        names = ("prior_of_users", "prior_of_items", "above")
        return all(getattr(cls, name) is getattr(FactorModel, name) for name in names)

    @classmethod
    def tells_users(cls) -> bool:
        """Whether u has a prior of a subclass, which says more of a user without ratings than a mean of 0."""
        return cls.prior_of_users is not FactorModel.prior_of_users

    @classmethod
    def has_items_around_content(cls) -> bool:
        """Whether v has the prior of this class, around c m, so that v - c m is what ratings have added."""
        return cls.prior_of_items is FactorModel.prior_of_items

    # --- sites -------------------------------------------------------------------------------------------------------

    def sites_above(self, trace: Any) -> tuple[str, ...]:
        """Names of the sites that a trace of the story draws above u and v: all latent ones that are not known."""
        nodes = trace.nodes.items()
        latent = (name for name, site in nodes if site["type"] == "sample" and not site["is_observed"])
        return tuple(name for name in latent if name not in KNOWN_SITES and not site_is_subsample(trace.nodes[name]))

    @property
    def item_site(self) -> str:
        """The item site that is drawn: "v" when centred, "v_dagger" when not."""
        return "v" if self.parametrization == "centred" else "v_dagger"

    def factors_of_users(self, above: Above = NOTHING) -> Tensor:
        """Draw u, inside the plate "users"."""
        return pyro.sample("u", self.prior_of_users(above).distribution)

    def factors_of_items(self, m: Tensor, batch: Batch, above: Above = NOTHING) -> Tensor:
        """Draw v, or v_dagger and then v, inside the plate "items"; both are sites."""
        prior = self.prior_of_items(m, above, batch.items)
        if self.parametrization == "centred":
            v = pyro.sample("v", prior.distribution)
            pyro.deterministic("v_dagger", v - prior.loc, event_dim=1)
            return v
        own = NormalPrior(self._zeros(self.width), prior.precision)
        return pyro.deterministic("v", pyro.sample("v_dagger", own.distribution) + prior.loc, event_dim=1)

    def ratings_of(self, u: Tensor, v: Tensor, batch: Batch) -> None:
        """Observe R, inside the plate "items"."""
        likelihood = self.ratings.distribution(self.of_users(u), self.of_items(v), batch.columns)
        pyro.sample("R", likelihood, obs=batch.columns)

    @property
    def further_parameters(self) -> dict[str, nn.Parameter]:
        """What a subclass learns beside item prior, ratings and global mean, by name; gradients alone learn it."""
        others = {id(one) for part in (self.item_prior, self.ratings) for one in part.parameters()}
        named = ((name, one) for name, one in self.named_parameters() if id(one) not in others and one.requires_grad)
        return {name: one for name, one in named if one is not self.mean}

    # --- precisions --------------------------------------------------------------------------------------------------

    def precisions(self) -> dict[str, float]:
        """lambda_u, lambda_v and, with biases, kappa_u and kappa_v as they are now: given, found or learned."""
        names = ("lambda_u", "lambda_v", *(("kappa_u", "kappa_v") if self.mean is not None else ()))
        return {name: float(getattr(self, name)) for name in names}

    def set_precisions(self, lambda_u: float, lambda_v: float, lambda_b: float) -> None:
        """Other precisions of the priors; ``lambda_b`` counts where there are biases."""
        self.lambda_u, self.lambda_v = lambda_u, lambda_v
        if self.mean is not None:
            self.kappa_u, self.kappa_v = ((own / lambda_b) ** 0.5 for own in (lambda_u, lambda_v))

    @property
    def lambda_b(self) -> float:
        """Precision of the users' biases, which kappa_u holds; 1 where there are none."""
        return self.lambda_u / self.kappa_u**2

    # --- biases ------------------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Coordinates of u and v: the factors, and the bias where there are biases."""
        return self.n_factors + (self.mean is not None)

    def of_users(self, u: Tensor, constant: float | None = None) -> Tensor:
        """Users with what the items' biases are multiplied by: scores are products of these rows and :meth:`of_items`.

        Rows (u, b / kappa_u, kappa_v); ``constant`` in the place of kappa_v, 0 for standard deviations. Covariances
        (n_users, width, width) get a row and a column of it.
        """
        return self._wider(u, self.width, self.kappa_v if constant is None else constant)

    def of_items(self, v: Tensor, constant: float | None = None) -> Tensor:
        """Items likewise: rows (v, kappa_u, c / kappa_v)."""
        return self._wider(v, self.n_factors, self.kappa_u if constant is None else constant)

    def own(self, side: str, rows: Tensor) -> Tensor:
        """The inverse of :meth:`of_users` ("u") and :meth:`of_items` ("v")."""
        if self.mean is None:
            return rows
        free = [*range(self.n_factors), self.n_factors + (side == "v")]
        return rows[:, free] if rows.dim() == 2 else rows[:, free][:, :, free]

    def in_scores(self, side: str, q: Gaussians) -> Gaussians:
        """Q of users ("u") or items ("v") in rows whose products are scores, as :meth:`of_users` has them."""
        wider = self.of_users if side == "u" else self.of_items
        return q.mapped(wider, lambda part: wider(part, 0.0))

    def in_own(self, side: str, q: Gaussians) -> Gaussians:
        """The inverse of :meth:`in_scores`."""
        return q.mapped(partial(self.own, side), partial(self.own, side))

    def _wider(self, rows: Tensor, at: int, value: float) -> Tensor:
        if self.mean is None:
            return rows
        for dim in range(1, rows.dim()):
            before, after = rows.narrow(dim, 0, at), rows.narrow(dim, at, rows.shape[dim] - at)
            rows = torch.cat([before, torch.full_like(rows.narrow(dim, 0, 1), value), after], dim)
        return rows

    def _zeros(self, n: int) -> Tensor:
        return next(self.tensors_of_its_type()).new_zeros(n)

    @property
    def pseudo(self) -> bool:
        """Whether the content's likelihood has no normaliser; never where the story draws no content."""
        own: Any = self.item_prior
        return bool(own.generates and own.content.pseudo)

    def tensors_of_its_type(self) -> Any:
        """Parameters and buffers, for their type and device."""
        yield from (one for one in self.parameters() if one.is_floating_point())
        yield from (one for one in self.buffers() if one.is_floating_point())
        yield torch.zeros(0)
