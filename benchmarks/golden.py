"""Twelve small fits, held to those of another version of the code: ``python -m benchmarks.golden FOLDER [--write]``.

With ``--write`` their posteriors and histories are written into FOLDER; without it the fits are made again and each is
held to what is there: equal to the last bit, or by how much it moved. Fits are in float64 on one thread, so that on one
machine the same arithmetic gives the same bits. A change of structure leaves all of them equal; a change that does not
says which and why. Run it in a checkout of the old commit first (the script needs nothing but ``inference.fit``):

    python -m benchmarks.golden FOLDER --write      # in the old checkout
    python -m benchmarks.golden FOLDER              # in the new one; exit code 1 if a fit moved
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import inference
from benchmarks.study.arguments import as_command
from pyro_cvae.data.content import Content
from pyro_cvae.data.contents import Vectors
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.simulated import simulated, simulated_gaussian, simulated_stars

SMALL = {"dtype": "float64", "threads": 1, "factors": 3, "hidden": (8, 5), "pretrain_epochs": 2, "epochs": 2}


def clicks() -> Dataset:
    """Clicks of 40 users on 50 items with texts."""
    return simulated(n_users=40, n_items=50, n_words=60, n_factors=3, clicks_per_user=16.0)


def ratings() -> Dataset:
    """Ratings that the model itself has drawn."""
    return simulated_gaussian(n_users=30, n_items=40, n_words=50, n_factors=3)


def stars() -> Dataset:
    """Stars, for biases and a noise that is learned."""
    return simulated_stars(n_users=40, n_items=50, n_words=60, n_factors=3)


def two_contents() -> Dataset:
    """Texts and vectors, of which some items lack one."""
    base = clicks()
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(base.n_items, 4, generator=generator).numpy()
    present = torch.rand(base.n_items, generator=generator).numpy() < 0.8
    content = Content(base.content.counts, base.content.vocabulary)
    others = {"look": Vectors(values * present[:, None], present)}
    return Dataset("two", base.interactions, content, base.user_ids, base.item_ids, others=others)


PRODUCT = {"content_likelihood": "product", "content_likelihood_args": {"text": "multinomial", "look": "normal"}}
FITS: dict[str, tuple[Callable[[], Dataset], dict[str, Any]]] = {
    "svi-map": (clicks, {"method": "svi", "mode": "map"}),
    "svi-mean-field": (clicks, {"method": "svi"}),
    "svi-structured": (clicks, {"method": "svi", "guide": "structured"}),
    "svi-non-centred": (clicks, {"method": "svi", "parametrization": "non-centred"}),
    "svi-stars": (stars, {"method": "svi", "rating_likelihood": "normal"}),
    "svi-product": (two_contents, {"method": "svi", "mode": "map", **PRODUCT}),
    "coordinate-map": (clicks, {"method": "coordinate", "mode": "map"}),
    "coordinate-full": (clicks, {"method": "coordinate", "learn_precisions": True}),
    "coordinate-structured": (clicks, {"method": "coordinate", "guide": "structured"}),
    "coordinate-diagonal-stars": (stars, {"method": "coordinate", "diagonal": True, "rating_likelihood": "normal"}),
    "coordinate-bound": (clicks, {"method": "coordinate", "rating_likelihood": "bernoulli-bound"}),
    "mcmc": (ratings, {"method": "mcmc", "draws": 12, "warmup": 8, "chains": 2}),
}


def computed(name: str) -> dict[str, torch.Tensor]:
    """Posterior of one of the fits, by name, and its history, (n_steps, n_numbers)."""
    make, options = FITS[name]
    fit = inference.fit(make(), **SMALL, **options)
    tensors = {key: value.contiguous() for key, value in fit.posterior.tensors().items()}
    numbers = [
        [float(value) for key, value in sorted(row.items()) if key not in ("epoch", "phase", "seconds")]
        for row in fit.history[-1:]
    ]
    return tensors | {"history": torch.tensor(numbers, dtype=torch.float64)}


def distance(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> float:
    """Largest difference of any tensor, relative to its largest number; infinite where names or shapes differ."""
    if old.keys() != new.keys() or any(old[name].shape != new[name].shape for name in old):
        return float("inf")
    worst = 0.0
    for name in old:
        if not torch.equal(old[name], new[name]):
            size = float(old[name].double().abs().max())
            worst = max(worst, float((old[name].double() - new[name].double()).abs().max()) / max(size, 1e-300))
    return worst


def main(arguments: list[str] | None = None) -> int:
    """Write the fits or hold them to those written; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.golden", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the posteriors are, or are written")
    parser.add_argument("--write", action="store_true", help="write them")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    moved = 0
    for name in FITS:
        path, tensors = options.folder / f"{name}.safetensors", computed(name)
        if options.write:
            save_file(tensors, path)
            print(f"{name}: written")
            continue
        away = distance(load_file(path), tensors)
        moved += away > 0
        print(f"{name}: {'equal to the last bit' if away == 0 else f'moved by {away:.1e} of the largest number'}")
    return int(moved > 0)


if __name__ == "__main__":
    as_command(main)
