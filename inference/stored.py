"""What a run folder holds, as a fit: its options, model and posterior, each checked before it is used.

A right manifest says that the files are those that were written, not that they make sense: a run folder may come from
anybody. Types and shapes follow from the options and the data; where one does not, an InputError names the file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.draws import Draws
from inference.options import Options
from inference.posterior import ABOVE, MOMENTS, SIDES, Posterior
from inference.stored_options import options_in
from models.base import FactorModel
from models.build import contents_of, model_class, model_of
from models.networks.product import ProductEncoder
from models.state import buffers, fill, kept
from pyro_cvae.arrays import Array, check_arrays
from pyro_cvae.blame import plugin_failure
from pyro_cvae.checks import REMEDY
from pyro_cvae.data.content import Content, ContentScaling
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.splits import Split
from pyro_cvae.errors import InputError, about_file
from pyro_cvae.history import check_history
from pyro_cvae.runs import Run
from pyro_cvae.text import counted
from pyro_cvae.turns import in_turn

PRECISIONS = ("lambda_u", "lambda_v", "kappa_u", "kappa_v")
"""Precisions of the model that a fit may have found or learned, which are then in metrics.json."""


def stored_options(run: Run) -> Options:
    """The options of a run; InputError where one is unknown, of another type, or cannot be."""
    return options_in(run.config, run.path / "config.json")


def for_data(run: Run, options: Options, dataset: Dataset) -> Options:
    """The options for the contents of the data; InputError where a likelihood or network is not for them."""
    with run.reading(), about_file(run.path / "config.json"):
        cls = model_class(options.model.model)
        return options.for_model(cls.has_content, cls.is_staged()).for_contents(dataset.contents)


def stored_model(run: Run, options: Options, dataset: Dataset, tensors: Mapping[str, Tensor]) -> FactorModel:
    """The fitted model, from the ``network.*`` tensors of the posterior's file; its classes as ``run.trust`` allows."""
    networks = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}

    def make() -> FactorModel:
        return model_of(dataset, options.model)

    with run.reading(), about_file(run.path / "config.json"), _default_dtype(options.fit.dtype):
        _check_sizes(make, networks, run.path / "posterior.safetensors")
        try:
            model = make()
            model.of_data(dataset)
        except (RuntimeError, TypeError, ValueError, OverflowError, MemoryError) as error:
            if plugin_failure(error) is not None:
                raise
            raise InputError(f"its model cannot be made ({str(error).splitlines()[0]})", REMEDY) from error
    model.ratings.weight_unit = run.config.get("weight_unit")  # of old runs none: their weights were confidences
    _lengths_of_old(getattr(model.item_prior, "encoder", None), run, options.model.radius)
    for name, value in run.metrics().get("precisions", {}).items():  # learned ones differ from the options
        if name in PRECISIONS:
            setattr(model, name, value)
    older = frozenset[str]() if run.config.get("buffers") else frozenset(buffers(model))
    if lost := sorted(older - networks.keys()):
        note = f"{run.path} was written without {', '.join(lost)}, which keep what their constructor gives them"
        logging.getLogger("pyro_cvae").warning(note)
    path = run.path / "posterior.safetensors"
    with about_file(path):
        fill(model, networks, older)
        for name, tensor in kept(model).items():
            if tensor.is_floating_point() and name not in buffers(model) and not bool(tensor.isfinite().all()):
                raise InputError(f"the model's {name} has a number that is not finite", REMEDY)
    if (scale := model.content_scale) is not None:
        wanted = {"content_scale": Array((dataset.n_items + 1,), low=0)}
        check_arrays({"content_scale": _array(scale, "content_scale", path)}, wanted, path)
    model.plain = True
    return model


def _lengths_of_old(encoder: Any, run: Run, radius: float) -> None:
    """What has a radius in old runs of products: at first the experts alone, then experts and product, now it alone."""
    if not isinstance(encoder, ProductEncoder):
        return
    if not run.config.get("product_radius"):
        encoder.radius = 0.0
    if not run.config.get("free_experts"):
        experts: Any = encoder.experts.values()
        for expert in experts:
            expert.radius = radius


