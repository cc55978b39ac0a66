"""Data sets drawn from the Pyro program, as blocks of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from pyro import poutine
from torch import Tensor

from models.base import FactorModel
from models.build import make_model
from models.catalogue import MODELS
from models.contents.multinomial import Multinomial
from models.observations import Observations, RatingColumns, SparseRows
from models.rows import AnyRows, NoRows


@dataclass(frozen=True)
class Prior:
    """One simulated data set: its sizes, and the precisions that it is drawn with.

    ``exposure`` is the share of cells with precision ``a``, the others having ``b``; ``words`` the mean length of a
    text. ``lambda_v`` is by default 4 around contents, and 1 where there are none.
    """

    model: str = "cvae"
    n_users: int = 6
    n_items: int = 7
    n_factors: int = 2
    n_features: int = 15
    lambda_u: float = 1.0
    lambda_v: float = 0.0
    a: float = 1.0
    b: float = 0.1
    exposure: float = 0.5
    words: float = 60.0

    def __post_init__(self) -> None:
        if not self.lambda_v:
            object.__setattr__(self, "lambda_v", 4.0 if self.has_content else 1.0)

    @property
    def has_content(self) -> bool:
        """Whether items have a z and a text."""
        return MODELS[self.model].has_content


def simulate(prior: Prior, n: int, seed: int) -> tuple[FactorModel, Observations, dict[str, Tensor]]:
    """``n`` data sets drawn from the Pyro program as blocks of one: the model, what is observed, and true u, v, z.

    Without content there is no z.
    """
    n_users, n_items = n * prior.n_users, n * prior.n_items
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(seed)
        form, likelihood = (prior.n_features, Multinomial()) if prior.has_content else (None, None)
        model = make_model(n_users, n_items, form, likelihood, _ModelOptions(prior)).double().eval()
        for name, parameter in model.named_parameters():
            encodes = any(part in name for part in ("encoder.loc", "encoder.log_variance"))
            parameter.copy_(torch.zeros_like(parameter) if encodes else torch.randn_like(parameter))
        texts: AnyRows = NoRows(n_items)
        if prior.has_content:
            lengths = torch.zeros(n_items, prior.n_features, dtype=torch.float64)
            lengths[:, 0] = 1 + torch.poisson(torch.full((n_items,), prior.words - 1.0, dtype=torch.float64))
            texts = SparseRows.from_dense(lengths)
        items = torch.arange(n_items)
        users = (items[:, None] // prior.n_items * prior.n_users + torch.arange(prior.n_users)).flatten()
        exposed = torch.rand(len(users), dtype=torch.float64) < prior.exposure
        columns = RatingColumns(
            torch.arange(n_items + 1) * prior.n_users,
            users,
            torch.zeros(len(users), dtype=torch.float64),
            torch.tensor([prior.b, prior.a], dtype=torch.float64)[exposed.long()],
            torch.ones(n_items, dtype=torch.bool),
            n_users,
        )
        drawn = poutine.trace(poutine.uncondition(model)).get_trace(Observations(texts, texts, columns).batch(items))
        every = drawn.nodes["R"]["value"].ratings.view(n_items, n_users)
        columns = replace(columns, ratings=every[columns.items, columns.users])
        if prior.has_content:
            texts = drawn.nodes["x"]["value"].to(dtype=torch.float64)
    return model, Observations(texts, texts, columns), {name: drawn.nodes[name]["value"] for name in latent(model)}


def latent(model: FactorModel) -> str:
    """Names of the sites that are drawn: u, v and, with contents, z."""
    return "uvz" if model.item_prior.latent else "uv"


class _ModelOptions:
    """The model's options of :func:`models.build.make_model`; cells that are not stored are missing."""

    hidden, activation, tied, radius, parametrization = (5,), "tanh", False, 0.0, "centred"
    lambda_w, lambda_r, b, lambda_b, biases = 1.0, 1.0, 0.0, 1.0, "off"
    rating_likelihood: ClassVar[str] = "confidence-normal"
    rating_likelihood_args: ClassVar[dict[str, Any]] = {}
    network = "auto"

    def __init__(self, prior: Prior) -> None:
        self.model = prior.model
        self.factors, self.a = prior.n_factors, prior.a
        self.lambda_u, self.lambda_v = prior.lambda_u, prior.lambda_v
