r"""Precisions that are not given: relative to the length of the contents and to the noise, or found in the ratings.

With s the root mean square length of the content means, c the precision of a stored rating (``a``; of stars that of the
noise; 1 of logits and log rates) and r^2 the mean square of the ratings (1 of clicks),

    lambda_u = user_shrinkage c s^2,    lambda_v = item_shrinkage c r^2 / s^2.

Why: for a map fit with contents held, z -> g z is the same fit with u -> u / g and v† -> g v† if lambda_u -> g^2
lambda_u and lambda_v -> lambda_v / g^2; C -> h C is if both are h times as large (and b); R -> f R, u -> f u is if
lambda_v -> f^2 lambda_v. So a share is the same belief whatever the length of z, the number of contents and the unit of
ratings and weights: 1 / user_shrinkage is the variance that contents explain of a rating, in units of its noise, and
1 / (user_shrinkage item_shrinkage) times the factors that of what contents do not tell.

Of stars the biases' penalty is the one that predicts training ratings that are kept aside best
(:func:`choose_penalty`). So is the users' shrinkage, the default one or a stronger one, but for its doubt: two standard
errors count against factors, and where they are not surely better than biases alone, these are what is left. A weaker
one is for ratings without biases, and for models without content; otherwise joint training makes of a weak prior what
sweeps over held contents do not foresee. The items' shrinkage is per factor in bayes, where the prior's width counts,
and not in map, where it says which singular values of u.v survive (trace norm).

Without content s is 1, and the product lambda_u lambda_v alone counts: both shrinkages are ``alone`` of
:class:`models.catalogue.RatingFacts`, the same for any number of factors, since a factor lives or dies by
sqrt(lambda_u lambda_v) and not by the width of them all. Of stars it is smaller in bayes, where q's own spread shrinks
too. Where data state precisions, c is that of the stored cells and not ``a``: at a larger one all scores would be 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inference.algorithms.above import start_above
from inference.algorithms.cells import Cells
from inference.algorithms.sides import start_of_items, update_items, update_users
from inference.algorithms.standard_scale import move, rated
from inference.options import Options
from models.base import FactorModel
from models.gaussians import Gaussians
from models.observations import RatingColumns
from models.returns import numbers_given

SHORTEST = 0.01
"""Least root mean square of a coordinate of the content means that counts as a length, for contents that are dead."""
PENALTIES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""lambda_b in units of the noise's precision, of which five-fold cross-validation chooses."""
TIGHTEST = 4.0
"""Times by which the prior variance of biases may be smaller than the wider ones of users' and items' biases are."""
STRONGER, ALONE = (4.0, 16.0), 1e4
"""Shrinkages of users that are tried, times the default; with the last, scores are biases alone."""
SURE = 2.0
"""Standard errors by which factors have to predict better than biases alone."""
WEAKER = (0.25, 1 / 16, 1 / 64, 1e-3, 1e-4)
"""Those that are tried in turn where there are no biases and u.v has to tell the mean too."""
LOOSER = (0.5, 0.25, 1 / 16)
"""Those that are tried too where no content is read: what u.v explains grows with the ratings of a row."""
WIDEST = 1.5
"""Prior variance of u.v in units of the noise's up to which they are tried in bayes; a wider one becomes noise."""
SWEEPS = 4
FOLDS = 5
ENOUGH = 50_000
"""Ratings from which on one fold alone says which shrinkage predicts better."""
MOST = 200_000
"""Ratings that the choice of shrinkage looks at, of users drawn at random."""
FEWEST = 50
"""Ratings below which nothing is chosen: half of their variance is taken for noise."""


def content_length(z_loc: Tensor) -> float:
    """Root mean square length of the content means, (n_items, n_factors), of items that have a content.

    An item without any has the prior's mean, 0. The least length is that of :data:`SHORTEST` in every coordinate.
    """
    square = z_loc.double().square().sum(-1)
    square = square[square > 0]
    least = SHORTEST**2 * z_loc.shape[1]
    return max(float(square.mean()) if len(square) else 0.0, least) ** 0.5


def stated_confidence(columns: RatingColumns) -> float:
    """Mean confidence of a stored cell, weighted by confidence; it is c where data state precisions of their own."""
    weight = columns.confidences.double()
    return float(weight.square().sum() / weight.sum().clamp(min=1e-300))


@torch.no_grad()
def start_precisions(model: FactorModel, columns: RatingColumns, z_loc: Tensor, options: Options, seed: int) -> None:
    """Set lambda_u, lambda_v, lambda_b and a noise that were not given; see the module's docstring.

    Shapes: ``z_loc`` (n_items, n_factors), the content means when the ratings are first seen.
    """
    shrinkage, penalty = list(default_shrinkages(model, options)), options.model.rating_facts.lambda_b
    if model.ratings.standardised:
        penalty = _start_stars(model, columns, z_loc, shrinkage, options, seed)
    elif not model.to_find:
        return
    set_relative(model, columns, z_loc, shrinkage, penalty)


