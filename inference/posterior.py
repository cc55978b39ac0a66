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
from pyro_cvae.errors import InputError

ABOVE = "above."
"""How the names of stored tensors of the sites above u and v begin."""
PAIRS_AT_ONCE = 8192
COVARIANCES_AT_ONCE = 2**22
FLOATS_AT_ONCE = 2**25


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(U) q(V) q(Z) after a fit: "point" estimates of u and v, "mean-field", "full" covariances, or "structured".

    Shapes: ``u_loc`` (n_users, n_factors); ``v_loc``, ``z_loc``, ``z_scale`` (n_items, n_factors); ``u_scale`` and
    ``v_scale`` standard deviations of diagonal Normals. Full covariances are ``u_covariance`` and ``v_covariance``
    (n_blocks, n_factors, n_factors) with each row's block ``u_block`` (n_users,) and ``v_block`` (n_items,): rows
    without a training rating share one. A structured posterior has in ``v_covariance`` the covariances S of v given z:

        v | z ~ N(v_loc + A (z - z_loc), S),    A = lambda_v S,    so that cov(v) = S + A diag(z_scale^2) A'.

    With biases the rows of u and v have two coordinates more than those of z, so that a score is u.v as ever:
    u = (u, b / kappa_u, kappa_v) and v = (v, kappa_u, c / kappa_v), see :mod:`models.cvae`. What kappa_u and kappa_v
    stand for has no variance. ``v_pad`` (2,) is what an item of which nothing but z is known has there.

    Where the model reads no content (``has_content`` false) z is 0, known for certain, and is not stored. ``above`` are
    the model's sites above u and v: ``name_loc`` and, unless points, ``name_scale``, each of the site's own shape.
    """

    kind: str
    u_loc: Tensor
    v_loc: Tensor
    z_loc: Tensor
    z_scale: Tensor
    u_scale: Tensor | None = None
    v_scale: Tensor | None = None
    u_covariance: Tensor | None = None
    u_block: Tensor | None = None
    v_covariance: Tensor | None = None
    v_block: Tensor | None = None
    lambda_v: float = 1.0
    parametrization: str = "centred"
    v_pad: Tensor | None = None
    has_content: bool = True
    above: dict[str, Tensor] = field(default_factory=dict)

    @property
    def n_factors(self) -> int:
        """Number of latent factors, biases not counted."""
        return self.z_loc.shape[1]

    @property
    def is_point(self) -> bool:
        """True if u and v are points, so that no uncertainty can be asked for."""
        return self.kind == "point"

    def mean(self, name: str) -> Tensor:
        """Posterior mean of "u", "v", "z" or "v_dagger" = v - z, a row each."""
        if name == "v_dagger":
            return self.v_loc - self.around(self.z_loc)
        if name not in ("u", "v", "z"):
            raise InputError(f"no latent variable is called {name!r}", "ask for u, v, z or v_dagger")
        return getattr(self, f"{name}_loc")

    def around(self, z: Tensor) -> Tensor:
        """Prior mean of v given z (n_rows, n_factors), as wide as v."""
        return z if self.v_pad is None else torch.cat([z, self.v_pad.expand(len(z), 2)], -1)

    def biases(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Mean and standard deviation of "user" (n_users,) and "item" (n_items,) biases; empty without them.

        The global mean is in the items' biases. A point has no standard deviation.
        """
        if self.v_pad is None:
            return {}
        kappa_u, kappa_v = self.v_pad[0], self.u_loc[0, -1]
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, side, kappa, at in (("user", "u", kappa_u, -2), ("item", "v", kappa_v, -1)):
            loc = kappa * getattr(self, f"{side}_loc")[:, at]
            rows = torch.arange(len(loc)).split(COVARIANCES_AT_ONCE // self.u_loc.shape[1] ** 2)
            sd = None
            if not self.is_point:
                sd = kappa * torch.cat([self.covariance(side, part)[:, at, at] for part in rows]).sqrt()
            found[name] = loc, sd
        return found

    def covariance(self, name: str, rows: Any) -> Tensor:
        """Posterior covariance of the rows of "u", "v" or "z", (n_rows, n_factors, n_factors)."""
        rows = torch.as_tensor(rows)
        if name == "z":
            return torch.diag_embed(self.z_scale[rows].square())
        self._need_uncertainty()
        if name not in ("u", "v"):
            raise InputError(f"no covariance is kept of {name!r}", "ask for u, v or z")
        scale = self.u_scale if name == "u" else self.v_scale
        if scale is not None:
            return torch.diag_embed(scale[rows].square())
        own = self._given_content(name, rows)
        if name == "u" or self.kind != "structured":
            return own
        slope = self.lambda_v * own[..., : self.n_factors]
        return own + (slope * self.z_scale[rows].square()[..., None, :]) @ slope.mT

    def _given_content(self, name: str, rows: Tensor) -> Tensor:
        """Covariance blocks of the rows of "u" or "v", of a structured posterior those of v given z."""
        covariance, block = (self.u_covariance, self.u_block) if name == "u" else (self.v_covariance, self.v_block)
        return covariance[block[rows]]  # type: ignore[index]

    def select(self, users: Any = None, items: Any = None) -> Posterior:
        """The posterior of some rows of users and items alone, in the order given; ``None`` keeps them all.

        Draws, scores and covariances of a few rows then cost no more than these rows.
        """
        parts: dict[str, Any] = {}
        for names, rows in (("u", users), ("vz", items)):
            if rows is None:
                continue
            rows = torch.as_tensor(rows)
            for name in names:
                parts |= {f"{name}_loc": getattr(self, f"{name}_loc")[rows]}
                if (scale := getattr(self, f"{name}_scale")) is not None:
                    parts[f"{name}_scale"] = scale[rows]
                if (block := getattr(self, f"{name}_block", None)) is not None:
                    blocks, parts[f"{name}_block"] = block[rows].unique(return_inverse=True)
                    parts[f"{name}_covariance"] = getattr(self, f"{name}_covariance")[blocks]
        return replace(self, **parts)

    def sample(self, n: int, seed: int) -> dict[str, Tensor]:
        """``n`` joint draws of "u", "v", "z" and "v_dagger" = v - z, each (n, n_rows, n_factors).

        Of a point, u and v are the point. The non-centred program draws v_dagger, the centred one v: with both, draws
        mean the same in either. With biases u and v have coordinates that no site has: see ``Fit.draw_sites``.
        """
        check_draws(n, 5 * (len(self.u_loc) + len(self.v_loc)) * self.u_loc.shape[1], "draws of so many rows")
        drawn = next(self.draws(n, seed, n))
        around = drawn["z"]
        if self.v_pad is not None:
            around = torch.cat([around, self.v_pad.expand(*around.shape[:2], 2)], -1)
        return drawn | {"v_dagger": drawn["v"] - around}

    def draws(self, n: int, seed: int, at_once: int = 32) -> Iterator[dict[str, Tensor]]:
        """The same, ``at_once`` draws after the other: what is asked of many draws need not hold them all."""
        generator = torch.Generator().manual_seed(seed)
        tril = {
            name: _tril(covariance)
            for name, covariance in (("u", self.u_covariance), ("v", self.v_covariance))
            if covariance is not None
        }
        for start in range(0, n, at_once):
            yield self._draw(min(at_once, n - start), generator, tril)

    def _draw(self, n: int, generator: torch.Generator, tril: dict[str, Tensor]) -> dict[str, Tensor]:
        def noise(loc: Tensor) -> Tensor:
            return torch.randn((n, *loc.shape), generator=generator, dtype=loc.dtype)

        def correlated(name: str, loc: Tensor, block: Tensor | None) -> Tensor:
            return torch.einsum("rkl,nrl->nrk", tril[name][block], noise(loc))  # matmul would copy the factors n times

        z = self.z_loc + self.z_scale * noise(self.z_loc)
        if self.is_point:
            return {"u": self.u_loc.expand(n, -1, -1), "v": self.v_loc.expand(n, -1, -1), "z": z}
        if self.u_scale is not None:
            u = self.u_loc + self.u_scale * noise(self.u_loc)
        else:
            u = self.u_loc + correlated("u", self.u_loc, self.u_block)
        if self.v_covariance is not None:
            v = self.v_loc + correlated("v", self.v_loc, self.v_block)
            if self.kind == "structured":
                slope = self.lambda_v * self._given_content("v", torch.arange(len(self.v_loc)))[..., : self.n_factors]
                v = v + torch.einsum("rkl,nrl->nrk", slope, z - self.z_loc)
            return {"u": u, "v": v, "z": z}
        assert self.v_scale is not None
        if self.parametrization == "centred":
            return {"u": u, "v": self.v_loc + self.v_scale * noise(self.v_loc), "z": z}
        wider = (0, self.v_loc.shape[1] - self.n_factors)
        own = (self.v_scale.square() - F.pad(self.z_scale.square(), wider)).clamp(min=0).sqrt()
        return {"u": u, "v": self.v_loc + F.pad(z - self.z_loc, wider) + own * noise(self.v_loc), "z": z}

    def score_block(self, users: Any) -> Tensor:
        """Posterior mean scores E[u_i].E[v_j] of a block of users over all items, (n_block, n_items)."""
        return self.u_loc[torch.as_tensor(users)] @ self.v_loc.mT

    def mean_score(self, users: Any, items: Any) -> Tensor:
        """E[u_i].E[v_j] of pairs; ``users`` and ``items`` broadcast against each other."""
        return (self.u_loc[torch.as_tensor(users)] * self.v_loc[torch.as_tensor(items)]).sum(-1)

    def score(self, users: Any, items: Any) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of u_i.v_j of pairs; ``users`` and ``items`` broadcast.

        var(u.v) = m_u' S_v m_u + m_v' S_u m_v + tr(S_u S_v), u and v being independent in q. Raises InputError for a
        point estimate.
        """
        self._need_uncertainty()
        users, items = torch.broadcast_tensors(torch.as_tensor(users), torch.as_tensor(items))
        diagonal = self.u_scale is not None and self.v_scale is not None
        at_once = PAIRS_AT_ONCE if diagonal else max(1, COVARIANCES_AT_ONCE // self.u_loc.shape[1] ** 2)
        if users.numel() > at_once:
            pairs = zip(users.flatten().split(at_once), items.flatten().split(at_once), strict=True)
            means, sds = zip(*(self.score(u, i) for u, i in pairs), strict=True)
            return torch.cat(means).view(users.shape), torch.cat(sds).view(users.shape)
        u, v = self.u_loc[users], self.v_loc[items]
        if self.u_scale is not None and self.v_scale is not None:
            u_var, v_var = self.u_scale[users].square(), self.v_scale[items].square()
            variance = (u.square() * v_var + v.square() * u_var + u_var * v_var).sum(-1)
        else:
            u_cov, v_cov = self.covariance("u", users), self.covariance("v", items)
            variance = ((v_cov @ u[..., None]).squeeze(-1) * u).sum(-1) + (u_cov * v_cov).sum((-1, -2))
            variance = variance + ((u_cov @ v[..., None]).squeeze(-1) * v).sum(-1)
        return (u * v).sum(-1), variance.sqrt()

    def score_draws(self, users: Any, items: Any, n: int, seed: int) -> Tensor:
        """``n`` joint draws of u_i.v_j of pairs, (n, *pairs); ``users`` and ``items`` broadcast against each other."""
        users, items = torch.broadcast_tensors(torch.as_tensor(users), torch.as_tensor(items))
        user_rows, user_at = users.flatten().unique(return_inverse=True)
        item_rows, item_at = items.flatten().unique(return_inverse=True)
        check_draws(n, 2 * users.numel(), "draws of the scores of so many pairs")
        floats = (len(user_rows) + 2 * len(item_rows) + 2 * users.numel()) * self.u_loc.shape[1]
        parts = self.select(user_rows, item_rows).draws(n, seed, max(1, FLOATS_AT_ONCE // floats))
        scores = [torch.einsum("npk,npk->np", part["u"][:, user_at], part["v"][:, item_at]) for part in parts]
        return torch.cat(scores).view(n, *users.shape)

    def _need_uncertainty(self) -> None:
        if self.is_point:
            raise InputError("a MAP fit is a point and has no uncertainty", "fit with --mode bayes")

    def tensors(self) -> dict[str, Tensor]:
        """Everything to be saved, by name; users' tensors start with ``u_``."""
        moments = ("loc", "scale", "covariance", "block")
        names = [f"{side}_{moment}" for side in ("uvz" if self.has_content else "uv") for moment in moments]
        found = {name: getattr(self, name, None) for name in names}
        found["v_pad"] = self.v_pad
        lambda_v = torch.tensor(self.lambda_v, dtype=torch.float64)
        above = {f"{ABOVE}{name}": tensor for name, tensor in self.above.items()}
        return {name: tensor for name, tensor in found.items() if tensor is not None} | {"lambda_v": lambda_v} | above

    @classmethod
    def from_tensors(cls, kind: str, tensors: dict[str, Tensor], parametrization: str = "centred") -> Posterior:
        """The inverse of :meth:`tensors`; other names are left alone."""
        own: dict[str, Any] = {name: value for name, value in tensors.items() if name in cls.__dataclass_fields__}
        if "z_loc" not in tensors:
            width = own["v_loc"].shape[1] - (0 if "v_pad" not in own else 2)
            own |= dict.fromkeys(("z_loc", "z_scale"), no_content(len(own["v_loc"]), width, own["v_loc"]))
            own["has_content"] = False
        own |= {"lambda_v": float(tensors["lambda_v"]), "above": above_in(tensors)}
        return cls(kind, **own, parametrization=parametrization)


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


def _tril(covariance: Tensor) -> Tensor:
    """Cholesky factors of covariances (n_blocks, width, width), of which a coordinate may have no variance at all."""
    if bool((covariance.diagonal(dim1=-2, dim2=-1) > 0).all()):
        return torch.linalg.cholesky(covariance)
    held = torch.diag_embed((covariance.diagonal(dim1=-2, dim2=-1) == 0).to(covariance.dtype))
    return torch.linalg.cholesky(covariance + held) - held


def content_diagnostics(loc: Tensor, scale: Tensor, n_draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Is the content alive? KL and mutual information in nats, active units.

    - ``kl``: mean over items of KL(q(z|x) || p(z));
    - ``active_units``: eigenvalues of the covariance of the means of q(z|x) over items above 0.01;
    - ``active_axes``: units whose own variance of the mean is above 0.01 (Burda et al., ICLR 2016);
    - ``mutual_information``: I(x; z) under q, E log q(z|x) - E log q(z) with q(z) the mixture over all items, by
      ``n_draws`` draws; at most log n_items. Source: Hoffman and Johnson, ELBO surgery, 2016.

    Shapes: ``loc``, ``scale`` (n_items, n_factors).
    """
    loc, scale = loc.double().cpu(), scale.double().cpu()
    kl = 0.5 * (loc.square() + scale.square() - 1).sum(-1) - scale.log().sum(-1)
    eigenvalues = torch.linalg.eigvalsh(torch.atleast_2d(torch.cov(loc.mT)))
    found = {
        "kl": float(kl.mean()),
        "active_units": float((eigenvalues > 0.01).sum()),
        "active_axes": float((loc.var(0) > 0.01).sum()),
    }
    if n_draws:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(loc), (n_draws,), generator=generator)
        noise = torch.randn(n_draws, loc.shape[1], generator=generator, dtype=torch.float64)
        z = loc[rows] + scale[rows] * noise
        own = -0.5 * noise.square().sum(-1) - scale[rows].log().sum(-1)
        found["mutual_information"] = float((own - _log_mixture(z, loc, scale)).mean())
    return found


def _log_mixture(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log 1/n sum_j N(z; loc_j, scale_j^2) without K/2 log(2 pi), in blocks of draws."""
    precision = scale.square().reciprocal()
    linear = (loc * precision).mT
    offset = 0.5 * (loc.square() * precision).sum(-1) + scale.log().sum(-1)
    blocks = [-0.5 * part.square() @ precision.mT + part @ linear - offset for part in z.split(256)]
    return torch.cat([torch.logsumexp(block, -1) for block in blocks]) - np.log(len(loc))
