"""Do the methods of a plug-in give what the package reads? A fit asks before it begins, of a few items.

What is wrong is told in the method's name. Else it would come up much later in a line of the package that is right, or
would be spread over all rows in silence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution

from models.gaussians import Gaussians
from models.networks.of_data import feature_means
from models.networks.product import ProductEncoder
from models.observations import Observations, RatingColumns
from models.priors import NormalPrior
from models.ratings.moments import Moments
from models.rows import PartRows, TokenRows
from pyro_cvae.errors import InputError

N_ASKED = 3
"""Items that are asked for."""
PARTS = ("encoder", "decoder", "content")
"""Of an item prior, what may be somebody's own."""
WITHIN = ("experts", "decoders", "parts")
"""Of these, what holds one for each of several contents."""


def is_own(one: Any) -> bool:
    """Whether an object's class is this package's; ``None`` is."""
    return one is None or type(one).__module__.partition(".")[0] == __name__.partition(".")[0]


def check_returns(model: Any, observations: Observations) -> None:
    """InputError, naming the method, unless likelihood of ratings, priors and networks give what they must.

    The package's own are not asked. No random number of the fit's is taken.
    """
    device, training = observations.content.device, model.training
    try:
        with (
            torch.no_grad(),
            model.sparse(),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ):
            model.eval()
            if not is_own(model.ratings):
                check_ratings(model.ratings, observations.columns)
            if not is_own(model):
                check_priors(model)
            prior = model.item_prior
            if prior.trained and not all(map(is_own, _pieces(prior))):
                check_networks(prior, observations)
    finally:
        model.train(training)


# --- likelihoods of ratings ------------------------------------------------------------------------------------------


def check_cell(likelihood: Any, like: Tensor) -> None:
    """``cell`` gives a distribution of single cells, for scores of any shape."""
    for shape in ((5,), (2, 3)):
        score = like.new_zeros(shape)
        cell = likelihood.cell(score, torch.full_like(score, likelihood.default_confidence))
        if not isinstance(cell, Distribution) or (cell.batch_shape, cell.event_shape) != (score.shape, ()):
            wrong(likelihood, "cell", cell, f"a distribution of batch shape {shape} and no event for scores of it")


def check_ratings(likelihood: Any, columns: RatingColumns) -> None:
    """All methods of a likelihood of ratings that give numbers, on a few of these columns, at scores of 0."""
    check_cell(likelihood, columns.ratings)
    with torch.no_grad():
        some = columns.select((columns.indptr.diff() > 0).nonzero().flatten()[:N_ASKED])
        n_items = len(some)
        score = torch.zeros_like(some.ratings)
        _check_log_prob(likelihood, some)
        u, v = (score.new_zeros(n, 1) for n in (some.n_users, n_items))
        columns_of = likelihood.distribution(u, v, some)
        if not isinstance(columns_of, TorchDistribution) or columns_of.batch_shape != (n_items,):
            wrong(likelihood, "distribution", columns_of, f"a distribution of batch shape {(n_items,)}, of the items")
        expected = likelihood.expected_log_prob(Moments(Gaussians(u), Gaussians(v)), some)
        if expected is not None or likelihood.conjugate:
            _tensor(likelihood, "expected_log_prob", expected, (n_items,), "of the items", infinite=True)
        _tensor(likelihood, "constant", likelihood.constant(some), (n_items,), "of the items", infinite=True)
        if likelihood.conjugate:
            _check_site(likelihood, some)
        if likelihood.explicit:
            _check_predict(likelihood, score.double())


def _check_log_prob(likelihood: Any, some: RatingColumns) -> None:
    """Log p of ratings that are there: a missing cell holds none. A support that moves with the score may refuse."""
    ratings, confidences = (part[some.confidences > 0] for part in (some.ratings, some.confidences))
    try:
        found = likelihood.log_prob(torch.zeros_like(ratings), ratings, confidences)
    except ValueError as error:
        if "support" not in str(error):
            raise
        return
    _tensor(likelihood, "log_prob", found, tuple(ratings.shape), infinite=True)


def _check_site(likelihood: Any, some: RatingColumns) -> None:
    site, n_stored = likelihood.site(some), len(some.users)
    if not all(hasattr(site, name) for name in ("precision", "shift", "zero_precision", "zero_shift")):
        wrong(likelihood, "site", site, "a models.ratings.GaussianSite")
    for name in ("precision", "shift"):
        _tensor(likelihood, "site", getattr(site, name), (n_stored,), f"of the stored cells as {name}")
    zero = site.zero_precision
    if isinstance(zero, Tensor):
        _tensor(likelihood, "site", zero, (some.n_users,), "of the users as zero_precision")
    else:
        number_given(likelihood, "site", zero)
    if any(bool((torch.as_tensor(one) < 0).any()) for one in (site.precision, zero)):
        raise InputError(f"{name_of(likelihood, 'site')} gives a precision below 0", "let it give 0 or more")


