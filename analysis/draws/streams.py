"""Joint draws of u of some users with v and z of some items, in blocks that take little memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from analysis.kinds import DrawnFrom
from inference.fitting import Fit
from inference.posterior import Posterior
from models.base import FactorModel, own_parameters
from pyro_cvae.errors import InputError
from pyro_cvae.text import counted
from pyro_cvae.turns import in_turn

FLOATS_AT_ONCE = 2**23

Blocks = Iterator[tuple[slice, slice, dict[str, Tensor]]]
"""Which of the items, which of the draws, and {"u", "v", "z"}, each (n_draws, n_rows, n_factors)."""


def draw_blocks(posterior: Posterior, users: np.ndarray, items: np.ndarray, n: int, seed: int) -> Blocks:
    """Joint draws of u of some users with v and z of many items, in blocks that take little memory.

    Yields (which of ``items``, which draws, {"u", "v", "z"}), each (n_draws, n_rows, n_factors), u and v with the
    coordinates of biases (:class:`inference.posterior.Posterior`); a draw has the same u in every block of items.
    Of a variational posterior, whose rows are independent, each block of items has a stream of its own, and the first
    is that of ``posterior.sample``. Of MCMC they are the stored draws in their order,
    evenly thinned to ``n``.
    """
    n_factors = posterior.u_loc.shape[1]
    if hasattr(posterior, "chains"):
        yield slice(0, len(items)), slice(0, n), _stored_draws(posterior, users, items, n)
        return
    width = n_factors if posterior.v.covariance is not None else 32
    step = max(1, FLOATS_AT_ONCE // (4 * n_factors * width))
    nobody = torch.zeros(0, dtype=torch.int64)
    u: list[Tensor] = []
    for start in range(0, max(1, len(items)), step):
        block = slice(start, min(start + step, len(items)))
        floats = n_factors * (3 * (block.stop - start) + len(users))
        own = seed if start == 0 else int(np.random.SeedSequence((seed, start)).generate_state(1, np.uint64)[0] >> 1)
        rows = posterior.select(torch.as_tensor(users) if start == 0 else nobody, torch.as_tensor(items[block]))
        first = 0
        for drawn in rows.draws(n, own, max(1, FLOATS_AT_ONCE // floats)):
            if start == 0:
                u.append(drawn["u"])
            draws = slice(first, first + len(drawn["v"]))
            u_of_draws = torch.cat(u)[draws] if start else drawn["u"]
            yield block, draws, drawn | {"u": u_of_draws}
            first = draws.stop


def _stored_draws(posterior: Posterior, users: np.ndarray, items: np.ndarray, n: int) -> dict[str, Tensor]:
    """``n`` of the draws that MCMC has stored, those of a chain evenly thinned and the chains one after the other."""
    rows = posterior.select(users, items)
    stored = {name: rows.chains(name) for name in "uvz"}  # type: ignore[attr-defined]
    n_chains, n_stored = stored["u"].shape[:2]
    if n % n_chains:
        raise InputError(
            f"{counted(n, 'draw', 'are')} no multiple of {counted(n_chains, 'chain')}",
            "ask for another number of --draws",
        )
    kept = torch.as_tensor(evenly_thinned(n_stored, n // n_chains))
    return {name: draws[:, kept].flatten(0, 1) for name, draws in stored.items()}


def evenly_thinned(n_stored: int, n: int) -> np.ndarray:
    """``n`` of ``n_stored`` draws of a chain, evenly, in their order. Raises InputError where there are fewer."""
    if n > n_stored:
        raise InputError(
            f"{counted(n, 'draw', 'are')} asked of each chain, {n_stored} are stored", "ask for fewer --draws"
        )
    return np.linspace(0, n_stored - 1, n).round().astype(np.int64)


def prior_blocks(fit: Fit, users: np.ndarray, items: np.ndarray, n: int, seed: int, n_pairs: int = 0) -> Blocks:
    """The same from the prior, all items in each block; ``n_pairs`` are as many rows more to be kept in memory."""
    model, dtype = fit.model, fit.posterior.u_loc.dtype
    generator = torch.Generator().manual_seed(seed)
    step = max(1, FLOATS_AT_ONCE // (model.width * (len(users) + 2 * len(items) + 2 * n_pairs)))
    step = step if model.has_standard_priors() else 1  # what is above u and v is drawn anew for each

    known = fit.posterior.z_loc[torch.as_tensor(items)]

    def noise(rows: int, width: int, precision: float, size: int) -> Tensor:
        return precision**-0.5 * torch.randn(size * rows, width, generator=generator, dtype=dtype)

    for start in range(0, n, step):
        size = min(step, n - start)
        with torch.no_grad():
            u = noise(len(users), model.width, model.lambda_u, size)
            z = model.item_prior.draw(size, known, generator).flatten(0, 1)
            around_u, around_v = _prior_means(model, users, items, z, generator)
            v = around_v + noise(len(items), model.width, model.lambda_v, size)
            drawn = {"u": model.of_users(around_u + u), "v": model.of_items(v), "z": z}
        yield (
            slice(0, len(items)),
            slice(start, start + size),
            {name: rows.view(size, -1, rows.shape[1]) for name, rows in drawn.items()},
        )


def _prior_means(
    model: FactorModel, users: np.ndarray, items: np.ndarray, z: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Prior means of the rows of u, as (n_users, width) or (width,), and of v, a row for each of z.

    Of a model with priors of its own ``z`` is one draw, and the sites above u and v are drawn here.
    """
    if model.has_standard_priors():
        rows = torch.as_tensor(items).repeat(len(z) // max(1, len(items)))
        return model.prior_of_users().loc, model.prior_of_items(z, items=rows).loc
    with in_turn(), torch.random.fork_rng(devices=()):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        with own_parameters():
            above = model.above()
    around_u = model.prior_of_users(above).loc
    every = z.new_zeros(model.n_items, model.n_factors)
    every[items] = z
    around_v = model.prior_of_items(every, above).loc[items]
    return (around_u[users] if around_u.dim() == 2 else around_u), around_v


def blocks_from(
    source: DrawnFrom, fit: Fit, users: np.ndarray, items: np.ndarray, n: int, seed: int, n_pairs: int = 0
) -> Blocks:
    """Draws of rows of users and items from the "posterior" of a fit, or else from its prior.

    They come from :func:`draw_blocks` or :func:`prior_blocks`.
    """
    if source == "posterior":
        return draw_blocks(fit.posterior, users, items, n, seed)
    return prior_blocks(fit, users, items, n, seed, n_pairs)
