"""A toy catalogue and its model, small enough for dense computations by hand."""

import torch

from models.build import make_model
from models.contents.multinomial import Multinomial
from models.cvae import CVAE
from models.observations import Observations, RatingColumns, SparseRows

N_USERS, N_ITEMS, N_WORDS, N_FACTORS = 7, 9, 12, 3


class ToyOptions:
    """Model options of the toy; the same names as the command's."""

    factors, hidden, activation, tied = N_FACTORS, (6, 5), "sigmoid", True
    lambda_u, lambda_v, lambda_r, lambda_w = 0.8, 3.0, 1.0, 0.5
    a, b, b_power, parametrization, radius, network = 2.0, 0.05, 0.0, "centred", 0.0, "auto"
    rating_likelihood, rating_likelihood_args, biases, lambda_b = "confidence-normal", {}, "off", 1.5

    def __init__(self, **changes: object) -> None:
        self.__dict__.update(changes)


def toy_columns(seed: int = 0, missing: bool = True, unrated: bool = True, weighed: bool = False) -> RatingColumns:
    """Columns with ratings of many values and confidences, missing cells, and an item without a column.

    ``weighed`` gives the zeros of each item a weight of their own.
    """
    generator = torch.Generator().manual_seed(seed)
    stored = torch.rand(N_ITEMS, N_USERS, generator=generator) < 0.4
    observed = torch.ones(N_ITEMS, dtype=torch.bool)
    if unrated:
        stored[2], observed[2] = False, False
    users = stored.nonzero(as_tuple=True)[1]
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
    ratings = torch.randn(len(users), generator=generator, dtype=torch.float64)
    confidences = 0.2 + torch.rand(len(users), generator=generator, dtype=torch.float64)
    if missing:
        confidences[::5] = 0.0
    weights = 3 * torch.rand(N_ITEMS, generator=generator, dtype=torch.float64) if weighed else None
    return RatingColumns(indptr, users, ratings, confidences, observed, N_USERS, zero_weights=weights)


def toy_observations(seed: int = 0) -> Observations:
    """Counts of twelve words for nine items (one text is empty), and the columns above."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((N_ITEMS, N_WORDS), 0.8, dtype=torch.float64), generator=generator)
    counts[4] = 0
    rows = SparseRows.from_dense(counts)
    return Observations(rows, rows, toy_columns(seed))


def toy_model(**changes: object) -> CVAE:
    """The toy's CVAE in float64, with random biases too."""
    model = make_model(N_USERS, N_ITEMS, N_WORDS, Multinomial(), ToyOptions(**changes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model