def stored_posterior(run: Run, options: Options, dataset: Dataset, tensors: Mapping[str, Tensor]) -> Posterior:
    """The posterior of a run, of the kind that its options say."""
    path = run.path / "posterior.safetensors"
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("network.")}
    with run.reading():
        has_content = model_class(options.model.model).has_content
    expected = expected_tensors(options, dataset, own, has_content)
    if unknown := sorted(own.keys() & _names() - expected.keys()):
        raise InputError(f"holds {unknown[0]}, which a posterior of kind {options.kind} has not", REMEDY, path=path)
    arrays = {name: _array(own[name], name, path) for name in expected if name in own}
    check_arrays(arrays, expected, path)
    for side in "uv":
        _check_covariance(arrays.get(f"{side}_covariance"), f"{side}_covariance", path)
    if "n_chains" in arrays and len(arrays["u_draws"]) % int(arrays["n_chains"]):
        raise InputError("its draws are no whole chains", REMEDY, path=path)
    kind = Draws if options.kind == "draws" else Posterior
    return kind.from_tensors(options.kind, dict(own), options.model.parametrization)


def expected_tensors(
    options: Options, dataset: Dataset, there: Mapping[str, Tensor], has_content: bool = True
) -> dict[str, Array]:
    """Shape, type and range of every tensor of a posterior of the kind that the options say.

    Of each side of a posterior that is no point, either standard deviations or covariances: those that are ``there``.
    """
    n_factors = options.model.factors
    far = ("float64",) if options.model.rating_facts.explicit else ()  # see inference.algorithms.standard_scale
    real = (options.fit.dtype, *far)
    number = Array((), ("float64", "float32"), low=np.nextafter(0, 1))
    rows = {"u": dataset.n_users, "v": dataset.n_items} | ({"z": dataset.n_items} if has_content else {})
    above = {name: Array(tuple(tensor.shape), real) for name, tensor in there.items() if name.startswith(ABOVE)}
    if options.kind == "draws":
        n_draws = there["u_draws"].shape[0] if "u_draws" in there and there["u_draws"].dim() else 0
        found = {f"{name}_draws": Array((n_draws, n, n_factors), real) for name, n in rows.items()}
        chains = Array((), ("int64",), 1, max(1, n_draws))
        log_joint = Array((n_draws,), ("float64", "float32"), finite=False)
        return found | {"log_joint": log_joint, "n_chains": chains, "lambda_v": number} | above
    biases = 2 * (options.model.biases == "on")
    width = n_factors + biases
    found = {f"{side}_loc": Array((rows[side], width), real) for side in "uv"}
    if has_content:
        found["z_loc"] = Array((rows["z"], n_factors), real)
        found["z_scale"] = Array((rows["z"], n_factors), real, low=0)
    found["lambda_v"] = number
    found |= above
    if biases:
        found["v_pad"] = Array((2,), real)
    if "content_scale" in there:
        found["content_scale"] = Array((dataset.n_items,), real, low=0)
    for side in "uv" if options.kind != "point" else "":
        covariance = there.get(f"{side}_covariance")
        if covariance is not None and covariance.dim() and (options.kind != "mean-field"):
            n_blocks = covariance.shape[0]
            found[f"{side}_covariance"] = Array((n_blocks, width, width), real)
            found[f"{side}_block"] = Array((rows[side],), ("int64",), 0, n_blocks - 1)
        elif options.kind == "structured" and side == "v":
            found["v_covariance"] = Array((None, width, width), real)
        else:
            found[f"{side}_scale"] = Array((rows[side], width), real, low=0)
    return found


def stored_scalings(run: Run, options: Options, dataset: Dataset, model: FactorModel) -> dict[str, ContentScaling]:
    """The scalings of word counts that the fit learned, one for the likelihood and one for the encoder of each."""
    path = run.path / "config.json"
    if not model.has_content:
        return {}
    with about_file(path):
        found = {name: ContentScaling.from_json(value) for name, value in run.config.get("scalings", {}).items()}
        chosen, _, several = contents_of(dataset, model.content, options.model.content)
    for name, content in chosen.items():
        for which in ("content", "inputs") if isinstance(content, Content) else ():
            scaling = found.get(f"{name}.{which}" if several else which)
            if scaling is None:
                raise InputError(f"scalings has none for {which} of {name}", REMEDY, path=path)
            if scaling.factors is not None:
                wanted = Array((content.n_features,), ("float64",), low=0)
                check_arrays({"a scaling": scaling.factors}, {"a scaling": wanted}, path)
    return found


