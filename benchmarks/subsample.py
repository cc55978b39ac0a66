"""What drawing words for a training step costs and saves: ``python -m benchmarks.subsample RUN``.

RUN is a run folder with multinomial or pseudo-multinomial content. At its weights, with z drawn from q(z|x), log p(x|z)
from words drawn at random is compared with that from all words, over many draws: in nats an item, and as the log of the
normaliser sum_w exp(l_w), where an error is one relative to the sum. Then the content's training step is timed, each
number of words in turns, so that other work on the machine slows all of them.
"""

from __future__ import annotations

import copy
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.study.arguments import add_threads, as_command, command, compute_with
from benchmarks.study.machine import Load
from benchmarks.study.tables import show_rows
from benchmarks.study.turns import clocked, in_turns, ratio
from inference.algorithms.elbo import NamedELBO
from inference.algorithms.networks import NetworkFit, NetworkState
from inference.fitting import ALGORITHMS, Fit, load
from models.build import observe
from models.contents.multinomial import Multinomial
from models.cvae import CVAE
from models.observations import Batch, Observations

N_DRAWN = (250, 500, 1000, 1500, 3000, 6000)
ALL = "all"
HEADINGS = ("bias, nats an item", "sd, nats an item", "bias of log sum", "sd of log sum", "bias of sum")
SEED = 0


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark, print its table and return its rows, one for each number of words and one for all."""
    parser = command("subsample", __doc__)
    parser.add_argument("run", help="a run folder with multinomial or pseudo-multinomial content")
    parser.add_argument("--drawn", nargs="+", type=int, default=N_DRAWN, help="words drawn for a step")
    parser.add_argument("--batches", type=int, default=4, help="minibatches whose errors are measured")
    parser.add_argument("--draws", type=int, default=50, help="draws of words for each of them")
    parser.add_argument("--turns", type=int, default=7, help="timed steps of each number of words")
    add_threads(parser, 1)
    options = parser.parse_args(arguments)
    compute_with(options.threads)
    torch.manual_seed(SEED)
    machine, (model, observations, inference) = Load(), read(load(options.run))
    n_words = observations.content.n_columns
    drawn = [n for n in options.drawn if 0 < n < n_words]
    batches = list(observations.partition(inference.batch_size))
    found = errors(model, batches[: options.batches], drawn, options.draws)
    laps = in_turns(steps(model, inference, batches[0], [*drawn, 0]), options.turns)
    rows: list[dict[str, Any]] = []
    for name, seconds in laps.items():
        times = {"seconds a step": median(seconds), f"over {ALL}": ratio(seconds, laps[ALL])}
        rows.append({"words": name, **found.get(name, dict.fromkeys(HEADINGS, "")), **times})
    n_items = sum(len(batch.items) for batch in batches[: options.batches])
    sizes = f"{n_items:,} items, {options.draws} draws, {n_words:,} words; {len(batches[0].items)} items a step"
    show_rows(rows, ".3g", title="log p(x|z) from drawn words against all words", caption=sizes)
    print(f"{machine.told(options.threads)}, {options.turns} turns")
    return rows


def read(fit: Fit) -> tuple[CVAE, Observations, NetworkFit[Any]]:
    """The fitted model, what it was conditioned on, and the algorithm whose step is timed."""
    model, options = fit.model, fit.options
    if not isinstance(model.content, Multinomial):
        raise SystemExit(f"error: the run has {type(model.content).__name__} content, which has no normaliser to draw")
    observations, _ = observe(fit.dataset, fit.split, model.content, options.model, options.data.scaling)
    inference = ALGORITHMS[options.method_name](lambda: copy.deepcopy(model), observations, options)
    return model.to(options.fit.device), inference.observations, inference


@torch.no_grad()
def errors(model: CVAE, batches: list[Batch], drawn: list[int], draws: int) -> dict[str, dict[str, float]]:
    """Errors of log p(x|z) from so many words, by their number; one draw of words serves a minibatch, as in training.

    The bias is the mean over items and draws, the standard deviation that over draws, its square averaged over items.
    Those of the log of the sum are log p(x|z)'s divided by minus the text's length; items without words are left out.
    """
    sums: dict[str, list[torch.Tensor]] = {str(n): [] for n in drawn}
    lengths = []
    for batch in batches:
        content = batch.content
        loc, scale = model.encoder(batch.inputs)
        logits = model.decoder(loc + scale * torch.randn_like(loc))["logits"]
        exact, stored = model.content.log_prob(content, {"logits": logits}), logits[content.rows, content.columns]
        worded = content.totals > 0
        lengths.append(content.totals[worded].double())
        for n in drawn:
            found = []
            for _ in range(draws):
                columns = torch.randperm(content.n_columns, device=logits.device)[:n]
                part = {"logits": logits[:, columns]}
                found.append(model.content.log_prob_sampled(content, {"logits": stored}, part, content.n_columns))
            sums[str(n)].append((torch.stack(found) - exact)[:, worded].double())
    length = torch.cat(lengths)
    return {name: _moments(torch.cat(parts, dim=1), length) for name, parts in sums.items()}


def _moments(error: torch.Tensor, length: torch.Tensor) -> dict[str, float]:
    """Of errors (n_draws, n_items) of log p(x|z) of texts with these lengths, (n_items,)."""
    log_sum = -error / length
    parts = [part for found in (error, log_sum) for part in (found.mean(), found.var(0).mean().sqrt())]
    return dict(zip(HEADINGS, [float(part) for part in (*parts, log_sum.expm1().mean())], strict=True))


def steps(model: CVAE, inference: NetworkFit[Any], batch: Batch, drawn: list[int]) -> dict[str, partial[float]]:
    """Timers of a step of the networks on the content, by the number of words; 0 takes all. ``model`` is left alone."""

    def step(state: NetworkState) -> None:
        elbo = NamedELBO()
        terms = elbo.content_terms(state.model, state.guide, batch)
        state.optimizer.zero_grad(set_to_none=True)
        (-elbo.objective(terms) / state.model.n_items).backward()
        state.optimizer.step()

    timers = {}
    for n in drawn:
        twin = copy.deepcopy(model).train()
        twin.content.subsample, twin.item_prior.prior_by_decay = n, True
        timers[str(n) if n else ALL] = partial(clocked, partial(step, inference.pretraining(twin)))
    return timers


if __name__ == "__main__":
    as_command(main)
