"""Does the latent of titles as sequences stay alive? ``python -m benchmarks.collapse --data FOLDER``.

FOLDER is that of citeulike-a, with titles.txt. The recurrent pair is pre-trained on all titles but 1,500, and of these
it is measured after some epochs: the bound and its parts in nats a title, the mutual information of the aggregate
q(z|x), and active units. Variants leave one of the safeguards out, or all of them.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.study.arguments import as_command, command, compute_with
from benchmarks.study.tables import show_rows
from inference.algorithms.svi import SVI
from inference.options import Options
from inference.posterior import content_diagnostics
from models.build import content_likelihood, make_model, rows_of
from models.networks.recurrent import RecurrentDecoder
from models.observations import Observations, RatingColumns
from models.rows import TokenRows
from pyro_cvae.data.contents import Tokens
from pyro_cvae.data.interactions import Interactions

VARIANTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "as it is": ({}, ()),
    "no word dropout": ({"word_dropout": 0.0}, ()),
    "word dropout 0.9": ({"word_dropout": 0.9}, ()),
    "warm-up of the KL over all epochs": ({"kl_warmup": -1}, ()),
    "random start": ({}, ("start",)),
    "no topic": ({}, ("topic",)),
    "none of the three": ({"word_dropout": 0.0}, ("start", "topic")),
}
"""Options, and what is left out, by name."""
N_HELD, SEED = 1500, 0


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark, print its table and return its rows."""
    parser = command("collapse", __doc__)
    parser.add_argument("--data", required=True, help="a folder with titles.txt")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of pre-training")
    parser.add_argument("--factors", type=int, default=50, help="factors of z")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants to measure")
    options = parser.parse_args(arguments)
    compute_with(1)
    lines = (Path(options.data) / "titles.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    content = Tokens.fit(lines)
    rows = rows_of(content, None)
    assert isinstance(rows, TokenRows)
    order = torch.as_tensor(np.random.default_rng(SEED).permutation(len(rows)))
    held, train = rows.select(order[:N_HELD].sort().values), rows.select(order[N_HELD:].sort().values)
    found = [{"variant": name, **measure(train, held, name, options)} for name in options.only]
    caption = f"{len(train):,} titles of {len(rows.tokens) / len(rows):.1f} tokens, {content.n_features:,} of them"
    show_rows(found, ".1f", title="titles that were held out, nats a title", caption=caption)
    print(f"{options.epochs} epochs, {options.factors} factors, one thread on {os.cpu_count()} cores")
    return found


def measure(train: TokenRows, held: TokenRows, name: str, options: Namespace) -> dict[str, float]:
    """One variant after its epochs."""
    changes, without = VARIANTS[name]
    changes = {key: options.epochs if value == -1 else value for key, value in changes.items()}
    sizes = {"factors": options.factors, "pretrain_epochs": options.epochs}
    chosen = Options.of("svi", content_likelihood="tokens", threads=1, **sizes, **changes)
    pairs = Interactions.from_arrays(np.zeros(2, int), np.arange(2), n_users=1, n_items=len(train))
    observations = Observations(train, train, RatingColumns.from_interactions(pairs, 1.0))
    flat = patch.object(RecurrentDecoder, "topic", lambda self, z: 0 * torch.tanh(self.inner(z)))
    unstarted = patch("inference.algorithms.networks.start_alive", lambda *given: None)
    torch.manual_seed(SEED)
    with ExitStack() as left_out:
        for safeguard in without:
            left_out.enter_context({"topic": flat, "start": unstarted}[safeguard])
        svi = SVI(
            lambda: make_model(1, len(train), train.form, content_likelihood("tokens", {}), chosen.model),
            observations,
            chosen,
        )
        state = svi.init()
        began = time.monotonic()
        for _ in range(options.epochs):
            state, _ = svi.step(state)
        seconds = (time.monotonic() - began) / options.epochs
        return evaluate(state.model.eval(), held) | {"seconds an epoch": seconds}


@torch.no_grad()
def evaluate(model: Any, held: TokenRows) -> dict[str, float]:
    """The bound of titles that were held out and its parts, nats a title, from one draw of z each."""
    torch.manual_seed(SEED)
    locs: list[Tensor] = []
    scales: list[Tensor] = []
    total = 0.0
    for rows in torch.arange(len(held)).split(500):
        part = held.select(rows)
        loc, scale = model.encoder(part)
        z = loc + scale * torch.randn_like(loc)
        total += float(model.content.log_prob(part, model.decoder.given(z, part)).sum())
        locs.append(loc)
        scales.append(scale)
    state = content_diagnostics(torch.cat(locs), torch.cat(scales))
    content = total / len(held)
    return {
        "bound": content - state["kl"],
        "log p(x|z)": content,
        "KL": state["kl"],
        "I(x; z)": state["mutual_information"],
        "active units": state["active_units"],
    }


if __name__ == "__main__":
    as_command(main)