def default_shrinkages(model: FactorModel, options: Options) -> tuple[float, float]:
    """Shrinkages of users and of items as they are given, or the likelihood's own."""
    o = options.model
    default = o.rating_facts.default_shrinkages(options.fit.mode, o.factors, model.item_prior.knows_content)
    return o.user_shrinkage or default[0], o.item_shrinkage or default[1]


def set_relative(
    model: FactorModel, columns: RatingColumns, z_loc: Tensor, shrinkage: Sequence[float], penalty: float
) -> None:
    """Precisions that are to be found, from shrinkages and ``penalty``, that of the biases in units of the noise's."""
    knows_content = model.item_prior.knows_content
    length = content_length(z_loc) if knows_content else 1.0  # without contents any length is the same model
    noise, square = numbers_given(model.ratings, "units", model.ratings.units(columns), 2)
    if not knows_content and model.ratings.weight_unit is None:
        noise *= stated_confidence(columns) / model.ratings.default_confidence
    found = {"lambda_u": model.lambda_u, "lambda_v": model.lambda_v, "lambda_b": model.lambda_b}
    relative = (shrinkage[0] * noise * length**2, shrinkage[1] * noise * square / length**2, penalty * noise)
    found |= {name: value for name, value in zip(found, relative, strict=True) if name in model.to_find}
    model.set_precisions(**found)


def _start_stars(
    model: FactorModel,
    columns: RatingColumns,
    z_loc: Tensor,
    shrinkage: list[float],
    options: Options,
    seed: int,
) -> float:
    """Start the noise of stars, and choose ``shrinkage`` in place; the penalty of the biases is returned."""
    rng = np.random.default_rng(seed)
    there = columns.confidences > 0
    fold = torch.as_tensor(rng.integers(FOLDS, size=len(there))).to(there.device)
    if int(there.sum()) < FEWEST:
        model.ratings.start_noise(2.0)
        return 8.0
    penalty, alone = (8.0, columns.ratings.double().square()) if model.mean is None else choose_penalty(columns, fold)
    weight = columns.confidences.double()
    model.ratings.start_noise(float(weight.sum() / (weight @ alone)))
    if "lambda_u" not in model.to_find or options.model.user_shrinkage:
        return penalty
    seen = there & _some_users(columns, there, rng)
    folds = range(FOLDS if int(seen.sum()) < ENOUGH else 1)
    looked = torch.where(seen & (fold < len(folds)), weight, 0.0)
    family = "point" if options.fit.mode == "map" else "diagonal"
    given = shrinkage[0]

    def errors_at(times: float) -> Tensor:
        """Squared errors of the ratings kept aside, fold by fold, (n_stored,), 0 where not looked at."""
        kept, mean = model.precisions(), None if model.mean is None else model.mean.clone()
        found = torch.zeros_like(alone)
        for held in folds:
            set_relative(model, columns, z_loc, (times * given, shrinkage[1]), penalty)
            found += squared_errors(model, columns, z_loc, seen & (fold != held), seen & (fold == held), family)
            move(kept, model)
            if model.mean is not None and mean is not None:
                model.mean.copy_(mean)
        return found

    def risk(errors: Tensor) -> float:
        """What is to be small: the error or, with biases, how much worse than these alone it may be."""
        if model.mean is None:
            return float(looked @ errors)
        loss = (looked * (errors - alone))[looked > 0]
        return float(loss.sum() + SURE * len(loss) ** 0.5 * loss.std())

    best, times = errors_at(1.0), 1.0
    width = 0.0 if family == "point" else model.n_factors / (given * shrinkage[1])
    looser = () if model.item_prior.knows_content else [times for times in LOOSER if width <= WIDEST * times]
    for other in WEAKER if model.mean is None else (*looser, *STRONGER, ALONE):
        errors = alone if other == ALONE else errors_at(other)
        if risk(errors) < risk(best):
            best, times = errors, other
    shrinkage[0] = times * given
    model.ratings.start_noise(float(looked.sum() / (looked @ best)))
    return penalty


def _some_users(columns: RatingColumns, there: Tensor, rng: np.random.Generator) -> Tensor:
    """Cells of users drawn at random, about :data:`MOST` of them at most, bool (n_stored,)."""
    counts = torch.bincount(columns.users[there], minlength=columns.n_users)
    order = torch.as_tensor(rng.permutation(columns.n_users)).to(counts.device)
    chosen = torch.zeros_like(counts, dtype=torch.bool)
    chosen[order] = counts[order].cumsum(0) <= MOST
    return chosen[columns.users] if bool((chosen & (counts > 0)).any()) else torch.ones_like(there)