def _check_predict(likelihood: Any, mean: Tensor) -> None:
    try:
        found = likelihood.predict(mean, torch.ones_like(mean))
    except (InputError, NotImplementedError):  # told where predictions are asked for
        return
    if not isinstance(found, tuple | list) or len(found) != 2:
        wrong(likelihood, "predict", found, "two tensors, means and standard deviations")
    for one in found:
        _tensor(likelihood, "predict", one, tuple(mean.shape), "as the means that it is given", infinite=True)


# --- priors ----------------------------------------------------------------------------------------------------------


def check_priors(model: Any) -> None:
    """``above`` gives sites by name, ``prior_of_users`` and ``prior_of_items`` Normal priors of as many rows."""
    above = model.above()
    if not isinstance(above, Mapping):
        wrong(model, "above", above, "a dictionary of sites by name")
    m = model._zeros(model.n_items * model.n_factors).view(model.n_items, model.n_factors)
    prior_given(model, "prior_of_users", model.prior_of_users(above), model.n_users)
    prior_given(model, "prior_of_items", model.prior_of_items(m, above), model.n_items)


def prior_given(model: Any, method: str, prior: Any, n_rows: int) -> NormalPrior:
    """The prior of so many rows that a method gave."""
    if not all(hasattr(prior, name) for name in ("loc", "precision", "rows")):
        wrong(model, method, prior, "a models.priors.NormalPrior")
    shapes = (n_rows, model.width), (model.width,)
    shape = shapes[1] if isinstance(prior.loc, Tensor) and prior.loc.shape == shapes[1] else shapes[0]
    _tensor(model, method, prior.loc, shape, f"or {shapes[1]} where all rows have the same, as loc")
    found: NormalPrior = prior
    return found


# --- networks --------------------------------------------------------------------------------------------------------


def _pieces(item_prior: Any) -> list[Any]:
    """Networks and likelihoods of the contents of an item prior, those of each content where there are several."""
    whole = [getattr(item_prior, name, None) for name in PARTS]
    within = [list(getattr(one, name).values()) for one in whole for name in WITHIN if hasattr(one, name)]
    return [*whole, *(piece for pieces in within for piece in pieces)]


def check_networks(item_prior: Any, observations: Observations) -> None:
    """The encoder gives means and standard deviations, the decoder what the likelihood has asked for, for each part."""
    items = torch.arange(min(N_ASKED, observations.n_items), device=observations.content.device)
    inputs, content, encoder = observations.inputs, observations.content, item_prior.encoder
    if isinstance(encoder, ProductEncoder) and isinstance(inputs, PartRows):
        for name, expert in encoder.experts.items():
            rows = inputs.parts[name]
            if not is_own(expert) and len(rows):
                _encoded(item_prior, expert, rows.select(items[: len(rows)]))
    z = _encoded(item_prior, encoder, inputs.select(items))
    decoder: Any = getattr(item_prior, "decoder", None)
    if decoder is None:
        return
    each: list[tuple[Any, Any, Any]] = [(decoder, item_prior.content, content)]
    if isinstance(content, PartRows):
        each = [(decoder.part(name), part, content.parts[name]) for name, part in item_prior.content.each()]
    for part, likelihood, rows in each:
        if len(rows) and not (is_own(part) and is_own(likelihood)):
            few = items[: len(rows)]
            check_decoder(part, likelihood, rows.select(few), z[: len(few)])


def _encoded(item_prior: Any, encoder: Any, inputs: Any) -> Tensor:
    """Means of q(z | x) of a few items, (n_some, n_factors), by one encoder."""
    found = encoder(inputs)
    if not item_prior.latent:
        loc: Tensor = found[0]
        return loc
    if not isinstance(found, tuple | list) or len(found) != 2:
        wrong(encoder, "forward", found, "two tensors, means and standard deviations")
    for one in found:
        _tensor(encoder, "forward", one, (len(inputs), item_prior.n_factors), "of items and factors")
    if bool((found[1] < 0).any()):
        problem = f"{name_of(encoder, 'forward')} gives a standard deviation below 0"
        raise InputError(problem, "take its exp or softplus")
    return found[0]


