r"""The paper's ratings likelihood: every cell Normal around its score s_ij = u_i.v_j, with precision C_ij.

    R_ij ~ N(s_ij, 1 / C_ij),    C_ij = a where the pair is stored, b_j elsewhere              (paper, section 2.1)

The paper has b_j = b. With a ``b_power`` alpha the zeros of items that many have rated say more: they were seen and
left, while few may have met the others (He et al., SIGIR 2016, section 4.1),

    b_j = b n_j^alpha / mean of n^alpha over rated items,    n_j = number of ratings, at least 1.

A column costs O(K^2 + K n_stored), because with the Gram matrix G = U'U

    sum_i C_ij (R_ij - s_ij)^2 = b_j v_j' G v_j + sum over stored of [c (r - s)^2 - b_j s^2].

C depends on R in the paper (a where R = 1), so that p(R) is no generative model of R. Here C is given first, as an
exposure mask; then R is drawn. A sample therefore holds real numbers, not zeros and ones.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pyro.distributions import Distribution, TorchDistribution
from pyro.distributions import Normal as NormalDistribution
from torch import Tensor
from torch.distributions import constraints

from models.catalogue import MOST_POWER
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.ratings.base import GaussianSite, RatingLikelihood, mean_rating
from models.ratings.moments import Moments
from pyro_cvae.errors import InputError


class ConfidenceNormal(RatingLikelihood):
    """R_ij ~ N(s_ij, 1 / C_ij) with precision ``a`` on stored pairs and ``b`` on all other cells.

    ``a`` is the precision of a pair that states none, ``b`` >= 0 that of the background (0: cells that are not
    stored are missing), ``b_power`` the power of an item's number of ratings that it goes with. Raises InputError for
    other values. Source: paper, section 2.1.
    """

    conjugate: ClassVar[bool] = True
    weighs_zeros: ClassVar[bool] = True
    found_b: Tensor | None
    found_b_power: Tensor | None

    def __init__(self, a: float = 1.0, b: float = 0.01, b_power: float = 0.0) -> None:
        super().__init__()
        if not (0 < a < math.inf and 0 <= b < math.inf):
            raise InputError(f"the confidences a = {a:g}, b = {b:g} are no precisions", "use a > 0 and b >= 0")
        if not 0 <= b_power <= MOST_POWER:
            problem = f"b_power = {b_power:g} is no power of popularity"
            raise InputError(problem, f"use 0 to {MOST_POWER:g}")
        self.a, self._given_b, self._given_power = float(a), float(b), float(b_power)
        self.zeros = b > 0
        self.register_buffer("found_b", None)
        self.register_buffer("found_b_power", None)

    @property
    def b(self) -> float:
        """Precision of the cells that are not stored: given, or found by :meth:`weigh_zeros`."""
        return self._given_b if self.found_b is None else float(self.found_b)

    @b.setter
    def b(self, value: float) -> None:
        """The precision as it is given, for a subclass that sets it."""
        self._given_b = float(value)

    @property
    def b_power(self) -> float | None:
        """Power of an item's number of ratings that ``b`` goes with: given, or found by :meth:`weigh_zeros`.

        ``None`` where a subclass may not look at weights of zeros, and was given no power.
        """
        power = self._given_power if self.found_b_power is None else float(self.found_b_power)
        looks = self.keeps(ConfidenceNormal, "distribution", "expected_log_prob", "constant", "site")
        return power if power or looks else None

    def weigh_zeros(self, b: float, b_power: float | None = None) -> None:
        """Another precision of the background, and another power of popularity where it is told."""
        self.found_b = None if b == self._given_b else torch.tensor(b, dtype=torch.float64)
        if b_power is not None:
            other = b_power != self._given_power
            self.found_b_power = torch.tensor(b_power, dtype=torch.float64) if other else None

    def zero_weights(self, counts: Tensor) -> Tensor | None:
        """n_j^alpha of mean 1 over rated items; items without ratings count as those with one."""
        if not self.b_power:
            return None
        powers = counts.clamp(min=1).double() ** self.b_power
        return powers / powers[counts > 0].mean()

    def cell(self, score: Tensor, confidence: Tensor) -> Distribution:
        """A Normal of precision C_ij."""
        return NormalDistribution(score, confidence.rsqrt())

    def distribution(self, u: Tensor, v: Tensor, columns: RatingColumns) -> NormalColumns:
        """The columns' distribution, see :class:`NormalColumns`."""
        return NormalColumns(u, v, columns, self.b)

    @property
    def background(self) -> float:
        """The precision ``b``."""
        return self.b

    @property
    def default_confidence(self) -> float:
        """The precision ``a``."""
        return self.a

    @property
    def noise_precision(self) -> float | None:
        """1: confidences are precisions. Of a subclass with another density nothing is known."""
        return 1.0 if self.keeps(ConfidenceNormal, "cell", "site") else None

    def expected_log_prob(self, moments: Moments, columns: RatingColumns) -> Tensor:
        """-E[1/2 sum_i C_ij (R_ij - s_ij)^2], (n_items,)."""
        return -expected_half_square(moments, columns, self.b)

    def constant(self, columns: RatingColumns) -> Tensor:
        """The normaliser, sum over cells of 1/2 log(C_ij / 2 pi) (6.65e8 nats in all on citeulike-t)."""
        nothing = torch.zeros(columns.n_users, 1), torch.zeros(len(columns), 1)
        return NormalColumns(*nothing, columns, self.b).log_normalizer(columns)

    def site(self, columns: RatingColumns, second: Tensor | None = None) -> GaussianSite:
        """Precisions C_ij, shifts C_ij R_ij; the background b_j."""
        c = columns.confidences
        return GaussianSite(c, c * columns.ratings, self.b, zero_weights=columns.zero_weights)

    def initial_mean(self, columns: RatingColumns) -> float:
        """The mean rating."""
        return mean_rating(self, columns)

    def units(self, columns: RatingColumns) -> tuple[float, float]:
        """``a``, and the mean square of the stored ratings, weighted by C: 1 of clicks."""
        weight = columns.confidences.double()
        square = (weight * columns.ratings.double().square()).sum() / weight.sum().clamp(min=1e-300)
        return self.a, float(square) or 1.0