def stored_history(run: Run, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The history, a dictionary an epoch; InputError where the best epoch of the metrics is none of it."""
    table = run.history()
    check_history(table, run.path / "history.csv")
    rows = table.to_dict("records")
    if metrics.get("best_epoch", 0) > len(rows):
        raise InputError("best_epoch is none of history.csv", REMEDY, path=run.path / "metrics.json")
    return rows


def check_split(run: Run, dataset: Dataset, split: Split) -> None:
    """InputError unless data and split are of one catalogue, and those that config.json names."""
    if (split.train.n_users, split.train.n_items) != (dataset.n_users, dataset.n_items):
        problem = (
            f"is of {counted(split.train.n_users, 'user')} and {counted(split.train.n_items, 'item')}, "
            f"the data of {dataset.n_users} and {dataset.n_items}"
        )
        raise InputError(problem, REMEDY, path=run.path / "data" / "split")
    stated = run.config.get("fingerprints") or {}
    for name, part in (("data", dataset), ("split", split)):
        if stated.get(name, part.fingerprint()) != part.fingerprint():
            raise InputError(f"fingerprints are of another {name}", REMEDY, path=run.path / "config.json")


def _names() -> set[str]:
    """Names of all tensors that a posterior of any kind has."""
    return {field.name for kind in (Posterior, Draws) for field in fields(kind)} | {
        f"{side}_{moment}" for side in SIDES for moment in MOMENTS
    }


def _array(tensor: Tensor, name: str, path: Path) -> np.ndarray:
    try:
        return tensor.numpy()
    except TypeError:  # a type that numpy has not, such as bfloat16
        raise InputError(f"{name} is of type {str(tensor.dtype).removeprefix('torch.')}", REMEDY, path=path) from None


def _check_covariance(covariance: np.ndarray | None, name: str, path: Path) -> None:
    """InputError unless each block (n_blocks, width, width) is symmetric with |c_kl| <= sqrt(c_kk c_ll)."""
    for start in range(0, 0 if covariance is None else len(covariance), 1024):
        assert covariance is not None
        block = covariance[start : start + 1024]
        variance = np.einsum("bkk->bk", block)
        if (variance < 0).any():
            raise InputError(f"{name} has a negative variance", REMEDY, path=path)
        sd = np.sqrt(variance)
        most = sd[:, :, None] * sd[:, None, :] * (1 + 1e-3) + np.finfo(block.dtype).tiny
        if (np.abs(block) > most).any() or (np.abs(block - block.swapaxes(1, 2)) > 1e-3 * most).any():
            raise InputError(f"{name} has a block that is no covariance", REMEDY, path=path)


def _check_sizes(make: Callable[[], FactorModel], networks: Mapping[str, Tensor], path: Path) -> None:
    """InputError unless the model has the shapes of its tensors, looked at before anything of its size is allocated."""
    try:
        with torch.device("meta"):
            shapes = {name: tensor.shape for name, tensor in kept(make()).items()}
    except (RuntimeError, NotImplementedError):  # a likelihood that computes while it is made
        return
    for name, shape in shapes.items():
        if name in networks and networks[name].shape != shape:
            problem = f"the model's {name} has shape {tuple(networks[name].shape)}, but its options say {tuple(shape)}"
            raise InputError(problem, REMEDY, path=path)


@contextmanager
def _default_dtype(name: str) -> Iterator[None]:
    """Tensors are made as in the fit, and no random number is taken: what starts at random is overwritten."""
    with in_turn(), torch.random.fork_rng(devices=()):
        before = torch.get_default_dtype()
        try:
            torch.set_default_dtype(getattr(torch, name))
            yield
        finally:
            torch.set_default_dtype(before)