def check_decoder(decoder: Any, likelihood: Any, content: Any, z: Tensor) -> None:
    """The decoder of one content gives all heads, and the likelihood a number for each item."""
    params, heads = decoder.given(z, content), likelihood.param_names
    if not isinstance(params, Mapping) or not set(heads) <= set(params):
        wrong(decoder, "forward", params, f"a dictionary of {', '.join(heads)}")
    sequences = isinstance(content, TokenRows)
    shape, what = (len(content), content.shape[1]), "of items and features"
    if sequences:  # the end of each is predicted too, and is one more token
        shape, what = (len(content.tokens) + len(content), content.n_tokens + 1), "of positions and tokens"
    for head in heads:
        _tensor(decoder, "given" if sequences else "forward", params[head], shape, f"{what} as {head}")
    found = likelihood.log_prob(content, params)
    _tensor(likelihood, "log_prob", found, (len(content),), "of the items", infinite=True)
    if sequences:
        return
    biases = likelihood.initial_bias(feature_means(content))
    if not isinstance(biases, Mapping) or not set(biases) <= set(heads):
        wrong(likelihood, "initial_bias", biases, f"a dictionary of {', '.join(heads)}, or of some of them")
    for head, bias in biases.items():
        _tensor(likelihood, "initial_bias", bias, shape[1:], f"of the features as {head}", infinite=True)
    _check_rows(likelihood, {head: params[head] for head in heads}, shape)


def _check_rows(likelihood: Any, params: Mapping[str, Tensor], shape: tuple[int, int]) -> None:
    """``distribution`` is one of rows of features, where there is any."""
    try:
        rows = likelihood.distribution(**params)
    except NotImplementedError:
        return
    if not isinstance(rows, Distribution) or (rows.batch_shape, rows.event_shape) != (shape[:1], shape[1:]):
        wanted = f"a distribution of batch shape {shape[:1]} and event shape {shape[1:]}, of items and features"
        wrong(likelihood, "distribution", rows, wanted)


# --- what is said ----------------------------------------------------------------------------------------------------


def name_of(owner: Any, method: str) -> str:
    """``module.Class.method`` of where a method is defined."""
    cls = next((one for one in type(owner).__mro__ if method in vars(one)), type(owner))
    return f"{cls.__module__}.{cls.__qualname__}.{method}"


def number_given(owner: Any, method: str, found: Any, finite: bool = True) -> float:
    """The one number that a method gave, of a plug-in a finite one unless it need not be."""
    try:
        value = float(found)
    except (TypeError, ValueError, RuntimeError):
        wrong(owner, method, found, "one number")
    if finite and not math.isfinite(value) and not is_own(owner):
        raise InputError(f"{name_of(owner, method)} gives {value:g}", "let it give a finite number")
    return value


@contextmanager
def learning(owner: Any, method: str) -> Iterator[None]:
    """InputError, naming the method, if what is done within leaves NaN in a plug-in's parameters and buffers.

    The package's own are not looked at, nor is what was NaN before.
    """
    before = set() if is_own(owner) else _nowhere(owner)
    yield
    for name in [] if is_own(owner) else sorted(_nowhere(owner) - before):
        raise InputError(f"{name_of(owner, method)} leaves {name} at nan", "let it keep finite numbers")


def _nowhere(module: nn.Module) -> set[str]:
    """Names of the tensors of a module that hold NaN."""
    return {name for name, tensor in module.state_dict().items() if bool(tensor.isnan().any())}


def numbers_given(owner: Any, method: str, found: Any, count: int) -> list[float]:
    """So many numbers that a method gave, likewise."""
    if not isinstance(found, tuple | list) or len(found) != count:
        wrong(owner, method, found, f"{count} numbers")
    return [number_given(owner, method, one) for one in found]


def _tensor(
    owner: Any, method: str, found: Any, shape: tuple[int, ...], what: str = "", *, infinite: bool = False
) -> None:
    """A tensor of this shape without NaN, and finite unless it may be ``infinite``."""
    if not isinstance(found, Tensor) or tuple(found.shape) != shape:
        wrong(owner, method, found, f"a tensor of shape {shape}" + (f", {what}" if what else ""))
    bad = found.isnan() if infinite else ~found.isfinite()
    if bool(bad.any()):
        raise InputError(f"{name_of(owner, method)} gives {float(found[bad][0])}", "let it give finite numbers")


def wrong(owner: Any, method: str, found: Any, wanted: str) -> NoReturn:
    """InputError that names the method, what it gave and what it should give."""
    raise InputError(f"{name_of(owner, method)} gives {_described(found)}", f"let it give {wanted}")


def _described(found: Any) -> str:
    if found is None:
        return "None"
    if isinstance(found, Tensor):
        return f"a tensor of shape {tuple(found.shape)}"
    if isinstance(found, Distribution):
        shapes = f"batch shape {tuple(found.batch_shape)} and event shape {tuple(found.event_shape)}"
        return f"a {type(found).__name__} of {shapes}"
    if isinstance(found, Mapping):
        return f"a dictionary of {', '.join(map(str, found)) or 'nothing'}"
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {len(found)}"
    return f"a {type(found).__name__}"