def expected_half_square(moments: Moments, columns: RatingColumns, b: float) -> Tensor:
    """E[1/2 sum_i C_ij (R_ij - s_ij)^2] in nats under q(U) q(V), (n_items,), cells that are not stored at ``b``."""
    square = moments.square(moments.gram())
    score, variance = moments.scores(columns.users, columns.items)
    residual = (columns.ratings - score).square() + variance
    zeros = columns.zeros(b).to(square)
    stored = columns.confidences * residual - zeros[columns.items] * (score.square() + variance)
    return 0.5 * (zeros * square).index_add(0, columns.items, stored) * columns.observed


def gaussian_factors(site: GaussianSite, users: Gaussians, columns: RatingColumns) -> tuple[Tensor, Tensor]:
    """Exp E_q(U)[log p(R_j | U, v_j)] under a site as a Gaussian in each v_j: precision, and precision times mean.

    Of precisions C these are E[U C_j U'] (n_items, width, width) and E[U] C_j R_j (n_items, width). Source: paper,
    section 2.3.
    """
    zero, seen = site.zero_precision, columns.observed.to(users.loc.dtype)
    gram = users.second_moment(zero) if isinstance(zero, Tensor) else zero * users.second_moment()
    stored = users.loc[columns.users]
    outer = stored[:, :, None] * stored[:, None, :]
    if not users.is_point:
        outer = outer + users.covariances(columns.users)
    weights, targets = site.precision - site.zeros_at(columns), site.shift - site.zero_shift
    of_zeros = seen if site.zero_weights is None else seen * site.zero_weights.to(seen)
    precision = (of_zeros[:, None, None] * gram).index_add(0, columns.items, weights[:, None, None] * outer)
    shift = seen[:, None] * (site.zero_shift * users.loc.sum(0))
    return precision, shift.index_add(0, columns.items, targets[:, None] * stored)


