"""Whose fault is it that intervals of true scores are too narrow? ``python -m benchmarks.coverage``.

Data sets ``simulated-gaussian`` of several seeds are given to ``inference.mcmc`` at their own precisions, with networks
that were pre-trained on the texts of the catalogue and then held, and once more with the simulator's own decoder in the
place of the learned one; nothing else differs. With ``--more-items`` the learned networks have seen as many more texts,
of items that nobody has rated. Of each data set a fifth of the cells is held out; shares of their true u.v within
central intervals are averaged over data sets, with the standard error of the mean over them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import inference
from analysis.coverage import LEVELS, coverage
from benchmarks.study.arguments import add_threads, as_command, command
from benchmarks.study.paired import standard_error
from inference import fitting
from inference.algorithms.mcmc import MCMC, State
from models.networks.mlp import MLPDecoder
from pyro_cvae.data.simulated import gaussian_decoder, simulated_gaussian
from pyro_cvae.data.splits import held_out_cells

OPTIONS: dict[str, Any] = {
    **{"a": 1.0, "b": 0.01, "lambda_u": 1.0, "lambda_v": 10.0, "factors": 5, "hidden": (100, 50)},
    **{"pretrain_epochs": 100, "warmup": 150, "draws": 250, "thin": 2, "chains": 2},
}
N_ITEMS = 200


class Known(MLPDecoder):
    """The simulator's decoder, softmax(W z + bias), not to be learned."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray) -> None:
        super().__init__(*weights.shape, hidden=weights.shape[1:])
        self.outputs["logits"].data = torch.as_tensor(weights).to(self.outputs["logits"])
        self.output_biases["logits"].data = torch.as_tensor(bias).to(self.output_biases["logits"])
        self.requires_grad_(False)

    def hidden(self, z: Tensor) -> Tensor:
        """No layer between."""
        return z


def with_decoder(decoder: tuple[np.ndarray, np.ndarray]) -> type[MCMC]:
    """The algorithm with this decoder in place of the one that is learned; the encoder is learned beside it."""

    class WithDecoder(MCMC):
        def init(self) -> State:
            state = super().init()
            state.model.decoder = Known(*decoder)
            return state

    return WithDecoder


def covered(seed: int, known: bool, more_items: int = 0, threads: int = 1) -> list[float]:
    """Shares of true scores of held-out cells within central intervals of ``LEVELS``, of the data set of a seed."""
    dataset = simulated_gaussian(seed, n_items=N_ITEMS + more_items)
    pairs = dataset.interactions
    dataset = replace(dataset, interactions=pairs.select(pairs.items < N_ITEMS))
    algorithm = with_decoder(gaussian_decoder(seed, n_items=N_ITEMS + more_items)) if known else MCMC
    with mock.patch.dict(fitting.ALGORITHMS, mcmc=algorithm):
        fit = inference.fit(dataset, held_out_cells(dataset, 0.2, 0), method="mcmc", threads=threads, **OPTIONS)
    table = coverage(fit, draws=500).table
    row = table[(table["target"] == "true score") & (table["by"] == "all")].iloc[0]
    return [float(row[f"covered@{100 * level:.0f}"]) for level in LEVELS]


def main(argv: list[str] | None = None) -> None:
    """Print a line for each data set, and the means."""
    parser = command("coverage", __doc__)
    parser.add_argument("--seeds", type=int, default=6, help="data sets")
    parser.add_argument("--more-items", type=int, default=0, help="items without ratings, whose texts are learned from")
    parser.add_argument("--decoder", choices=("both", "known", "learned"), default="both")
    add_threads(parser, 1)
    arguments = parser.parse_args(argv)
    print("decoder, seed: % of true scores within 50, 80 and 90 % intervals")
    for name, known in (("learned", False), ("known", True)):
        if arguments.decoder not in ("both", name):
            continue
        rows = []
        for seed in range(arguments.seeds):
            rows.append(covered(seed, known, arguments.more_items, arguments.threads))
            print(f"{name}, {seed}: " + ", ".join(f"{100 * share:.1f}" for share in rows[-1]), flush=True)
        shares = 100 * np.array(rows)
        pairs = zip(shares.mean(0), standard_error(shares), strict=True)
        each = ", ".join(f"{mean:.1f} ± {error:.1f}" for mean, error in pairs)
        print(f"{name}, mean of {len(shares)}: {each}", flush=True)


if __name__ == "__main__":
    as_command(main)
