"""A posterior as stored draws: what :mod:`inference.mcmc` knows, answering what a :class:`Posterior` answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from inference.posterior import ABOVE, FLOATS_AT_ONCE, Posterior, above_in
from models.gaussians import Gaussians
from pyro_cvae.errors import InputError


@dataclass(frozen=True, eq=False, kw_only=True)
class Draws(Posterior):
    """Joint draws of u, v and z, the chains one after the other; its moments are those of the draws.

    Shapes: ``u_draws`` (n_draws, n_users, n_factors), ``v_draws`` and ``z_draws`` (n_draws, n_items, n_factors),
    ``log_joint`` (n_draws,) log p(R, X, U, V, Z) in nats, ``n_chains`` chains of n_draws / n_chains draws each.

    A posterior mean score is E[u.v], not E[u].E[v]: u and v depend on one another.
    """

    u_draws: Tensor
    v_draws: Tensor
    z_draws: Tensor
    log_joint: Tensor
    n_chains: int = 1

    @classmethod
    def of(
        cls,
        u: Tensor,
        v: Tensor,
        z: Tensor | None,
        log_joint: Tensor | None = None,
        n_chains: int = 1,
        lambda_v: float = 1.0,
        above: dict[str, Tensor] | None = None,
    ) -> Draws:
        """From the draws alone, see the class; their means and standard deviations are computed here.

        Without ``z`` the model reads no content. ``above`` has the draws of the sites above u and v, ``name_draws``.
        """
        has_content = z is not None
        if z is None:
            z = u.new_zeros(1, 1, 1).expand(*v.shape[:2], v.shape[2])
        if log_joint is None:
            log_joint = torch.full((len(u),), torch.nan, dtype=torch.float64)
        return cls(
            "draws",
            u=Gaussians(u.mean(0)),
            v=Gaussians(v.mean(0)),
            z=Gaussians(z.mean(0), _spread(z).square()),
            lambda_v=lambda_v,
            u_draws=u,
            v_draws=v,
            z_draws=z,
            log_joint=log_joint,
            n_chains=n_chains,
            has_content=has_content,
            above=above or {},
        )

    def __len__(self) -> int:
        return len(self.u_draws)

    def chains(self, name: str) -> Tensor:
        """The draws of "u", "v", "z" or "v_dagger", (n_chains, draws a chain, n_rows, n_factors)."""
        draws = self._stored(name)
        return draws.view(self.n_chains, -1, *draws.shape[1:])

    def _stored(self, name: str) -> Tensor:
        if name == "v_dagger":
            return self.v_draws - self.z_draws
        if name not in ("u", "v", "z"):
            raise InputError(f"no latent variable is called {name!r}", "ask for u, v, z or v_dagger")
        return getattr(self, f"{name}_draws")

    def covariance(self, name: str, rows: Any) -> Tensor:
        """Covariance over the draws of the rows of "u", "v", "z" or "v_dagger", (n_rows, n_factors, n_factors)."""
        rows = torch.as_tensor(rows)
        draws = self._stored(name)[:, rows]
        away = draws - draws.mean(0)
        return torch.einsum("n...k,n...l->...kl", away, away) / max(1, len(self) - 1)

    def select(self, users: Any = None, items: Any = None) -> Draws:
        """The draws of some rows of users and items alone, in the order given; ``None`` keeps them all."""
        parts: dict[str, Any] = {}
        for names, rows in (("u", users), ("vz", items)):
            if rows is not None:
                parts |= {name: getattr(self, name).select(torch.as_tensor(rows)) for name in names}
                parts |= {f"{name}_draws": self._stored(name)[:, torch.as_tensor(rows)] for name in names}
        return replace(self, **parts)

    def draws(self, n: int, seed: int, at_once: int = 32) -> Iterator[dict[str, Tensor]]:
        """``n`` of the stored draws in random order, each as often as any other up to one, ``at_once`` at a time."""
        order = self._order(n, seed)
        for part in order.split(at_once):
            yield {name: self._stored(name)[part] for name in "uvz"}

    def _order(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        rounds = [torch.randperm(len(self), generator=generator) for _ in range(-(-n // len(self)))]
        return torch.cat([torch.zeros(0, dtype=torch.int64), *rounds])[:n]

    def score_block(self, users: Any) -> Tensor:
        """Posterior mean scores E[u_i.v_j] of a block of users over all items, (n_block, n_items)."""
        u, v = self.u_draws[:, torch.as_tensor(users)], self.v_draws
        at_once = max(1, FLOATS_AT_ONCE // ((u.shape[1] + v.shape[1]) * u.shape[2]))
        total = u.new_zeros(u.shape[1], v.shape[1])
        for some_u, some_v in zip(u.split(at_once), v.split(at_once), strict=True):
            total += some_u.transpose(0, 1).flatten(1) @ some_v.transpose(0, 1).flatten(1).mT
        return total / len(self)

    def score_sd_block(self, users: Any) -> Tensor:
        """Standard deviation over the draws of u_i.v_j of a block of users over all items, (n_block, n_items)."""
        mean = self.score_block(users)
        u, total = self.u_draws[:, torch.as_tensor(users)], torch.zeros_like(mean, dtype=torch.float64)
        at_once = max(1, FLOATS_AT_ONCE // max(1, mean.numel()))
        for some_u, some_v in zip(u.split(at_once), self.v_draws.split(at_once), strict=True):
            total += (some_u @ some_v.mT - mean).double().square().sum(0)
        return (total / max(1, len(self) - 1)).sqrt().to(mean.dtype)

    def drawn_score_block(self, users: Any, seed: int) -> Tensor:
        """u_i.v_j over all items in one of the draws, for each user another, (n_block, n_items)."""
        users = torch.as_tensor(users)
        chosen = torch.randint(len(self), users.shape, generator=torch.Generator().manual_seed(seed))
        at_once = max(1, FLOATS_AT_ONCE // max(1, self.v_loc.numel()))
        parts = zip(users.split(at_once), chosen.split(at_once), strict=True)
        scores = [self.v_draws[at] @ self.u_draws[at, some][..., None] for some, at in parts]
        return torch.cat(scores).squeeze(-1)

    def mean_score(self, users: Any, items: Any) -> Tensor:
        """E[u_i.v_j] of pairs; ``users`` and ``items`` broadcast against each other."""
        return self.score(users, items)[0]

    def score(self, users: Any, items: Any) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the draws of u_i.v_j of pairs; ``users`` and ``items`` broadcast."""
        users, items = torch.broadcast_tensors(torch.as_tensor(users), torch.as_tensor(items))
        at_once = max(1, FLOATS_AT_ONCE // (2 * len(self) * self.u_loc.shape[1]))
        pairs = zip(users.flatten().split(at_once), items.flatten().split(at_once), strict=True)
        parts = [self.scores_in(slice(None), u, v) for u, v in pairs]
        mean = torch.cat([part.mean(0) for part in parts])
        return mean.view(users.shape), torch.cat([_spread(part) for part in parts]).view(users.shape)

    def score_draws(self, users: Any, items: Any, n: int, seed: int) -> Tensor:
        """u_i.v_j of pairs in ``n`` of the stored draws, (n, *pairs); ``users`` and ``items`` broadcast."""
        users, items = torch.broadcast_tensors(torch.as_tensor(users), torch.as_tensor(items))
        at_once = max(1, FLOATS_AT_ONCE // max(1, 2 * users.numel() * self.u_loc.shape[1]))
        parts = [self.scores_in(part, users.flatten(), items.flatten()) for part in self._order(n, seed).split(at_once)]
        return torch.cat(parts).view(n, *users.shape)

    def scores_in(self, draws: Any, users: Tensor, items: Tensor) -> Tensor:
        """u_i.v_j of pairs in some of the draws, (n_chosen, n_pairs); ``draws`` an index of the stored ones."""
        return torch.einsum("npk,npk->np", self.u_draws[draws][:, users], self.v_draws[draws][:, items])

    def tensors(self) -> dict[str, Tensor]:
        """Everything to be saved, by name; users' tensors start with ``u_``."""
        names = ("u_draws", "v_draws", *(("z_draws",) if self.has_content else ()), "log_joint")
        stored = {name: getattr(self, name) for name in names}
        stored |= {f"{ABOVE}{name}": draws for name, draws in self.above.items()}
        n_chains = torch.tensor(self.n_chains)
        return stored | {"n_chains": n_chains, "lambda_v": torch.tensor(self.lambda_v, dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, kind: str, tensors: dict[str, Tensor], parametrization: str = "centred") -> Draws:
        """The inverse of :meth:`tensors`; other names are left alone."""
        u, v, z, log_joint = (tensors.get(name) for name in ("u_draws", "v_draws", "z_draws", "log_joint"))
        assert u is not None and v is not None
        numbers = int(tensors["n_chains"]), float(tensors["lambda_v"])
        return cls.of(u, v, z, log_joint, *numbers, above_in(tensors))


def _spread(draws: Tensor) -> Tensor:
    """Standard deviation over the draws; 0 of a single one."""
    if not draws.numel():
        return draws.new_zeros(draws.shape[1:])  # torch warns of those
    return draws.std(0, correction=min(1, len(draws) - 1))