class NormalColumns(TorchDistribution):
    """Whole columns of Normal ratings, sparse: batch shape (n_items,), event shape (n_users,).

    Equal to the dense product of Normals over all users. ``columns`` gives the exposure: which cells are stored and
    with what precision, times ``tau`` (). A value is a :class:`RatingColumns`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, u: Tensor, v: Tensor, columns: RatingColumns, b: float, tau: Tensor | None = None) -> None:
        self.u, self.v, self.columns, self.b, self.tau = u, v, columns, b, tau
        super().__init__(torch.Size(v.shape[:1]), torch.Size(u.shape[:1]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> NormalColumns:
        """Itself: a column belongs to one item, so only its own batch shape is possible."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"rating columns of batch shape {tuple(self.batch_shape)} cannot expand to {batch_shape}")
        return self

    def log_prob(self, value: RatingColumns) -> Tensor:
        """Log p(R_j | U, v_j) in nats, (n_items,)."""
        return self.log_normalizer(value).to(self.v.dtype) - self.half_square(value) + self.log_tau(value)

    def log_tau(self, value: RatingColumns) -> Tensor:
        """1/2 log(tau) for every cell that is there, (n_items,)."""
        if self.tau is None:
            return self.v.new_zeros(len(value))
        n_cells = self.v.new_zeros(len(value)).index_add(0, value.items, (value.confidences > 0).to(self.v.dtype))
        if self.b > 0:
            n_cells = n_cells + (value.n_users - value.indptr.diff())
        return 0.5 * self.tau.log() * n_cells * value.observed

    def log_normalizer(self, value: RatingColumns) -> Tensor:
        """sum_i 1/2 log(C_ij / 2 pi) over the cells that are there, in float64, (n_items,).

        Apart, because it is about -25,000 nats an item on citeulike-t and would drown the rest in float32.
        """
        c = value.confidences.double()
        there = c > 0
        zero = torch.zeros(len(value), dtype=torch.float64, device=c.device)
        stored = value.indptr.diff().double()
        log_c = zero.index_add(0, value.items[there], c[there].log() - math.log(2 * math.pi))
        b = value.zeros(self.b)
        background = (value.n_users - stored) * torch.where(b > 0, b / (2 * math.pi), 1.0).log()
        return torch.where(value.observed, 0.5 * (log_c + background), zero)

    def half_square(self, value: RatingColumns) -> Tensor:
        """1/2 sum_i C_ij (R_ij - s_ij)^2 in nats, (n_items,)."""
        found = expected_half_square(Moments(Gaussians(self.u), Gaussians(self.v)), value, self.b)
        return found if self.tau is None else self.tau * found

    def _precisions(self) -> Tensor:
        """Of every cell, 0 where it is missing, (n_items, n_users)."""
        _, confidences = self.columns.dense(self.b)
        return confidences if self.tau is None else confidences * self.tau.detach()

    def dense(self) -> Distribution:
        """The same over dense columns, for a few items; a missing cell has no density."""
        precision = self._precisions()
        there = precision > 0
        cells = NormalDistribution(self.v @ self.u.mT, torch.where(there, precision, 1.0).rsqrt())
        return cells.mask(there).to_event(1)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> RatingColumns:
        """Draw every cell at its own precision, (n_items, n_users) stored cells: for checks on small data."""
        if len(sample_shape):
            raise NotImplementedError("draw columns one sample at a time")
        _, confidences = self.columns.dense(self.b)
        mean = self.v.detach() @ self.u.detach().mT
        noise = torch.randn_like(mean) / self._precisions().clamp(min=torch.finfo(mean.dtype).tiny).sqrt()
        n_items, n_users = mean.shape
        return RatingColumns(
            torch.arange(n_items + 1, device=mean.device) * n_users,
            torch.arange(n_users, device=mean.device).repeat(n_items),
            torch.where(confidences > 0, mean + noise, 0.0).flatten(),
            confidences.flatten(),
            self.columns.observed,
            n_users,
            zero_weights=self.columns.zero_weights,
        )
