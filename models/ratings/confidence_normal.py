r"""The paper's ratings likelihood: every cell Normal around u_i.v_j with the confidence C_ij as its precision.

    R_ij ~ N(u_i.v_j, 1 / C_ij),    C_ij = a where the pair is stored, b elsewhere             (paper, section 2.1)

A column costs O(K^2 + K n_stored), because with s_ij = u_i.v_j and the Gram matrix G = U'U

    sum_i C_ij (R_ij - s_ij)^2 = b v_j' G v_j + sum over stored of [c (r - s)^2 - b s^2].

C depends on R in the paper (a where R = 1), so that p(R) is no generative model of R. Here C is given first, as an
exposure mask; then R is drawn. A sample therefore holds real numbers, not zeros and ones.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pyro.distributions import Distribution, Normal, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from models.observations import RatingColumns
from models.ratings.base import RatingLikelihood
from pyro_cvae.errors import InputError


class ConfidenceNormal(RatingLikelihood):
    """R_ij ~ N(u_i.v_j, 1 / C_ij) with precision ``a`` on stored pairs and ``b`` on all other cells.

    ``a`` is the precision of a pair that states none, ``b`` >= 0 that of the background (0: cells that are not
    stored are missing). Raises InputError for other values. Source: paper, section 2.1.
    """

    conjugate: ClassVar[bool] = True

    def __init__(self, a: float = 1.0, b: float = 0.01) -> None:
        super().__init__()
        if not (0 < a < math.inf and 0 <= b < math.inf):
            raise InputError(f"the confidences a = {a:g}, b = {b:g} are no precisions", "use a > 0 and b >= 0")
        self.a, self.b = float(a), float(b)

    def distribution(self, u: Tensor, v: Tensor, columns: RatingColumns) -> NormalColumns:
        """The columns' distribution, see :class:`NormalColumns`."""
        return NormalColumns(u, v, columns, self.b)

    @property
    def background(self) -> float:
        """The precision ``b``."""
        return self.b

    def conjugate_site(self, u: Tensor, u_var: Tensor | None, columns: RatingColumns) -> tuple[Tensor, Tensor]:
        """The Gaussian factor exp E_q(U)[log p(R_j | U, v_j)] in v_j: its precision and precision times mean.

        Precision E[U C_j U'] = sum_i C_ij (u_i u_i' + diag(u_var_i)), (n_items, n_factors, n_factors); shift
        E[U] C_j R_j, (n_items, n_factors). Shapes: ``u``, ``u_var`` (n_users, n_factors), means and variances of
        q(u_i), ``None`` for a point. Source: paper, section 2.3.
        """
        gram = u.mT @ u
        stored = u[columns.users]
        outer = stored[:, :, None] * stored[:, None, :]
        if u_var is not None:
            gram = gram + torch.diag(u_var.sum(0))
            outer = outer + torch.diag_embed(u_var[columns.users])
        precision = (self.b * columns.observed.to(u.dtype))[:, None, None] * gram
        precision = precision.index_add(0, columns.items, (columns.confidences - self.b)[:, None, None] * outer)
        shift = u.new_zeros(len(columns), u.shape[1])
        return precision, shift.index_add(0, columns.items, (columns.confidences * columns.ratings)[:, None] * stored)


