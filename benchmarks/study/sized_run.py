"""A run folder of any size, with random factors, written as a fit writes one."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from inference.options import Options
from inference.posterior import Posterior, no_content
from models.build import model_of, weight_unit
from models.gaussians import Gaussians
from models.state import kept
from pyro_cvae.data.content import Content
from pyro_cvae.data.dataset import Dataset
from pyro_cvae.data.interactions import Interactions
from pyro_cvae.data.splits import nothing_held_out, per_user
from pyro_cvae.runs import RunWriter, run_config

PER_USER = 10


def write_run(out: str, n_users: int, n_items: int, n_factors: int, mode: str, n_tested: int, seed: int = 0) -> None:
    """Write a run of ``pmf`` with ten pairs a user, of which five are test pairs of ``n_tested`` users, 0 for nobody.

    With tested users the others have five pairs.

    Ids are texts. u and v are drawn from N(0, 1 / n_factors), items the longer the more popular they are; in ``bayes``
    standard deviations are a tenth of these.
    """
    random = np.random.default_rng(seed)
    dataset = _dataset(random, n_users, n_items, n_tested or n_users)
    split = per_user(dataset, PER_USER // 2, seed) if n_tested else nothing_held_out(dataset)
    options = Options.of("coordinate", mode=mode, model="pmf", factors=n_factors, diagonal=mode == "bayes")
    options = options.for_model(False, False).for_contents({})
    model = model_of(dataset, options.model)
    counts = dataset.interactions.item_counts
    lengths = np.ones(n_users), 1 + np.sqrt((1 + counts) / (1 + counts.max()))
    u, v = (_rows(random, length / np.sqrt(n_factors), n_factors, mode) for length in lengths)
    nothing = no_content(n_items, n_factors, v.loc)
    posterior = Posterior(options.kind, u, v, Gaussians(nothing, nothing), has_content=False)
    config = run_config(
        "coordinate",
        options.to_dict(),
        objective=options.objective,
        tempered=options.tempered,
        dataset=dataset,
        split=split,
        data_name=dataset.name,
        scalings={},
        weight_unit=weight_unit(dataset, split),
        buffers=True,
    )
    writer = RunWriter.start(out, config, dataset, split)
    networks = {f"network.{name}": tensor for name, tensor in kept(model).items()}
    writer.save_tensors("posterior", posterior.tensors() | networks)
    writer.save_history([{"phase": "coordinate", "epoch": 1}])
    writer.save_json("metrics", {"precisions": model.precisions()})
    writer.finish()


def _rows(random: np.random.Generator, sd: np.ndarray, n_factors: int, mode: str) -> Gaussians:
    """Rows drawn with a standard deviation each, (n_rows,); in ``bayes`` with variances of a hundredth of theirs."""
    loc = random.standard_normal((len(sd), n_factors), np.float32)
    loc *= sd.astype(np.float32)[:, None]
    variance = torch.from_numpy((sd**2 / 100).astype(np.float32))[:, None].expand(-1, n_factors)
    return Gaussians(torch.from_numpy(loc), None if mode == "map" else variance.clone())


def _dataset(random: np.random.Generator, n_users: int, n_items: int, n_long: int) -> Dataset:
    """Ten distinct items a user, of those behind ``n_long`` five, popular as 1 / (10 + rank), ranks in random order."""
    popularity, per_user = np.cumsum(1 / (10 + np.arange(n_items))), np.full(n_users, PER_USER)
    per_user[n_long:] = PER_USER // 2
    drawn = np.searchsorted(popularity, random.uniform(0, popularity[-1], per_user.sum()))
    keys = np.unique(np.repeat(np.arange(n_users), per_user) * n_items + random.permutation(n_items)[drawn])
    pairs = Interactions.from_arrays(*np.divmod(keys, n_items), n_users=n_users, n_items=n_items)
    sizes = {"user": n_users, "item": n_items}
    ids = [np.array([f"{kind}-{row:07d}" for row in range(n)], object) for kind, n in sizes.items()]
    return Dataset("random", pairs, Content(sparse.csr_matrix((n_items, 0))), *ids)
