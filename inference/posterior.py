"""What a fit knows: means, covariances, draws and scores with their standard deviations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inference.estimates import check_draws
from models.gaussians import Gaussians, scores_of_pairs
from pyro_cvae.errors import InputError

ABOVE = "above."
"""How the names of stored tensors of the sites above u and v begin."""
SIDES, MOMENTS = ("u", "v", "z"), ("loc", "scale", "covariance", "block")
"""What the names of all other stored tensors of rows are made of, as in ``u_loc``."""
PAIRS_AT_ONCE = 8192
ROWS_AT_ONCE = 2048
"""Items whose moments are looked at at once."""
FLOATS_AT_ONCE = 2**25


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(U) q(V) q(Z) after a fit: "point" estimates of u and v, "mean-field", "full" covariances, or "structured".

    Shapes: ``u`` (n_users, n_factors), ``v`` and ``z`` (n_items, n_factors). Rows without a training rating share
    a full covariance. In a structured posterior z is the parent of v:

        v | z ~ N(E[v] + A (z - E[z]), S),    A = lambda_v S,    so that cov(v) = S + A cov(z) A'.

    With biases the rows of u and v have two coordinates more than those of z, so that a score is u.v as ever:
    u = (u, b / kappa_u, kappa_v) and v = (v, kappa_u, c / kappa_v), see :mod:`models.cvae`. What kappa_u and kappa_v
    stand for has no variance. ``v_pad`` (2,) is what an item of which nothing but z is known has there.

    Where the model reads no content (``has_content`` false) z is 0, known for certain, and is not stored. ``above`` are
    the model's sites above u and v: ``name_loc`` and, unless points, ``name_scale``, each of the site's own shape.
    ``content_scale`` (n_items,) is c_j where v_j lies around c_j z_j; ``None``: 1 for all. With ``tells_users``, which
    is not stored, the model has a prior of u of its own, by which users without training pairs are ranked.
    """

    kind: str
    u: Gaussians
    v: Gaussians
    z: Gaussians
    lambda_v: float = 1.0
    parametrization: str = "centred"
    v_pad: Tensor | None = None
    has_content: bool = True
    above: dict[str, Tensor] = field(default_factory=dict)
    content_scale: Tensor | None = None
    tells_users: bool = False

    @property
    def u_loc(self) -> Tensor:
        """Means of u, (n_users, n_factors)."""
        return self.u.loc

    @property
    def v_loc(self) -> Tensor:
        """Means of v, (n_items, n_factors)."""
        return self.v.loc

    @property
    def z_loc(self) -> Tensor:
        """Means of z, (n_items, n_factors)."""
        return self.z.loc

    @property
    def u_scale(self) -> Tensor | None:
        """Standard deviations of u, (n_users, n_factors); ``None`` of points and of full covariances."""
        return self.u.scale

    @property
    def v_scale(self) -> Tensor | None:
        """Standard deviations of v, (n_items, n_factors), likewise."""
        return self.v.scale

    @property
    def z_scale(self) -> Tensor:
        """Standard deviations of z, (n_items, n_factors)."""
        scale = self.z.scale
        assert scale is not None
        return scale

    @property
    def n_factors(self) -> int:
        """Number of latent factors, biases not counted."""
        return self.z.loc.shape[1]

    @property
    def is_point(self) -> bool:
        """True if u and v are points, so that no uncertainty can be asked for."""
        return self.kind == "point"

    def mean(self, name: str) -> Tensor:
        """Posterior mean of "u", "v", "z" or "v_dagger" = v - z, a row each."""
        if name == "v_dagger":
            return self.v.loc - self.around(self._scaled(self.z.loc))
        if name not in SIDES:
            raise InputError(f"no latent variable is called {name!r}", "ask for u, v, z or v_dagger")
        return getattr(self, name).loc

    def around(self, z: Tensor) -> Tensor:
        """Prior mean of v given c z (n_rows, n_factors), as wide as v."""
        return z if self.v_pad is None else torch.cat([z, self.v_pad.expand(len(z), 2)], -1)

    def _scaled(self, z: Tensor) -> Tensor:
        """C z of the items' z, (..., n_items, n_factors)."""
        return z if self.content_scale is None else self.content_scale[:, None] * z

    def biases(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Mean and standard deviation of "user" (n_users,) and "item" (n_items,) biases; empty without them.

        The global mean is in the items' biases. A point has no standard deviation.
        """
        if self.v_pad is None:
            return {}
        kappa_u, kappa_v = self.v_pad[0], self.u.loc[0, -1]
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, rows, kappa, at in (("user", self.u, kappa_u, -2), ("item", self.v, kappa_v, -1)):
            found[name] = kappa * rows.loc[:, at], None if rows.is_point else kappa * rows.variances()[:, at].sqrt()
        return found

    def covariance(self, name: str, rows: Any) -> Tensor:
        """Posterior covariance of the rows of "u", "v" or "z", (n_rows, n_factors, n_factors)."""
        if name != "z":
            self._need_uncertainty()
        if name not in SIDES:
            raise InputError(f"no covariance is kept of {name!r}", "ask for u, v or z")
        return getattr(self, name).covariances(torch.as_tensor(rows))

    def select(self, users: Any = None, items: Any = None) -> Posterior:
        """The posterior of some rows of users and items alone, in the order given; ``None`` keeps them all.

        Draws, scores and covariances of a few rows then cost no more than these rows.
        """
        asked = {"u": users, "v": items, "z": items}
        chosen = {name: torch.as_tensor(rows) for name, rows in asked.items() if rows is not None}
        found: dict[str, Any] = {name: getattr(self, name).select(rows) for name, rows in chosen.items()}
        if items is not None and self.content_scale is not None:
            found["content_scale"] = self.content_scale[chosen["v"]]
        return replace(self, **found)

    def sample(self, n: int, seed: int) -> dict[str, Tensor]:
        """``n`` joint draws of "u", "v", "z" and "v_dagger" = v - z, each (n, n_rows, n_factors).

        Of a point, u and v are the point. The non-centred program draws v_dagger, the centred one v: with both, draws
        mean the same in either. With biases u and v have coordinates that no site has: see ``Fit.draw_sites``.
        """
        check_draws(n, 5 * (len(self.u) + len(self.v)) * self.u.loc.shape[1], "draws of so many rows")
        drawn = next(self.draws(n, seed, n))
        around = self._scaled(drawn["z"])
        if self.v_pad is not None:
            around = torch.cat([around, self.v_pad.expand(*around.shape[:2], 2)], -1)
        return drawn | {"v_dagger": drawn["v"] - around}

    def draws(self, n: int, seed: int, at_once: int = 32) -> Iterator[dict[str, Tensor]]:
        """The same, ``at_once`` draws after the other: what is asked of many draws need not hold them all."""
        generator = torch.Generator().manual_seed(seed)
        roots = {name: getattr(self, name).root() for name in SIDES}
        if (own := self.own_variance()) is not None:
            roots["v"] = own.sqrt()
        for start in range(0, n, at_once):
            yield self._draw(min(at_once, n - start), generator, roots)

    def _draw(self, n: int, generator: torch.Generator, roots: dict[str, Tensor | None]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name in ("z", "u", "v"):
            rows, root = getattr(self, name), roots[name]
            shape = (n, *rows.loc.shape)
            if root is None:
                found[name] = rows.loc.expand(shape)
            else:
                noise = torch.randn(shape, generator=generator, dtype=rows.loc.dtype)
                found[name] = rows.moved(noise, root)
        if self.v.spread is not None:
            found["v"] = found["v"] + self.v.along(found["z"] - self.z.loc)
        elif self._is_sum:
            found["v"] = found["v"] + self._as_wide_as_v(self._scaled(found["z"] - self.z.loc))
        return found

    @property
    def _is_sum(self) -> bool:
        return self.parametrization != "centred" and self.v.variance is not None

    def own_variance(self) -> Tensor | None:
        """Variance of v_dagger = v - z, (n_items, n_factors), where v is their sum: the non-centred mean field."""
        if not self._is_sum or self.v.variance is None or self.z.variance is None:
            return None
        of_z = self._scaled(self._scaled(self.z.variance))
        return (self.v.variance - self._as_wide_as_v(of_z)).clamp(min=0)

    def _as_wide_as_v(self, z: Tensor) -> Tensor:
        return F.pad(z, (0, self.v.loc.shape[1] - self.n_factors))

    def score_block(self, users: Any) -> Tensor:
        """Posterior mean scores E[u_i].E[v_j] of a block of users over all items, (n_block, n_items)."""
        return self.u.loc[torch.as_tensor(users)] @ self.v.loc.mT

    def mean_score(self, users: Any, items: Any) -> Tensor:
        """E[u_i].E[v_j] of pairs; ``users`` and ``items`` broadcast against each other."""
        return (self.u.loc[torch.as_tensor(users)] * self.v.loc[torch.as_tensor(items)]).sum(-1)

    def score(self, users: Any, items: Any) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of u_i.v_j of pairs; ``users`` and ``items`` broadcast.

        u and v are independent in q. Raises InputError for a point estimate.
        """
        self._need_uncertainty()
        users, items = torch.broadcast_tensors(torch.as_tensor(users), torch.as_tensor(items))
        pairs = zip(users.flatten().split(PAIRS_AT_ONCE), items.flatten().split(PAIRS_AT_ONCE), strict=True)
        means, variances = zip(*(scores_of_pairs(self.u, self.v, *part) for part in pairs), strict=True)
        return torch.cat(means).view(users.shape), torch.cat(variances).sqrt().view(users.shape)

    def score_draws(self, users: Any, items: Any, n: int, seed: int) -> Tensor:
        """``n`` joint draws of u_i.v_j of pairs, (n, *pairs); ``users`` and ``items`` broadcast against each other."""
        users, items = torch.broadcast_tensors(torch.as_tensor(users), torch.as_tensor(items))
        user_rows, user_at = users.flatten().unique(return_inverse=True)
        item_rows, item_at = items.flatten().unique(return_inverse=True)
        check_draws(n, 2 * users.numel(), "draws of the scores of so many pairs")
        floats = (len(user_rows) + 2 * len(item_rows) + 2 * users.numel()) * self.u.loc.shape[1]
        parts = self.select(user_rows, item_rows).draws(n, seed, max(1, FLOATS_AT_ONCE // floats))
        scores = [torch.einsum("npk,npk->np", part["u"][:, user_at], part["v"][:, item_at]) for part in parts]
        return torch.cat(scores).view(n, *users.shape)

    def _need_uncertainty(self) -> None:
        if self.is_point:
            raise InputError("a MAP fit is a point and has no uncertainty", "fit with --mode bayes")

    def tensors(self) -> dict[str, Tensor]:
        """Everything to be saved, by name; users' tensors start with ``u_``."""
        found: dict[str, Tensor | None] = {}
        for side in SIDES if self.has_content else SIDES[:2]:
            rows = getattr(self, side)
            found |= {f"{side}_{moment}": getattr(rows, moment) for moment in MOMENTS}
        found |= {"v_pad": self.v_pad, "content_scale": self.content_scale}
        found |= {"lambda_v": torch.tensor(self.lambda_v, dtype=torch.float64)}
        found |= {f"{ABOVE}{name}": tensor for name, tensor in self.above.items()}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, kind: str, tensors: dict[str, Tensor], parametrization: str = "centred") -> Posterior:
        """The inverse of :meth:`tensors`; other names are left alone."""
        u, v = (_rows_in(tensors, side) for side in "uv")
        v_pad, lambda_v, has_content = tensors.get("v_pad"), float(tensors["lambda_v"]), "z_loc" in tensors
        if has_content:
            z = _rows_in(tensors, "z")
        else:
            nothing = no_content(len(v), v.loc.shape[1] - (0 if v_pad is None else 2), v.loc)
            z = Gaussians(nothing, nothing)
        if kind == "structured":
            assert z.variance is not None
            v = replace(v, spread=F.pad(z.variance, (0, v.loc.shape[1] - z.loc.shape[1])), slope=lambda_v)
        scale = tensors.get("content_scale")
        return cls(kind, u, v, z, lambda_v, parametrization, v_pad, has_content, above_in(tensors), scale)

    def detached(self) -> Posterior:
        """A copy in main memory that no gradient follows, as it would be read from a file."""
        moved = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors().items()}
        return replace(self.from_tensors(self.kind, moved, self.parametrization), tells_users=self.tells_users)


def _rows_in(tensors: dict[str, Tensor], side: str) -> Gaussians:
    """The rows of "u", "v" or "z" among stored tensors."""
    loc, scale, covariance, block = (tensors.get(f"{side}_{name}") for name in MOMENTS)
    assert loc is not None
    return Gaussians(loc, None if scale is None else scale.square(), covariance, block)


def no_content(n_items: int, n_factors: int, like: Tensor) -> Tensor:
    """The z of a model that reads no content, (n_items, n_factors): zeros that take no room."""
    return like.new_zeros(1, 1).expand(n_items, n_factors)


def above_in(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of stored tensors those of the sites above u and v."""
    return {name.removeprefix(ABOVE): tensor for name, tensor in tensors.items() if name.startswith(ABOVE)}


def flat_above(sites: dict[str, tuple[Tensor, Tensor | None]]) -> dict[str, Tensor]:
    """Means and standard deviations of sites (``None`` for points) as a posterior holds them."""
    found = {f"{name}_loc": loc for name, (loc, _) in sites.items()}
    return found | {f"{name}_scale": scale for name, (_, scale) in sites.items() if scale is not None}


def content_diagnostics(loc: Tensor, scale: Tensor, n_draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Is the content alive? KL and mutual information in nats, active units.

    - ``kl``: mean over items of KL(q(z|x) || p(z));
    - ``active_units``: eigenvalues of the covariance of the means of q(z|x) over items above 0.01;
    - ``active_axes``: units whose own variance of the mean is above 0.01 (Burda et al., ICLR 2016);
    - ``mutual_information``: I(x; z) under q, E log q(z|x) - E log q(z) with q(z) the mixture over all items, by
      ``n_draws`` draws; at most log n_items. Source: Hoffman and Johnson, ELBO surgery, 2016.

    Shapes: ``loc``, ``scale`` (n_items, n_factors).
    """
    loc, scale = loc.cpu(), scale.cpu()
    kl = 0.0
    for part in range(0, len(loc), ROWS_AT_ONCE):
        m, s = (moment[part : part + ROWS_AT_ONCE] for moment in (loc, scale))
        kl += float((0.5 * (m.square() + s.square() - 1) - s.log()).sum(dtype=torch.float64))
    covariance = _covariance(loc)
    found = {
        "kl": kl / len(loc),
        "active_units": float((torch.linalg.eigvalsh(covariance) > 0.01).sum()),
        "active_axes": float((covariance.diagonal() > 0.01).sum()),
    }
    if n_draws:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(loc), (n_draws,), generator=generator)
        noise = torch.randn(n_draws, loc.shape[1], generator=generator, dtype=torch.float64)
        z = loc[rows] + scale[rows] * noise
        own = -0.5 * noise.square().sum(-1) - scale[rows].double().log().sum(-1)
        found["mutual_information"] = float((own - _log_mixture(z, loc, scale)).mean())
    return found


def _covariance(rows: Tensor) -> Tensor:
    """Covariance of rows, (width, width): in float64 sums of products of some rows in their own type, around 0 mean."""
    mean = rows.double().mean(0).to(rows.dtype)
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for part in rows.split(ROWS_AT_ONCE):
        away = part - mean
        total += away.mT @ away
    return total / (len(rows) - 1)


def _log_mixture(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log 1/n sum_j N(z; loc_j, scale_j^2) without K/2 log(2 pi), in blocks of components, float64."""
    half_square, found = -0.5 * z.square(), z.new_full((len(z),), -torch.inf)
    for part in range(0, len(loc), ROWS_AT_ONCE):
        m, s = (moment[part : part + ROWS_AT_ONCE].double() for moment in (loc, scale))
        precision = s.square().reciprocal()
        offset = 0.5 * (m.square() * precision).sum(-1) + s.log().sum(-1)
        block = half_square @ precision.mT + z @ (m * precision).mT - offset
        found = torch.logaddexp(found, torch.logsumexp(block, -1))
    return found - np.log(len(loc))
