"""Users folded in beside a complete refit; intervals beside draws; time on a run of one's own.

python -m benchmarks.updates                       # refit and intervals, on simulated clicks
python -m benchmarks.updates --runs RUN...         # intervals and time, on runs with uncertainty
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

import inference
from benchmarks.study.arguments import as_command, command
from benchmarks.study.machine import peak_mib
from inference.fitting import Fit
from inference.recommending import fold_in, recommend
from inference.recommending.ranking import credible_interval
from pyro_cvae.data.registry import load_dataset
from pyro_cvae.data.splits import nothing_held_out

OPTIONS = {"method": "coordinate", "guide": "structured", "factors": 20, "train_per_user": 10}
LEVELS = (0.5, 0.8, 0.9, 0.95)


def main() -> None:
    parser = command("updates", __doc__)
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--folded", type=int, default=100, help="users left out of the first fit of simulated clicks")
    parser.add_argument("--users", type=int, default=1000, help="users folded in for the time")
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    if not options.runs:
        fit = beside_a_refit(options.folded)
        intervals("simulated", fit)
    for run in options.runs:
        fit = inference.load(run)
        intervals(run, fit)
        seconds(run, fit, options.users, options.draws)


def beside_a_refit(n_folded: int) -> Fit:
    """Users left out of a fit and folded in, against the same users in a fit from the beginning; returns the latter."""
    dataset = load_dataset("simulated")
    refit = inference.fit(dataset, **OPTIONS)
    left_out = np.random.default_rng(0).permutation(dataset.n_users) < n_folded
    train = refit.split.train
    known = replace(dataset, truth=None, interactions=train.select(~left_out[train.users]))
    without = inference.fit(known, nothing_held_out(known), **OPTIONS)
    mine = train.select(left_out[train.users])
    folded = fold_in(without, dataset.user_ids[mine.users], dataset.item_ids[mine.items])
    rows = torch.as_tensor(np.flatnonzero(left_out))
    scores = [fit.posterior.score_block(rows).double() for fit in (folded, refit)]
    sd = refit.posterior.score(rows[:, None], torch.arange(dataset.n_items))[1]
    seen = torch.as_tensor(train.csr()[left_out].toarray() > 0)
    best = [part.masked_fill(seen, -torch.inf).topk(50).indices for part in scores]
    test = torch.as_tensor(refit.split.test.csr()[left_out].toarray() > 0)
    recall = [float((test.gather(1, part).sum(1) / test.sum(1)).mean()) for part in best]
    same = np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(*(b[:, :10].numpy() for b in best), strict=True)])
    correlation = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(*(s.numpy() for s in scores), strict=True)])
    moved = float(((scores[0] - scores[1]).abs() / sd).median())
    print(f"simulated, {n_folded} of {dataset.n_users} users folded in, beside a complete refit with them:")
    print(f"  correlation of scores over the items of a user {correlation:.3f}, top 10 in common {same:.2f},")
    print(f"  median change of a score {moved:.2f} of its sd; recall@50 {recall[0]:.3f} and {recall[1]:.3f}")
    return refit


def intervals(name: str, fit: Fit, n_users: int = 200, n_draws: int = 2000) -> None:
    """The share of draws in the central intervals of listed items' scores."""
    users = torch.arange(fit.dataset.n_users)[:: max(1, fit.dataset.n_users // n_users)][:n_users]
    items = fit.posterior.score_block(users).topk(10).indices
    mean, sd = fit.posterior.score(users[:, None], items)
    draws = fit.posterior.score_draws(users[:, None], items, n_draws, seed=0)
    print(
        f"{name}: share of {n_draws} draws in the interval; mean over {mean.numel()} listed scores (1 %, 99 % quantile)"
    )
    for level in LEVELS:
        low, high = credible_interval(mean, sd, level)
        inside = ((draws >= low) & (draws <= high)).double().mean(0).flatten()
        ends = torch.quantile(inside, torch.tensor([0.01, 0.99], dtype=torch.float64))
        print(f"  {level:.2f}: {inside.mean():.3f} ({ends[0]:.3f}, {ends[1]:.3f})")


def seconds(name: str, fit: Fit, n_users: int, n_draws: int) -> None:
    """Wall seconds of folding in users with lists of users of the run, and of their top 10 with everything."""
    train = fit.split.train
    some = train.select(train.users < n_users)
    new = np.array(
        [f"new {row}" if fit.dataset.user_ids.dtype == object else 10**9 + row for row in range(n_users)], object
    )
    began = time.perf_counter()
    folded = fold_in(fit, new[some.users].tolist(), fit.dataset.item_ids[some.items])
    steps = {f"fold in {n_users} users": time.perf_counter() - began}
    ids = list(new[np.unique(some.users)])
    for label, asked in {
        "top 10 with sd and interval": {"interval": 0.9},
        "top 10 by ucb": {"ranking": "ucb"},
        "top 10 by thompson": {"ranking": "thompson"},
        f"top 10 with P(top 10), {n_draws} draws": {"top_probability": 10, "draws": n_draws},
        f"the same of one user, {n_draws} draws": {"top_probability": 10, "draws": n_draws, "one": True},
    }.items():
        began = time.perf_counter()
        recommend(folded, ids[:1] if asked.pop("one", False) else ids, 10, **asked)
        steps[label] = time.perf_counter() - began
    print(f"{name}, {torch.get_num_threads()} threads, peak memory {peak_mib() / 1024:.1f} GiB:")
    for label, value in steps.items():
        print(f"  {label}: {value:.1f} s")


if __name__ == "__main__":
    as_command(main)