def squared_errors(
    model: FactorModel, columns: RatingColumns, z_loc: Tensor, seen: Tensor, aside: Tensor, family: str
) -> Tensor:
    """Squared errors of the cells ``aside`` after sweeps over those ``seen``, 0 elsewhere, (n_stored,) each."""
    users, items, _ = short_fit(model, rated(columns, seen), z_loc, family, SWEEPS)
    u, v = model.of_users(users)[columns.users[aside]], model.of_items(items)[columns.items[aside]]
    found = torch.zeros(len(seen), dtype=torch.float64, device=seen.device)
    found[aside] = (columns.ratings[aside] - (u * v).sum(-1)).double().square()
    return found


def short_fit(
    model: FactorModel, known: RatingColumns, z_loc: Tensor, family: str, sweeps: int, begin: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Means of u and v after some sweeps over these columns, and which items have one; the global mean moves.

    The sweeps ``begin`` at these means of v, (n_items, width), or where a fit does. Shapes: (n_users, width),
    (n_items, width), bool (n_items,).
    """
    site = model.ratings.site(known)
    item_cells, user_cells = Cells.of_items(known, site), Cells.of_users(known, site)
    above = start_above(model)
    prior = model.prior_of_items(z_loc, above)
    items = start_of_items(model, prior) if begin is None else Gaussians(begin)
    users = items
    for _ in range(sweeps):
        users = update_users(model, site, user_cells, items, item_cells.observed, family, above).rows
        items = update_items(model, site, item_cells, users, user_cells.observed, prior, None, family).rows
        if model.mean is not None:
            model.mean.fill_(model.kappa_v * float(items.loc[item_cells.observed, -1].double().mean()))
            prior = model.prior_of_items(z_loc, above)
            items.loc[~item_cells.observed] = prior.loc[~item_cells.observed]
    return users.loc, items.loc, item_cells.observed


def choose_penalty(columns: RatingColumns, fold: Tensor) -> tuple[float, Tensor]:
    """The penalty of the biases that predicts best by cross-validation over ``fold``, (n_stored,), and its errors.

    Where ratings have hardly any noise, such a ridge would be a prior far narrower than the biases are; a noise that is
    learned would then take them over. So the penalty is at most :data:`TIGHTEST` times the noise over the biases' mean
    square. Squared errors are of each stored cell, (n_stored,), 0 of missing ones.
    """
    cells = columns.users, columns.items, columns.ratings.double(), columns.confidences.double(), fold
    users, items, ratings, weight, folds = (cell.cpu().numpy() for cell in cells)
    errors = np.zeros((len(PENALTIES), len(users)))
    for held in range(FOLDS):
        kept, aside = (weight > 0) & (folds != held), (weight > 0) & (folds == held)
        for number, penalty in enumerate(PENALTIES):
            known = users[kept], items[kept], ratings[kept], weight[kept]
            mean, of_users, of_items = ridge_biases(*known, columns.n_users, len(columns), penalty)
            errors[number, aside] = (ratings[aside] - mean - of_users[users[aside]] - of_items[items[aside]]) ** 2
    best = int(np.argmin(errors @ weight))
    noise = float(errors[best] @ weight / weight.sum())
    _, *biases = ridge_biases(users, items, ratings, weight, columns.n_users, len(columns), PENALTIES[best])
    widest = max(float(np.mean(own[own != 0] ** 2)) if own.any() else 0.0 for own in biases)
    penalty = min(PENALTIES[best], TIGHTEST * noise / widest) if widest else PENALTIES[best]
    return penalty, torch.as_tensor(errors[best]).to(fold.device)


def ridge_biases(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray,
    weight: np.ndarray,
    n_users: int,
    n_items: int,
    penalty: float,
    sweeps: int = 10,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean, biases of users (n_users,) and of items (n_items,): least squares with a ridge on the biases, by turns."""
    of_users, of_items, mean = np.zeros(n_users), np.zeros(n_items), 0.0
    total_u = penalty + np.bincount(users, weight, n_users)
    total_i = penalty + np.bincount(items, weight, n_items)
    for _ in range(sweeps):
        mean = float(np.average(ratings - of_users[users] - of_items[items], weights=weight))
        of_users = np.bincount(users, weight * (ratings - mean - of_items[items]), n_users) / total_u
        of_items = np.bincount(items, weight * (ratings - mean - of_users[users]), n_items) / total_i
    return mean, of_users, of_items
