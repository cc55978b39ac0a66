"""From options to a model: the content of a data set, its likelihoods and networks."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from models import contents, ratings
from models.cvae import CVAE
from models.networks.mlp import MLPDecoder, MLPEncoder
from models.observations import Observations, RatingColumns, SparseRows
from pyro_cvae.data.content import ContentScaling
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError


def content_likelihood(name: str, arguments: dict[str, Any]) -> contents.ContentLikelihood:
    """The package's own likelihood of that name, or the class of a path ``module.Class``; InputError if unknown."""
    return _made(contents.NAMES, name, arguments, contents.ContentLikelihood, "content")


def _made(names: dict[str, str], name: str, arguments: dict[str, Any], base: type[Any], what: str) -> Any:
    module, _, attribute = names.get(name, name.replace(":", ".")).replace(":", ".").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        problem = f"unknown {what} likelihood {name!r} ({error})"
        raise InputError(problem, "use a class path or " + ", ".join(names)) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{name} is no {base.__name__}", f"derive it from models.{what}s.{base.__name__}")
    try:
        return found(**arguments)
    except TypeError as error:
        raise InputError(f"{name}: {error}", "give the arguments that its constructor takes") from error


def rating_likelihood(options: Any) -> ratings.RatingLikelihood:
    """The ratings likelihood of model options: the package's own of that name, or the class of a path.

    The paper's takes its precisions a and b from the options. Raises InputError.
    """
    name, arguments = options.rating_likelihood, dict(options.rating_likelihood_args)
    if name == "confidence-normal":
        arguments = {"a": options.a, "b": options.b} | arguments
    return _made(ratings.NAMES, name, arguments, ratings.RatingLikelihood, "rating")


def observe(
    dataset: Dataset, split: Split, likelihood: contents.ContentLikelihood, options: Any, scaling: str
) -> tuple[Observations, dict[str, ContentScaling]]:
    """What the model is conditioned on, and the two fitted scalings of word counts: "content" and "inputs".

    ``options`` are the model's options; ``scaling`` "auto" takes the likelihood's own. Raises InputError if the
    content is outside the likelihood's support or there is no training rating.
    """
    if not split.train.observed.any():
        raise InputError("the training set is empty", "give at least one rating, or another split")
    if dataset.content is None or not dataset.content.counts.nnz:
        raise InputError("no item has any content", "give a table of items with texts")
    counts = dataset.content.counts
    if min(counts.shape) < 2:
        raise InputError(
            f"{counts.shape[0]} items with {counts.shape[1]} words are no catalogue", "give two of each or more"
        )
    name = likelihood.default_scaling if scaling == "auto" else scaling
    scalings = {"content": ContentScaling.fit(counts, name)}
    scalings["inputs"] = (
        ContentScaling.fit(counts, "tfidf") if options.encoder_input == "tfidf" else scalings["content"]
    )
    content = SparseRows.from_csr(scalings["content"].transform(counts), torch.float64)
    likelihood.check(content)
    inputs = SparseRows.from_csr(scalings["inputs"].transform(counts), torch.float64)
    rating = rating_likelihood(options)
    columns = RatingColumns.from_interactions(split.train, rating.default_confidence, options.unrated, torch.float64)
    rating.check(columns)
    return Observations(content, inputs, columns), scalings


def make_model(n_users: int, n_items: int, n_features: int, likelihood: contents.ContentLikelihood, o: Any) -> CVAE:
    """The CVAE of the model's options ``o``, with networks at a random start."""
    encoder = MLPEncoder(n_features, o.factors, o.hidden, o.activation, o.radius)
    decoder = MLPDecoder(
        n_features, o.factors, o.hidden, o.activation, likelihood.param_names, encoder if o.tied else None
    )
    rating = rating_likelihood(o)
    rating.prepare(n_users)
    precisions = {"lambda_u": o.lambda_u, "lambda_v": o.lambda_v, "lambda_w": o.lambda_w, "lambda_r": o.lambda_r}
    lambda_b = o.lambda_b if o.biases == "on" else None
    model = CVAE(n_users, n_items, o.factors, encoder, decoder, likelihood, rating, **precisions, lambda_b=lambda_b)
    model.parametrization = o.parametrization
    return model


