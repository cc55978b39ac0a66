"""What a fit knows: means, covariances, draws and scores with their standard deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_cvae.errors import InputError


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(U) q(V) q(Z) after a fit: a point estimate of u and v, mean field, or structured.

    Shapes: ``u_loc`` (n_users, n_factors); ``v_loc``, ``z_loc``, ``z_scale`` (n_items, n_factors); ``u_scale`` and
    ``v_scale`` marginal standard deviations of mean field. A structured posterior has instead the full covariances S
    of v given z, ``v_covariance`` (n_blocks, n_factors, n_factors), and each item's block, ``v_block`` (n_items,):

        v | z ~ N(v_loc + A (z - z_loc), S),    A = lambda_v S,    so that cov(v) = S + A diag(z_scale^2) A'.

    Items without a training rating share one block.
    """

    kind: str
    u_loc: Tensor
    v_loc: Tensor
    z_loc: Tensor
    z_scale: Tensor
    u_scale: Tensor | None = None
    v_scale: Tensor | None = None
    v_covariance: Tensor | None = None
    v_block: Tensor | None = None
    lambda_v: float = 1.0
    parametrization: str = "centred"

    @property
    def is_point(self) -> bool:
        """True if u and v are points, so that no uncertainty can be asked for."""
        return self.kind == "point"

    def mean(self, name: str) -> Tensor:
        """Posterior mean of "u", "v", "z" or "v_dagger" = v - z, a row each."""
        if name == "v_dagger":
            return self.v_loc - self.z_loc
        if name not in ("u", "v", "z"):
            raise InputError(f"no latent variable is called {name!r}", "ask for u, v, z or v_dagger")
        return getattr(self, f"{name}_loc")

    def covariance(self, name: str, rows: Any) -> Tensor:
        """Posterior covariance of the rows of "u", "v" or "z", (n_rows, n_factors, n_factors)."""
        rows = torch.as_tensor(rows)
        if name == "z":
            return torch.diag_embed(self.z_scale[rows].square())
        self._need_uncertainty()
        if name == "u":
            return torch.diag_embed(self.u_scale[rows].square())  # type: ignore[index]
        if name != "v":
            raise InputError(f"no covariance is kept of {name!r}", "ask for u, v or z")
        if self.v_scale is not None:
            return torch.diag_embed(self.v_scale[rows].square())
        given_z, slope = self._items_given_content(rows)
        return given_z + (slope * self.z_scale[rows].square()[..., None, :]) @ slope.mT

    def _items_given_content(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        given_z = self.v_covariance[self.v_block[rows]]  # type: ignore[index]
        return given_z, self.lambda_v * given_z

    def sample(self, n: int, seed: int) -> dict[str, Tensor]:
        """``n`` joint draws of "u", "v" and "z", each (n, n_rows, n_factors); of a point, u and v are the point."""
        generator = torch.Generator().manual_seed(seed)

        def noise(loc: Tensor) -> Tensor:
            return torch.randn((n, *loc.shape), generator=generator, dtype=loc.dtype)

        z = self.z_loc + self.z_scale * noise(self.z_loc)
        if self.is_point:
            return {"u": self.u_loc.expand(n, -1, -1), "v": self.v_loc.expand(n, -1, -1), "z": z}
        assert self.u_scale is not None
        u = self.u_loc + self.u_scale * noise(self.u_loc)
        if self.v_covariance is not None:
            given_z, slope = self._items_given_content(torch.arange(len(self.v_loc)))
            drift = (slope @ (z - self.z_loc)[..., None]).squeeze(-1)
            spread = (torch.linalg.cholesky(given_z) @ noise(self.v_loc)[..., None]).squeeze(-1)
            return {"u": u, "v": self.v_loc + drift + spread, "z": z}
        assert self.v_scale is not None
        if self.parametrization == "centred":
            return {"u": u, "v": self.v_loc + self.v_scale * noise(self.v_loc), "z": z}
        own = (self.v_scale.square() - self.z_scale.square()).clamp(min=0).sqrt()
        return {"u": u, "v": self.v_loc + (z - self.z_loc) + own * noise(self.v_loc), "z": z}

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
        u, v = self.u_loc[users], self.v_loc[items]
        u_var = self.u_scale[users].square()  # type: ignore[index]
        if self.v_scale is not None:
            v_var = self.v_scale[items].square()
            variance = (u.square() * v_var + v.square() * u_var + u_var * v_var).sum(-1)
        else:
            covariance = self.covariance("v", items)
            variance = ((covariance @ u[..., None]).squeeze(-1) * u).sum(-1) + (v.square() * u_var).sum(-1)
            variance = variance + (u_var * covariance.diagonal(dim1=-2, dim2=-1)).sum(-1)
        return (u * v).sum(-1), variance.sqrt()

    def _need_uncertainty(self) -> None:
        if self.is_point:
            raise InputError("a MAP fit is a point and has no uncertainty", "fit with --mode bayes")

    def tensors(self) -> dict[str, Tensor]:
        """Everything to be saved, by name; users' tensors start with ``u_``."""
        names = ("u_loc", "v_loc", "z_loc", "z_scale", "u_scale", "v_scale", "v_covariance", "v_block")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @classmethod
    def from_tensors(
        cls, kind: str, tensors: dict[str, Tensor], lambda_v: float, parametrization: str = "centred"
    ) -> Posterior:
        """The inverse of :meth:`tensors`; other names are left alone."""
        own = {name: value for name, value in tensors.items() if name in cls.__dataclass_fields__}
        return cls(kind, **own, lambda_v=lambda_v, parametrization=parametrization)


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