class NormalColumns(TorchDistribution):
    """Whole columns of Normal ratings, sparse: batch shape (n_items,), event shape (n_users,).

    Equal to the dense product of Normals over all users. ``columns`` gives the exposure: which cells are stored and
    with what precision. A value is a :class:`RatingColumns`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(self, u: Tensor, v: Tensor, columns: RatingColumns, b: float) -> None:
        self.u, self.v, self.columns, self.b = u, v, columns, b
        super().__init__(torch.Size(v.shape[:1]), torch.Size(u.shape[:1]), validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> NormalColumns:
        """Itself: a column belongs to one item, so only its own batch shape is possible."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"rating columns of batch shape {tuple(self.batch_shape)} cannot expand to {batch_shape}")
        return self

    def log_prob(self, value: RatingColumns) -> Tensor:
        """Log p(R_j | U, v_j) in nats, (n_items,)."""
        return self.log_normalizer(value).to(self.v.dtype) - self.half_square(value)

    def log_normalizer(self, value: RatingColumns) -> Tensor:
        """sum_i 1/2 log(C_ij / 2 pi) over the cells that are there, in float64, (n_items,).

        Apart, because it is about -25,000 nats an item on citeulike-t and would drown the rest in float32.
        """
        c = value.confidences.double()
        there = c > 0
        zero = torch.zeros(len(value), dtype=torch.float64, device=c.device)
        stored = value.indptr.diff().double()
        log_c = zero.index_add(0, value.items[there], c[there].log() - math.log(2 * math.pi))
        background = (value.n_users - stored) * (math.log(self.b / (2 * math.pi)) if self.b > 0 else 0.0)
        return torch.where(value.observed, 0.5 * (log_c + background), zero)

    def half_square(self, value: RatingColumns, u_var: Tensor | None = None, v_var: Tensor | None = None) -> Tensor:
        """E[1/2 sum_i C_ij (R_ij - u_i.v_j)^2] in nats, (n_items,).

        With no variances this is the plain quadratic form at ``u`` and ``v``. With ``u`` and ``v`` read as the means
        of independent Normals with variances ``u_var`` (n_users, n_factors) and ``v_var``, diagonal
        (n_items, n_factors) or full (n_items, n_factors, n_factors), it is the expectation, from
        E[s^2] = m_s^2 + m_u' S_v m_u + m_v' S_u m_v + tr(S_u S_v).
        """
        u, v, users, items = self.u, self.v, value.users, value.items
        gram = u.mT @ u
        if u_var is not None:
            gram = gram + torch.diag(u_var.sum(0))
        square = ((v @ gram) * v).sum(-1)
        stored_u, stored_v = u[users], v[items]
        score = (stored_u * stored_v).sum(-1)
        variance = torch.zeros_like(score)
        if u_var is not None:
            variance = variance + (u_var[users] * stored_v.square()).sum(-1)
        if v_var is not None and v_var.dim() == 2:
            square = square + v_var @ gram.diagonal()
            second = stored_u.square() if u_var is None else stored_u.square() + u_var[users]
            variance = variance + (second * v_var[items]).sum(-1)
        elif v_var is not None:
            square = square + (v_var * gram).sum((-1, -2))
            variance = variance + ((v_var[items] @ stored_u[..., None]).squeeze(-1) * stored_u).sum(-1)
            if u_var is not None:
                variance = variance + (u_var[users] * v_var.diagonal(dim1=-2, dim2=-1)[items]).sum(-1)
        residual = (value.ratings - score).square() + variance
        stored = value.confidences * residual - self.b * (score.square() + variance)
        return 0.5 * (self.b * square).index_add(0, items, stored) * value.observed

    def dense(self) -> Distribution:
        """The same over dense columns, for a few items; a missing cell is given the precision 1e-12."""
        _, confidences = self.columns.dense(self.b)
        return Normal(self.v @ self.u.mT, confidences.clamp(min=1e-12).rsqrt()).to_event(1)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> RatingColumns:
        """Draw every cell at its own precision, (n_items, n_users) stored cells: for checks on small data."""
        if len(sample_shape):
            raise NotImplementedError("draw columns one sample at a time")
        _, confidences = self.columns.dense(self.b)
        mean = self.v.detach() @ self.u.detach().mT
        noise = torch.randn_like(mean) / confidences.clamp(min=torch.finfo(mean.dtype).tiny).sqrt()
        n_items, n_users = mean.shape
        return RatingColumns(
            torch.arange(n_items + 1, device=mean.device) * n_users,
            torch.arange(n_users, device=mean.device).repeat(n_items),
            torch.where(confidences > 0, mean + noise, 0.0).flatten(),
            confidences.flatten(),
            self.columns.observed,
            n_users,
        )