@torch.no_grad()
def start_alive(model: CVAE, observations: Observations, start: str = "whitened", sample: int = 4096) -> None:
    """Start the networks from the data, layer by layer, so that the content posterior does not collapse.

    From a random start the ELBO of a sparse bag of words falls into the optimum that ignores z within a few epochs,
    whatever the step or the warm-up. Here the first layer holds the leading right singular vectors of the encoder's
    input, sigma starts at 1/2 and the decoder at the words' frequencies. Of the layers behind,

    - "whitened": mix them at random; every pre-activation, and mu itself, has mean 0 and variance 1 over a sample of
      items (layer-sequential unit variance: Mishkin and Matas, ICLR 2016): for narrow layers;
    - "svd": hand the singular vectors on as they are, at one common scale, small enough for the activations to be
      nearly linear: mu starts as the truncated SVD of the content, the decoder as half of its inverse (at full scale
      the content's likelihood is fitted first, and its posterior means rank worse). For layers as wide as mu.
    """
    from sklearn.utils.extmath import randomized_svd

    encoder, decoder = model.encoder, model.decoder
    if not (isinstance(encoder, MLPEncoder) and isinstance(decoder, MLPDecoder)):
        return
    as_is = start == "svd"
    mix = nn.init.eye_ if as_is else nn.init.orthogonal_
    hidden, outer = (0.25, 0.5) if as_is else (None, None)
    rest = float(encoder.activation(torch.zeros(()))) if as_is else 0.0
    rows = torch.randperm(observations.n_items)[:sample]
    inputs = observations.batch(rows).inputs
    table = encoder.weights[0]
    n_components = min(table.shape[1], min(observations.inputs.shape) - 1)
    seed = int(torch.randint(2**31 - 1, ()))
    matrix = _csr(observations.inputs)
    # Few power iterations: as features, a less exact SVD ranks better (figures in inference/rivals.py, svd).
    _, _, right = randomized_svd(matrix, n_components, n_iter=1 if as_is else 2, random_state=seed)
    table[:, :n_components] = torch.as_tensor(right.T.copy()).to(table)
    h = _bag(inputs, table)
    h = encoder.activation(_standardize(h, table, encoder.biases[0], hidden))
    for weight, bias in zip(list(encoder.weights)[1:], list(encoder.biases)[1:], strict=True):
        mix(weight)
        h = encoder.activation(_standardize(h @ weight, weight, bias, hidden, rest=rest))
    loc = mix(torch.empty_like(encoder.loc.weight.mT))
    _standardize(h @ loc, loc, encoder.loc.bias, outer, rest=rest)
    encoder.loc.weight.copy_(loc.mT)
    encoder.log_variance.weight.zero_()
    encoder.log_variance.bias.fill_(2 * torch.tensor(0.5).log())

    z = torch.randn(len(rows), model.n_factors).to(table)
    inner = mix(torch.empty_like(decoder.inner.weight.mT))
    tied = {id(weight) for weight in encoder.weights}
    if as_is:
        for head in decoder.heads:
            if id(decoder.outputs[head]) not in tied:
                decoder.outputs[head].zero_()[:, :n_components] = torch.as_tensor(right.T.copy()).to(table)
        hidden = 0.5 / float(decoder.outputs[decoder.heads[0]][:, :n_components].norm(dim=0).mean())
    h = decoder.activation(_standardize(z @ inner, inner, decoder.inner.bias, hidden))
    decoder.inner.weight.copy_(inner.mT)
    for weight, bias in zip(reversed(list(decoder.weights)), reversed(list(decoder.biases)), strict=True):
        free = id(weight) not in tied
        h = decoder.activation(_standardize(h @ weight.mT, weight.mT, bias, hidden, scale=free, rest=rest))
    for head, begin in model.content.initial_bias(_mean(observations.content)).items():
        if not as_is and id(decoder.outputs[head]) not in tied:
            decoder.outputs[head].copy_(table)
        begin = begin.to(table) - decoder.outputs[head] @ h.mean(0)
        decoder.output_biases[head].copy_(begin)


def _standardize(
    pre: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    gain: float | None = None,
    scale: bool = True,
    rest: float = 0.0,
) -> torch.Tensor:
    """Pre-activations of mean 0 and variance 1, by scaling ``weight``'s columns and setting ``bias``.

    With a ``gain``, all columns are scaled alike, to this mean standard deviation, and ``bias`` takes out only what the
    layer below sends at rest, ``rest`` from each unit.
    """
    spread = torch.ones_like(bias)
    if scale:
        spread = pre.std(0).clamp(min=1e-6)
        if gain is not None:
            spread = (spread.square().mean().sqrt() / gain).expand_as(bias)
        weight.div_(spread)
    pre = pre / spread
    bias.copy_(-pre.mean(0) if gain is None else -rest * weight.sum(0))
    return pre + bias


def _bag(rows: SparseRows, table: torch.Tensor) -> torch.Tensor:
    return nn.functional.embedding_bag(
        rows.columns, table, rows.indptr[:-1], mode="sum", per_sample_weights=rows.values.to(table.dtype)
    )


def _mean(rows: SparseRows) -> torch.Tensor:
    """Mean of each feature over the items, each word given a tenth of a count more, (n_features,)."""
    total = rows.values.new_full((rows.n_columns,), 0.1).index_add(0, rows.columns, rows.values)
    return total / len(rows)


def _csr(rows: SparseRows) -> Any:
    from scipy import sparse

    parts = (rows.values.cpu().double().numpy(), rows.columns.cpu().numpy(), rows.indptr.cpu().numpy())
    return sparse.csr_matrix(parts, shape=tuple(rows.shape))
